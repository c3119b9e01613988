"""The state of what an answer was made from, and whether it still is as it was.

A file of the user's is known by its content, whatever its time and size say. A file of an installed library is known
by what the file system says of it (size, times of its content and of its inode, number): there are thousands, and
they are replaced by installers, not edited. A folder is known by its names.
"""

from __future__ import annotations

import os
import site
import stat
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import blake2b
from typing import Any

BY_STATE = 64 * 2**20
"""Bytes from which on reading a file would take longer than it may."""

TICK = 0.02
"""Seconds by which the clock of a file system may be behind."""

UNSTEADY = ("/proc/", "/sys/", "/dev/")
"""What the kernel says there changes from one look to the next: clock rates, free memory."""

IMPORTABLE = (".py", ".pyc", ".so", ".pyd", ".pth", ".zip", ".egg-link")

ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Evidence:
    """States by path, and values by variable (None where it was not set)."""

    files: dict[str, str]
    listed: dict[str, str]
    searched: dict[str, str]
    variables: dict[str, str | None]
    environment: str | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(document: dict[str, Any]) -> Evidence:
        return Evidence(**document)


def gathered(
    files: Iterable[str], listed: Iterable[str], searched: Iterable[str], variables: Iterable[str], environment: bool,
    since: float,
) -> Evidence | None:  # fmt: skip
    """The present state of all; None where a file of the user's was changed after `since` (seconds), so that it may
    not be what was read."""
    steady = sorted(f for f in set(files) if not f.startswith(UNSTEADY) and not _of_python(f))
    if any(not _installed(f) and _changed(f) > since - TICK for f in steady):
        return None
    return Evidence(
        {f: of_file(f) for f in steady},
        {d: of_names(d) for d in sorted(set(listed)) if not d.startswith(UNSTEADY)},
        {d: of_modules(d) for d in sorted(set(searched)) if not _of_python(d)},
        {v: os.environ.get(v) for v in sorted(set(variables))},
        of_environment() if environment else None,
    )


class Look:
    """One look at the present state, however many answers it is held against: two models share most of what they are
    made from."""

    def __init__(self) -> None:
        self.of_modules, self.of_names, self.of_file = cache(of_modules), cache(of_names), cache(of_file)

    def confirms(self, evidence: Evidence) -> bool:
        """Whether everything is as it was. What is quick to see is looked at first."""
        return (
            all(os.environ.get(name) == value for name, value in evidence.variables.items())
            and (evidence.environment is None or evidence.environment == of_environment())
            and all(self.of_modules(folder) == state for folder, state in evidence.searched.items())
            and all(self.of_names(folder) == state for folder, state in evidence.listed.items())
            and all(self.of_file(file) == state for file, state in evidence.files.items())
        )


def of_file(path: str) -> str:
    """Its content, or for an installed or very large one what the file system says of it."""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            return "no file"
        if _installed(path) or found.st_size > BY_STATE:
            return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"
        with open(path, "rb") as file:
            return blake2b(file.read(), digest_size=16).hexdigest()
    except OSError:
        return ABSENT


def of_names(folder: str) -> str:
    """All names in it."""
    return _digest(_names(folder))


def of_modules(folder: str) -> str:
    """The names in it that an import could mean: what a user writes beside them changes nothing."""
    if _installed(folder):
        try:
            found = os.stat(folder)
        except OSError:
            return ABSENT
        return f"{found.st_mtime_ns} {found.st_ino}"
    return _digest(n for n in _names(folder) if n.endswith(IMPORTABLE) or ("." not in n and n != "__pycache__"))


def of_environment() -> str:
    return _digest(f"{name}={value}" for name, value in os.environ.items())


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return [ABSENT, ""]  # no folder holds a file without a name


def _digest(texts: Iterable[str]) -> str:
    return blake2b("\0".join(sorted(texts)).encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _changed(path: str) -> float:
    try:
        found = os.stat(path)
    except OSError:
        return 0.0
    return max(found.st_mtime, found.st_ctime)


@cache
def _libraries() -> tuple[str, ...]:
    """Folders of installed packages."""
    user = site.getusersitepackages() if site.ENABLE_USER_SITE else ""
    return tuple(f"{os.path.normpath(p)}{os.sep}" for p in (*site.getsitepackages(), user) if p)


@cache
def _python() -> tuple[str, ...]:
    """Folders of Python's own library, whose version is part of every key."""
    return (f"{os.path.normpath(os.path.dirname(os.__file__))}{os.sep}",)


def _installed(path: str) -> bool:
    return f"{path}{os.sep}".startswith(_libraries())


def _of_python(path: str) -> bool:
    within = f"{path}{os.sep}".startswith(_python()) or path.startswith(os.path.join(sys.base_prefix, "lib", "python"))
    return within and not _installed(path) and "site-packages" not in path
