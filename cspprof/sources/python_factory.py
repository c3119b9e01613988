"""A user's model: `path/to/file.py:factory` or `pkg.mod:factory`, where a factory is a class, function or module."""

from __future__ import annotations

import importlib
import importlib.util
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from cspprof.core.errors import SourceError
from cspprof.core.files import display_path
from cspprof.diagnosis.user_code import file_and_line, user_frame
from cspprof.sources.build import build_module
from cspprof.sources.spec import LoadedModel, Request, Spec
from cspprof.sources.spec_mistakes import (
    factories_hint,
    folder_with_module,
    missing_file,
    mistaken_target,
    module_file,
    module_in_package,
)

DEFAULT_INPUT = (1, 3, 224, 224)

PACKAGE = "cspprof_user"
"""The package in which a user's file is imported, so that its relative imports find the files beside it. Its name
contains no path, so that class names in a record are the same on every machine."""

_SIBLINGS: dict[Path, dict[str, ModuleType]] = {}
"""For each folder, the modules that its files imported from it: two versions of a model may each have `blocks.py`."""


@contextmanager
def open_model(spec: Spec, request: Request) -> Iterator[LoadedModel]:
    """Import the file or module, find the factory, and build the model. Until the context ends, the model can import
    files beside its own.

    The input is `--input`, else the attribute `example_input_shape` of the factory, its class or its module, else
    1×3×224×224 with a note.
    """
    place, _, attribute = spec.target.rpartition(":")
    if "://" in spec.target and (error := mistaken_target(spec.target)):
        raise error
    if place.rstrip(":").endswith(".py") and (place.endswith(":") or not attribute):
        raise _colons(Path(place.rstrip(":")), attribute)
    if not place or not attribute:
        raise SourceError(f"{spec.target!r} names no factory", "Write path/to/file.py:factory or pkg.mod:factory")
    is_file = place.endswith(".py")
    name = f"{Path(place).name if is_file else place}:{attribute}"
    folder = (Path(place).parent if is_file else Path.cwd()).resolve()
    with _importable(folder), _own_siblings(folder) if is_file else nullcontext():
        module = _import_file(Path(place)) if is_file else _import_module(place)
        owners = _attribute_chain(module, attribute, place)
        factory = owners[-1]
        shapes = (getattr(owner, "example_input_shape", None) for owner in reversed(owners))
        declared = next((shape for shape in shapes if shape is not None), None)
        notes: tuple[str, ...] = ()
        if request.inputs is None and declared is None:
            notes = (f"no input given for {name}: 1x3x224x224 assumed (--input changes it)",)
        model, build_notes = build_module(spec, _callable(spec, factory), request.device)
        options = spec.portable_text[len(spec.target) :]
        source = spec.portable_text
        if is_file and Path(place).is_absolute():
            source = f"{display_path(Path(place))}:{attribute}{options}"
        yield LoadedModel(model, declared or DEFAULT_INPUT, name + options, source, notes + build_notes)


def _callable(spec: Spec, factory: Any) -> Any:
    if isinstance(factory, nn.Module):
        if spec.options:
            raise SourceError(f"{spec.target} is already a module and takes no options", f"Write only: {spec.target}")
        return lambda: factory
    if not callable(factory):
        raise SourceError(
            f"{spec.target} is a {type(factory).__name__}, not a class, function or module",
            "Name something that makes a torch.nn.Module.",
        )
    return factory


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Put the folder first on the import path, as when its files are run; restore the path afterwards."""
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before


@contextmanager
def _own_siblings(folder: Path) -> Iterator[None]:
    """Modules imported from `folder` are visible only to files of that folder, and run once."""
    before, known = dict(sys.modules), _SIBLINGS.get(folder, {})
    sys.modules.update(known)
    existing = before.keys() - known.keys()  # a package that was imported earlier keeps its submodules
    try:
        yield
    finally:
        own = {
            name: module
            for name, module in sys.modules.items()
            if before.get(name) is not module
            and name.partition(".")[0] not in existing
            and _is_in(folder, name, module)
        }
        for name in own:
            if name in before:
                sys.modules[name] = before[name]
            else:
                del sys.modules[name]
        _SIBLINGS[folder] = own


def forget_siblings() -> list[ModuleType]:
    """Forget the modules of all folders, so that the next load of a file runs them again. Return them."""
    modules = [module for known in _SIBLINGS.values() for module in known.values()]
    _SIBLINGS.clear()
    return modules


def _is_in(folder: Path, name: str, module: ModuleType) -> bool:
    """Whether `module` was imported by its name from `folder`, and not from a virtual environment inside it."""
    if name.partition(".")[0] == PACKAGE:
        return True
    place = folder.joinpath(*name.split("."))
    files = {f"{place}.py", str(place / "__init__.py")}
    return getattr(module, "__file__", None) in files or str(place) in list(getattr(module, "__path__", ()))


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise missing_file(path)
    if PACKAGE not in sys.modules:
        package = ModuleType(PACKAGE)
        package.__path__ = [str(path.parent.resolve())]
        sys.modules[PACKAGE] = package
    name = f"{PACKAGE}.{path.stem.replace('.', '_')}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None
    assert module_spec.loader is not None  # the name ends in .py
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # dataclasses and pickles look a class up by its module
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script without a __main__ guard may exit
        del sys.modules[name]
        raise _import_error(str(path), error, path) from error
    return module


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise SourceError(f"there is no module {error.name!r}", _missing_module_hint(name, error.name)) from None
        raise _import_error(name, error) from error
    except (Exception, SystemExit) as error:
        raise _import_error(name, error) from error


def _colons(path: Path, attribute: str) -> SourceError:
    """The error for `net.py::Net` and for `net.py:`."""
    if not path.is_file():
        return missing_file(path)
    if attribute:
        return SourceError(f"{path}::{attribute} has two colons", f"Write one: {path}:{attribute}")
    return SourceError(f"{path}: names no class or function of the file", factories_hint(path))


def _missing_module_hint(name: str, missing: str) -> str:
    """What to type if the module `name` cannot be imported because it or a package around it is `missing`."""
    file = module_file(name)
    if file is not None and file.is_file():
        return f"Name the file: {file}:factory" if "/" in name else f"It may be shadowed. Name the file: {file}:factory"
    if folder := folder_with_module(missing, Path.cwd()):
        return f"It is in {folder}. Make it importable: PYTHONPATH={shlex.quote(folder)} cspprof …"
    return "Run in a folder where it can be imported, or name the file: path/to/file.py:factory"


def _import_hint(error: BaseException, path: Path | None) -> str:
    """What to type after a file could not be imported: how to make a module that it imports importable."""
    where = Path.cwd() if path is None else path.resolve().parent
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith(PACKAGE):
        if folder := folder_with_module(error.name, where):
            return f"{error.name} is in {folder}. Make it importable: PYTHONPATH={shlex.quote(folder)} cspprof …"
        top = error.name.partition(".")[0]
        return f"Install the package that contains {top} where cspprof is installed, or add its folder to PYTHONPATH."
    if path is not None and isinstance(error, ImportError) and (found := module_in_package(path)):
        package_folder, dotted = found
        place = "" if package_folder == Path.cwd() else f"PYTHONPATH={shlex.quote(str(package_folder))} and "
        return f"The file is part of a package. Name it with {place}its package: {dotted}:factory"
    return "Run again with --debug for the traceback."


def _import_error(place: str, error: BaseException, path: Path | None = None) -> SourceError:
    if isinstance(error, SyntaxError):
        file = error.filename or place  # the error may be in another file that this one imports
        line = "" if error.lineno is None else f", line {error.lineno}"
        return SourceError(f"{file}{line}: {error.msg}", "Correct the syntax and try again.")
    frame = user_frame(error)
    where = f" ({file_and_line(frame.filename, frame.lineno)})" if frame else ""
    return SourceError(f"importing {place} failed: {type(error).__name__}: {error}{where}", _import_hint(error, path))


def _attribute_chain(module: ModuleType, dotted: str, place: str) -> list[Any]:
    """The module and the object that each part of `dotted` names; the last one is the factory."""
    chain: list[Any] = [module]
    for name in dotted.split("."):
        owner = chain[-1]
        if not hasattr(owner, name):
            names = [n for n in getattr(owner, "__dict__", {}) if n[0] != "_" and callable(getattr(owner, n, None))]
            near = get_close_matches(name, names, n=3, cutoff=0.4) or sorted(names)[:5]
            hint = f"Did you mean: {', '.join(near)}?" if near else "It defines no class or function."
            raise SourceError(f"{place} has no {dotted!r}", hint)
        chain.append(getattr(owner, name))
    return chain
