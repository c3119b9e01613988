"""Integer arithmetic on shapes. No torch, no floats."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod


def pair(value: int | Sequence[int], n: int = 2) -> tuple[int, ...]:
    """`value` for each of `n` spatial dimensions: 3 -> (3, 3), [3] -> (3, 3), (1, 2) -> (1, 2)."""
    if isinstance(value, int):
        return (value,) * n
    return tuple(value) * n if len(value) == 1 else tuple(value)


def conv_macs(weight: Sequence[int], out: Sequence[int]) -> int:
    """MACs of a convolution: k_h·k_w·(c_in/groups) for every output element.

    `weight` is (c_out, c_in/groups, *kernel), `out` (N, c_out, *spatial). Padding is multiplied too, as every
    engine and every published table counts it.

    >>> conv_macs((64, 3, 7, 7), (1, 64, 112, 112))
    118013952
    """
    return prod(weight[1:]) * prod(out)


def conv_transpose_macs(weight: Sequence[int], inputs: Sequence[int]) -> int:
    """MACs of a transposed convolution: every input element meets (c_out/groups)·kernel weights.

    `weight` is (c_in, c_out/groups, *kernel), `inputs` (N, c_in, *spatial).
    """
    return prod(weight[1:]) * prod(inputs)


def matmul_macs(left: Sequence[int], out: Sequence[int]) -> int:
    """MACs of a (broadcast) matrix product: the contracted length for every output element."""
    return left[-1] * prod(out)


def attention_macs(query: Sequence[int], key: Sequence[int], value: Sequence[int], out: Sequence[int]) -> int:
    """MACs of softmax(q·kᵀ)·v: two products over every query-key pair. A causal mask saves nothing here.

    `query` (…, H, L, E), `key` (…, S, E), `value` (…, S, Ev), `out` (…, H, L, Ev): the leading dimensions of the first
    three may broadcast, those of `out` are the work's.
    """
    return prod(out[:-1]) * key[-2] * (query[-1] + value[-1])


def pool_elementwise(kernel: Sequence[int], out: Sequence[int]) -> int:
    """Comparisons or additions of a pooling layer: the window's size for every output element."""
    return prod(kernel) * prod(out)


def window_size(size: int, kernel: int, stride: int, padding: int, dilation: int = 1, ceil: bool = False) -> int:
    """Output length of a sliding window over `size` elements, padded on both sides.

    With `ceil` a last window that would start in the right padding is dropped, as torch drops it.
    """
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    out = span // stride + 1
    if ceil and span % stride:
        out += 1
        if (out - 1) * stride >= size + padding:
            out -= 1
    return out


def broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The common shape, NumPy's rule. Raises ValueError when there is none."""
    rank = max(map(len, shapes), default=0)
    out = [1] * rank
    for shape in shapes:
        for i, n in enumerate(shape, rank - len(shape)):
            if n != 1:
                if out[i] not in (1, n):
                    raise ValueError(f"shapes {shapes} do not broadcast")
                out[i] = n
    return tuple(out)


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides; a dimension of length 0 counts as 1, as in torch."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))
