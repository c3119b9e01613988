"""Read an ONNX file: the graph, its small constants, and the shapes of its inputs. Large weights are not read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import onnx
from onnx import (
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
)

from cspprof.core.errors import SourceError
from cspprof.core.inputs import Inputs, Value, arguments
from cspprof.core.tensors import TensorSpec
from cspprof.sources.onnx_graph.constant_folding import is_small

MAX_ELEMENTS = 2**63 - 1
MAX_DIMENSIONS = 64

DTYPES = {
    "FLOAT": "float32", "DOUBLE": "float64", "FLOAT16": "float16", "BFLOAT16": "bfloat16", "BOOL": "bool",
    "FLOAT8E4M3FN": "float8_e4m3fn", "FLOAT8E4M3FNUZ": "float8_e4m3fnuz", "FLOAT8E5M2": "float8_e5m2",
    "FLOAT8E5M2FNUZ": "float8_e5m2fnuz", "FLOAT8E8M0": "float8_e8m0fnu", "INT4": "int8", "UINT4": "uint8",
}  # fmt: skip


def dtype_of(elem_type: int) -> str:
    """Torch's name of an element type. A four-bit number counts as one byte. Raises SourceError for an unknown type."""
    try:
        name = str(TensorProto.DataType.Name(elem_type))
    except ValueError:
        raise SourceError(
            f"the file has a tensor of the element type {elem_type}, which the library onnx does not know",
            "Upgrade the library onnx, or check the download.",
        ) from None
    return DTYPES.get(name, name.lower())


def load_model(path: Path) -> ModelProto:
    """The model. Raises SourceError."""
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}", "Check the path.") from None
    except Exception as error:  # each implementation of protobuf has its own class
        reason = str(error).splitlines()[0] if str(error) else "empty"
        raise SourceError(
            f"{path.name} is not an ONNX file, or it is incomplete: {reason}",
            "Export it again, or check the download.",
        ) from None
    if not model.graph.node or not model.graph.output:
        raise SourceError(f"{path.name} contains no graph", "Export it again, or check the download.")
    for tensor in _tensors(model):
        _check_tensor(path, tensor)
    for role, values in (("input", model.graph.input), ("output", model.graph.output)):
        for value in values:
            if not_a_tensor(value.type):
                raise SourceError(
                    f"{path.name}: the {role} {value.name!r} is {not_a_tensor(value.type)}, not a tensor",
                    "Export the model with one tensor for each input and output.",
                )
    _use_short_domain(model)
    return model


def not_a_tensor(type_: TypeProto) -> str:
    """What a value is if it is no dense tensor, as a phrase; else an empty string."""
    names = {"sequence_type": "a sequence", "optional_type": "optional", "map_type": "a map",
             "sparse_tensor_type": "a sparse tensor"}  # fmt: skip
    return names.get(type_.WhichOneof("value") or "", "")


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every constant of the file: weights, attributes, and those in branches and functions."""
    nodes = [node for function in model.functions for node in function.node]
    graphs = [model.graph]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            nodes += graph.node
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices, TensorProto(name=sparse.values.name, dims=sparse.dims))
            continue
        node = nodes.pop()
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (
                *attribute.sparse_tensors,
                *([attribute.sparse_tensor] * attribute.HasField("sparse_tensor")),
            ):
                yield from (sparse.values, sparse.indices, TensorProto(name=sparse.values.name, dims=sparse.dims))
        graphs += [graph for _, graph in subgraphs(node)]


def _use_short_domain(model: ModelProto) -> None:
    """Write the domain of the standard operators as the empty string everywhere: `ai.onnx` is another name of it."""
    pending = [model.graph.node, *(function.node for function in model.functions)]
    for opset in (*model.opset_import, *(o for function in model.functions for o in function.opset_import)):
        if opset.domain == "ai.onnx":
            opset.domain = ""
    while pending:
        for node in pending.pop():
            if node.domain == "ai.onnx":
                node.domain = ""
            for attribute in node.attribute:
                pending += [graph.node for graph in (attribute.g, *attribute.graphs)]


def _check_tensor(path: Path, tensor: TensorProto) -> None:
    """Refuse impossible sizes, and external data outside the folder of the model: a file must not make cspprof read
    other files."""
    if len(tensor.dims) > MAX_DIMENSIONS or not is_possible(tensor_spec(tensor)):
        raise SourceError(
            f"{path.name}: the tensor {tensor.name!r} has the impossible shape {shape_text(tensor.dims[:8])}",
            "Export it again, or check the download.",
        )
    for entry in tensor.external_data:
        if entry.key == "location" and ("\0" in entry.value or not _is_inside(path.parent.resolve(), entry.value)):
            raise SourceError(
                f"{path.name}: the data of {tensor.name!r} lies outside its folder, at {entry.value!r}",
                "It is not read. Move it into the folder of the model.",
            )


def _is_inside(folder: Path, location: str) -> bool:
    try:
        return (folder / location).resolve().is_relative_to(folder)
    except (OSError, RuntimeError):  # a name that is too long, or a loop of links
        return False


def constant_array(tensor: TensorProto, folder: Path) -> Any:
    """The elements of a small constant; None if it is large or its data is not there."""
    spec = tensor_spec(tensor)
    if not is_small(spec):
        return None
    try:
        if tensor.data_location != TensorProto.EXTERNAL:
            return onnx.numpy_helper.to_array(tensor)
        entries = {entry.key: entry.value for entry in tensor.external_data}
        file = folder / entries["location"]
        if not file.is_file():
            return None
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        with file.open("rb") as stream:
            stream.seek(int(entries.get("offset", 0)))
            data = stream.read(spec.numel * dtype.itemsize)
        return numpy.frombuffer(data, dtype).reshape(spec.shape)
    except Exception:  # a missing file, or a type that NumPy does not have
        return None


def tensor_spec(tensor: TensorProto) -> TensorSpec:
    return TensorSpec(tuple(tensor.dims), dtype_of(tensor.data_type))


def sparse_spec(tensor: SparseTensorProto) -> TensorSpec:
    """The spec of the dense form."""
    return TensorSpec(tuple(tensor.dims), dtype_of(tensor.values.data_type))


def declared_specs(values: Iterable[ValueInfoProto]) -> dict[str, TensorSpec]:
    """The fully numeric shapes that the file declares for these values. A dimension of 0 is open."""
    specs = {v.name: spec_of(v.type) for v in values}
    return {n: s for n, s in specs.items() if s is not None and min(s.shape, default=1) > 0 and is_possible(s)}


def spec_of(type_: TypeProto) -> TensorSpec | None:
    """None unless it is a tensor, and every dimension is a number."""
    tensor = type_.tensor_type
    if not tensor.HasField("shape") or not all(d.HasField("dim_value") for d in tensor.shape.dim):
        return None
    return TensorSpec(tuple(d.dim_value for d in tensor.shape.dim), dtype_of(tensor.elem_type))


def is_possible(spec: TensorSpec) -> bool:
    """Whether a tensor can have this shape at all."""
    return len(spec.shape) <= MAX_DIMENSIONS and min(spec.shape, default=0) >= 0 and spec.numel <= MAX_ELEMENTS


def subgraphs(node: NodeProto) -> list[tuple[str, GraphProto]]:
    """The graphs in the attributes of a node, each with the name of the attribute."""
    return [
        (attribute.name, graph)
        for attribute in node.attribute
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
    ]


def values_read(graph: GraphProto | FunctionProto) -> frozenset[str]:
    """The names of all values that a node of the graph or of a graph inside it reads, and of all outputs."""
    names = set(graph.output) if isinstance(graph, FunctionProto) else {output.name for output in graph.output}
    for node in graph.node:
        names.update(node.input)
        for _, inner in subgraphs(node):
            names |= values_read(inner)
    return frozenset(names)


def input_specs(model: ModelProto, name: str, requested: Inputs | None) -> tuple[dict[str, TensorSpec], list[str]]:
    """The spec of each input, and notes on assumed dimensions. `name` is the model's in messages.

    `requested` (--input) may name inputs or list them in order. An open batch dimension is 1. Raises SourceError for
    any other open dimension, and for a shape that contradicts the graph.
    """
    weights = {t.name for t in model.graph.initializer}
    declared = [v for v in model.graph.input if v.name not in weights]
    shapes = _requested_shapes(name, [v.name for v in declared], requested)
    specs, notes = {}, []
    for value in declared:
        dims, dtype = _dims(value), dtype_of(value.type.tensor_type.elem_type)
        open_dims = [i for i, d in enumerate(dims) if isinstance(d, str)]
        if value.name in shapes:
            shape = shapes[value.name]
            if len(shape) != len(dims) or any(i not in open_dims and shape[i] != d for i, d in enumerate(dims)):
                raise SourceError(
                    f"{name}: the input {value.name!r} is {shape_text(dims)}, not {shape_text(shape)}",
                    "Only dimensions that have a name instead of a number can change.",
                )
            specs[value.name] = TensorSpec(shape, dtype)
            continue
        if open_dims not in ([], [0]):
            example = "x".join("224" if i in open_dims[-2:] and len(dims) == 4 else "1" if i in open_dims else str(d)
                               for i, d in enumerate(dims))  # fmt: skip
            raise SourceError(
                f"{name}: the input {value.name!r} is {shape_text(dims)}, which leaves dimensions open",
                f"Give them: --input {value.name}={example}",
            )
        if open_dims:
            notes.append(f"the batch size of input {value.name!r} is open: 1 is assumed (--input changes it)")
        specs[value.name] = TensorSpec(tuple(1 if isinstance(d, str) else d for d in dims), dtype)
    return specs, notes


def _requested_shapes(name: str, declared: list[str], requested: Inputs | None) -> dict[str, tuple[int, ...]]:
    if requested is None:
        return {}

    def refuse(value: Value) -> None:
        raise SourceError(f"{name} takes tensors only, not the value {value.value!r}", "Write: --input 1x3x224x224")

    args, kwargs = arguments(requested, lambda tensor: tuple(tensor.shape), refuse)
    unknown = [key for key in kwargs if key not in declared]
    if unknown or len(args) > len(declared):
        raise SourceError(
            f"{name} has no input {unknown[0]!r}" if unknown else f"{name} has only {len(declared)} inputs",
            f"There are: {', '.join(declared)}",
        )
    return dict(zip(declared, args, strict=False)) | kwargs


def _dims(value: ValueInfoProto) -> list[int | str]:
    """The dimensions of an input; an open one is its name, or `?`."""
    return [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else d.dim_param or "?"
            for d in value.type.tensor_type.shape.dim]  # fmt: skip


def shape_text(shape: Sequence[int | str]) -> str:
    return "×".join(map(str, shape)) or "scalar"
