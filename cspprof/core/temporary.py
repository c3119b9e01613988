"""Private temporary folders that go away: at the end of a block, at the end of the process, or, after a process was
killed, when the next one makes a temporary folder."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

PREFIX = "cspprof-run-"
YOUNG = 60
"""Seconds. A younger folder is never removed: its process may be about to lock it."""


@contextmanager
def temporary_folder(purpose: str) -> Iterator[Path]:
    """A new folder that only this user can read, and that exists until the block ends.

    Its process holds a lock on it. The folders of processes that were killed have none, and are removed first.
    """
    _remove_abandoned()
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{purpose}-", ignore_cleanup_errors=True) as name, _locked(name):
        yield Path(name).resolve()


def process_folder(purpose: str) -> Path:
    """A new folder that only this user can read, and that exists until this process ends."""
    owner, stack = os.getpid(), ExitStack()
    folder = stack.enter_context(temporary_folder(purpose))
    atexit.register(lambda: stack.close() if os.getpid() == owner else None)  # not at the end of a forked process
    return folder


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    """A lock on a folder, which the system removes if this process ends in any way. Windows has none of this kind."""
    if sys.platform == "win32":
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _remove_abandoned() -> None:
    """Remove this user's temporary folders on which no process holds a lock."""
    if sys.platform == "win32":
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            state = folder.lstat()
            if state.st_uid != os.geteuid() or time.time() - state.st_mtime < YOUNG:
                continue
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises BlockingIOError if its process lives
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)
