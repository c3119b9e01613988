"""Parts of an ONNX file: the specs of its tensors, and the graphs within nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onnx import FunctionProto, GraphProto, NodeProto, SparseTensorProto, TensorProto, TypeProto, ValueInfoProto

from cspprof.core.tensors import MAX_DIMENSIONS, TensorSpec, is_possible

DTYPES = {
    "FLOAT": "float32", "DOUBLE": "float64", "FLOAT16": "float16", "BFLOAT16": "bfloat16", "BOOL": "bool",
    "FLOAT8E4M3FN": "float8_e4m3fn", "FLOAT8E4M3FNUZ": "float8_e4m3fnuz", "FLOAT8E5M2": "float8_e5m2",
    "FLOAT8E5M2FNUZ": "float8_e5m2fnuz", "FLOAT8E8M0": "float8_e8m0fnu", "INT4": "int8", "UINT4": "uint8",
}  # fmt: skip


def dtype_of(elem_type: int) -> str:
    """Torch's name of an element type. A four-bit number counts as one byte. Raises ValueError for an unknown type."""
    try:
        name = str(TensorProto.DataType.Name(elem_type))
    except ValueError:
        raise ValueError(f"a tensor has the element type {elem_type}, which the library onnx does not know") from None
    return DTYPES.get(name, name.lower())


def tensor_spec(tensor: TensorProto) -> TensorSpec:
    return TensorSpec(tuple(tensor.dims), dtype_of(tensor.data_type))


def sparse_spec(tensor: SparseTensorProto) -> TensorSpec:
    """The spec of the dense form."""
    return TensorSpec(tuple(tensor.dims), dtype_of(tensor.values.data_type))


def spec_of(type_: TypeProto) -> TensorSpec | None:
    """None unless it is a tensor of few enough dimensions, and every dimension is a number."""
    tensor = type_.tensor_type
    if (
        not tensor.HasField("shape")
        or len(tensor.shape.dim) > MAX_DIMENSIONS
        or not all(d.HasField("dim_value") for d in tensor.shape.dim)
    ):
        return None
    return TensorSpec(tuple(d.dim_value for d in tensor.shape.dim), dtype_of(tensor.elem_type))


def declared_specs(values: Iterable[ValueInfoProto]) -> dict[str, TensorSpec]:
    """The fully numeric shapes that the file declares for these values. A dimension of 0 is open."""
    specs = {v.name: spec_of(v.type) for v in values}
    return {n: s for n, s in specs.items() if s is not None and min(s.shape, default=1) > 0 and is_possible(s)}


def not_a_tensor(type_: TypeProto) -> str:
    """The kind of a value that is no dense tensor, as a phrase; an empty string for a dense tensor."""
    names = {"sequence_type": "a sequence", "optional_type": "optional", "map_type": "a map",
             "sparse_tensor_type": "a sparse tensor"}  # fmt: skip
    return names.get(type_.WhichOneof("value") or "", "")


def subgraphs(node: NodeProto) -> list[tuple[str, GraphProto]]:
    """The graphs in the attributes of a node, each with the name of the attribute."""
    return [
        (attribute.name, graph)
        for attribute in node.attribute
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
    ]


def passed_values(graph: GraphProto) -> int:
    """How many values a run of a graph within a node begins and ends with."""
    return len(graph.input) + len(graph.output) + len(graph.initializer) + len(graph.sparse_initializer)


def values_read(graph: GraphProto | FunctionProto) -> frozenset[str]:
    """The names of all values that a node of the graph or of a graph inside it reads, and of all outputs."""
    names = set(graph.output) if isinstance(graph, FunctionProto) else {output.name for output in graph.output}
    for node in graph.node:
        names.update(node.input)
        for _, inner in subgraphs(node):
            names |= values_read(inner)
    return frozenset(names)


def shape_text(shape: Sequence[int | str]) -> str:
    return "×".join(map(str, shape)) or "scalar"
