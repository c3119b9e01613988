"""`Field`: the receptive field of each element of a tensor, and where the positions of the input lie in its dimensions.

A reshape may merge height and width into one dimension of tokens, or cut them into windows. So a dimension is a product
of factors, and each factor that runs along an axis of the input has a weight: the position is the sum of index times
weight over the factors of the axis.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from math import gcd, prod
from typing import NamedTuple

from cspprof.analysis.receptive_field.intervals import (
    IDENTITY,
    Intervals,
    Span,
    UnfollowedError,
    affine,
    compose,
    constant,
    hull,
    periodic,
    positions,
    union,
)

NO_AXIS = -1
"""The axis of a factor that runs along no axis of the input, as channels."""
UNORDERED = -2
"""The axis of a factor whose elements lie at positions that are not followed: gathered elements, tokens beside a class
token."""


MISFITS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""Errors that arguments cause if they do not fit the shapes. A trace records no such operation, but a file can have
one: it is not followed."""


class Factor(NamedTuple):
    """A part of a dimension, in row-major order."""

    size: int
    axis: int = NO_AXIS
    weight: int = 0
    """How far the position moves from one index to the next."""


Dim = tuple[Factor, ...]


class AxisField(NamedTuple):
    """The part of the input that each element of a tensor depends on, along one axis of the input."""

    length: int
    """The size of the input along the axis."""
    local: Intervals | None
    """By position, without operations over the whole map; None if the elements have no position along the axis."""
    everywhere: Span | None = None
    """The positions that all elements depend on through operations over the whole map, such as global pooling; None
    without any."""

    def with_all(self, count: int | None = None) -> AxisField:
        """The field of elements that depend on all `count` positions; None if these are not known."""
        span = (0, self.length - 1)
        if count is not None:
            read = None if self.local is None else self.local.over(0, count - 1)
            if read is None:
                return self
            span = (max(read[0], 0), min(read[1], self.length - 1))
        return self._replace(everywhere=hull([self.everywhere, span]))


@dataclass(frozen=True, slots=True)
class Field:
    """The receptive field of the elements of a tensor."""

    dims: tuple[Dim, ...]
    axes: tuple[AxisField, ...]
    at_least: bool = False
    """Whether it lacks what an operation of unknown reach reads."""

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(prod(factor.size for factor in dim) for dim in self.dims)

    @property
    def unknown(self) -> bool:
        """Whether nothing is known of it."""
        return self.at_least and all(axis.local is None and axis.everywhere is None for axis in self.axes)

    @property
    def unordered(self) -> bool:
        return any(factor.axis == UNORDERED for dim in self.dims for factor in dim)

    def factors(self, axis: int) -> list[tuple[int, Factor]]:
        """The factors that run along an axis, each with its dimension."""
        return [(d, factor) for d, dim in enumerate(self.dims) for factor in dim if factor.axis == axis]

    def has_positions(self, d: int) -> bool:
        """Whether the dimension runs along axes of the input."""
        return any(factor.axis != NO_AXIS for factor in self.dims[d])

    def count(self, axis: int) -> int:
        """The number of positions along an axis."""
        return 1 + sum((factor.size - 1) * factor.weight for _, factor in self.factors(axis))

    def is_dense(self, axis: int) -> bool:
        """Whether each position belongs to one index of each factor along the axis."""
        expected = 1
        for factor in sorted((f for _, f in self.factors(axis) if f.size > 1), key=lambda f: f.weight):
            if factor.weight != expected:
                return False
            expected *= factor.size
        return True

    def with_axis(self, axis: int, local: Intervals | None) -> Field:
        return self.with_axis_field(axis, self.axes[axis]._replace(local=local))

    def with_axis_field(self, axis: int, field: AxisField) -> Field:
        return replace(self, axes=(*self.axes[:axis], field, *self.axes[axis + 1 :]))

    def with_dim(self, d: int, dim: Dim) -> Field:
        return replace(self, dims=(*self.dims[:d], dim, *self.dims[d + 1 :]))


def plain(size: int) -> Dim:
    """A dimension without positions."""
    return (Factor(size),)


def input_field(shape: Sequence[int], axes: Sequence[int]) -> Field:
    """The field of an input whose dimensions `axes` are the axes."""
    dims = [(Factor(n, axes.index(d), 1),) if d in axes else plain(n) for d, n in enumerate(shape)]
    return Field(tuple(dims), tuple(AxisField(shape[d], IDENTITY) for d in axes))


def nowhere(like: Field, shape: Sequence[int]) -> Field:
    """The field of elements that do not depend on the input."""
    return Field(tuple(map(plain, shape)), tuple(a._replace(local=None, everywhere=None) for a in like.axes))


def unknown_field(shape: Sequence[int], lengths: Sequence[int]) -> Field:
    """The field of a tensor of which nothing is known; `lengths` are the sizes of the input along its axes."""
    return Field(tuple(map(plain, shape)), tuple(AxisField(n, None) for n in lengths), at_least=True)


# -- one field ----------------------------------------------------------------------------------------


def permuted(field: Field, order: Sequence[int]) -> Field:
    return replace(field, dims=tuple(field.dims[d] for d in order))


def reshaped(field: Field, shape: Sequence[int]) -> Field:
    """The field with the factors in row-major order distributed over the dimensions of `shape`.

    Elements whose factors do not fit the shape become unordered.
    """
    if tuple(shape) == field.shape:
        return field
    if prod(shape) != prod(field.shape):
        raise UnfollowedError
    factors = [factor for dim in field.dims for factor in dim if factor.size != 1]
    dims: list[Dim] = []
    for size in shape:
        dim: list[Factor] = []
        rest = size
        while rest != 1:
            if not rest or not factors:
                return _unordered(field, shape)
            factor = factors.pop(0)
            taken = factor.size
            if rest % taken:
                if taken % rest:
                    return _unordered(field, shape)
                taken = rest
                inner = factor.size // taken
                factors.insert(0, Factor(inner, factor.axis, factor.weight))
                factor = Factor(taken, factor.axis, factor.weight * inner)
            rest //= taken
            dim.append(factor)
        dims.append(_merged(dim) or plain(1))
    return _without_lost_axes(_normalized(replace(field, dims=tuple(dims))), field)


def _unordered(field: Field, shape: Sequence[int]) -> Field:
    return replace(field, dims=tuple((Factor(size, UNORDERED),) for size in shape))


def unordered_dim(field: Field, d: int, size: int) -> Field:
    """The field with elements at positions of dimension `d` that are not followed."""
    if not field.has_positions(d):
        return field.with_dim(d, plain(size))
    lost = {factor.axis for factor in field.dims[d]}
    dims = [
        tuple(f if f.axis not in lost or f.axis == NO_AXIS else Factor(f.size, UNORDERED) for f in dim)
        for dim in field.dims
    ]
    return replace(field, dims=tuple(dims)).with_dim(d, (Factor(size, UNORDERED),))


def _merged(factors: Iterable[Factor]) -> Dim:
    """Neighbors that run along the same axis, one behind the other, as one factor."""
    dim: list[Factor] = []
    for factor in factors:
        last = dim[-1] if dim else None
        if last and last.axis == factor.axis and last.weight == factor.weight * factor.size:
            dim[-1] = Factor(last.size * factor.size, factor.axis, factor.weight)
        else:
            dim.append(factor)
    return tuple(dim)


def _without_lost_axes(field: Field, before: Field) -> Field:
    """The field with one interval for all elements along axes whose last factor, of size 1, is gone."""
    for axis, of_axis in enumerate(field.axes):
        if of_axis.local is not None and before.factors(axis) and not field.factors(axis) and not field.unordered:
            field = field.with_axis(axis, constant(of_axis.local.at(0)))
    return field


def on_grid(field: Field, d: int) -> tuple[Field, int | None]:
    """The field with a single factor of weight 1 in dimension `d`, and its axis, or None if there are no positions.

    Raises UnfollowedError if the dimension runs along several axes, or only along a part of one.
    """
    dim = field.dims[d]
    axes = {factor.axis for factor in dim} - {NO_AXIS}
    if not axes:
        return field, None
    axis = axes.pop()
    if axes or axis == UNORDERED or any(at != d for at, _ in field.factors(axis)) or dim[0].axis != axis:
        raise UnfollowedError
    local, count = field.axes[axis].local, field.shape[d]
    if len(dim) == 1 and dim[0].weight == 1:
        return field, axis
    if local is not None:
        places = [0]
        for factor in dim[1:]:
            steps = positions(len(places) * factor.size)[: factor.size]
            places = [place + i * factor.weight for place in places for i in steps]
        pattern = periodic([(place, place) for place in places], dim[0].weight)
        local = compose(pattern, local, count)
    return field.with_axis(axis, local).with_dim(d, (Factor(count, axis, 1),)), axis


def windowed(field: Field, d: int, reads: Intervals, count: int) -> Field:
    """The field of an output whose `count` positions along dimension `d` read the positions `reads`."""
    field, axis = on_grid(field, d)
    if axis is None:
        return field.with_dim(d, plain(count))
    local = field.axes[axis].local
    local = None if local is None else compose(reads, local, count)
    return field.with_axis(axis, local).with_dim(d, (Factor(count, axis, 1),))


def mixed(field: Field, dims: Collection[int], keep: bool = True) -> Field:
    """The field of elements that depend on all elements along the dimensions.

    With `keep`, the elements still have their positions there, as in a softmax; without, the dimensions have the size
    1, as after a mean. A part of an axis, such as a window, does not make the field whole.
    """
    result = field
    unordered = any(factor.axis == UNORDERED for d in dims for factor in field.dims[d])
    for axis, of_axis in enumerate(field.axes):
        factors = field.factors(axis)
        top = max((factor.weight for _, factor in factors), default=0)
        for factor in [factor for d, factor in factors if d in dims and factor.size > 1]:
            local = of_axis.local
            if factor.weight == top:
                of_axis = of_axis.with_all(field.count(axis))
                if not keep:  # what is left of the position, as in attention over a grid, says nothing
                    of_axis = of_axis._replace(local=None)
            elif local is not None and not keep:  # the position is that of index 0
                window = affine(1, 0, (factor.size - 1) * factor.weight)
                of_axis = of_axis._replace(local=compose(window, local, field.count(axis)))
            elif local is not None:
                if not field.is_dense(axis):
                    raise UnfollowedError
                step, span = factor.weight, factor.weight * factor.size
                window = periodic([(i % step, i % step + span - step) for i in positions(span)], span)
                of_axis = of_axis._replace(local=compose(window, local, field.count(axis)))
        if unordered:
            of_axis = of_axis.with_all()
        if not keep and factors and all(d in dims for d, _ in factors):
            single = None if of_axis.everywhere or of_axis.local is None else constant(of_axis.local.at(0))
            of_axis = of_axis._replace(local=single)
        result = result.with_axis_field(axis, of_axis)
    if not keep:
        result = replace(result, dims=tuple(plain(1) if d in dims else dim for d, dim in enumerate(field.dims)))
        return _normalized(result)
    return result


def _normalized(field: Field) -> Field:
    """The field with the smallest possible weights: after every second position is gone, the others are neighbors."""
    for axis, of_axis in enumerate(field.axes):
        step = gcd(*(factor.weight for _, factor in field.factors(axis) if factor.size > 1))
        if step > 1:
            dims = [
                tuple(f._replace(weight=f.weight // step) if f.axis == axis and f.size > 1 else f for f in dim)
                for dim in field.dims
            ]
            count = field.count(axis) // step + 1
            local = None if of_axis.local is None else compose(affine(step), of_axis.local, count)
            field = replace(field.with_axis(axis, local), dims=tuple(dims))
    return field


def summary(field: Field) -> Field:
    """The field of an element that depends on all elements of the tensor, as a dynamic weight does."""
    return mixed(field, range(len(field.dims)), keep=False)


# -- several fields -----------------------------------------------------------------------------------


def joined(fields: Sequence[Field], shape: Sequence[int]) -> Field:
    """The field of elements that depend on one element of each tensor, which is broadcast to `shape`."""
    rank = len(shape)
    padded = [replace(f, dims=((plain(1),) * (rank - len(f.dims)) + f.dims)[-rank:] if rank else ()) for f in fields]
    by_detail = sorted(padded, key=lambda f: -sum(factor.axis >= 0 for dim in f.dims for factor in dim))
    dims = []
    for d, size in enumerate(shape):
        positions = (f.dims[d] for f in by_detail if f.has_positions(d) and f.shape[d] == size)
        dims.append(next(positions, plain(size)))
    result = Field(tuple(dims), padded[0].axes, any(f.at_least for f in padded))
    for axis in range(len(result.axes)):
        count = result.count(axis)
        local: Intervals | None = None
        for f in padded:
            own = f.axes[axis].local
            if own is None:
                continue
            if not f.unordered and not result.unordered:
                reads = _positions_of(f, result, axis)
                if reads is None:  # the positions lie in other dimensions
                    result = replace(result, at_least=True)
                    continue
                own = compose(reads, own, count)
            local = own if local is None else union(local, own, count)
        strides = {own.stride for f in padded for own in [f.axes[axis].local] if own is not None}
        if local is not None and local.shift is None and None not in strides:
            result = replace(result, at_least=True)  # beyond the borders of the map, the intervals are not known
        everywhere = hull([f.axes[axis].everywhere for f in padded])
        result = result.with_axis_field(axis, result.axes[axis]._replace(local=local, everywhere=everywhere))
    return result


def _positions_of(field: Field, result: Field, axis: int) -> Intervals | None:
    """The positions of a tensor along an axis that the positions of a tensor to which it is broadcast read; None if
    they do not follow from each other."""
    own, wanted = _places(field, axis), _places(result, axis)
    if own == wanted:
        return IDENTITY
    if not own:
        return constant((0, 0))
    if not result.is_dense(axis) or any(p not in wanted or wanted[p].size != f.size for p, f in own.items()):
        return None
    *lower, top = sorted(wanted, key=lambda place: wanted[place].weight)
    weights = {place: own[place].weight if place in own else 0 for place in wanted}
    pattern = []
    for position in positions(wanted[top].weight):
        place = sum(position // wanted[p].weight % wanted[p].size * weights[p] for p in lower)
        pattern.append((place, place))
    return periodic(pattern, weights[top])


def _places(field: Field, axis: int) -> dict[tuple[int, int], Factor]:
    """The factors along an axis, by their dimension and the number of elements between two of their indices."""
    found = {}
    for d, dim in enumerate(field.dims):
        inner = 1
        for factor in reversed(dim):
            if factor.axis == axis and factor.size > 1:
                found[d, inner] = factor
            inner *= factor.size
    return found


@dataclass(frozen=True, slots=True)
class Segments:
    """A concatenation of tensors with different fields, along a dimension without positions: a slice along it reads
    the field of its own part."""

    dim: int
    parts: tuple[Field, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        first = self.parts[0].shape
        return (*first[: self.dim], sum(part.shape[self.dim] for part in self.parts), *first[self.dim + 1 :])

    @property
    def merged(self) -> Field:
        """The field of an element that depends on all parts."""
        return joined([part.with_dim(self.dim, plain(1)) for part in self.parts], self.shape)

    def cut(self, start: int, count: int, step: int = 1) -> Value:
        """The fields of every `step`-th element along the dimension."""
        chosen = [start + i * step for i in positions(count)]
        parts, at = [], 0
        for part in self.parts:
            size = part.shape[self.dim]
            inside = sum(at <= i < at + size for i in chosen)
            if inside:
                parts.append(part.with_dim(self.dim, plain(inside)))
            at += size
        return segments(self.dim, parts)


Value = Field | Segments | None
"""The field of a tensor; None if it does not depend on the input."""


def segments(dim: int, parts: Sequence[Field]) -> Value:
    """The parts of a tensor along a dimension; one field if they are equal."""
    if not parts:
        return None
    if all(part.with_dim(dim, plain(1)) == parts[0].with_dim(dim, plain(1)) for part in parts):
        return parts[0].with_dim(dim, plain(sum(part.shape[dim] for part in parts)))
    return Segments(dim, tuple(parts))


def merged(value: Value) -> Field | None:
    return value.merged if isinstance(value, Segments) else value
