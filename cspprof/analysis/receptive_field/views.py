"""The fields of views: slices, transposes and reshapes, and of the operations that copy the same elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from cspprof.analysis.receptive_field.field import (
    Factor,
    Field,
    Segments,
    Value,
    merged,
    on_grid,
    permuted,
    plain,
    reshaped,
    segments,
    unordered_dim,
    windowed,
)
from cspprof.analysis.receptive_field.intervals import UnfollowedError, affine, compose
from cspprof.core.record import OpSpec

_RESHAPES = (
    "view reshape flatten unflatten squeeze unsqueeze _unsafe_view _reshape_alias view_copy squeeze_copy "
    "unsqueeze_copy identity dropout optionalgetelement atleast_1d atleast_2d atleast_3d"
)
_TRANSPOSES = "permute transpose t swapaxes swapdims permute_copy transpose_copy t_copy numpy_t mt"
_SLICES = "slice narrow select slice_copy narrow_copy select_copy"
_SPLITS = (
    "split split_with_sizes chunk unbind unsafe_split unsafe_split_with_sizes unsafe_chunk tensor_split split_copy "
    "split_with_sizes_copy unbind_copy"
)
RESHAPES, TRANSPOSES, SLICES, SPLITS = (
    frozenset(names.split()) for names in (_RESHAPES, _TRANSPOSES, _SLICES, _SPLITS)
)


def viewed(value: Value, spec: OpSpec, output: int = 0) -> Value:
    """The field of one of the outputs of a view. Raises UnfollowedError."""
    name, shape = spec.name.lower().rstrip("_"), spec.writes[output].shape
    if value is None:
        return None
    if name in RESHAPES:
        return value if value.shape == shape else reshaped(_merged(value), shape)
    if name in TRANSPOSES:
        return _transposed(value, spec.attrs, name)
    if name in SLICES:
        return _slice(value, spec.attrs, name, shape)
    if name in SPLITS:
        d = _dim(spec.attrs.get("dim", spec.attrs.get("axis", 0)), len(value.shape))
        if name.startswith("unbind"):
            return _without(sliced(value, d, output, 1), d)
        starts = [0, *accumulate(w.shape[d] for w in spec.writes)]
        return sliced(value, d, starts[output], shape[d])
    if name in ("expand", "expand_as", "expand_copy"):
        return expanded(_merged(value), shape)
    if name in ("unfold", "unfold_copy"):
        return _sliding(_merged(value), spec.attrs, shape)
    if value.shape == shape and name not in ("as_strided", "flip"):
        return value
    raise UnfollowedError


def sliced(value: Value, d: int, start: int, count: int, step: int = 1) -> Value:
    """Every `step`-th of the elements along dimension `d`, beginning with `start`."""
    if value is None:
        return None
    if isinstance(value, Segments):
        if value.dim == d:
            return value.cut(start, count, step)
        return segments(value.dim, [_of_field(sliced(part, d, start, count, step)) for part in value.parts])
    try:
        return windowed(value, d, affine(step, start, start), count)
    except UnfollowedError:
        dim = value.dims[d]
        if len(dim) != 1 or dim[0].axis < 0:
            return unordered_dim(value, d, count)
    (factor,) = dim  # a factor of an axis with others in other dimensions
    local, offset = value.axes[factor.axis].local, start * factor.weight
    if local is not None:
        local = compose(affine(1, offset, offset), local, value.count(factor.axis))
    return value.with_axis(factor.axis, local).with_dim(d, (Factor(count, factor.axis, factor.weight * step),))


def expanded(field: Field, shape: Sequence[int]) -> Field:
    """The field of a tensor that is broadcast or repeated to `shape`."""
    dims = (plain(1),) * (len(shape) - len(field.dims)) + field.dims
    field = replace(field, dims=dims)
    for d, size in enumerate(shape):
        if field.shape[d] == size:
            continue
        single = field.shape[d] == 1
        field = _of_field(_without(field, d, plain(size))) if single else unordered_dim(field, d, size)
    return field


def _transposed(value: Field | Segments, attrs: Any, name: str) -> Value:
    rank = len(value.shape)
    order = list(range(rank))
    names = [key for key in ("dim0", "axis0") if key in attrs]
    if "dims" in attrs or "perm" in attrs:
        order = [_dim(d, rank) for d in attrs.get("dims", attrs.get("perm"))]
    elif names:
        first = _dim(attrs[names[0]], rank)
        second = _dim(attrs[names[0].replace("0", "1")], rank)
        order[first], order[second] = second, first
    elif name in ("t", "t_copy", "numpy_t"):
        order.reverse()
    elif name == "mt":
        order[-2:] = order[:-3:-1]
    else:
        raise UnfollowedError
    if isinstance(value, Segments):
        return Segments(order.index(value.dim), tuple(permuted(part, order) for part in value.parts))
    return permuted(value, order)


def _slice(value: Field | Segments, attrs: Any, name: str, shape: Sequence[int]) -> Value:
    if "dim" not in attrs and "starts" not in attrs:
        return _slice_of_plain_dims(value, shape)
    if "starts" in attrs:
        return _slice_onnx(value, attrs, shape)
    d = _dim(attrs.get("dim", 0), len(value.shape))
    size = value.shape[d]
    if name.startswith("select"):
        index = attrs.get("index")
        if not isinstance(index, int):
            raise UnfollowedError
        return _without(sliced(value, d, index % size, 1), d)
    start = attrs.get("start") or 0
    if not isinstance(start, int):
        raise UnfollowedError
    start = max(start + size, 0) if start < 0 else min(start, size)
    return sliced(value, d, start, shape[d], attrs.get("step", 1))


def _slice_onnx(value: Field | Segments, attrs: Any, shape: Sequence[int]) -> Value:
    """A slice along several axes. A negative step begins at the end."""
    result: Value = value
    starts = attrs["starts"]
    axes = attrs.get("axes") or range(len(starts))
    steps = attrs.get("steps") or (1,) * len(starts)
    for start, axis, step in zip(starts, axes, steps, strict=True):
        d = _dim(axis, len(shape))
        size = value.shape[d]
        start = start + size if start < 0 else start
        start = min(max(start, 0), size - 1 if step < 0 else size)
        result = sliced(result, d, start, shape[d], step)
    return result


def _slice_of_plain_dims(value: Field | Segments, shape: Sequence[int]) -> Value:
    """A slice whose place is not recorded: it is followed if it cuts only dimensions without positions."""
    field = _merged(value)
    if len(shape) != len(field.dims):
        raise UnfollowedError
    for d, size in enumerate(shape):
        if field.shape[d] != size:
            if field.has_positions(d) or isinstance(value, Segments):
                raise UnfollowedError
            field = field.with_dim(d, plain(size))
    return field


def _sliding(field: Field, attrs: Any, shape: Sequence[int]) -> Field:
    """`unfold`: windows along a dimension, whose elements form a new last dimension."""
    d = _dim(attrs.get("dimension", attrs.get("dim")), len(field.dims))
    field, axis = on_grid(field, d)
    if axis is None:
        return Field((*field.with_dim(d, plain(shape[d])).dims, plain(shape[-1])), field.axes, field.at_least)
    windows = field.with_dim(d, (Factor(shape[d], axis, attrs["step"]),))
    return replace(windows, dims=(*windows.dims, (Factor(shape[-1], axis, 1),)))


def _without(value: Value, d: int, dim: tuple[Factor, ...] | None = None) -> Value:
    """The field without dimension `d`, which has the size 1, or with another one in its place."""
    if isinstance(value, Segments):
        if value.dim == d:
            return _without(value.merged, d, dim)
        parts = [_of_field(_without(part, d, dim)) for part in value.parts]
        return segments(value.dim - (d < value.dim and dim is None), parts)
    if value is None:
        return None
    shape = [1 if i == d else n for i, n in enumerate(value.shape)]
    field = reshaped(value, shape[:d] + shape[d + 1 :])
    return replace(field, dims=(*field.dims[:d], *(() if dim is None else (dim,)), *field.dims[d:]))


def _dim(d: int, rank: int) -> int:
    return d % rank if rank else 0


def _merged(value: Field | Segments) -> Field:
    return value.merged if isinstance(value, Segments) else value


def _of_field(value: Value) -> Field:
    field = merged(value)
    assert field is not None, "a part of a tensor with a field has a field"
    return field
