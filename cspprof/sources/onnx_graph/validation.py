"""Checks of a whole ONNX file before anything is computed from it: its names, the shapes of its tensors, and where its
data lies.

protobuf reads any bytes as names, and any numbers as sizes. Nothing behind `check_model` meets a name that is no text,
a tensor that cannot exist, or data outside the folder of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto

from cspprof.core.errors import SourceError
from cspprof.core.tensors import MAX_DIMENSIONS, is_possible, is_possible_shape
from cspprof.core.units import shortened
from cspprof.sources.onnx_graph.protos import dtype_of, not_a_tensor, shape_text, subgraphs, tensor_spec

MAX_NODES = 200_000
"""Nodes of a file, with those of its functions and of graphs in nodes."""
MAX_NAME = 10_000
"""Characters of a name."""
SHOWN = 80
"""Characters of a name that a message repeats."""
REPAIR = "Export it again, or check the download."
LARGEST = 2**31 - 1
_RANK = (-MAX_DIMENSIONS, MAX_DIMENSIONS)
RANGES = {
    "kernel_shape": (1, LARGEST), "strides": (1, LARGEST), "dilations": (1, LARGEST), "group": (1, LARGEST),
    "pads": (-LARGEST, LARGEST), "axis": _RANK, "axes": _RANK, "perm": _RANK, "hidden_size": (1, LARGEST),
    "num_groups": (1, LARGEST), "blocksize": (1, LARGEST), "num_outputs": (1, LARGEST),
}  # fmt: skip
"""The numbers that attributes may have. The library `onnx` divides by some, and cuts others to 32 bits."""


def check_model(path: Path, model: ModelProto) -> None:
    """Raise SourceError, with the name of the part, unless every part of the file can exist."""
    checker = _Checker(path)
    pending: list[GraphProto | FunctionProto] = [model.graph, *model.functions]
    checker.texts("its operator sets", [opset.domain for opset in model.opset_import])
    nodes = 0
    while pending:
        graph = pending.pop()
        nodes += len(graph.node)
        if nodes > MAX_NODES:
            raise SourceError(f"{path.name} has more than {MAX_NODES:,} nodes", REPAIR)
        checker.names(graph)
        for node in graph.node:
            checker.node(node)
            pending += [inner for _, inner in subgraphs(node)]
    for role, values in (("input", model.graph.input), ("output", model.graph.output)):
        for value in values:
            checker.argument(role, value)


class _Checker:
    """Checks parts of one file. Each method raises SourceError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = path.parent.resolve()

    def texts(self, where: str, texts: Iterable[Any]) -> None:
        """Names must be text: protobuf gives those that are not UTF-8 as bytes."""
        for text in texts:
            if not isinstance(text, str) or len(text) > MAX_NAME:
                shown = f"{text[:SHOWN]!r}"
                fault = f"is longer than {MAX_NAME:,} characters" if isinstance(text, str) else "is not text in UTF-8"
                raise SourceError(f"{self.path.name}: the name {shown} in {where} {fault}", REPAIR)

    def element_type(self, number: int) -> None:
        try:
            dtype_of(number)
        except ValueError as error:
            raise SourceError(
                f"{self.path.name}: {error}", "Upgrade the library onnx, or check the download."
            ) from None

    def names(self, graph: GraphProto | FunctionProto) -> None:
        """The names of a graph or a function, and its tensors."""
        where = f"the graph {graph.name!r}"
        self.texts(where, [graph.name])
        if isinstance(graph, FunctionProto):
            where = f"the function {graph.name!r}"
            self.texts(where, [graph.domain, graph.overload, *graph.input, *graph.output, *graph.attribute])
            self.texts(where, [opset.domain for opset in graph.opset_import])
            values = list(graph.value_info)
            for attribute in graph.attribute_proto:
                self.attribute(where, attribute)
        else:
            values = [*graph.input, *graph.output, *graph.value_info]
            for tensor in (*graph.initializer, *_parts(graph.sparse_initializer)):
                self.tensor(tensor)
        for value in values:
            self.texts(where, [value.name])
            self.element_type(value.type.tensor_type.elem_type)
            if len(value.type.tensor_type.shape.dim) > MAX_DIMENSIONS:
                raise SourceError(
                    f"{self.path.name}: the value {shortened(value.name, SHOWN)!r} has more than {MAX_DIMENSIONS} "
                    "dimensions",
                    REPAIR,
                )
            self.texts(where, [d.dim_param for d in value.type.tensor_type.shape.dim])

    def node(self, node: NodeProto) -> None:
        where = f"the node {shortened(str(node.name or next(iter(node.output), '?')), SHOWN)!r}"
        self.texts(where, [node.name, node.op_type, node.domain, node.overload, *node.input, *node.output])
        for pair in node.metadata_props:
            if not isinstance(pair.key, str) or not isinstance(pair.value, str):
                raise SourceError(f"{self.path.name}: the metadata of {where} are not text in UTF-8", REPAIR)
        for attribute in node.attribute:
            self.attribute(where, attribute)

    def attribute(self, where: str, attribute: Any) -> None:
        self.texts(where, [attribute.name, attribute.ref_attr_name])
        if attribute.HasField("t"):
            self.tensor(attribute.t)
        for tensor in attribute.tensors:
            self.tensor(tensor)
        sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for tensor in _parts((*sparse, *attribute.sparse_tensors)):
            self.tensor(tensor)

    def tensor(self, tensor: TensorProto) -> None:
        """A tensor that can exist, with its data in the file or in the folder of the file."""
        self.texts("a tensor", [tensor.name])
        self.element_type(tensor.data_type)
        name = shortened(tensor.name, SHOWN)
        if not is_possible_shape(tensor.dims) or not is_possible(tensor_spec(tensor)):
            raise SourceError(
                f"{self.path.name}: the tensor {name!r} has the impossible shape {shape_text(tensor.dims[:8])}", REPAIR
            )
        for entry in tensor.external_data:
            fault = "is not text in UTF-8"
            if isinstance(entry.key, str) and isinstance(entry.value, str):
                fault = misplaced(self.folder, entry.value) if entry.key == "location" else ""
            if fault:
                shown = f"{entry.value[:SHOWN]!r}"
                raise SourceError(
                    f"{self.path.name}: the data of {name!r} {fault}, at {shown}",
                    "It is not read. Move it into the folder of the model.",
                )

    def argument(self, role: str, value: ValueInfoProto) -> None:
        """An input or an output of the model must be a tensor."""
        kind = not_a_tensor(value.type)
        if kind or (role == "input" and not _has_element_type(value.type)):
            raise SourceError(
                f"{self.path.name}: the {role} {value.name!r} is {kind or 'of no type'}, not a tensor",
                "Export the model with one tensor for each input and output.",
            )


def _has_element_type(type_: TypeProto) -> bool:
    return int(type_.tensor_type.elem_type) != TensorProto.UNDEFINED


def _parts(sparse_tensors: Iterable[Any]) -> Iterator[TensorProto]:
    """The tensors of sparse tensors, and one with the shape of the dense form."""
    for sparse in sparse_tensors:
        yield from (sparse.values, sparse.indices)
        dense = TensorProto(dims=sparse.dims, data_type=sparse.values.data_type)
        if isinstance(sparse.values.name, str):
            dense.name = sparse.values.name
        yield dense


def misplaced(folder: Path, location: str) -> str:
    """Why the data at a location is not read, as a phrase; an empty string if it is in the folder. A link leads out of
    the folder, or may do so when the data is read."""
    outside = "lies outside its folder"
    windows, posix = PureWindowsPath(location), PurePosixPath(location)
    if "\0" in location or windows.drive or windows.root or posix.is_absolute():
        return outside
    if ".." in windows.parts or ".." in posix.parts or not posix.parts:
        return outside
    place = folder
    try:
        for part in posix.parts:
            place /= part
            if place.is_symlink():
                return "is behind a link, which is not followed"
    except OSError:  # a name that is too long
        return outside
    return ""


def check_attributes(node: NodeProto, attributes: dict[str, Any]) -> None:
    """Raise ValueError for a number that no engine accepts, such as a stride of 0."""
    outputs = attributes.get("num_outputs", len(node.output))
    if node.op_type == "Split" and outputs != len(node.output):  # the library would read past the end of a list
        raise ValueError(f"the attribute num_outputs is {outputs}, but it has {len(node.output)} outputs")
    equation = attributes.get("equation", "")
    if node.op_type == "Einsum" and not _is_equation(str(equation)):  # the library would search it for ever
        raise ValueError(f"the attribute equation is {shortened(repr(equation), SHOWN)}")
    for name in RANGES.keys() & attributes.keys():
        value, (smallest, largest) = attributes[name], RANGES[name]
        numbers = value if isinstance(value, tuple) else (value,)
        if len(numbers) > 2 * MAX_DIMENSIONS or not all(
            isinstance(n, int) and smallest <= n <= largest for n in numbers
        ):
            raise ValueError(f"the attribute {name} is {shortened(shape_text(numbers), SHOWN)}")


def _is_equation(text: str) -> bool:
    """Whether the text is terms of letters, each with at most one `...`, as in `bij,bjk->bik`."""
    operands, _, result = text.replace(" ", "").partition("->")
    subscripts = "".join(term.replace("...", "", 1) for term in (*operands.split(","), result))
    return not subscripts or (subscripts.isascii() and subscripts.isalpha())
