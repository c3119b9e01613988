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


def attention_macs(queries: int, keys: int, size: int, value_size: int) -> int:
    """MACs of softmax(q·kᵀ)·v: two products over every query-key pair. A mask, causal or not, saves nothing here.

    `queries` counts them over batch, heads and length, `keys` is what each of them meets; `size` and `value_size`
    are the lengths of a query and of a value vector.
    """
    return queries * keys * (size + value_size)


def lu_macs(m: int, n: int) -> int:
    """MACs of an LU factorisation of an m×n matrix: after the k-th pivot, a product for every element left.

    >>> lu_macs(3, 3)  # 2·2 + 1·1
    5
    """
    return sum((m - k) * (n - k) for k in range(1, min(m, n) + 1))


def cholesky_macs(n: int) -> int:
    """MACs of a Cholesky factorisation: element (i, j ≤ i) is an inner product of length j, counting from 0."""
    return n * (n * n - 1) // 6


def substitution_macs(n: int, solution: int) -> int:
    """MACs of solving with a triangular n×n matrix: 0 + 1 + … + (n−1) a column. `solution` counts all its elements."""
    return solution * (n - 1) // 2


def fft_operations(elements: int, lengths: Sequence[int]) -> int:
    """Real additions and multiplications of complex Fourier transforms over the dimensions of these lengths.

    The radix-2 count, 5·n·log₂n for each transform of length n, with log₂ rounded up where n is no power of two;
    `elements` counts the whole array. A transform of real values, or to them, is half of it.

    >>> fft_operations(8, [8])
    120
    """
    return 5 * elements * sum((n - 1).bit_length() for n in lengths)


def adaptive_windows(size: int, out: int) -> int:
    """Elements in all windows of adaptive pooling in one dimension: from ⌊i·size/out⌋ up to ⌈(i+1)·size/out⌉."""
    return sum(-(-(i + 1) * size // out) - i * size // out for i in range(out))


def pool_elementwise(kernel: Sequence[int], out: Sequence[int]) -> int:
    """Comparisons or additions of a pooling layer: the window's size for every output element."""
    return prod(kernel) * prod(out)


def window_size(size: int, kernel: int, stride: int, padding: int, dilation: int = 1, ceil: bool = False) -> int:
    """Output length of a sliding window over `size` elements, padded on both sides.

    With `ceil` a last window that would start in the right padding is dropped, as torch drops it.
    """
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil:
        return span // stride + 1
    out = (span + stride - 1) // stride + 1
    return out - 1 if (out - 1) * stride >= size + padding else out


def broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The common shape, NumPy's rule. Raises ValueError when there is none."""
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
    """Row-major strides; a dimension of length 0 counts as 1, as in torch."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n or 1
    strides.reverse()
    return tuple(strides)


def harmonic_links(k: int) -> list[int]:
    """The layers that layer k of a HarDNet block reads, nearest first: k − 2ⁿ for every n with 2ⁿ | k. Layer 0 is the
    block's input.

    >>> harmonic_links(4)
    [3, 2, 0]
    """
    return [k - 2**n for n in range(k.bit_length()) if k % 2**n == 0]


def harmonic_width(links: int, growth: int, multiplier: float) -> int:
    """Channels of a HarDNet layer that reads so many layers: growth·multiplier^(links − 1), made even as the released
    definition does.

    >>> harmonic_width(2, 14, 1.7)
    24
    """
    return int(int(growth * multiplier ** (links - 1) + 1) / 2) * 2
