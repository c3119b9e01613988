"""What a model is made from, seen while it is made: files, folders, environment variables, and what it asks about.

Python tells an audit hook of every file that is opened and every folder that is listed, by whomever. A hook cannot be
taken away again, so there is one, which is deaf outside `watching`. Of questions about a path (`os.path.exists`,
`Path.is_file`, `os.access`) it hears nothing: for these `os.stat`, `os.lstat` and `os.access` are replaced meanwhile.
Python's own import asks elsewhere, thousands of times; what it finds is among the files and folders.

What is compiled may open files where no hook hears it. Where such a thing was imported, nothing is vouched for, but of
packages that are known to open theirs through Python.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import source_from_cache
from types import FrameType
from typing import Any

from cspprof.cache.evidence import (
    ABSENT,
    UNSTEADY,
    Evidence,
    gathered,
    libraries,
    names_in,
    of_environment,
    of_link,
    of_modules,
    of_names,
    of_path,
    of_python,
)

MADE_BY = ("torch", "cspprof.rules", "cspprof.trace")
"""Where one of these was imported before we watched, something may have been done that nobody saw."""

LEAVING = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect",
                     "urllib.Request", "sqlite3.connect"})  # fmt: skip
"""Answers from other programs, other machines and databases may be different next time."""
HEARD = LEAVING | {"open", "os.listdir", "os.scandir"}
"""Of the forty thousand events of a trace, most of which are calls of `id`, a few thousand."""


HEARABLE = frozenset({
    "PIL", "_cyutility", "contourpy", "cuda", "google", "kiwisolver", "markupsafe", "matplotlib", "ml_dtypes", "numpy",
    "onnx", "pandas", "pydantic_core", "rpds", "safetensors", "scipy", "torch", "torchvision", "triton", "wcwidth",
    "yaml",
})  # fmt: skip
"""Installed packages with compiled parts that open files through Python, or none. Of safetensors that is not true: see
`Witness.deaf`."""
OTHER_PROCESSES = frozenset({"multiprocessing.popen_spawn_posix", "multiprocessing.popen_forkserver",
                             "multiprocessing.popen_spawn_win32", "_gdbm", "_dbm"})  # fmt: skip
"""Of Python's own modules those that are imported when a process is started of which no hook hears, or a database."""
OURS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
MANY = 10_000
"""Files of a folder whose states are looked at one by one."""

IMPORTING = ("<frozen importlib", os.path.join(os.path.dirname(os.__file__), "importlib", "metadata", ""))
"""Python's own code that lists a folder to find modules in it, or what is installed there."""
LOOKING = of_names.__code__.co_filename
"""Our own, which lists it to know its state."""


class Witness:
    """Sees what is read while it watches, and remembers it for the whole process: a second model may use modules that
    the first one imported."""

    def __init__(self) -> None:
        self.opened: set[str] = set()
        """Files that were opened to be read."""
        self.there: dict[str, bool] = {}
        """Whether a file was there when it was first opened, to whatever end. Where bytecode is read, a source was."""
        self.listed: dict[str, str] = {}
        """Folders whose names somebody asked for, with their state at the first time."""
        self.searched: dict[str, str] = {}
        """Folders in which modules and installed packages were looked for, likewise."""
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
        self.known: dict[str, str] = {}
        """States of files, read once for all models."""
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
        files = self._files()
        if self.left or self.deaf(files):
            return None
        variables = {name: self.before.get(name) for name in sorted(self.variables)}
        environment = of_environment(self.before) if self.environment else None
        return gathered(
            files, self.listed, self.searched, self.asked, self.asked_link, variables, environment,
            self.since, self.known,
        )  # fmt: skip

    def deaf(self, files: Iterable[str]) -> bool:
        """Whether something was imported that may have read what nobody heard of, or asked other processes.

        Whoever imports timm imports safetensors, whose files are opened in Rust; what counts is whether the user's own
        sources among `files` name it.
        """
        if not OTHER_PROCESSES.isdisjoint(sys.modules):
            return True
        modules = [(name, getattr(m, "__dict__", {}).get("__file__")) for name, m in list(sys.modules.items())]
        compiled = [(name, f) for name, f in modules if isinstance(f, str) and f.endswith(tuple(EXTENSION_SUFFIXES))]
        if any(name.partition(".")[0] not in HEARABLE and not of_python(file) for name, file in compiled):
            return True
        return "safetensors" in sys.modules and any(map(_names_safetensors, files))

    def _files(self) -> dict[str, bool]:
        """Files that were read, and whether they were there; where a module's bytecode was read, its source."""
        modules = [getattr(m, "__dict__", {}) for m in list(sys.modules.values())]  # asking some does something
        files = {file: False for held in modules if isinstance(file := held.get("__file__"), str)}
        told = {held.get("__cached__") for held in modules}
        for path in self.opened - told:
            source = _source(path)
            files[source] = files.get(source, False) or self.there.get(path, True)
        return files

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if event in HEARD and self._watching:
            with suppress(TypeError):  # what is no path; the call itself will say so
                self._note(event, args)

    def _note(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            reading = "r" in mode or "+" in mode if isinstance(mode, str) else not flags & os.O_WRONLY
            if not isinstance(path, int):
                place = os.path.abspath(os.fsdecode(path))
                if place not in self.there and not place.endswith(".pyc"):
                    self.there[place] = of_path(place) != ABSENT
                if reading:
                    self.opened.add(place)
        elif event in ("os.listdir", "os.scandir"):
            path = args[0] if args and args[0] is not None else "."
            asking = sys._getframe(2).f_code.co_filename
            if not isinstance(path, int) and asking != LOOKING:
                importing = asking.startswith(IMPORTING)
                seen, look = (self.searched, of_modules) if importing else (self.listed, of_names)
                place = os.path.abspath(os.fsdecode(path))
                if place not in seen and not place.startswith(UNSTEADY):
                    seen[place] = look(place)
                if event == "os.scandir" and not importing and not place.startswith(UNSTEADY):
                    self._scanned(place)
        elif not _called_from("ctypes.util"):  # which asks the linker where libraries are
            self.left = True

    def _scanned(self, folder: str) -> None:
        """Each entry can be asked for its kind and size, of which no hook hears."""
        names = names_in(folder)
        self.left = self.left or len(names) > MANY
        for place in [os.path.join(folder, name) for name in names[:MANY]]:
            for seen, look in ((self.asked, of_path), (self.asked_link, of_link)):
                if place not in seen:
                    seen[place] = look(place)

    def _asking(self, plain: Any) -> Any:
        """`plain`, which notes what a path is when it is first asked about. Code that keeps a reference may go on
        using it; and `os` knows of it what it knows of `plain`."""
        usual = self.asked_link if plain.__name__ == "lstat" else self.asked

        def ask(path: Any, *args: Any, **options: Any) -> Any:
            known = not options and type(path) is str and path in usual
            if not known and self._watching and not isinstance(path, int) and options.get("dir_fd") is None:
                itself = usual is self.asked_link or options.get("follow_symlinks") is False
                seen, look = (self.asked_link, of_link) if itself else (self.asked, of_path)
                with suppress(TypeError, ValueError):  # what is no path; the call itself will say so
                    if (place := os.path.abspath(os.fsdecode(path))) not in seen:
                        seen[place] = look(place)
            return plain(path, *args, **options)

        for known in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks, os.supports_effective_ids):
            if plain in known:
                known.add(ask)
        return ask

    def _item(self, plain: Any) -> Any:
        def read(environ: Any, name: str) -> str:
            if _is_ours(environ):
                self.variables.add(os.fsdecode(name))
            return plain(environ, name)  # type: ignore[no-any-return]

        return read

    def _whole(self, plain: Any) -> Any:
        def read(environ: Any) -> Iterator[str]:
            if _called_from("tqdm"):  # goes through all for its own, which change progress bars and no count
                return (name for name in plain(environ) if name.startswith("TQDM_"))
            self.environment = self.environment or _is_ours(environ)
            return plain(environ)  # type: ignore[no-any-return]

        return read


def _is_ours(environ: Any) -> bool:
    """Whether it is the environment of this process, as texts or as bytes."""
    return environ is os.environ or environ is getattr(os, "environb", None)


def _names_safetensors(file: str) -> bool:
    if not file.endswith(".py") or file.startswith((*libraries(), OURS)) or of_python(file):
        return False
    try:
        with open(file, "rb") as source:
            return b"safetensors" in source.read()
    except OSError:
        return True


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


def _source(path: str) -> str:
    """The source of a compiled module: that is what is edited. Without it Python would not have read the bytecode."""
    if not path.endswith(".pyc"):
        return path
    try:
        return source_from_cache(path)
    except ValueError:
        return path


WITNESS = Witness()
