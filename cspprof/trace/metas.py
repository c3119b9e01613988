"""What the tracer knows of a tensor and of an operator, worked out once and interned.

Interning makes a memo key cheap: two tensors of the same shape, strides and dtype carry the *same* `Meta`, whose
hash is its address.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache, cached_property, lru_cache
from itertools import repeat
from operator import attrgetter, is_
from typing import Any, NamedTuple

import torch

from cspprof.errors import TraceError
from cspprof.formulas import contiguous_strides
from cspprof.record import TensorSpec

# Schema names of arguments that hold learned or saved values, whatever tensor stands there.
WEIGHT_NAMES = frozenset({"weight", "bias", "running_mean", "running_var"})


META = torch.device("meta")
SHAPE, STRIDE, DTYPE, LAYOUT = attrgetter("shape"), torch.Tensor.stride, attrgetter("dtype"), attrgetter("layout")


@cache
def name_of(dtype: torch.dtype) -> str:
    """As a record has it: `float32`."""
    return str(dtype).removeprefix("torch.")


strides_of = lru_cache(4096)(contiguous_strides)


class Meta:
    """Shape, strides and dtype of a tensor, and whether it lies in a parameter or buffer. Interned: see `meta`.

    A sparse tensor has no strides that mean anything: `dense` is false, and the spec is that of its dense form.
    """

    __slots__ = ("contiguous", "dense", "dtype", "shape", "spec", "strides", "weight")

    def __init__(
        self, shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype, weight: bool, dense: bool
    ) -> None:
        self.shape = shape
        self.strides = strides
        self.dtype = dtype
        self.weight = weight
        self.dense = dense
        self.spec = TensorSpec(shape, name_of(dtype))
        self.contiguous = strides == strides_of(shape)

    def empty(self) -> torch.Tensor:
        """A fresh meta tensor of this shape, these strides and this dtype."""
        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device=META)


_METAS: dict[tuple[Any, ...], Meta] = {}


def meta(
    shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype, weight: bool = False, dense: bool = True
) -> Meta:
    """The one `Meta` of these facts."""
    key = (shape, strides, dtype, weight, dense)
    found = _METAS.get(key)
    if found is None:
        found = _METAS.setdefault(key, Meta(shape, strides, dtype, weight, dense))
    return found


_DENSE: dict[tuple[Any, ...], Meta] = {}


def dense(shape: tuple[int, ...], dtype: torch.dtype) -> Meta:
    """That of a contiguous activation."""
    key = (shape, dtype)
    found = _DENSE.get(key)
    if found is None:
        found = _DENSE[key] = meta(shape, strides_of(shape), dtype)
    return found


def meta_of(tensor: torch.Tensor, weight: bool = False) -> Meta:
    """Raises TraceError for a nested tensor, which has no one shape."""
    try:
        # A Size hashes as a tuple. A sparse tensor may say that its strides are 0, as those of an expanded one are.
        return _METAS[(tensor.shape, tensor.stride(), tensor.dtype, weight, tensor.layout is torch.strided)]
    except (KeyError, RuntimeError, TypeError):  # of a new kind, or without strides or a shape
        return _meta_of(tensor, weight)


def _meta_of(tensor: torch.Tensor, weight: bool) -> Meta:
    if tensor.is_nested:
        raise TraceError(
            "a nested tensor has no one shape, so what is done with it cannot be counted",
            "Trace with padded tensors, or use nested tensors of layout torch.jagged.",
        )
    dense = tensor.layout is torch.strided
    shape = tuple(tensor.shape)
    return meta(shape, tensor.stride() if dense else contiguous_strides(shape), tensor.dtype, weight, dense)


def metas_of(tensors: Sequence[torch.Tensor]) -> list[Meta]:
    """Of what a model holds, all at once."""
    strided = map(is_, map(LAYOUT, tensors), repeat(torch.strided))
    facts = zip(map(SHAPE, tensors), map(STRIDE, tensors), map(DTYPE, tensors), repeat(True), strided)
    try:
        found = list(map(_METAS.get, facts))
    except (RuntimeError, TypeError):  # one is without strides or a shape
        found = [None] * len(tensors)
    return [m or meta_of(tensor, True) for m, tensor in zip(found, tensors, strict=True)]


class Tag(NamedTuple):
    """What a trace knows of a tensor object; kept on the tensor itself, or in a table for the model's own."""

    owner: object
    """The trace: a tag left over from another one is not believed."""
    storage: int
    meta: Meta
    constant: bool
    """Values known while tracing on meta: made from nothing but other constants."""


class Operator:
    """An aten overload's schema, read once."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self.target = schema.name.replace("::", ".")
        self.torchs_own = schema.name.partition("::")[0] in ("aten", "prim", "prims", "profiler")
        arguments = schema.arguments
        self.names = tuple([a.name for a in arguments])
        written = [a for a in arguments if a.alias_info is not None and a.alias_info.is_write]
        self.written = tuple([a.name for a in written])
        self.outs = tuple([a.name for a in written if a.kwarg_only])
        """Written and never read: `out=` of torch's own operations."""
        name = self.target.rpartition(".")[2]
        self.makes_like = name.startswith("new_") or name.endswith("_like")
        """Reads only the shape of what it is given."""
        self.in_place = self.written[:1] == self.names[:1] != ()
        self.plain = self.target.rstrip("_")
        """The target without the in-place underscore: `aten.relu_` -> `aten.relu`."""

    @cached_property
    def func(self) -> Any:
        """What torch calls."""
        space, _, name = self.schema.name.partition("::")
        return getattr(getattr(getattr(torch.ops, space), name), self.schema.overload_name or "default")

    @cached_property
    def views(self) -> bool:
        return not self.written and any(r.alias_info is not None for r in self.schema.returns)

    @cached_property
    def pointwise(self) -> bool:
        return torch.Tag.pointwise in self.func.tags

    @cached_property
    def reshapes(self) -> bool:
        """Whether it writes no element: `squeeze_`, `transpose_` …"""
        return torch.Tag.inplace_view in self.func.tags

    @cached_property
    def composite(self) -> bool:
        """Whether it is made of other operations, by its own registration."""
        return bool(self.func._can_decompose())


class HigherOrder(Operator):
    """An operator that takes functions, such as flex_attention: no schema, but a signature."""

    def __init__(self, func: Any) -> None:
        self.func = func
        self.target = self.plain = f"higher_order.{func.name()}"
        self.names = tuple(inspect.signature(type(func).__call__).parameters)[1:]
        self.written = self.outs = ()
        self.torchs_own = True
        self.makes_like = self.in_place = self.views = self.pointwise = self.reshapes = self.composite = False


_OPERATORS: dict[int, Operator] = {}


def operator(func: Any) -> Operator:
    found = _OPERATORS.get(id(func))
    if found is None:
        found = Operator(func._schema) if isinstance(func, torch._ops.OpOverload) else HigherOrder(func)
        found.func = func  # held: its id stays taken
        _OPERATORS[id(func)] = found
    return found
