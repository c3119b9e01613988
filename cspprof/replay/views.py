"""Shapes and strides of views: what `aten.slice`, `aten.view`, `aten.permute` … make of a tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from cspprof.formulas import contiguous_strides, slice_length
from cspprof.replay.values import Shape, UnknownError, Value, laid, strides_of, times

View = Callable[[Value, Mapping[str, Any]], list[Value]]
VIEWS: dict[str, View] = {}


def view(*names: str) -> Callable[[View], View]:
    def register(function: View) -> View:
        VIEWS.update(dict.fromkeys((f"aten.{n}" for n in names), function))
        return function

    return register


def _made(x: Value, shape: Sequence[int], strides: Sequence[int]) -> Value:
    shape = tuple(shape)
    return Value(shape, x.dtype, None if x.strides is None else laid(shape, tuple(strides)))


def _steps(x: Value) -> Shape:
    """Its strides; any, where nobody knows, since those of no view of it are known then."""
    return x.strides or contiguous_strides(x.shape)


def _with(x: Value, dim: int, size: int, step: int = 1) -> Value:
    """The same, but for one dimension."""
    shape, strides = list(x.shape), list(_steps(x))
    shape[dim], strides[dim] = size, strides[dim] * step
    return _made(x, shape, strides)


@view("slice", "narrow")
def slice_(x: Value, a: Mapping[str, Any]) -> list[Value]:
    dim = a.get("dim", 0)
    start, end, step = a.get("start") or 0, a.get("end"), a.get("step", 1)
    if "length" in a:
        end = start + a["length"]
        if end > x.shape[dim]:
            raise UnknownError(f"takes {a['length']} places from {start}, of {x.shape[dim]}")
    return [_with(x, dim, slice_length(x.shape[dim], start, end, step), step)]


@view("select")
def select(x: Value, a: Mapping[str, Any]) -> list[Value]:
    dim = a.get("dim", 0) % len(x.shape)
    if not -x.shape[dim] <= a["index"] < x.shape[dim]:
        raise UnknownError(f"takes place {a['index']} of {x.shape[dim]}")
    return [_without(x, {dim})]


def _without(x: Value, gone: set[int]) -> Value:
    kept = [i for i in range(len(x.shape)) if i not in gone]
    strides = _steps(x)
    return _made(x, [x.shape[i] for i in kept], [strides[i] for i in kept])


@view("split_with_sizes", "split")
def split(x: Value, a: Mapping[str, Any]) -> list[Value]:
    dim = a.get("dim", 0)
    sizes = a.get("split_sizes", a.get("split_size"))
    if isinstance(sizes, int):
        whole, rest = divmod(x.shape[dim], sizes)
        sizes = [sizes] * whole + [rest] * bool(rest)
    if sum(sizes) != x.shape[dim]:
        raise UnknownError(f"splits {sum(sizes)} places, and there are {x.shape[dim]}")
    return [_with(x, dim, n) for n in sizes]


@view("permute")
def permute(x: Value, a: Mapping[str, Any]) -> list[Value]:
    strides = _steps(x)
    return [_made(x, [x.shape[d] for d in a["dims"]], [strides[d] for d in a["dims"]])]


@view("transpose", "t", "numpy_T", "mT")
def transpose(x: Value, a: Mapping[str, Any]) -> list[Value]:
    rank = len(x.shape)
    order = list(range(rank))
    first, second = a.get("dim0", -1) % rank, a.get("dim1", -2) % rank
    order[first], order[second] = second, first
    return permute(x, {"dims": order})


@view("unsqueeze")
def unsqueeze(x: Value, a: Mapping[str, Any]) -> list[Value]:
    dim = a["dim"] % (len(x.shape) + 1)
    strides = list(_steps(x))
    strides.insert(dim, x.shape[dim] * strides[dim] if dim < len(strides) else 1)
    return [_made(x, (*x.shape[:dim], 1, *x.shape[dim:]), strides)]


@view("squeeze")
def squeeze(x: Value, a: Mapping[str, Any]) -> list[Value]:
    given = a.get("dim", range(len(x.shape)))
    dims = {d % len(x.shape) for d in ((given,) if isinstance(given, int) else given)}
    return [_without(x, {d for d in dims if x.shape[d] == 1})]


@view("expand")
def expand(x: Value, a: Mapping[str, Any]) -> list[Value]:
    size = a["size"]
    new = len(size) - len(x.shape)
    old, strides = (1,) * new + x.shape, (0,) * new + _steps(x)
    shape = tuple(n if m == -1 else m for n, m in zip(old, size, strict=True))
    if any(n not in (1, m) for n, m in zip(old, shape, strict=True)):
        raise UnknownError(f"expands {times(x.shape)} to {times(shape)}")
    return [_made(x, shape, [s if n == m else 0 for n, m, s in zip(old, shape, strides, strict=True)])]


@view("flatten")
def flatten(x: Value, a: Mapping[str, Any]) -> list[Value]:
    rank = len(x.shape)
    first, last = a.get("start_dim", 0) % rank, a.get("end_dim", -1) % rank
    return [_viewed(x, (*x.shape[:first], prod(x.shape[first : last + 1]), *x.shape[last + 1 :]))]


@view("unflatten")
def unflatten(x: Value, a: Mapping[str, Any]) -> list[Value]:
    dim = a["dim"] % len(x.shape)
    sizes = settled(tuple(a["sizes"]), x.shape[dim])
    return [_viewed(x, (*x.shape[:dim], *sizes, *x.shape[dim + 1 :]))]


@view("view", "reshape", "_unsafe_view")
def reshape(x: Value, a: Mapping[str, Any]) -> list[Value]:
    given = a.get("size", a.get("shape"))
    if given is None:
        raise UnknownError("takes another dtype's view")
    return [_viewed(x, settled(tuple(given), prod(x.shape)))]


def settled(shape: Shape, numel: int) -> Shape:
    """With the size left open by −1. Raises UnknownError where the elements do not fit."""
    rest = prod(n for n in shape if n != -1)
    if -1 in shape and rest and numel % rest == 0:
        shape = tuple(numel // rest if n == -1 else n for n in shape)
    if -1 in shape or prod(shape) != numel:
        raise UnknownError(f"wants the shape {times(shape)} of {numel:,} elements".replace("-1", "?"))
    return shape


def _viewed(x: Value, shape: Shape) -> Value:
    """`x` in another shape over the same memory. Raises UnknownError where that takes a copy."""
    if x.strides == ():
        return Value(shape, x.dtype, ())
    found = view_strides(x.shape, strides_of(x), shape)
    if found is None:
        raise UnknownError("would have to copy its map here, where it was a view in the record")
    return _made(x, shape, found)


def view_strides(old: Shape, strides: Shape, new: Shape) -> Shape | None:
    """Strides of a view of another shape, or None where there is none: dimensions merge where they lie end to end."""
    runs: list[tuple[int, int]] = []  # elements and stride of what lies end to end
    for n, s in zip(old, strides, strict=True):
        if n == 1:
            continue
        if runs and runs[-1][1] == n * s:
            runs[-1] = (runs[-1][0] * n, s)
        else:
            runs.append((n, s))
    found: list[int] = []
    left, step = runs.pop() if runs else (1, 1)
    for n in reversed(new):
        if left == 1 and n != 1:
            if not runs:
                return None
            left, last = runs.pop()
            step = last
        if left % n:
            return None
        found.append(step)
        left, step = left // n, step * n
    return tuple(reversed(found)) if left == 1 and not runs else None
