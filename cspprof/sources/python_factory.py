"""A user's own model: `path/to/file.py:factory` or `pkg.mod:factory`, a class, a function or a module."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from cspprof.core.errors import SourceError
from cspprof.core.files import display_path
from cspprof.sources.build import build_module
from cspprof.sources.spec import LoadedModel, Request, Spec

DEFAULT_INPUT = (1, 3, 224, 224)

PACKAGE = "cspprof_user"
"""A user's file is loaded as a module of this private package, so that its relative imports find its siblings. The
name holds no path: class names in a profile are the same on every machine and in every run."""

_SIBLINGS: dict[Path, dict[str, ModuleType]] = {}
"""What the files of a folder imported from it. Two versions of a model may each have a `blocks.py`."""


@contextmanager
def open_model(spec: Spec, request: Request) -> Iterator[LoadedModel]:
    """Import the file or module, find the factory in it, and build; its siblings can be imported until it is closed.

    The input is `--input`, else the attribute `example_input_shape` of the factory or of what holds it (its class,
    its file), else 1×3×224×224 with a note.
    """
    place, _, attribute = spec.target.rpartition(":")
    if not place or not attribute:
        raise SourceError(f"{spec.target!r} names no factory", "Write path/to/file.py:factory or pkg.mod:factory")
    is_file = place.endswith(".py")
    called = f"{Path(place).name if is_file else place}:{attribute}"
    folder = (Path(place).parent if is_file else Path.cwd()).resolve()
    with _importable(folder), _own_siblings(folder) if is_file else nullcontext():
        module = _from_file(Path(place)) if is_file else _from_name(place)
        trail = _attribute(module, attribute, place)
        factory = trail[-1]
        shapes = (getattr(holder, "example_input_shape", None) for holder in reversed(trail))
        declared = next((shape for shape in shapes if shape is not None), None)
        notes: tuple[str, ...] = ()
        if request.inputs is None and declared is None:
            notes = (f"no input given for {called}: 1x3x224x224 assumed (--input changes it)",)
        made, built = build_module(spec, _callable(spec, factory), request.device)
        name, source = _with_options(called, spec), _source(place, attribute, spec)
        yield LoadedModel(made, declared or DEFAULT_INPUT, name, source, notes + built)


def _with_options(called: str, spec: Spec) -> str:
    return called + spec.portable_text[len(spec.target) :]


def _source(place: str, attribute: str, spec: Spec) -> str:
    """The SPEC without a path of this machine."""
    if place.endswith(".py") and Path(place).is_absolute():
        return _with_options(f"{display_path(Path(place))}:{attribute}", spec)
    return spec.portable_text


def _callable(spec: Spec, factory: Any) -> Any:
    if isinstance(factory, nn.Module):
        if spec.options:
            raise SourceError(f"{spec.target} is a module already and takes no options", f"Write only: {spec.target}")
        return lambda: factory
    if not callable(factory):
        raise SourceError(
            f"{spec.target} is a {type(factory).__name__}, not a class, function or module",
            "Name something that makes a torch.nn.Module.",
        )
    return factory


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Siblings of a user's file can be imported, as when it is run; the search path is put back afterwards."""
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before


@contextmanager
def _own_siblings(folder: Path) -> Iterator[None]:
    """Modules imported from `folder` are seen by files of that folder only, and run once."""
    before, known = dict(sys.modules), _SIBLINGS.get(folder, {})
    sys.modules.update(known)
    taken = before.keys() - known.keys()  # a package that was there already keeps its submodules
    try:
        yield
    finally:
        own = {
            name: module
            for name, module in sys.modules.items()
            if before.get(name) is not module and name.partition(".")[0] not in taken and _is_of(folder, name, module)
        }
        for name in own:
            if name in before:
                sys.modules[name] = before[name]
            else:
                del sys.modules[name]
        _SIBLINGS[folder] = own


def _is_of(folder: Path, name: str, module: ModuleType) -> bool:
    """Whether `module` was found by its name in `folder`; a virtual environment below it is not meant."""
    if name.partition(".")[0] == PACKAGE:
        return True
    place = folder.joinpath(*name.split("."))
    files = {f"{place}.py", str(place / "__init__.py")}
    return getattr(module, "__file__", None) in files or str(place) in list(getattr(module, "__path__", ()))


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise SourceError(
            f"there is no file {path}",
            "Check the path; it starts here or, in a configuration, at its folder.",
        )
    if PACKAGE not in sys.modules:
        package = ModuleType(PACKAGE)
        package.__path__ = [str(path.parent.resolve())]
        sys.modules[PACKAGE] = package
    name = f"{PACKAGE}.{path.stem.replace('.', '_')}"
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise SourceError(f"{path} is not a Python file", "Name a .py file.")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses and pickles look a class up by its module
    try:
        found.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script without a __main__ guard may leave
        del sys.modules[name]
        raise _import_failed(str(path), error) from error
    return module


def _from_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise SourceError(
                f"there is no module {error.name!r}", "Run where it can be imported, or name the file: file.py:factory"
            ) from None
        raise _import_failed(name, error) from error
    except (Exception, SystemExit) as error:
        raise _import_failed(name, error) from error


def _import_failed(place: str, error: BaseException) -> SourceError:
    if isinstance(error, SyntaxError):
        file = error.filename or place  # which may be a sibling's
        line = "" if error.lineno is None else f", line {error.lineno}"
        return SourceError(f"{file}{line}: {error.msg}", "Mend the syntax and try again.")
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return SourceError(
        f"importing {place} failed: {type(error).__name__}: {error}{where}", "Run again with --debug for the traceback."
    )


def _attribute(module: ModuleType, dotted: str, place: str) -> list[Any]:
    """What each part of `dotted` names, after the module itself; the last one is the factory."""
    trail: list[Any] = [module]
    for name in dotted.split("."):
        found = trail[-1]
        if not hasattr(found, name):
            names = [n for n in getattr(found, "__dict__", {}) if n[0] != "_" and callable(getattr(found, n, None))]
            near = get_close_matches(name, names, n=3, cutoff=0.4) or sorted(names)[:5]
            hint = f"Did you mean: {', '.join(near)}?" if near else "It defines nothing that could make a model."
            raise SourceError(f"{place} has no {dotted!r}", hint)
        trail.append(getattr(found, name))
    return trail
