"""`TensorMeta` of torch's tensors, and the tag that a trace attaches to each tensor that it meets."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch

from cspprof.core.errors import TraceError
from cspprof.core.formulas import contiguous_strides
from cspprof.core.tensors import TensorMeta, tensor_meta

META_DEVICE = torch.device("meta")
MKLDNN: torch.layout = torch._mkldnn  # type: ignore[attr-defined]  # not in the stubs of torch
"""The layout of oneDNN, whose tensors have no memory that Python can see."""
DENSE = frozenset({torch.strided, MKLDNN})
"""Layouts that store each element of a tensor."""


class TensorTag(NamedTuple):
    """What a trace knows about a tensor. It lies in the tensor's `__dict__`, or in a table for the model's tensors."""

    trace: object
    """The trace that attached the tag. A tag of another trace is ignored."""
    storage: int
    meta: TensorMeta
    constant: bool
    """Whether the values are known during a trace on meta: the tensor was computed from constants only."""
    view: tuple[int, int] | None = None
    """For a view, the recorded call that made it and which of its outputs it is."""
    detached: bool = False
    """Whether the forward detached the tensor: it passes no gradient to the operation that wrote its storage."""
    without_gradient: bool = False
    """Whether the tensor is a view that was made while gradients were off. It passes none either, unless a
    `torch.autograd.Function` made it."""


@cache
def dtype_name(dtype: torch.dtype) -> str:
    """The name that a record uses: `float32`."""
    return str(dtype).removeprefix("torch.")


@cache
def torch_dtype(name: str) -> torch.dtype:
    """The dtype that a record calls `name`."""
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def empty_tensor(meta: TensorMeta) -> torch.Tensor:
    """A new tensor on the meta device with this shape, these strides and this dtype."""
    return torch.empty_strided(meta.shape, meta.strides, dtype=torch_dtype(meta.dtype), device=META_DEVICE)


_BY_TORCH_FACTS: dict[tuple[Any, ...], TensorMeta] = {}


def meta_of(tensor: torch.Tensor, weight: bool = False) -> TensorMeta:
    """The `TensorMeta` of a tensor. Raises TraceError for a nested tensor, which has no single shape."""
    try:
        # A Size hashes like a tuple. The layout is part of the key: a sparse tensor may report strides of 0, as an
        # expanded tensor does.
        key = (tensor.shape, tensor.stride(), tensor.dtype, weight, tensor.layout)
        found = _BY_TORCH_FACTS.get(key)
    except (RuntimeError, TypeError):  # a layout without strides, or symbolic sizes
        return _meta_of(tensor, weight)
    return found or _BY_TORCH_FACTS.setdefault(key, _meta_of(tensor, weight))


def nested_error() -> TraceError:
    """The error to raise for a nested tensor of layout strided."""
    return TraceError(
        "a nested tensor has no single shape, so operations on it cannot be counted",
        "Use nested tensors of layout torch.jagged: torch.nested.nested_tensor([…], layout=torch.jagged)",
    )


def _meta_of(tensor: torch.Tensor, weight: bool) -> TensorMeta:
    if tensor.is_nested:
        raise nested_error()
    shape = tuple(tensor.shape)
    strides = tensor.stride() if tensor.layout is torch.strided else contiguous_strides(shape)
    return tensor_meta(shape, strides, dtype_name(tensor.dtype), weight, tensor.layout in DENSE)
