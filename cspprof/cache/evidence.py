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

IMPORTABLE = (".py", ".pyc", ".so", ".pyd", ".pth", ".zip", ".egg-link", ".dist-info", ".egg-info")
"""Endings of names that an import could mean, or that tell what is installed."""

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
    files: dict[str, bool], listed: dict[str, str], searched: dict[str, str], asked: dict[str, str],
    asked_link: dict[str, str], variables: dict[str, str | None], environment: str | None, since: float,
    known: dict[str, str],
) -> Evidence | None:  # fmt: skip
    """What an answer rests on: of each file (and whether it was there when it was opened) its state, of all else the
    state at first sight. None where that is not what was read: a file was changed after `since` (seconds) or has gone,
    or anything else is no more what it was.

    `known` are states of files that were gathered before in this process, and get those of this time: an installed
    file's state, once left, does not come back, and a user's was not changed.
    """
    steady = sorted(f for f in files if not f.startswith(UNSTEADY) and not of_python(f))
    unsure = (f for f in steady if f not in known or not f.startswith(libraries()))
    if any(_changed(f) > since - TICK for f in unsure):
        return None
    known |= {f: of_file(f) for f in steady if f not in known}
    states = {f: known[f] for f in steady}
    if any(state == ABSENT and files[f] for f, state in states.items()):
        return None
    told = _told(states)
    found = Evidence(
        states,
        _steady(listed),
        _steady(searched),
        _beside(told, asked),
        _beside(told, asked_link),
        variables,
        environment,
    )
    return found if Look().confirms(found._replace(files={}, variables={}, environment=None)) else None


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
        if path.startswith(libraries()) or found.st_size > BY_STATE:
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


def _told(known: dict[str, str]) -> set[str]:
    """Paths that are there if these files are: themselves, and the folders above them."""
    told = {file for file, state in known.items() if state != ABSENT}
    for file in list(told):
        while (file := os.path.dirname(file)) not in told:
            told.add(file)
    return told


def _beside(told: set[str], asked: dict[str, str]) -> dict[str, str]:
    """What was said of other paths, and of links."""
    return _steady({path: said for path, said in asked.items() if path not in told or said.startswith(LINK)})


def _steady(states: dict[str, str]) -> dict[str, str]:
    """Those of paths that are not the kernel's, nor of Python's own library."""
    return {p: states[p] for p in sorted(states) if not p.startswith(UNSTEADY) and not of_python(p)}


def of_names(folder: str) -> str:
    """All names in it."""
    return _digest(names_in(folder))


def of_modules(folder: str) -> str:
    """The names in it that an import could mean, or a look for what is installed: what a user writes beside them
    changes nothing."""
    if _installed(folder):
        try:
            found = os.stat(folder)
        except OSError:
            return ABSENT
        return f"{found.st_mtime_ns} {found.st_ino}"
    names = ((name, name.lower()) for name in names_in(folder))
    return _digest(n for n, low in names if low.endswith(IMPORTABLE) or ("." not in n and n != "__pycache__"))


def of_environment(variables: Mapping[str, str]) -> str:
    return _digest(f"{name}={value}" for name, value in variables.items())


def names_in(folder: str) -> list[str]:
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
def libraries() -> tuple[str, ...]:
    """Folders of installed packages."""
    user = site.getusersitepackages() if site.ENABLE_USER_SITE else ""
    return tuple(f"{os.path.normpath(p)}{os.sep}" for p in (*site.getsitepackages(), user) if p)


@cache
def _python() -> tuple[str, ...]:
    """Where Python's own library is, whose version is part of every key."""
    own = f"{os.path.normpath(os.path.dirname(os.__file__))}{os.sep}"
    return own, os.path.join(sys.base_prefix, "lib", "python")


def _installed(path: str) -> bool:
    return f"{path}{os.sep}".startswith(libraries())


def of_python(path: str) -> bool:
    return path.startswith(_python()) and "site-packages" not in path and not _installed(path)
