"""The integer formulas of `core/formulas.py` beside loops that count, and beside torch's own shapes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from cspprof.core import formulas as f
from cspprof.core.errors import CspprofError

SIZES = st.integers(1, 7)


def test_a_number_or_a_list_of_one_counts_for_each_dimension() -> None:
    assert f.pair(3) == (3, 3)
    assert f.pair(3, 3) == (3, 3, 3)
    assert f.pair([3]) == (3, 3)
    assert f.pair([1, 2]) == (1, 2)
    assert f.pair([], 2) == ()


# -- MACs: as many as the innermost statement of the textbook's loops -----------------------------------


@given(SIZES, SIZES, SIZES, SIZES, SIZES)
def test_convolutions(batch: int, c_out: int, c_in: int, kernel: int, size: int) -> None:
    macs = batch * size * size * c_out * c_in * kernel * kernel
    assert f.conv_macs((c_out, c_in, kernel, kernel), (batch, c_out, size, size)) == macs
    assert f.conv_transpose_macs((c_in, c_out, kernel, kernel), (batch, c_in, size, size)) == macs


@given(SIZES, SIZES, SIZES, SIZES)
def test_products_and_attention(queries: int, keys: int, size: int, value_size: int) -> None:
    assert f.matmul_macs((queries, size), (queries, keys)) == queries * keys * size
    scores, values = queries * keys * size, queries * keys * value_size
    assert f.attention_macs(queries, keys, size, value_size) == scores + values


@given(SIZES, SIZES)
def test_factorizations(m: int, n: int) -> None:
    assert f.lu_macs(m, n) == sum(1 for k in range(min(m, n)) for _ in range(k + 1, m) for _ in range(k + 1, n))
    assert f.cholesky_macs(n) == sum(1 for i in range(n) for j in range(i + 1) for _ in range(j))
    assert f.substitution_macs(n, n * m) == sum(1 for _ in range(m) for i in range(n) for _ in range(i))


def test_fourier_transforms() -> None:
    assert f.fft_operations(8, [8]) == 5 * 8 * 3
    assert f.fft_operations(32, [8, 4]) == 5 * 32 * (3 + 2)
    assert f.fft_operations(9, [9]) == 5 * 9 * 4  # log₂ 9 rounded up
    assert f.fft_operations(5, [1]) == 0


# -- windows and shapes: as in torch ------------------------------------------------------------------


@given(st.integers(1, 40), SIZES, SIZES, st.integers(0, 3), st.integers(1, 3), st.booleans())
def test_windows(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil: bool) -> None:
    assume(padding <= kernel // 2 and size + 2 * padding >= dilation * (kernel - 1) + 1)
    pool = torch.nn.MaxPool1d(kernel, stride, padding, dilation, ceil_mode=ceil)
    assert f.window_size(size, kernel, stride, padding, dilation, ceil) == pool(torch.zeros(1, 1, size)).shape[-1]


@given(st.integers(1, 30), st.integers(1, 30))
def test_adaptive_windows_read_every_element_at_least_once(size: int, out: int) -> None:
    x = torch.zeros(1, size, dtype=torch.double, requires_grad=True)
    means = torch.nn.functional.adaptive_avg_pool1d(x, out)[0]
    read = sum(int((torch.autograd.grad(mean, x, retain_graph=True)[0] != 0).sum()) for mean in means)
    assert f.adaptive_windows(size, out) == read


def test_pooling_counts_its_window_for_each_output() -> None:
    assert f.pool_elementwise((2, 3), (1, 4, 5, 5)) == 6 * 100


SHAPES = st.lists(st.integers(0, 3), max_size=4).map(tuple)


@given(st.lists(SHAPES, max_size=3))
def test_broadcasting(shapes: list[tuple[int, ...]]) -> None:
    try:
        expected = tuple(torch.broadcast_shapes(*shapes))
    except RuntimeError:
        with pytest.raises(ValueError, match="do not broadcast"):
            f.broadcast(*shapes)
    else:
        assert f.broadcast(*shapes) == expected


@given(SHAPES)
def test_strides(shape: tuple[int, ...]) -> None:
    assert f.contiguous_strides(shape) == torch.empty(shape).stride()


# -- blocks -------------------------------------------------------------------------------------------


def test_links_of_hardnet() -> None:
    """Figure 1 of Chao et al. 2019."""
    assert [f.harmonic_links(k) for k in range(1, 9)] == [
        [0], [1, 0], [2], [3, 2, 0], [4], [5, 4], [6], [7, 6, 4, 0],
    ]  # fmt: skip


def test_widths_of_hardnet_are_even() -> None:
    assert [f.harmonic_width(links, 14, 1.7) for links in (1, 2, 3, 4)] == [14, 24, 40, 68]
    assert [f.harmonic_width(links, 15, 1.6) for links in (1, 2)] == [16, 24]


def test_bypassed_channels() -> None:
    assert [f.bypass_channels(64, gamma) for gamma in (0.001, 0.25, 0.5, 0.75, 0.999)] == [1, 16, 32, 48, 63]
    assert [f.bypass_channels(64, gamma, 8) for gamma in (0.001, 0.3, 0.999)] == [8, 16, 56]
    for gamma in (0, 1, -0.5, 1.5, float("nan"), "0.5"):
        with pytest.raises(CspprofError, match="is not a fraction"):
            f.bypass_channels(64, gamma)
