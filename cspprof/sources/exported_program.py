"""A program that `torch.export.save` wrote: `model.pt2`.

Such a file is read as data. Whatever in it could name code to be run (pickles, script objects, functions outside
torch's operators, expressions that are more than arithmetic) is refused before torch sees it.
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
from cspprof.core.record import TensorSpec
from cspprof.sources.spec import LoadedModel, Request, Spec

HINT = "Write one with torch.export.save(torch.export.export(model, inputs), 'model.pt2')"
OPERATORS = re.compile(r"torch\.ops\.[\w.]+|torch\.sym_\w+|_operator\.[a-z]\w*|math\.[a-z]\w*")
"""What a node of the graph may call."""
NAMES = re.compile(r"[\w.]*")
ARITHMETIC = (ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.BinOp, ast.UnaryOp,
              ast.Compare, ast.BoolOp, ast.operator, ast.unaryop, ast.cmpop, ast.boolop)  # fmt: skip


@contextmanager
def open_model(spec: Spec, request: Request) -> Iterator[LoadedModel]:
    """The program with the modules that it was exported from, called as its example was."""
    path = Path(spec.target)
    if spec.options:
        raise SourceError(f"{spec.target} is an exported program and takes no options", f"Write only: {spec.target}")
    for asked, option in ((request.train, "--train"), (request.dtype is not None, "--dtype")):
        if asked:
            raise SourceError(
                f"{spec.target} is an exported program: {option} cannot change it", "Export the model anew."
            )
    _refuse_code(path)
    program = _load(path)
    module = torch.export.unflatten(program)
    for part in module.modules():
        type_name = getattr(type(part), "type_name", None)
        if type_name is not None:
            part.cspprof_class = type_name(part)
    yield LoadedModel(module, _example(spec, program, request), path.name, display_path(path))


def _load(path: Path) -> torch.export.ExportedProgram:
    """Read the file with nothing unpickled but plain tensors, and nothing printed."""
    forced = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(forced)
    os.environ[forced] = "1"
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(path)
    except Exception as error:  # torch raises whatever its parts raise
        first = (str(error).splitlines() or [""])[0]
        raise SourceError(
            f"{path.name} cannot be read by torch {torch.__version__}: {type(error).__name__}: {first}",
            f"A program must be exported by this version of torch or an older one. {HINT}",
        ) from error
    finally:
        logging.disable(logging.NOTSET)
        if before is None:
            del os.environ[forced]
        else:
            os.environ[forced] = before


def _example(spec: Spec, program: torch.export.ExportedProgram, request: Request) -> Any:
    """The shapes that the program was exported with."""
    if program.example_inputs is not None:
        args, kwargs = torch.utils._pytree.tree_map_only(torch.Tensor, _spec_of, program.example_inputs)
        return ModelArguments(tuple(args), kwargs)
    if request.inputs is None:
        raise SourceError(
            f"{spec.target} was saved without its example inputs", "Say them: --input 1x3x224x224 (one for each)"
        )
    return None


def _spec_of(tensor: torch.Tensor) -> TensorSpec:
    return TensorSpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


# -- nothing is run that the user did not name --------------------------------------------------------


def _refuse_code(path: Path) -> None:
    """Raise SourceError unless the file is an exported program that holds data only."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            graphs = [n for n in names if re.search(r"(^|/)models/[^/]+\.json$|serialized_exported_program\.json$", n)]
            texts = [archive.read(name) for name in graphs]
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}", "Check the path.") from None
    except (zipfile.BadZipFile, ValueError):
        raise SourceError(
            f"{path.name} is no exported program: it is not an archive (a pickle, or cut short?)", HINT
        ) from None
    if not graphs:
        kind = "a checkpoint or TorchScript of torch.save" if any(n.endswith("data.pkl") for n in names) else "empty"
        raise SourceError(f"{path.name} is no exported program: it holds no graph ({kind}?)", HINT)
    for name in names:
        if re.search(r"/constants/(custom|opaque)_obj_", name):
            raise SourceError(f"{path.name} holds an object that is more than a tensor: {name}", "It is not loaded.")
    for text in texts:
        try:
            _check(path, json.loads(text))
        except ValueError:
            raise SourceError(f"{path.name}: its graph is not JSON", HINT) from None


def _check(path: Path, node: Any, key: str = "") -> None:
    """Every string of the graph that torch would look up, compile or evaluate."""
    stack = [(key, node)]
    while stack:
        key, node = stack.pop()
        if isinstance(node, dict):
            stack += node.items()
        elif isinstance(node, list):
            stack += [(key, part) for part in node]
        elif isinstance(node, str) and not _harmless(key, node):
            raise SourceError(
                f"{path.name}: its graph has a {key} that is no operator or name of torch's: {node[:60]!r}",
                "It is not loaded, since loading would run it.",
            )


def _harmless(key: str, text: str) -> bool:
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
