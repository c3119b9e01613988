"""Tensors without data: `TensorSpec` and `Tensor` of a record, `TensorMeta` of a trace and of output rules."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from operator import itemgetter
from typing import Any, NamedTuple, Self

from cspprof.core.formulas import contiguous_strides

ITEM_SIZES = {
    "bool": 1, "uint8": 1, "int8": 1, "quint8": 1, "qint8": 1, "qint32": 4,
    "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8, "uint64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8,
    "float8_e4m3fn": 1, "float8_e4m3fnuz": 1, "float8_e5m2": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1,
    "complex32": 4, "bcomplex32": 4, "complex64": 8, "complex128": 16, "bits16": 2,
}  # fmt: skip
"""Bytes of one element, by the name of the dtype. Other dtypes, of less than eight bits, use one byte."""


class _Elements(NamedTuple):
    shape: tuple[int, ...]
    dtype: str
    numel: int
    nbytes: int


class TensorSpec(_Elements):
    """Shape and dtype of a tensor, with its number of elements and bytes. An image batch has shape (N, C, H, W).

    A tuple, because a record has thousands.
    """

    __slots__ = ()
    __match_args__ = ("shape", "dtype")

    def __new__(cls, shape: tuple[int, ...], dtype: str = "float32") -> Self:
        numel = prod(shape)
        return tuple.__new__(cls, (shape, dtype, numel, numel * ITEM_SIZES.get(dtype, 1)))

    def __str__(self) -> str:
        return "×".join(map(str, self.shape)) or "scalar"

    def __repr__(self) -> str:
        fields = zip(self.__match_args__, self.__getnewargs__(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in fields)})"

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__match_args__)

    def _replace(self, **changes: Any) -> Self:
        return type(self)(**dict(zip(self.__match_args__, self.__getnewargs__(), strict=True)) | changes)


MAX_DIMENSIONS = 64
MAX_BYTES = 2**63 - 1
"""The largest tensor that torch can describe."""


def is_possible(spec: TensorSpec) -> bool:
    """Whether a tensor can have this shape at all."""
    return is_possible_shape(spec.shape) and spec.nbytes <= MAX_BYTES


def is_possible_shape(shape: Sequence[int]) -> bool:
    """Whether there are few enough dimensions, none is negative, and each is a number of 63 bits."""
    return len(shape) <= MAX_DIMENSIONS and all(0 <= n <= MAX_BYTES for n in shape)


class Tensor(TensorSpec):
    """A tensor that a call reads or writes: a spec and the id of its storage."""

    __slots__ = ()
    __match_args__ = ("shape", "dtype", "storage")

    def __new__(cls, shape: tuple[int, ...], dtype: str = "float32", storage: int = -1) -> Self:
        return tuple.__new__(cls, (*TensorSpec(shape, dtype), storage))

    storage = property(itemgetter(4))


class TensorMeta:
    """Shape, strides and dtype of a tensor of a traced forward, and whether its storage belongs to a weight.

    Interned by `tensor_meta`: equal values give the same object, so it hashes by identity and cache keys are cheap. A
    sparse tensor has `dense=False`, and the shape and strides of its dense form.
    """

    __slots__ = ("contiguous", "dense", "dtype", "is_complex", "is_floating", "shape", "spec", "strides", "weight")

    def __init__(self, shape: tuple[int, ...], strides: tuple[int, ...], dtype: str, weight: bool, dense: bool) -> None:
        self.shape = shape
        self.strides = strides
        self.dtype = dtype
        self.weight = weight
        self.dense = dense
        self.spec = TensorSpec(shape, dtype)
        self.contiguous = strides == contiguous_strides(shape)
        self.is_complex = "complex" in dtype
        self.is_floating = "float" in dtype


_INTERNED: dict[tuple[Any, ...], TensorMeta] = {}


def tensor_meta(
    shape: tuple[int, ...], strides: tuple[int, ...], dtype: str, weight: bool = False, dense: bool = True
) -> TensorMeta:
    """The interned `TensorMeta` with these values."""
    key = (shape, strides, dtype, weight, dense)
    found = _INTERNED.get(key)
    return found or _INTERNED.setdefault(key, TensorMeta(*key))


def contiguous_meta(shape: tuple[int, ...], dtype: str) -> TensorMeta:
    """The `TensorMeta` of a contiguous activation."""
    return tensor_meta(shape, contiguous_strides(shape), dtype)
