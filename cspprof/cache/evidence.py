"""The state of what an answer was made from, and whether it still is as it was.

A file of the user's is known by its content, whatever its time and size say. A file of an installed library is known
by what the file system says of it (size, times of its content and of its inode, number): there are thousands, and
they are replaced by installers, not edited. A folder is known by its names. A path that was only asked about (whether
there is such a file) is known by what it was said to be.
"""

from __future__ import annotations

import os
import site
import stat
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import blake2b
from typing import Any, NamedTuple

BY_STATE = 64 * 2**20
"""Bytes from which on reading a file would take longer than it may."""

TICK = 0.02
"""Seconds by which the clock of a file system may be behind."""

UNSTEADY = ("/proc/", "/sys/", "/dev/")
"""What the kernel says there changes from one look to the next: clock rates, free memory."""

IMPORTABLE = (".py", ".pyc", ".so", ".pyd", ".pth", ".zip", ".egg-link")

ABSENT = "absent"
LINK = f"{stat.S_IFLNK:o}"[:2]
"""How what is said of a symbolic link begins."""

_stat, _lstat = os.stat, os.lstat
"""The calls themselves: while a model is made those of `os` are heard."""


class Evidence(NamedTuple):
    """States by path, and values by variable (None where it was not set)."""

    files: dict[str, str]
    listed: dict[str, str]
    searched: dict[str, str]
    asked: dict[str, str]
    """What was said of a path, links followed."""
    asked_link: dict[str, str]
    """What was said of a path itself."""
    variables: dict[str, str | None]
    environment: str | None

    def to_dict(self) -> dict[str, Any]:
        return self._asdict()

    @staticmethod
    def from_dict(document: dict[str, Any]) -> Evidence | None:
        """None where it does not say all of this: what another release kept."""
        told = document.keys() == set(Evidence._fields)
        return Evidence(**document) if told else None


def gathered(
    files: Iterable[str], listed: Iterable[str], searched: Iterable[str], asked: dict[str, str],
    asked_link: dict[str, str], variables: dict[str, str | None], environment: str | None, since: float,
) -> Evidence | None:  # fmt: skip
    """The present state of all; None where a file of the user's was changed after `since` (seconds), so that it may
    not be what was read, or where a path is no more what it was said to be."""
    steady = sorted(f for f in set(files) if not f.startswith(UNSTEADY) and not _of_python(f))
    if any(not _installed(f) and _changed(f) > since - TICK for f in steady):
        return None
    known = {f: of_file(f) for f in steady}
    asked, asked_link = _beside(known, asked), _beside(known, asked_link)
    if any(of_path(p) != state for p, state in asked.items()) or any(
        of_link(p) != state for p, state in asked_link.items()
    ):
        return None
    return Evidence(
        known,
        {d: of_names(d) for d in sorted(set(listed)) if not d.startswith(UNSTEADY)},
        {d: of_modules(d) for d in sorted(set(searched)) if not _of_python(d)},
        asked,
        asked_link,
        variables,
        environment,
    )


class Look:
    """One look at the present state, however many answers it is held against: two models share most of what they are
    made from."""

    def __init__(self) -> None:
        self.of_modules, self.of_names, self.of_file = cache(of_modules), cache(of_names), cache(of_file)
        self.of_path, self.of_link = cache(of_path), cache(of_link)

    def confirms(self, evidence: Evidence) -> bool:
        """Whether everything is as it was. What is quick to see is looked at first."""
        return (
            all(os.environ.get(name) == value for name, value in evidence.variables.items())
            and (evidence.environment is None or evidence.environment == of_environment(os.environ))
            and all(self.of_path(path) == said for path, said in evidence.asked.items())
            and all(self.of_link(path) == said for path, said in evidence.asked_link.items())
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


def of_path(path: str) -> str:
    """What `os.stat` says of it."""
    try:
        return said(_stat(path))
    except (OSError, ValueError):
        return ABSENT


def of_link(path: str) -> str:
    """What `os.lstat` says of it."""
    try:
        return said(_lstat(path))
    except (OSError, ValueError):
        return ABSENT


def said(found: os.stat_result) -> str:
    """What a model may have looked at: kind and permissions, of a file also its size and time. A folder's time is that
    of whatever was last written in it."""
    if stat.S_ISDIR(found.st_mode):
        return f"{found.st_mode:o}"
    return f"{found.st_mode:o} {found.st_size} {found.st_mtime_ns}"


def _beside(known: dict[str, str], asked: dict[str, str]) -> dict[str, str]:
    """What was said of paths of which known files do not say it: that these are there, and the folders above them."""
    told = {file for file, state in known.items() if state != ABSENT}
    for file in list(told):
        while (file := os.path.dirname(file)) not in told:
            told.add(file)
    return {
        path: asked[path]
        for path in sorted(asked)
        if not path.startswith(UNSTEADY) and not _of_python(path) and (path not in told or asked[path].startswith(LINK))
    }


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


def of_environment(variables: Mapping[str, str]) -> str:
    return _digest(f"{name}={value}" for name, value in variables.items())


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
