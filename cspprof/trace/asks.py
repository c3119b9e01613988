"""The operation that a layer of torch's own asks for, from its settings: what running it would show.

Each function is given the layer's settings, in the order of its `Form`, and what stands for its input, parameters and
buffers: a `Slot`, or None for one that it does not have. It gives the operation's name, and its arguments in full; None
where that is not plain, and the layer is run to see. A network then is traced without a first run of such layers, each
of which costs several times as much as any later one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch

from cspprof.trace.metas import Operator


class Slot(int):
    """Stands for the tensor at this position: the input is the first, then come parameters and buffers."""


NUMBERS = frozenset({int, float})
Places = Sequence[Slot | None]
Asked = tuple[str, tuple[Any, ...]]
Asks = Callable[[tuple[Any, ...], int, Places], Asked | None]
"""Settings, the rank of the input, and the places of tensors."""


def convolution(rank: int) -> Asks:
    """Of so many dimensions that a window moves in."""

    def asks(settings: tuple[Any, ...], dims: int, places: Places) -> Asked | None:
        *windows, groups, mode = settings
        whole = all(_are_whole(window, rank) for window in windows) and type(groups) is int
        if mode != "zeros" or dims != rank + 2 or not whole or None in places[:2]:
            return None
        return f"conv{rank}d", (*places, *map(list, windows), groups)

    return asks


def linear(settings: tuple[Any, ...], dims: int, places: Places) -> Asked | None:
    return None if None in places[:2] else ("linear", tuple(places))


def batch_norm(*ranks: int) -> Asks:
    """In evaluation, of inputs of these ranks."""

    def asks(settings: tuple[Any, ...], dims: int, places: Places) -> Asked | None:
        training, momentum, eps, _ = settings
        momentum = 0.0 if momentum is None else momentum
        known = NUMBERS.issuperset(map(type, (momentum, eps))) and eps > 0
        if training or dims not in ranks or None in places[3:] or not known:
            return None
        return "batch_norm", (*places, False, float(momentum), float(eps), torch.backends.cudnn.enabled)

    return asks


def layer_norm(settings: tuple[Any, ...], dims: int, places: Places) -> Asked | None:
    shape, eps, *fast = settings
    if type(shape) is not tuple or not _are_whole(shape, len(shape)) or any(fast) or type(eps) not in NUMBERS:
        return None
    x, weight, bias = places
    return "layer_norm", (x, list(shape), weight, bias, float(eps), torch.backends.cudnn.enabled)


def activation(name: str) -> Asks:
    """One that may be in place, and whose other setting, if it has one, is an argument."""

    def asks(settings: tuple[Any, ...], dims: int, places: Places) -> Asked | None:
        in_place, *others = settings or (False,)
        if not NUMBERS.issuperset(map(type, others)):
            return None
        return f"{name}{'_' * bool(in_place)}", (*places, *others)

    return asks


def max_pool(settings: tuple[Any, ...], dims: int, places: Places) -> Asked | None:
    *windows, with_indices, ceil = settings
    if with_indices is not False or dims != 4 or not all(map(_is_window, windows)) or type(ceil) is not bool:
        return None
    return "max_pool2d", (*places, *map(_pair, windows), ceil)


def average_pool(settings: tuple[Any, ...], dims: int, places: Places) -> Asked | None:
    *windows, ceil, padded, divisor = settings
    known = type(ceil) is bool and type(padded) is bool and (divisor is None or (type(divisor) is int and divisor))
    if dims != 4 or not all(map(_is_window, windows)) or not known:
        return None
    return "avg_pool2d", (*places, *map(_pair, windows), ceil, padded, divisor)


def adaptive_average_pool(settings: tuple[Any, ...], dims: int, places: Places) -> Asked | None:
    (size,) = settings
    return ("adaptive_avg_pool2d", (*places, _pair(size))) if dims == 4 and _is_window(size) else None


def _is_window(window: Any) -> bool:
    return type(window) is int or _are_whole(window, 2)


def _are_whole(sizes: Any, n: int) -> bool:
    """Whether these are so many whole numbers."""
    return type(sizes) is tuple and len(sizes) == n and {int}.issuperset(map(type, sizes))


def _pair(window: Any) -> list[int]:
    return [window, window] if type(window) is int else list(window)


@cache
def overload(name: str) -> tuple[Operator, list[Any]]:
    """The operator, and the defaults of its arguments. Its schema says all: looking it up in `torch.ops` takes longer
    than answering it does."""
    schema = torch._C._get_schema(f"aten::{name}", "")
    return Operator(schema), [a.default_value for a in schema.arguments if not a.kwarg_only]


def shown(name: str, given: tuple[Any, ...]) -> tuple[Operator, tuple[Any, ...]]:
    """The operator, and the arguments as a dispatch mode is shown them: without defaults at the end."""
    op, defaults = overload(name)
    args = list(given)
    while args and type(args[-1]) is type(defaults[len(args) - 1]) and args[-1] == defaults[len(args) - 1]:
        args.pop()
    return op, tuple(args)
