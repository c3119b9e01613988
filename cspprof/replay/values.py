"""What a replay knows of a tensor, and how it says that it does not know."""

from __future__ import annotations

from typing import NamedTuple

from cspprof.formulas import contiguous_strides

Shape = tuple[int, ...]


class UnknownError(Exception):
    """The record does not say. The text goes on from the operation's name: `adds maps of different sizes`."""


class Value(NamedTuple):
    """A tensor of the replayed forward."""

    shape: Shape
    dtype: str
    strides: Shape | None = ()
    """In elements; () of a contiguous tensor, None where nobody knows."""


def strides_of(value: Value) -> Shape:
    """Raises UnknownError where the record does not say how the tensor lies in memory."""
    if value.strides is None:
        raise UnknownError("depends on how its map lies in memory, which the record does not say")
    return value.strides or contiguous_strides(value.shape)


def laid(shape: Shape, strides: Shape) -> Shape:
    """The strides as a `Value` holds them: none where they are those of a contiguous tensor."""
    steps = zip(reversed(shape), reversed(strides), reversed(contiguous_strides(shape)), strict=True)
    return () if all(a == b or n == 1 for n, a, b in steps) else strides


def times(shape: Shape) -> str:
    return "×".join(map(str, shape)) or "scalar"
