"""Pooling: no MACs; the comparisons or additions of every window are its scalar operations."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from cspprof.core import formulas as f
from cspprof.core.record import Kind
from cspprof.ops import Facts, Ints, Spec, op_rule


def _pool(kind: Kind, kernel: Sequence[int], out: Spec, outputs: int | None = None, **attrs: Any) -> Facts:
    return Facts(kind, 0, f.pool_elementwise(kernel, out.shape), {"kernel": tuple(kernel), **attrs}, outputs)


def _windows(kind: Kind, n: int, *targets: str) -> None:
    """Pooling over windows of one size in `n` dimensions. Indices are there only if they were asked for."""

    @op_rule(*targets)
    def pool(input: Spec, kernel_size: Ints, *args: Any, out: Spec, **kwargs: Any) -> Facts:
        return _pool(kind, f.pair(kernel_size, n), out)


for _n in (1, 2, 3):
    _windows(Kind.AVG_POOL, _n, f"aten.avg_pool{_n}d")
    _windows(Kind.MAX_POOL, _n, f"aten.max_pool{_n}d", f"aten.max_pool{_n}d_with_indices")
for _n in (1, 2):
    _windows(Kind.MAX_POOL, _n, f"quantized.max_pool{_n}d")
for _n in (2, 3):
    _windows(Kind.MAX_POOL, _n, f"aten.fractional_max_pool{_n}d")


def _adaptive(kind: Kind, n: int, *targets: str) -> None:
    """Pooling to a given size in `n` dimensions. The kernels of max pooling always write indices, asked or not: they
    are left out."""

    @op_rule(*targets)
    def pool(input: Spec, output_size: Ints, *args: Any, out: Spec, **kwargs: Any) -> Facts:
        size, whole = out.shape[-n:], input.shape[-n:]
        if prod(size) == 1:
            return _pool(kind, whole, out, outputs=1, **{"global": True})
        windows = prod(f.adaptive_windows(a, b) for a, b in zip(whole, size, strict=True))
        return Facts(kind, 0, prod(out.shape[:-n]) * windows, {"output_size": size}, outputs=1)


for _n in (1, 2, 3):
    _adaptive(Kind.AVG_POOL, _n, f"aten.adaptive_avg_pool{_n}d", f"aten._adaptive_avg_pool{_n}d")
    _adaptive(Kind.MAX_POOL, _n, f"aten.adaptive_max_pool{_n}d")


@op_rule("aten.mean")
def mean(input: Spec, dim: Ints | None = None, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """A mean over exactly the spatial dimensions of (N, C, H, W) is global average pooling by another name."""
    rank = len(input.shape)
    dims = {d % rank for d in f.pair(dim, 1)} if dim is not None and rank else set()
    if rank == 4 and dims == {2, 3}:
        return _pool(Kind.AVG_POOL, input.shape[2:], out, **{"global": True})
    return Facts(Kind.REDUCTION, elementwise=input.numel)
