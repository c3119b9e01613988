"""An ONNX file as a graph whose inputs have one shape each. Nothing of it is run, and big weights are not read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto
from onnx.inliner import inline_local_functions

from cspprof.core.errors import SourceError
from cspprof.core.inputs import Inputs, arguments
from cspprof.core.record import TensorSpec
from cspprof.sources.spec import Spec

SMALL = 65_536
"""Bytes of a constant that is read where a shape may depend on it."""

DTYPES = {
    "FLOAT": "float32", "DOUBLE": "float64", "FLOAT16": "float16", "BFLOAT16": "bfloat16", "BOOL": "bool",
    "FLOAT8E4M3FN": "float8_e4m3fn", "FLOAT8E4M3FNUZ": "float8_e4m3fnuz", "FLOAT8E5M2": "float8_e5m2",
    "FLOAT8E5M2FNUZ": "float8_e5m2fnuz", "FLOAT8E8M0": "float8_e8m0fnu", "INT4": "int8", "UINT4": "uint8",
}  # fmt: skip


def dtype_of(elem_type: int) -> str:
    """torch's name of an element type. Four-bit numbers count as a byte each."""
    name = str(TensorProto.DataType.Name(elem_type))
    return DTYPES.get(name, name.lower())


def read(spec: Spec) -> ModelProto:
    """The model, its local functions in place of their calls. Raises SourceError."""
    path = Path(spec.target)
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}", "Check the path.") from None
    except Exception as error:  # protobuf has one class for each of its implementations
        raise SourceError(
            f"{path.name} is no ONNX file, or cut short: {str(error).splitlines()[0] if str(error) else 'empty'}",
            "Export it again, or check the download.",
        ) from None
    if not model.graph.node or not model.graph.output:
        raise SourceError(f"{path.name} holds no graph", "Is it an ONNX model, and whole?")
    for tensor in _tensors(model):
        _check_location(path, tensor)
    if model.functions:
        model = inline_local_functions(model)
    return model


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every constant of the file, wherever it stands: weights, attributes, branches, functions."""
    nodes = [node for function in model.functions for node in function.node]
    graphs = [model.graph]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            nodes += graph.node
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            continue
        for attribute in nodes.pop().attribute:
            yield from (attribute.t, *attribute.tensors)
            graphs += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]


def _check_location(path: Path, tensor: TensorProto) -> None:
    """External data may lie in the model's folder only, whoever wrote the file."""
    for entry in tensor.external_data:
        if entry.key != "location":
            continue
        folder = path.parent.resolve()
        place = (folder / entry.value).resolve()
        if not place.is_relative_to(folder):
            raise SourceError(
                f"{path.name}: the data of {tensor.name!r} lies outside its folder, at {entry.value!r}",
                "It is not read. Put it beside the model.",
            )


def value_of(tensor: TensorProto, folder: Path) -> Any:
    """A small constant as an array; None for one that is large, or whose data is not there."""
    spec = TensorSpec(tuple(tensor.dims), "int8")
    if spec.numel * 8 > SMALL:
        return None
    try:
        return onnx.numpy_helper.to_array(tensor, str(folder))
    except Exception:  # a missing file, a type that NumPy has not
        return None


def input_specs(spec: Spec, model: ModelProto, asked: Inputs | None) -> tuple[dict[str, TensorSpec], list[str]]:
    """The shape of each input, and notes on what was assumed.

    `asked` (--input) may name inputs or give them in order; a batch that nobody settles is 1. Raises SourceError for
    another dimension that nobody settles, and for a shape that contradicts the graph.
    """
    weights = {t.name for t in model.graph.initializer}
    declared = [v for v in model.graph.input if v.name not in weights]
    given = _given(spec, declared, asked)
    specs, notes = {}, []
    for value in declared:
        shape, dtype = _dims(value), dtype_of(value.type.tensor_type.elem_type)
        if value.name in given:
            wanted = given[value.name]
            pairs = list(zip(shape, wanted, strict=False))
            fits = len(wanted) == len(shape) and all(isinstance(d, str) or d == w for d, w in pairs)
            if not fits:
                raise SourceError(
                    f"{spec.target}: the input {value.name!r} is {_shown(shape)}, not {_shown(wanted)}",
                    "Only dimensions with a name in place of a number can change.",
                )
            specs[value.name] = TensorSpec(tuple(wanted), dtype)
            continue
        open_ = [i for i, d in enumerate(shape) if isinstance(d, str)]
        if open_ not in ([], [0]):
            example = "x".join("224" if i in open_[-2:] and len(shape) == 4 else "1" if isinstance(d, str) else str(d)
                               for i, d in enumerate(shape))  # fmt: skip
            raise SourceError(
                f"{spec.target}: the input {value.name!r} is {_shown(shape)}, which leaves dimensions open",
                f"Say them: --input {value.name}={example}",
            )
        if open_:
            notes.append(f"the batch of input {value.name!r} is open: 1 is assumed (--input changes it)")
        specs[value.name] = TensorSpec(tuple(1 if isinstance(d, str) else d for d in shape), dtype)
    return specs, notes


def _given(spec: Spec, declared: list[ValueInfoProto], asked: Inputs | None) -> dict[str, tuple[int, ...]]:
    if asked is None:
        return {}
    args, named = arguments(asked, lambda leaf: tuple(leaf.shape))
    names = [v.name for v in declared]
    unknown = [name for name in named if name not in names]
    if unknown or len(args) > len(names):
        raise SourceError(
            f"{spec.target} has no input {unknown[0]!r}" if unknown else f"{spec.target} has {len(names)} inputs",
            f"There are: {', '.join(names)}",
        )
    return dict(zip(names, args, strict=False)) | named


def _dims(value: ValueInfoProto) -> list[int | str]:
    return [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else d.dim_param or "?"
            for d in value.type.tensor_type.shape.dim]  # fmt: skip


def _shown(shape: Any) -> str:
    return "×".join(map(str, shape)) or "scalar"
