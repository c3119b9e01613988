"""Integer arithmetic on shapes, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from cspprof.core.errors import CspprofError


def pair(value: int | Sequence[int], n: int = 2) -> tuple[int, ...]:
    """`value` for each of `n` spatial dimensions: 3 -> (3, 3), [3] -> (3, 3), (1, 2) -> (1, 2)."""
    if isinstance(value, int):
        return (value,) * n
    return tuple(value) * n if len(value) == 1 else tuple(value)


def conv_macs(weight: Sequence[int], out: Sequence[int]) -> int:
    """MACs of a convolution: k_h·k_w·(c_in/groups) for every output element.

    `weight` is (c_out, c_in/groups, *kernel), `out` is (N, c_out, *spatial). Products with padding count too, as in
    published tables.

    >>> conv_macs((64, 3, 7, 7), (1, 64, 112, 112))
    118013952
    """
    return prod(weight[1:]) * prod(out)


def conv_transpose_macs(weight: Sequence[int], inputs: Sequence[int]) -> int:
    """MACs of a transposed convolution: (c_out/groups)·k_h·k_w for every input element.

    `weight` is (c_in, c_out/groups, *kernel), `inputs` is (N, c_in, *spatial).
    """
    return prod(weight[1:]) * prod(inputs)


def matmul_macs(left: Sequence[int], out: Sequence[int]) -> int:
    """MACs of a (broadcast) matrix product: the contracted length for every output element."""
    return left[-1] * prod(out)


def attention_macs(queries: int, keys: int, size: int, value_size: int) -> int:
    """MACs of softmax(q·kᵀ)·v: two products over every query-key pair, masked or not.

    `queries` is the number of queries over batch, heads and length, `keys` the number of keys for each query. `size`
    and `value_size` are the lengths of a query and of a value vector.
    """
    return queries * keys * (size + value_size)


def lu_macs(m: int, n: int) -> int:
    """MACs of an LU factorization of an m×n matrix: after the k-th pivot, (m − k)·(n − k).

    >>> lu_macs(3, 3)  # 2·2 + 1·1
    5
    """
    return sum((m - k) * (n - k) for k in range(1, min(m, n) + 1))


def cholesky_macs(n: int) -> int:
    """MACs of a Cholesky factorization: element (i, j ≤ i), counted from 0, is an inner product of length j."""
    return n * (n * n - 1) // 6


def substitution_macs(n: int, solution: int) -> int:
    """MACs of solving with a triangular n×n matrix: 0 + 1 + … + (n−1) for each column of a solution with `solution`
    elements."""
    return solution * (n - 1) // 2


def fft_operations(elements: int, lengths: Sequence[int]) -> int:
    """Real additions and multiplications of complex Fourier transforms over the dimensions of these lengths.

    The radix-2 count: 5·n·log₂n for each transform of length n, log₂ rounded up. `elements` is the size of the whole
    array. A transform from or to real values takes half of it.

    >>> fft_operations(8, [8])
    120
    """
    return 5 * elements * sum((n - 1).bit_length() for n in lengths)


def adaptive_windows(size: int, out: int) -> int:
    """Sum of the window lengths of adaptive pooling in one dimension: from ⌊i·size/out⌋ to ⌈(i+1)·size/out⌉."""
    return sum(-(-(i + 1) * size // out) - i * size // out for i in range(out))


def pool_elementwise(kernel: Sequence[int], out: Sequence[int]) -> int:
    """Comparisons or additions of a pooling layer: the size of the window for every output element."""
    return prod(kernel) * prod(out)


def window_size(size: int, kernel: int, stride: int, padding: int, dilation: int = 1, ceil: bool = False) -> int:
    """Output length of a sliding window over `size` elements, padded on both sides.

    With `ceil`, a last window that would start in the right padding is dropped, as in torch.
    """
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil:
        return span // stride + 1
    out = (span + stride - 1) // stride + 1
    return out - 1 if (out - 1) * stride >= size + padding else out


def broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The common shape by NumPy's broadcasting rule. Raises ValueError if the shapes do not broadcast."""
    longest, *others = sorted(shapes, key=len, reverse=True) or [()]
    out = list(longest)
    for shape in others:
        for i, n in enumerate(shape, len(out) - len(shape)):
            if out[i] == n:
                continue
            if 1 not in (out[i], n):
                raise ValueError(f"shapes {shapes} do not broadcast")
            out[i] = n if out[i] == 1 else out[i]
    return tuple(out)


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides. A dimension of length 0 counts as 1, as in torch."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n or 1
    strides.reverse()
    return tuple(strides)


def harmonic_links(k: int) -> list[int]:
    """The inputs of layer k of a HarDNet block, nearest first: layers k − 2ⁿ for every n with 2ⁿ | k. Layer 0 is the
    input of the block. (Chao et al. 2019, section 3.)

    >>> harmonic_links(4)
    [3, 2, 0]
    """
    return [k - 2**n for n in range(k.bit_length()) if k % 2**n == 0]


def harmonic_width(links: int, growth: int, multiplier: float) -> int:
    """Channels of a HarDNet layer with `links` inputs: growth·multiplier^(links − 1), rounded to an even number as in
    the released code.

    >>> harmonic_width(2, 14, 1.7)
    24
    """
    return int(int(growth * multiplier ** (links - 1) + 1) / 2) * 2


def bypass_channels(channels: int, gamma: float, multiple: int = 1) -> int:
    """The number of `channels` that bypass the blocks: γ of them, rounded to a `multiple`, at least one and not all.

    Raises CspprofError unless 0 < γ < 1.
    """
    if not isinstance(gamma, (int, float)) or not 0 < gamma < 1:
        raise CspprofError(f"gamma={gamma!r} is not a fraction", "γ is the bypassed fraction, 0 < γ < 1: gamma=0.5")
    return min(max(round(gamma * channels / multiple) * multiple, multiple), channels - multiple)
