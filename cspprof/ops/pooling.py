"""Pooling: no MACs; each comparison or addition in a window is one scalar operation."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from cspprof.core import formulas as f
from cspprof.core.backward import Backward, Saved
from cspprof.core.kinds import Kind
from cspprof.core.tensors import TensorMeta
from cspprof.ops.layouts import contiguous_output
from cspprof.ops.op_rules import (
    Facts,
    Ints,
    Operand,
    Spec,
    backward,
    backward_rule,
    kept,
    kept_bytes,
    op_rule,
    output_rule,
)

# -- windows of one size ----------------------------------------------------------------------------


def pool_facts(kind: Kind, kernel: Sequence[int], out: Spec, outputs: int | None = None, **attrs: Any) -> Facts:
    """Pooling over a window of size `kernel` for each element of `out`."""
    return Facts(kind, 0, f.pool_elementwise(kernel, out.shape), {"kernel": tuple(kernel), **attrs}, outputs)


def _register_pool(kind: Kind, n: int, *targets: str) -> None:
    """Pooling over windows in `n` dimensions. The operation returns indices only on request."""

    @op_rule(*targets)
    def pool(input: Spec, kernel_size: Ints, *args: Any, out: Spec, **kwargs: Any) -> Facts:
        return pool_facts(kind, f.pair(kernel_size, n), out)


for _n in (1, 2, 3):
    _register_pool(Kind.AVG_POOL, _n, f"aten.avg_pool{_n}d")
    _register_pool(Kind.MAX_POOL, _n, f"aten.max_pool{_n}d", f"aten.max_pool{_n}d_with_indices")
for _n in (1, 2):
    _register_pool(Kind.MAX_POOL, _n, f"quantized.max_pool{_n}d")
for _n in (2, 3):
    _register_pool(Kind.MAX_POOL, _n, f"aten.fractional_max_pool{_n}d")


@output_rule("aten.max_pool2d")
def max_pool2d_output(
    input: TensorMeta, kernel: Sequence[int], stride: Sequence[int] = (), padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1), ceil_mode: bool = False,
) -> TensorMeta | None:  # fmt: skip
    if len(input.shape) != 4 or not input.contiguous or not input.is_floating or input.shape[1] == 1:
        return None
    k, p, d = f.pair(kernel), f.pair(padding), f.pair(dilation)
    s = f.pair(stride) if stride else k
    if 0 in input.shape or min(*k, *s, *d) < 1 or min(p) < 0 or 2 * p[0] > k[0] or 2 * p[1] > k[1]:
        return None
    h, w = (f.window_size(input.shape[2 + i], k[i], s[i], p[i], d[i], ceil_mode) for i in (0, 1))
    return contiguous_output((*input.shape[:2], h, w), input) if min(h, w) > 0 else None


@output_rule("aten.avg_pool2d")
def avg_pool2d_output(
    input: TensorMeta, kernel: Sequence[int], stride: Sequence[int] = (), padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False, *args: Any,
) -> TensorMeta | None:  # fmt: skip
    return max_pool2d_output(input, kernel, stride, padding, (1, 1), ceil_mode)


# -- adaptive ---------------------------------------------------------------------------------------


def _register_adaptive_pool(kind: Kind, n: int, *targets: str) -> None:
    """Pooling to a requested output size in `n` dimensions. The max pooling kernels always write indices, which are
    not recorded."""

    @op_rule(*targets)
    def pool(input: Spec, output_size: Ints, *args: Any, out: Spec, **kwargs: Any) -> Facts:
        size, map_size = out.shape[-n:], input.shape[-n:]
        if prod(size) == 1:
            return pool_facts(kind, map_size, out, outputs=1, **{"global": True})
        elements = prod(f.adaptive_windows(a, b) for a, b in zip(map_size, size, strict=True))
        return Facts(kind, 0, prod(out.shape[:-n]) * elements, {"output_size": size}, outputs=1)


for _n in (1, 2, 3):
    _register_adaptive_pool(Kind.AVG_POOL, _n, f"aten.adaptive_avg_pool{_n}d", f"aten._adaptive_avg_pool{_n}d")
    _register_adaptive_pool(Kind.MAX_POOL, _n, f"aten.adaptive_max_pool{_n}d")


@output_rule("aten.adaptive_avg_pool2d")
def adaptive_avg_pool2d_output(input: TensorMeta, size: Sequence[int]) -> TensorMeta | None:
    if len(input.shape) != 4 or not input.contiguous or not input.is_floating or min(input.shape[1:]) <= 1:
        return None
    return contiguous_output((*input.shape[:2], *size), input)


# -- backward ---------------------------------------------------------------------------------------

INDEX_BYTES = 8


@backward_rule(*(f"aten.{name}{n}d" for n in (1, 2, 3) for name in ("max_pool", "adaptive_max_pool")))
def max_pool_gradients(input: Operand, *args: Any, out: Operand, **kwargs: Any) -> Backward:
    """The input, and for each element of the output the place of the maximum."""
    return backward(kept(input), kept_bytes(INDEX_BYTES * out.numel))


@backward_rule(*(f"aten.max_pool{n}d_with_indices" for n in (2, 3)))
def max_pool_with_indices_gradients(input: Operand, *args: Any, out: Operand, **kwargs: Any) -> Backward:
    return backward(kept(input), [Saved(~1)])


@backward_rule("aten.avg_pool1d", "aten.avg_pool2d", "aten.avg_pool3d")
def avg_pool_gradients(input: Operand, *args: Any, out: Operand, **kwargs: Any) -> Backward:
    return backward(kept(input))


@backward_rule("aten.adaptive_avg_pool1d", "aten.adaptive_avg_pool2d")
def adaptive_avg_pool_gradients(input: Operand, output_size: Any, *args: Any, out: Operand) -> Backward:
    """Pooling to one element is a mean, which keeps nothing."""
    n = 1 if output_size is None or isinstance(output_size, int) else len(output_size)
    return backward(kept(input) if prod(out.shape[-n:]) > 1 else [])


@backward_rule("aten.adaptive_avg_pool3d")
def adaptive_avg_pool3d_gradients(input: Operand, *args: Any, out: Operand) -> Backward:
    return backward(kept(input) if prod(out.shape[-3:]) > 1 else [])
