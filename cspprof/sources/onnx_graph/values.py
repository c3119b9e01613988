"""The tensors of a graph while it is walked over, and the scopes of their names."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import Any

from onnx import AttributeProto, NodeProto, TensorProto, numpy_helper

from cspprof.core.tensors import TensorSpec

MAX_DEPTH = 64
"""How deep graphs in nodes and calls of functions may nest."""
MAX_READ = 2**20
"""Elements of the largest tensor that is searched for an element that is not zero."""


class UncountableError(Exception):
    """The work of a node depends on values that are known only when the graph runs, or is too long to be listed."""


class Origin(Enum):
    """Where the elements of a stored tensor come from."""

    INITIALIZER = "initializer"
    NODE = "a node Constant"
    GENERATED = "a node such as ConstantOfShape"


@dataclass(frozen=True)
class Stored:
    """A constant tensor of the file, or one that engines create when they load it."""

    name: str
    spec: TensorSpec
    origin: Origin
    tensor: TensorProto | None = None
    """The constant as it is in the file, if it is."""

    @cached_property
    def is_zero(self) -> bool:
        """Whether all elements are known to be zero."""
        if self.tensor is None or self.spec.numel > MAX_READ or self.tensor.data_location == TensorProto.EXTERNAL:
            return False
        try:
            return not numpy_helper.to_array(self.tensor).any()
        except (TypeError, ValueError):  # data that do not fit the shape, or a type that NumPy does not have
            return False


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the graph."""

    spec: TensorSpec
    storage: int
    sources: frozenset[int] | None = None
    """Of a constant: the stored tensors that it is computed from. None: an activation."""
    array: Any = None
    """The elements of a small constant."""
    stored_dtype: str = ""
    """Of a dequantized constant: the dtype in which it is stored."""

    @property
    def constant(self) -> bool:
        return self.sources is not None

    @property
    def stored_spec(self) -> TensorSpec:
        """The spec with the dtype in which the tensor is stored."""
        return TensorSpec(self.spec.shape, self.stored_dtype or self.spec.dtype)


@dataclass(frozen=True, slots=True)
class Scope:
    """The names that a node can read, and what else depends on the graph or function that contains the node."""

    place: str
    """The graph or function. Constants with the same name in the same place are the same tensor."""
    opsets: Mapping[str, int]
    values: ChainMap[str, Value]
    """A graph in a node also sees the names around the node; a function sees only its own."""
    declared: Mapping[str, TensorSpec]
    """The specs that the file declares for values of the graph."""
    read: frozenset[str]
    """The values that a node of the graph reads or the graph returns."""
    arguments: Mapping[str, AttributeProto] = field(default_factory=dict)
    """In a function: its attributes."""
    absent: frozenset[str] = frozenset()
    """In a function: the inputs that the call omits."""
    depth: int = 0
    layer: int = 0
    """The layer of nodes without a module path."""

    def bind(self, names: Iterable[str], results: Iterable[Value | None]) -> None:
        """Name the outputs of a node. Raises ValueError if one is None."""
        for name, value in zip(names, results, strict=False):
            if name and value is None:
                raise ValueError(f"no node inside it computes the output {name!r}")
            if name and value is not None:
                self.values[name] = value

    def inside(self, place: str, declared: Mapping[str, TensorSpec], read: frozenset[str], layer: int) -> Scope:
        """The scope of a graph in a node."""
        return replace(
            self, place=place, values=self.values.new_child(), declared=declared, read=read, depth=self.depth + 1,
            layer=layer,
        )  # fmt: skip

    def resolve(self, node: NodeProto) -> NodeProto:
        """The node as it runs: in a function with the attributes of the call, and without the inputs that it omits."""
        if self.absent.isdisjoint(node.input) and not any(a.ref_attr_name for a in node.attribute):
            return node
        resolved = NodeProto()
        resolved.CopyFrom(node)
        resolved.input[:] = ["" if name in self.absent else name for name in node.input]
        del resolved.attribute[:]
        for attribute in node.attribute:
            if not attribute.ref_attr_name:
                resolved.attribute.append(attribute)
            elif attribute.ref_attr_name in self.arguments:
                copy = resolved.attribute.add()
                copy.CopyFrom(self.arguments[attribute.ref_attr_name])
                copy.name = attribute.name
        return resolved
