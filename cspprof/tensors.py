"""Tensors without their data, as the record holds them."""

from __future__ import annotations

from math import prod
from operator import itemgetter
from typing import Any, NamedTuple, Self

ITEM_SIZES = {
    "bool": 1, "uint8": 1, "int8": 1, "quint8": 1, "qint8": 1, "qint32": 4,
    "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8, "uint64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8,
    "float8_e4m3fn": 1, "float8_e4m3fnuz": 1, "float8_e5m2": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1,
    "complex32": 4, "complex64": 8, "complex128": 16,
}  # fmt: skip
"""Bytes of one element, by torch's name of the dtype without its prefix."""


class _Elements(NamedTuple):
    shape: tuple[int, ...]
    dtype: str
    numel: int


class TensorSpec(_Elements):
    """A tensor without its data. `shape` as torch writes it, (N, C, H, W) for an image batch.

    A tuple, since there are thousands; what is asked of one again and again, how many elements it has, lies in it.
    """

    __slots__ = ()
    __match_args__ = ("shape", "dtype")

    def __new__(cls, shape: tuple[int, ...], dtype: str = "float32") -> Self:
        return tuple.__new__(cls, (shape, dtype, prod(shape)))

    @property
    def nbytes(self) -> int:
        return self.numel * ITEM_SIZES[self.dtype]

    def __str__(self) -> str:
        return "×".join(map(str, self.shape)) or "scalar"

    def __repr__(self) -> str:
        given = zip(self.__match_args__, self.__getnewargs__(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given)})"

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__match_args__)

    def _replace(self, **changes: Any) -> Self:
        return type(self)(**dict(zip(self.__match_args__, self.__getnewargs__(), strict=True)) | changes)


class Tensor(TensorSpec):
    """A tensor that a call read or wrote: its spec, and the storage that it lies in."""

    __slots__ = ()
    __match_args__ = ("shape", "dtype", "storage")

    def __new__(cls, shape: tuple[int, ...], dtype: str = "float32", storage: int = -1) -> Self:
        return tuple.__new__(cls, (shape, dtype, prod(shape), storage))

    storage = property(itemgetter(3))
