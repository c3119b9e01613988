"""The modules that the code of a model imports from its project: their files, and how to import them again.

A library in `site-packages`, the standard library and cspprof itself stay imported. Compiled modules of a project are
listed too, but the operating system loads each only once in a process.
"""

from __future__ import annotations

import importlib
import linecache
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cspprof.sources import Spec, source_of

PROJECT_MARKS = (".git", "pyproject.toml", "cspprof.toml", "setup.py")
"""A folder that contains one of these is the folder of a project."""
INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Names of folders of installed packages."""
STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))


def named_files(spec: Spec) -> set[Path]:
    """The files that the SPEC names, whether they exist or not: a graph, a saved profile, the file or module of a
    factory. Options whose value is a file that exists are files too. Empty for a network of the zoo or of a library."""
    source, place = source_of(spec).name, spec.target.rpartition(":")[0]
    files = {Path(value) for value in spec.options.values() if isinstance(value, str) and _is_file(value)}
    if source == "factory":
        files |= {Path(place)} if place.endswith(".py") else _files_of_module(place)
    elif source not in ("zoo", "timm", "torchvision"):
        files.add(Path(spec.target))
    return {absolute(path) for path in files}


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a name, or with a null character
        return False


def _files_of_module(name: str) -> set[Path]:
    """The file of a module of the user that can be imported in the current folder. No code runs."""
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return set()
    for entry in [str(Path.cwd()), *sys.path]:
        base = Path(entry or ".", *parts)
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return set() if is_installed(absolute(path)) else {path}
    return set()


def absolute(path: Path) -> Path:
    """The absolute path without `..`. A symbolic link stays one: an editor may replace either the link or its file."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps `..`, Path.resolve follows links


def is_installed(path: Path) -> bool:
    """Whether the file belongs to the standard library, to an installed package, or to cspprof."""
    ours = Path(__file__).parents[1]
    return bool(INSTALLED & {*path.parts}) or path.is_relative_to(STANDARD_LIBRARY) or path.is_relative_to(ours)


def project_folder(path: Path) -> Path:
    """The folder of the project that contains a file: the nearest above it with one of `PROJECT_MARKS`, else its own
    folder."""
    folder = absolute(path).parent
    return next((f for f in (folder, *folder.parents) if any((f / mark).exists() for mark in PROJECT_MARKS)), folder)


@contextmanager
def without_bytecode() -> Iterator[None]:
    """Python writes no bytecode of the modules that are imported inside this context. It recognizes old bytecode by the
    size and the second of the source file, so it would miss a second save in the same second."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


class UserModules:
    """The modules that users' code imports from some folders, after this object was made."""

    def __init__(self, folders: Iterable[Path]) -> None:
        paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        extra = [Path.cwd(), *(Path(entry) for entry in paths if entry)]
        self._folders = {place for folder in (*folders, *extra) for place in (absolute(folder), folder.resolve())}
        self._others = set(sys.modules)
        """Names of modules that stay imported."""

    def forget(self) -> set[Path]:
        """Forget the modules, so that the next load of a model runs their files again. Return these files, and the
        folders of packages without a file."""
        factory = sys.modules.get("cspprof.sources.python_factory")
        places: set[Path] = set()
        for module in factory.forget_siblings() if factory is not None else ():
            places |= _places(module)
        new = {name: _places(module) for name, module in list(sys.modules.items()) if name not in self._others}
        for name, own in new.items():  # the folders of a package are only known while its parent is imported
            if not self._in_project(own):
                self._others.add(name)
                continue
            places |= own
            module = sys.modules.pop(name)
            parent, _, child = name.rpartition(".")
            if getattr(sys.modules.get(parent), "__dict__", {}).get(child) is module:
                delattr(sys.modules[parent], child)  # `from parent import child` would find the old module
        importlib.invalidate_caches()
        linecache.clearcache()
        if "torch" in sys.modules:
            from cspprof.isolation.model_copy import forget_classes

            forget_classes()
        return places

    def _in_project(self, places: set[Path]) -> bool:
        return any(
            place.is_relative_to(folder) and not is_installed(place) for place in places for folder in self._folders
        )


def _places(module: object) -> set[Path]:
    """The file of a module; for a package without one, its folders. Empty for what only looks like a module, such as
    `torch.ops`, whose file has no folder."""
    names = getattr(module, "__dict__", {})
    file = names.get("__file__")
    if isinstance(file, str):
        return {absolute(Path(file))} if Path(file).is_absolute() else set()
    try:
        return {absolute(Path(folder)) for folder in names.get("__path__") or ()}
    except (TypeError, KeyError):  # a namespace package whose parent is gone
        return set()
