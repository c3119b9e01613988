"""The cache folder: one small file for each question, one for each profile, written whole or not at all.

Several processes may read and write at once: an entry names its profile by a digest of its content, so a reader finds
the old one, the new one or none, never a mixture. Nothing here raises for a folder that cannot be used; the answer is
then made each time.
"""

from __future__ import annotations

import contextlib
import json
import os
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from cspprof.core.errors import OutputError
from cspprof.core.files import write_atomically

LIMIT = 256 * 2**20
"""Bytes. Beyond it the entries that were used longest ago go, until a tenth is free."""

MARK = "CACHEDIR.TAG"
"""Backup programs leave a folder with this file alone (bford.info/cachedir)."""


def folder() -> Path:
    """`CSPPROF_CACHE_DIR`, else the user's own folder for caches."""
    chosen = os.environ.get("CSPPROF_CACHE_DIR")
    if chosen:
        return Path(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("cspprof", appauthor=False)


def entry(key: str) -> dict[str, Any] | None:
    """What was kept for this question."""
    try:
        found = json.loads((folder() / "asked" / f"{key}.json").read_bytes())
    except (OSError, ValueError):
        return None
    whole = isinstance(found, dict) and found.keys() == {"profile", "evidence"}
    return found if whole else None


def content(digest: str) -> bytes | None:
    """A profile's bytes, if they are those that were kept."""
    try:
        data = _profile(digest).read_bytes()
    except OSError:
        return None
    return data if _digest(data) == digest else None


def keep(key: str, evidence: dict[str, Any], data: bytes) -> None:
    digest = _digest(data)
    with contextlib.suppress(OSError, OutputError):
        for room in ("asked", "profiles"):
            (folder() / room).mkdir(parents=True, exist_ok=True)
        if not (folder() / MARK).exists():
            write_atomically(folder() / MARK, b"Signature: 8a477f597d28d172789f06886806bc55\n")
        write_atomically(_profile(digest), data)
        document = json.dumps({"profile": digest, "evidence": evidence}, separators=(",", ":"))
        write_atomically(folder() / "asked" / f"{key}.json", document.encode())
        _make_room()


def touch(key: str, digest: str) -> None:
    """It was used just now."""
    for path in (folder() / "asked" / f"{key}.json", _profile(digest)):
        with contextlib.suppress(OSError):
            os.utime(path)


class Contents(NamedTuple):
    """How much is kept."""

    questions: int
    profiles: int
    nbytes: int


def contents() -> Contents:
    files = _files()
    asked = sum(path.parent.name == "asked" for path, _, _ in files)
    return Contents(asked, len(files) - asked, sum(size for _, size, _ in files))


def clear() -> Contents:
    """Remove all that was kept and say how much it was."""
    before = contents()
    for path, _, _ in _files():
        with contextlib.suppress(OSError):
            path.unlink()
    return before


def _make_room() -> None:
    files = sorted(_files(), key=lambda found: found[2])
    total = sum(size for _, size, _ in files)
    if total <= LIMIT:
        return
    for path, size, _ in files:
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size
        if total <= LIMIT * 9 // 10:
            return


def _files() -> list[tuple[Path, int, float]]:
    """Every file that is kept, with its size and when it was last used."""
    found = []
    for room in ("asked", "profiles"):
        for path in (folder() / room).glob("*"):
            with contextlib.suppress(OSError):
                state = path.stat()
                found.append((path, state.st_size, state.st_mtime))
    return found


def _profile(digest: str) -> Path:
    return folder() / "profiles" / f"{digest}.profile.json.gz"


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=20).hexdigest()
