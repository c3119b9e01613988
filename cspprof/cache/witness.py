"""What a model is made from, seen while it is made: files, folders, environment variables, and what it asks about.

Python tells an audit hook of every file that is opened and every folder that is listed, by whomever. A hook cannot be
taken away again, so there is one, which is deaf outside `watching`. Of questions about a path (`os.path.exists`,
`Path.is_file`, `os.access`) it hears nothing: for these `os.stat`, `os.lstat` and `os.access` are replaced meanwhile.
Python's own import asks elsewhere, thousands of times; what it finds is among the files and folders.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import source_from_cache
from types import FrameType
from typing import Any

from cspprof.cache.evidence import ABSENT, Evidence, gathered, of_environment, of_link, of_path

MADE_BY = ("torch", "cspprof.rules", "cspprof.trace")
"""Where one of these was imported before we watched, something may have been done that nobody saw."""

LEAVING = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect",
                     "urllib.Request"})  # fmt: skip
"""Answers from other programs and other machines may be different next time."""
HEARD = LEAVING | {"open", "os.listdir", "os.scandir"}
"""Of the forty thousand events of a trace, most of which are calls of `id`, a few thousand."""


class Witness:
    """Sees what is read while it watches, and remembers it for the whole process: a second model may use modules that
    the first one imported."""

    def __init__(self) -> None:
        self.opened: set[str] = set()
        self.listed: set[str] = set()
        """Folders whose names somebody asked for."""
        self.searched: set[str] = set()
        """Folders in which imports were looked for."""
        self.asked: dict[str, str] = {}
        """What was said of a path when it was first asked about, links followed."""
        self.asked_link: dict[str, str] = {}
        self.variables: set[str] = set()
        self.before: dict[str, str] = {}
        """The environment when we began: what is set since then, torch and models set themselves."""
        self.environment = False
        """Whether the environment was read as a whole."""
        self.left = False
        self.since = 0.0
        self._watching = False
        self._hooked = False

    def reliable(self) -> bool:
        """Whether everything that matters was, or can still be, seen."""
        return self._hooked or not any(name in sys.modules for name in MADE_BY)

    @contextmanager
    def watching(self) -> Iterator[None]:
        if not self._hooked:
            self._hooked = True
            self.since = time.time()
            self.before = dict(os.environ)
            sys.addaudithook(self._hear)
        plain = os._Environ.__getitem__, os._Environ.__iter__
        os._Environ.__getitem__ = self._item(plain[0])  # type: ignore[method-assign]
        os._Environ.__iter__ = self._whole(plain[1])  # type: ignore[method-assign]
        asking = os.stat, os.lstat, os.access
        os.stat, os.lstat, os.access = (self._asking(call) for call in asking)
        self._watching = True
        try:
            yield
        finally:
            self._watching = False
            os.stat, os.lstat, os.access = asking
            os._Environ.__getitem__, os._Environ.__iter__ = plain  # type: ignore[method-assign]

    def evidence(self) -> Evidence | None:
        """What was seen so far with its present state; None where that cannot vouch for the answer."""
        if self.left:
            return None
        files = self.opened | {f for m in list(sys.modules.values()) if isinstance(f := _file(m), str)}
        variables = {name: self.before.get(name) for name in sorted(self.variables)}
        environment = of_environment(self.before) if self.environment else None
        return gathered(
            files, self.listed, self.searched, self.asked, self.asked_link, variables, environment, self.since
        )

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if event in HEARD and self._watching:
            with suppress(TypeError):  # what is no path; the call itself will say so
                self._note(event, args)

    def _note(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            reading = "r" in mode or "+" in mode if isinstance(mode, str) else not flags & os.O_WRONLY
            if reading and not isinstance(path, int):
                self.opened.add(_source(os.path.abspath(os.fsdecode(path))))
        elif event in ("os.listdir", "os.scandir"):
            path = args[0] if args and args[0] is not None else "."
            if not isinstance(path, int):
                importing = sys._getframe(2).f_code.co_filename.startswith("<frozen importlib")
                (self.searched if importing else self.listed).add(os.path.abspath(os.fsdecode(path)))
        elif not _called_from("ctypes.util"):  # which asks the linker where libraries are
            self.left = True

    def _asking(self, plain: Any) -> Any:
        """`plain`, which notes what a path is when it is first asked about. Code that keeps a reference may go on
        using it; and `os` knows of it what it knows of `plain`."""

        def ask(path: Any, *args: Any, **options: Any) -> Any:
            if self._watching and not isinstance(path, int) and options.get("dir_fd") is None:
                itself = plain.__name__ == "lstat" or options.get("follow_symlinks") is False
                seen, look = (self.asked_link, of_link) if itself else (self.asked, of_path)
                with suppress(TypeError, ValueError):  # what is no path; the call itself will say so
                    if path not in seen and (place := os.path.abspath(os.fsdecode(path))) not in seen:
                        seen[place] = look(place)
            return plain(path, *args, **options)

        for known in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks, os.supports_effective_ids):
            if plain in known:
                known.add(ask)
        return ask

    def _item(self, plain: Any) -> Any:
        def read(environ: Any, name: str) -> str:
            if environ is os.environ:
                self.variables.add(name)
            return plain(environ, name)  # type: ignore[no-any-return]

        return read

    def _whole(self, plain: Any) -> Any:
        def read(environ: Any) -> Iterator[str]:
            if _called_from("tqdm"):  # goes through all for its own, which change progress bars and no count
                return (name for name in plain(environ) if name.startswith("TQDM_"))
            self.environment = self.environment or environ is os.environ
            return plain(environ)  # type: ignore[no-any-return]

        return read


def _called_from(name: str, within: int = 12) -> bool:
    """Whether one of the nearest callers is of the module `name`, or of that package."""
    frame: FrameType | None = sys._getframe(2)
    for _ in range(within):
        if frame is None:
            return False
        module = frame.f_globals.get("__name__", "")
        if module == name or module.startswith(f"{name}."):
            return True
        frame = frame.f_back
    return False


def _file(module: Any) -> Any:
    """A module's file. Some modules do something when they are asked for an attribute, so they are not."""
    return getattr(module, "__dict__", {}).get("__file__")


def _source(path: str) -> str:
    """The source of a compiled module: that is what is edited."""
    if not path.endswith(".pyc"):
        return path
    try:
        source = source_from_cache(path)
    except ValueError:
        return path
    return path if of_path(source) == ABSENT else source


WITNESS = Witness()
