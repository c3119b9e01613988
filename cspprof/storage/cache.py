"""The cache of records between runs of the command line: a folder of saved profiles, each named after its key.

Several processes may use the folder at once: a file is written under another name and then renamed. If the folder
cannot be used, everything is traced.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

from cspprof.core.errors import OutputError, ProfileError
from cspprof.core.files import write_atomically
from cspprof.core.record import Record
from cspprof.storage.profile_file import load, to_bytes

LIMIT = 256 * 2**20
"""Bytes. Above it, the entries that were not used for the longest time are removed, until a tenth is free."""

_enabled: ContextVar[bool] = ContextVar("cspprof_cache_enabled", default=True)


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Neither read nor write the cache inside this context, as for `--no-cache`."""
    token = _enabled.set(False)
    try:
        yield
    finally:
        _enabled.reset(token)


def cached_record(key: Callable[[], str | None], make: Callable[[], Record]) -> Record:
    """The record that is stored under `key()`, else the record that `make` returns, which is then stored.

    The key names everything on which the record depends; None means that it cannot be cached. If the key is another
    one after `make`, a file or package has changed meanwhile, and nothing is stored.
    """
    name = key() if _enabled.get() else None
    if name is None:
        return make()
    path = folder() / f"{name}.profile.json.gz"
    record = _read(path)
    if record is None:
        record = make()
        if key() == name:
            _write(record, path)
    return record


def _read(path: Path) -> Record | None:
    """The record of an entry, which is now the one used last; None if there is none or it is damaged."""
    try:
        record = load(path)
    except ProfileError:
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return record


def _write(record: Record, path: Path) -> None:
    with contextlib.suppress(OSError, OutputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, to_bytes(record, compressed=True))  # also over a damaged entry
        _remove_oldest()


def folder() -> Path:
    """The folder of the entries: in `CSPPROF_CACHE_DIR`, else in the user's own folder for caches."""
    chosen = os.environ.get("CSPPROF_CACHE_DIR")
    if chosen:
        return Path(chosen) / "records"
    from platformdirs import user_cache_path

    return user_cache_path("cspprof", appauthor=False) / "records"


class Entry(NamedTuple):
    """A file in the cache; `used` is the time of its last use in seconds."""

    path: Path
    nbytes: int
    used: float


def entries() -> list[Entry]:
    """All files of the cache, also those that a killed process left half written."""
    found = []
    with contextlib.suppress(OSError):
        for path in folder().glob("*.profile.json.gz*"):
            with contextlib.suppress(OSError):
                state = path.stat()
                found.append(Entry(path, state.st_size, state.st_mtime))
    return found


def clear() -> list[Entry]:
    """Remove all entries, and return them."""
    removed = entries()
    for entry in removed:
        with contextlib.suppress(OSError):
            entry.path.unlink()
    return removed


def _remove_oldest() -> None:
    oldest_first = sorted(entries(), key=lambda entry: entry.used)
    total = sum(entry.nbytes for entry in oldest_first)
    if total <= LIMIT:
        return
    for entry in oldest_first:
        with contextlib.suppress(OSError):
            entry.path.unlink()
        total -= entry.nbytes
        if total <= LIMIT * 0.9:
            return
