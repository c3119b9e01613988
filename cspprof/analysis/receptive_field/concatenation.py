"""The receptive field of a concatenation: segments of channels with a field each, or parts of the map in a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cspprof.analysis.receptive_field.field import (
    Field,
    Segments,
    Value,
    joined,
    merged,
    nowhere,
    on_grid,
    plain,
    segments,
    unordered_dim,
    windowed,
)
from cspprof.analysis.receptive_field.intervals import Intervals, Span, UnfollowedError, affine, positions
from cspprof.core.record import OpSpec

Shape = Sequence[int]
Sized = tuple[Field | None, int]
"""The field of an operand, None if it does not depend on the input, and its size along the dimension."""


def concatenated(spec: OpSpec, reads: Sequence[Value], shape: Shape) -> Value:
    """The operands one behind the other, each with its own field if the dimension has no positions."""
    name, rank = spec.name.lower(), len(shape)
    d = spec.attrs.get("dim", spec.attrs.get("axis", 0)) % rank if rank else 0
    fields = [merged(value) for value in reads]
    if name == "stack":
        return _segments([(f and replace(f, dims=(*f.dims[:d], plain(1), *f.dims[d:])), 1) for f in fields], d, shape)
    if name not in ("cat", "concat", "concatenate", "cat_relu", "hstack", "vstack"):
        raise UnfollowedError
    if name == "hstack":
        d = min(1, rank - 1)
    if any(len(tensor.shape) != rank for tensor in spec.reads):
        raise UnfollowedError
    sizes = [tensor.shape[d] for tensor in spec.reads]
    stored = shape[d] - sum(sizes) if spec.weights else 0
    if any(f is not None and f.has_positions(d) for f in fields):
        if stored:
            return _unordered(fields, d, shape)
        return _in_a_row(list(zip(fields, sizes, strict=True)), d, shape)
    parts: list[Sized] = []
    for value, field, size in zip(reads, fields, sizes, strict=True):
        if isinstance(value, Segments) and value.dim == d:
            parts += [(part, part.shape[d]) for part in value.parts]
        else:
            parts.append((field, size))
    return _segments([*parts, (None, stored)] if stored else parts, d, shape)


def _segments(parts: Sequence[Sized], d: int, shape: Shape) -> Value:
    like = next(f for f, _ in parts if f is not None)
    fields = [nowhere(like, (*shape[:d], n, *shape[d + 1 :])) if f is None else f for f, n in parts]
    layouts = {tuple(dim for i, dim in enumerate(f.dims) if i != d) for f, _ in parts if f is not None}
    if len(layouts) > 1 and any(f.unordered for f in fields):
        return joined([f.with_dim(d, plain(1)) for f in fields], shape)
    return segments(d, fields)


def _in_a_row(parts: Sequence[Sized], d: int, shape: Shape) -> Field:
    """A concatenation along an axis of the input, as of halves of a map, or of a map and a border of constants."""
    known: list[tuple[Field, int | None, int, int]] = []
    start = 0
    try:
        for field, size in parts:
            if field is not None:
                known.append((*on_grid(field, d), start, size))
            start += size
    except UnfollowedError:
        return _unordered([field for field, _ in parts], d, shape)
    axes = {axis for _, axis, _, _ in known}
    axis = axes.pop()
    if axes or axis is None:
        return _unordered([field for field, _ in parts], d, shape)
    moved = [windowed(field, d, affine(1, -start, -start), shape[d]) for field, _, start, _ in known]
    result = joined(moved, shape)
    locals_ = [field.axes[axis].local for field in moved]
    if all(local == locals_[0] for local in locals_):
        return result
    spans: list[Span | None] = [None for _ in positions(shape[d])]
    for (_, _, start, size), local in zip(known, locals_, strict=True):
        for position in range(start, start + size):
            spans[position] = None if local is None else local.at(position)
    return replace(result.with_axis(axis, Intervals(tuple(spans), None)), at_least=True)


def _unordered(fields: Sequence[Field | None], d: int, shape: Shape) -> Field:
    """A concatenation of tokens with others, such as a class token."""
    return joined([unordered_dim(f, d, shape[d]) for f in fields if f is not None], shape)
