"""A program written by `torch.export.save`: `model.pt2`.

Reading such a file never runs code from it. Everything in it that could name code (pickles, script objects, functions
other than torch's operators, expressions beyond arithmetic) is refused before torch reads the file.
"""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from cspprof.core.errors import SourceError
from cspprof.core.files import display_path
from cspprof.core.inputs import ModelArguments
from cspprof.core.tensors import TensorSpec
from cspprof.sources.spec import LoadedModel, Request, Spec
from cspprof.trace.module_tree import CLASS
from cspprof.trace.tensor_meta import dtype_name

HINT = "Write one with torch.export.save(torch.export.export(model, inputs), 'model.pt2')"
OPERATORS = re.compile(r"torch\.ops\.[\w.]+|torch\.sym_\w+|_operator\.[a-z]\w*|math\.[a-z]\w*")
"""The functions that a node of the graph may call."""
NAMES = re.compile(r"[\w.]*")
ARITHMETIC = (ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.BinOp, ast.UnaryOp,
              ast.Compare, ast.BoolOp, ast.operator, ast.unaryop, ast.cmpop, ast.boolop)  # fmt: skip


@contextmanager
def open_model(spec: Spec, request: Request) -> Iterator[LoadedModel]:
    """The program as a module, with the submodules of the exported model. Raises SourceError."""
    path = Path(spec.target)
    if spec.options:
        raise SourceError(f"{spec.target} is an exported program and takes no options", f"Write only: {spec.target}")
    for refused, option in ((request.train, "--train"), (request.dtype is not None, "--dtype")):
        if refused:
            raise SourceError(
                f"{spec.target} is an exported program: {option} cannot change it",
                "Export the model again, as you need it.",
            )
    _refuse_code(path)
    program = _load(path)
    module = torch.export.unflatten(program)
    for submodule in module.modules():
        type_name = getattr(type(submodule), "type_name", None)
        if type_name is not None:
            setattr(submodule, CLASS, type_name(submodule))
    yield LoadedModel(module, _default_inputs(spec, program, request), path.name, display_path(path))


def _load(path: Path) -> torch.export.ExportedProgram:
    """Load the file; torch may unpickle only plain tensors, and prints nothing. Raises SourceError."""
    variable = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(path)
    except Exception as error:  # torch raises errors of many classes
        reason = (str(error).splitlines() or [""])[0]
        raise SourceError(
            f"{path.name} cannot be read by torch {torch.__version__}: {type(error).__name__}: {reason}",
            f"Export the program with this version of torch or an older one. {HINT}",
        ) from error
    finally:
        logging.disable(logging.NOTSET)
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def _default_inputs(spec: Spec, program: torch.export.ExportedProgram, request: Request) -> Any:
    """The specs of the example inputs of the export."""
    if program.example_inputs is not None:
        args, kwargs = torch.utils._pytree.tree_map_only(torch.Tensor, _spec_of, program.example_inputs)
        return ModelArguments(tuple(args), kwargs)
    if request.inputs is None:
        raise SourceError(f"{spec.target} was saved without its example inputs", "Give each input: --input 1x3x224x224")
    return None


def _spec_of(tensor: torch.Tensor) -> TensorSpec:
    return TensorSpec(tuple(tensor.shape), dtype_name(tensor.dtype))


# -- refuse code --------------------------------------------------------------------------------------


def _refuse_code(path: Path) -> None:
    """Raise SourceError unless the file is an exported program that contains only data."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            graphs = [n for n in names if re.search(r"(^|/)models/[^/]+\.json$|serialized_exported_program\.json$", n)]
            texts = [archive.read(name) for name in graphs]
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}", "Check the path.") from None
    except (zipfile.BadZipFile, ValueError):
        raise SourceError(
            f"{path.name} is not an exported program: it is not an archive (a pickle, or incomplete?)", HINT
        ) from None
    if not graphs:
        kind = "a checkpoint or TorchScript of torch.save" if any(n.endswith("data.pkl") for n in names) else "empty"
        raise SourceError(f"{path.name} is not an exported program: it contains no graph ({kind}?)", HINT)
    for name in names:
        if re.search(r"/constants/(custom|opaque)_obj_", name):
            raise SourceError(
                f"{path.name} contains an object that is not a tensor: {name}",
                "It is not loaded, because that could run code. Export the model without it.",
            )
    for text in texts:
        try:
            _check_graph(path, json.loads(text))
        except ValueError:
            raise SourceError(f"{path.name}: its graph is not JSON", HINT) from None


def _check_graph(path: Path, graph: Any) -> None:
    """Check each string that torch would look up, compile or evaluate. Raises SourceError."""
    stack = [("", graph)]
    while stack:
        key, value = stack.pop()
        if isinstance(value, dict):
            stack += value.items()
        elif isinstance(value, list):
            stack += [(key, item) for item in value]
        elif isinstance(value, str) and not _is_harmless(key, value):
            raise SourceError(
                f"{path.name}: its graph has a {key} that is not an operator or a name of torch: {value[:60]!r}",
                "It is not loaded, because that could run code. Export the model with torch's operators only.",
            )


def _is_harmless(key: str, text: str) -> bool:
    if key == "target":
        return bool(OPERATORS.fullmatch(text)) and "__" not in text
    if key == "expr_str":
        return _is_arithmetic(text)
    if key in ("name", "parameter_name", "buffer_name", "fqn", "forward_arg_names"):
        return bool(NAMES.fullmatch(text))
    return "__enum__" not in text


def _is_arithmetic(text: str) -> bool:
    """Whether an expression only combines numbers and symbols: `Symbol('s0')`, `Mul(Integer(2), Symbol('s1'))`."""
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError):
        return False
    for node in nodes:
        if not isinstance(node, ARITHMETIC):
            return False
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id[0].isupper()):
            return False
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not node.value.isidentifier():
            return False
    return True
