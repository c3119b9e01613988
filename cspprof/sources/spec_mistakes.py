"""What a SPEC that names no model probably means, and what to type instead. No model code runs, and no torch."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from cspprof.core.errors import SourceError
from cspprof.core.files import read_limited
from cspprof.core.json_text import MAX_BYTES, parse_json

WEIGHTS = (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".pkl", ".h5", ".weights", ".tar", ".npz")
"""Endings of files that hold weights, or pickles that would run code."""
OTHER_GRAPHS = {".tflite": "TensorFlow Lite", ".pb": "TensorFlow", ".mlmodel": "Core ML", ".engine": "TensorRT"}
LISTED = 6
"""The number of names that a hint lists."""
KINDS = (
    "The zoo: cspprof models. Other networks: timm:NAME, torchvision:NAME, path/to/file.py:factory, model.cfg, "
    "model.onnx, model.pt2"
)
"""What a SPEC can name."""


def mistaken_target(target: str) -> SourceError | None:
    """The error for a target that is a file, a folder or an address, not a model; None if it looks like a name."""
    try:
        return _mistake(target)
    except OSError as error:  # a name that is too long, or a folder that cannot be listed
        return SourceError(f"cannot read {target}: {error.strerror}", "Check the path.")


def _mistake(target: str) -> SourceError | None:
    path = Path(target)
    ending = path.suffix.lower()
    if "://" in target:
        return SourceError(f"{target} is an address, and nothing is downloaded", "Download the file, then name it.")
    if path.is_dir():
        return _folder(path)
    if ending == ".py":
        return _python_file(path)
    if ending in WEIGHTS:
        return SourceError(
            f"{target} holds weights, or a pickle that would run code: it has no network that can be read",
            "Name the code that builds the network: path/to/file.py:factory. Or export it in Python: "
            f"torch.export.save(torch.export.export(model, (x,)), '{path.with_suffix('.pt2')}')",
        )
    if ending in OTHER_GRAPHS:
        return SourceError(
            f"{target} is a graph of {OTHER_GRAPHS[ending]}, which cspprof does not read",
            f"Convert it to ONNX, then name that file: {path.with_suffix('.onnx')}",
        )
    if target.endswith((".json", ".json.gz")):
        return _json_file(path)
    if path.is_file():
        return SourceError(f"{target} is a file of a kind that cspprof does not read", KINDS)
    if (file := _file_without_ending(target)) is not None:
        return file
    if ending and ("/" in target or ending in (".onnx", ".cfg", ".pt2", ".yaml", ".yml", ".toml")):
        return missing_file(path)
    return None


def _file_without_ending(target: str) -> SourceError | None:
    """The error for `net` and `pkg.net.Net` if `net.py` and `pkg/net.py` exist; the hint names the factories."""
    dotted, _, attribute = target.rpartition(".")
    for module in filter(None, (target, dotted)):
        path = module_file(module)
        if path is not None and path.is_file():
            names = factories_of(path)
            hint = f"Write: {path}:{attribute}" if module == dotted and attribute in names else factories_hint(path)
            return SourceError(f"no model named {target!r}, but there is a file {path}", hint)
    for path in sorted(Path().glob("*.py")) if target.isidentifier() else ():
        if target in factories_of(path):
            return SourceError(f"no model named {target!r}, but {path} defines it", f"Write: {path}:{target}")
    return None


def module_file(name: str) -> Path | None:
    """`pkg/net.py` for `pkg.net` and for `pkg/net`; None for a text such as `..` that names no file."""
    path = Path(name if "/" in name else name.replace(".", "/"))
    return path.with_suffix(".py") if path.name.strip(".") else None


def missing_file(path: Path) -> SourceError:
    """The error for a file that is not there; the hint names similar files in its folder."""
    folder = path.parent
    if not folder.is_dir():
        return SourceError(f"there is no file {path}: the folder {folder} is missing", "Check the path.")
    names = [other.name for other in folder.iterdir() if other.suffix == path.suffix]
    near = get_close_matches(path.name, names, n=3, cutoff=0.5)
    similar = f"Did you mean: {', '.join(str(folder / name) for name in near)}?\n" if near else ""
    return SourceError(
        f"there is no file {path}",
        f"{similar}Check the path. It is relative to this folder or, in a configuration, to the folder of the "
        "configuration.",
    )


def check_is_file(path: Path) -> None:
    """Raise SourceError if `path` is no file: reading a pipe or a device may never end."""
    try:
        if not path.exists():
            raise missing_file(path)
        if not path.is_file():
            raise SourceError(f"{path} is not a file", "Check the path.")
    except OSError as error:  # a name that is too long
        raise SourceError(f"cannot read {path}: {error.strerror}", "Check the path.") from None


def factories_of(path: Path) -> list[str]:
    """The public classes and functions of a Python file: modules of torch first, if any class looks like one."""
    try:
        body = ast.parse(path.read_bytes()).body
        classes = [node for node in body if isinstance(node, ast.ClassDef)]
        bases_of = {node: {ast.unparse(base).split(".")[-1] for base in node.bases} for node in classes}
    except (OSError, SyntaxError, ValueError, MemoryError, RecursionError):
        return []
    modules: list[str] = []
    others: list[str] = []
    module_names = {"Module"}
    for node in body:
        if isinstance(node, ast.ClassDef):
            bases = bases_of[node]
            is_module = bool(bases & module_names) or any(base.endswith("Module") for base in bases)
            if is_module:
                module_names.add(node.name)
            (modules if is_module else others).append(node.name)
        elif isinstance(node, ast.FunctionDef):
            others.append(node.name)
    return [name for name in modules + others if not name.startswith("_")]


def factories_hint(path: Path) -> str:
    """A hint that lists the SPECs of a Python file."""
    names = factories_of(path)
    if not names:
        return f"It defines no class or function. Write one that returns a torch.nn.Module, then name it: {path}:Net"
    listed = ", ".join(f"{path}:{name}" for name in names[:LISTED])
    return f"Name a class or function in it: {listed}{', …' if len(names) > LISTED else ''}"


def _python_file(path: Path) -> SourceError:
    if not path.is_file():
        error = missing_file(path)
        return SourceError(error.message, f"{error.hint}\nName a class or function in it: {path}:Net")
    return SourceError(f"{path} names no class or function of the file", factories_hint(path))


def _folder(path: Path) -> SourceError:
    specs = [f"{file}:{name}" for file in sorted(path.glob("*.py")) for name in factories_of(file)[: LISTED + 1]]
    endings = ("*.onnx", "*.cfg", "*.pt2", "*.profile.json")
    graphs = [str(file) for ending in endings for file in sorted(path.glob(ending))]
    found = ", ".join([*specs, *graphs][:LISTED]) + (", …" if len([*specs, *graphs]) > LISTED else "")
    return SourceError(
        f"{path} is a folder, not a model",
        f"Name a model in it: {found}" if found else "Name a file in it with a class or function: file.py:Net",
    )


def _json_file(path: Path) -> SourceError:
    saved = "Names of saved profiles end in .profile.json"
    if not path.is_file():
        return SourceError(f"{path} is not the name of a saved profile", f"{saved}, and no file {path} exists.")
    try:
        content = parse_json(read_limited(path, MAX_BYTES))
    except (OSError, ValueError):
        content = None
    schema = str(content.get("schema", "")) if isinstance(content, dict) else ""
    if schema.startswith("cspprof.record/"):
        renamed = path.with_name(path.name.removesuffix(".json") + ".profile.json")
        return SourceError(f"{path} is not the name of a saved profile", f"{saved}. Rename it: mv {path} {renamed}")
    if schema.startswith("cspprof."):
        return SourceError(
            f"{path} is the JSON output of a command, not a saved profile",
            f"Save a profile: cspprof profile SPEC --save x.profile.json. {saved}.",
        )
    return SourceError(
        f"{path} is a configuration or other data, not a model and not a saved profile",
        f"Name the code that builds the network from it: path/to/file.py:factory. {saved}.",
    )


def library_with(name: str) -> str | None:
    """`torchvision:NAME` or `timm:NAME` if an installed library defines that architecture. Imports neither."""
    if not name.isidentifier():
        return None
    definition = re.compile(rf"^def {name}\(".encode(), re.MULTILINE)
    for library in ("torchvision", "timm"):
        if any(definition.search(file.read_bytes()) for file in model_files(library)):
            return f"{library}:{name}"
    return None


def unknown_architecture(library: str, name: str, known: Iterable[str]) -> SourceError:
    """The error for `timm:nope`: the most similar architectures of the library, or the command that lists all."""
    module = {"timm": "timm", "torchvision": "torchvision.models"}[library]
    if not name:
        return SourceError(f"{library}: names no architecture", f"Write for example: {library}:resnet50")
    near = get_close_matches(name.rpartition("/")[2].lower(), known, n=3, cutoff=0.5)
    every = f'All of them: python -c "import {module} as m; print(*m.list_models())"'
    hint = f"Did you mean: {', '.join(f'{library}:{n}' for n in near)}?\n{every}" if near else every
    return SourceError(f"{library} has no model named {name!r}", hint)


def model_files(library: str) -> Iterator[Path]:
    found = find_spec(library)
    for folder in (found.submodule_search_locations or ()) if found else ():
        yield from (Path(folder) / "models").rglob("*.py")


def folder_with_module(name: str, start: Path) -> str | None:
    """The nearest folder above `start`, or its `src`, that contains the module or package `name`, relative to the
    current folder."""
    top = name.partition(".")[0]
    for folder in [start, *start.parents][:5]:
        for place in (folder, folder / "src"):
            if (place / top).is_dir() or (place / f"{top}.py").is_file():
                return os.path.relpath(place)
    return None


def module_in_package(path: Path) -> tuple[Path, str] | None:
    """The folder from which the package of a file can be imported, and the dotted name of the file in it."""
    folder = path.resolve().parent
    parts = [path.stem]
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return (folder, ".".join(parts)) if len(parts) > 1 else None
