"""Code that converts another copy of the same network, without cspprof."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import indent

from torch import nn

from cspprof.core.printable import printable
from cspprof.csp.conversion.csp_stage import CSPStage
from cspprof.csp.conversion.edits import StageEdits, code_lines
from cspprof.csp.conversion.layers import with_shapes

NAMES = frozenset({"Any", "CSPStage", "Mapping", "annotations", "build", "convert", "copy", "importlib", "nn", "sys",
                   "torch", "with_shapes"})  # fmt: skip
"""Names of the generated code. A factory that has one of them is imported under another name."""
MARK = "with cross stage partial stages (CSPNet, Wang et al. 2019). It needs only torch"
HEAD = f'"""{{name}} {MARK}{{library}}."""'


BEGIN = """\
plain = set(model.modules())
weight = next(p for p in model.parameters() if p.is_floating_point())
"""
END = """
for module in set(model.modules()) - plain:
    module.training = model.training
    if not list(module.children()):
        module.to(weight.device, weight.dtype)
"""


def is_own_code(head: bytes) -> bool:
    """Whether a Python file starts as generated code does: a later run replaces only such a file."""
    return MARK.encode() in head.split(b"\n", 1)[0]


def source_code(name: str, model: nn.Module, edits: Sequence[StageEdits], factory: tuple[str, str] | None) -> str:
    """A Python module with `convert(model)`, and `build()` if `factory` is known: an import, and an expression that
    builds the plain network. `model` is the plain network."""
    lines = code_lines(model, edits)
    body = "\n".join(lines)
    copies = ["copy"] if "copy." in body or "with_shapes(" in body else []
    types = ["from collections.abc import Mapping", "from typing import Any"] if "with_shapes(" in body else []
    library = "" if factory is None else f", and {_library(factory[0])} for the plain network"
    imports = [f"import {module}" for module in copies]
    parts = [
        HEAD.format(name=_in_docstring(name), library=_in_docstring(library)),
        "\n".join(["from __future__ import annotations", "", *imports, *types, *([""] if imports or types else []),
                   "import torch", "from torch import nn", *(["", factory[0]] if factory else [])]),
        inspect.getsource(CSPStage).rstrip(),
    ]  # fmt: skip
    if "with_shapes(" in body:
        helper = (
            inspect.getsource(with_shapes).rstrip().replace("shapes: Shapes", "shapes: Mapping[str, tuple[int, ...]]")
        )
        parts.append(helper.replace("\n\n    Generated code contains a copy of this function.\n    ", ""))
    parts.append(
        "def convert(model: nn.Module) -> nn.Module:\n"
        '    """Replace the stages of the plain network, in place. New layers get its mode, device and dtype."""\n'
        f"{indent(BEGIN + body + END, '    ')}    return model"
    )
    if factory is not None:
        parts.append(f"def build() -> nn.Module:\n    return convert({factory[1]})")
    head, imports_, *rest = parts
    return f"{head}\n\n{imports_}\n\n\n" + "\n\n\n".join(rest) + "\n"


def _in_docstring(text: str) -> str:
    """A name that comes from a file or a module. It cannot end the docstring of the generated code."""
    return printable(text).replace("\\", "\\\\").replace('"', '\\"')


def _library(imports: str) -> str:
    """The module from which the last statement imports."""
    last = imports.splitlines()[-1]
    called = re.search(r"import_module\('(.*)'\)", last)
    return called[1] if called else last.split()[1].split(".")[0]


def factory_code(target: str, options: dict[str, object]) -> tuple[str, str] | None:
    """The import and the expression for the network that a SPEC names; None for a file that is no Python."""
    arguments = "".join(f", {k}={v!r}" for k, v in options.items())
    kind, _, name = target.rpartition(":")
    if kind == "torchvision":
        return "import torchvision", f"torchvision.models.get_model({name!r}, weights=None{arguments})"
    if kind == "timm":
        return "import timm", f"timm.create_model({name!r}{arguments})"
    if kind:
        first, *rest = name.split(".")
        own = f"plain_{first}" if first in NAMES else first
        imported = first if own == first else f"{first} as {own}"
        statement = _import_of_file(Path(kind), imported) if kind.endswith(".py") else f"from {kind} import {imported}"
        return statement, f"{'.'.join([own, *rest])}({arguments[2:]})"
    if "." in target:
        return None
    return "from cspprof.zoo import catalog", f"catalog().get({target!r}).factory({arguments[2:]})"


def _import_of_file(path: Path, name: str) -> str:
    """The statements that import a name, which may have `as`, from a Python file. A file of a package is imported from
    its package, for its relative imports; the folder of any other file goes on the import path, for the files beside
    it."""
    dotted = [*path.parent.parts, path.stem]
    if len(dotted) > 1 and (path.parent / "__init__.py").exists() and all(part.isidentifier() for part in dotted):
        return f"from {'.'.join(dotted)} import {name}"
    folder = path.parent.as_posix()
    on_path = "" if folder == "." else f"import sys\n\nsys.path.insert(0, {folder!r})\n"
    if path.stem.isidentifier():
        return f"{on_path}from {path.stem} import {name}"
    first, _, own = name.partition(" as ")
    return f"{on_path}import importlib\n\n{own or first} = importlib.import_module({path.stem!r}).{first}"
