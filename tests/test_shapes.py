"""Every answer given without torch is the answer that torch gives: shape, strides and dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import trace
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cspprof.ops import OUTPUT_RULES
from cspprof.trace import dispatch, op_cache
from cspprof.trace.tensor_meta import meta_of

sizes = st.integers(1, 9)
dtypes = st.sampled_from([torch.float32, torch.float16, torch.float64, torch.int64])


def check(name: str, function: Callable[..., torch.Tensor], *args: Any) -> None:
    """The answer for these arguments is None, or torch's own; where torch refuses, there is none."""
    given = [meta_of(a) if isinstance(a, torch.Tensor) else a for a in args]
    given = [[meta_of(t) for t in a] if isinstance(a, list) and a and isinstance(a[0], torch.Tensor) else a
             for a in given]  # fmt: skip
    answer = OUTPUT_RULES[f"aten.{name}"](*given)
    try:
        with torch.inference_mode():
            expected = meta_of(function(*args))
    except (RuntimeError, ValueError, IndexError, NotImplementedError, ZeroDivisionError):
        assert answer is None
        return
    assert answer in (None, expected), (args, answer and (answer.shape, answer.strides), expected.strides)


@st.composite
def maps(draw: Any, rank: int = 4, dtype: Any = None) -> torch.Tensor:
    """A meta tensor of small sizes: contiguous, channels-last, transposed, or channels of something wider."""
    shape = [draw(sizes) for _ in range(rank)]
    made = torch.empty(shape, device="meta", dtype=dtype or draw(dtypes))
    layout = draw(st.sampled_from(["plain", "plain", "last", "turned", "sliced"]))
    if layout == "sliced" and rank > 1:
        batch = draw(st.sampled_from([1, 1, shape[0]]))
        return torch.empty([batch, shape[1] + 1, *shape[2:]], device="meta", dtype=made.dtype)[:, 1:]
    if layout == "last" and rank == 4:
        return made.to(memory_format=torch.channels_last)
    return made.transpose(0, -1) if layout == "turned" else made


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, device="meta", dtype=dtype)


@settings(deadline=None, max_examples=200)
@given(maps(dtype=torch.float32), sizes, st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2),
       st.integers(1, 3), st.booleans())  # fmt: skip
def test_conv2d(x: torch.Tensor, c_out: int, k: int, stride: int, padding: int, dilation: int, groups: int, off: bool
                ) -> None:  # fmt: skip
    w = empty(c_out * groups, max(x.shape[1] // groups, 1) + off, k, k)
    args = (None, [stride, stride], [padding, padding], [dilation, dilation], groups)
    check("conv2d", torch.ops.aten.conv2d, x, w, *args)


@settings(deadline=None)
@given(maps(rank=3, dtype=torch.float32), sizes, st.booleans())
def test_linear(x: torch.Tensor, out: int, off: bool) -> None:
    check("linear", F.linear, x, empty(out, x.shape[-1] + off), empty(out))


@settings(deadline=None)
@given(maps(rank=3), maps(rank=3), st.booleans())
def test_matmul(a: torch.Tensor, b: torch.Tensor, fit: bool) -> None:
    check("matmul", torch.matmul, a, empty(a.shape[0], a.shape[2], 3, dtype=a.dtype) if fit else b)


@settings(deadline=None, max_examples=200)
@given(maps(), maps(), st.sampled_from(["add", "sub", "mul", "div"]), st.booleans())
def test_binary(a: torch.Tensor, b: torch.Tensor, name: str, fit: bool) -> None:
    if fit:
        b = empty(*(n if i % 2 else 1 for i, n in enumerate(a.shape)), dtype=a.dtype)
    for right in (b, 2, 2.5, True):
        check(name, getattr(torch, name), a, right)


@settings(deadline=None)
@given(maps(), st.sampled_from(["relu", "silu", "gelu", "hardswish", "sigmoid", "tanh", "leaky_relu", "elu"]))
def test_unary(x: torch.Tensor, name: str) -> None:
    check(name, getattr(F, name, None) or getattr(torch, name), x)


@settings(deadline=None)
@given(maps(), st.integers(-5, 4))
def test_softmax(x: torch.Tensor, dim: int) -> None:
    check("softmax", lambda t, d: t.softmax(d), x, dim)


@settings(deadline=None, max_examples=200)
@given(maps(), st.integers(-4, 3), st.integers(1, 3), st.booleans())
def test_cat(x: torch.Tensor, dim: int, n: int, off: bool) -> None:
    tensors = [x.clone() if i % 2 else x for i in range(n)]
    if off:
        tensors.append(empty(*(s + 1 for s in x.shape), dtype=x.dtype))
    check("cat", torch.cat, tensors, dim)


@settings(deadline=None, max_examples=200)
@given(maps(dtype=torch.float32), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.booleans(), st.booleans())
def test_pools(x: torch.Tensor, k: int, stride: int, padding: int, ceil: bool, maximum: bool) -> None:
    if maximum:
        args: tuple[Any, ...] = ([k, k], [stride, stride], [padding, padding], [1, 1], ceil)
        check("max_pool2d", torch.ops.aten.max_pool2d, x, *args)
    else:
        check("avg_pool2d", torch.ops.aten.avg_pool2d, x, [k, k], [stride, stride], [padding, padding], ceil)


@settings(deadline=None, max_examples=200)
@given(maps(), sizes, st.sampled_from([0.4, 0.5, 1.0, 1.5, 2.0, 2.3]),
       st.sampled_from(["nearest", "bilinear", "bicubic"]), st.booleans())  # fmt: skip
def test_resizes(x: torch.Tensor, size: int, scale: float, mode: str, by_size: bool) -> None:
    operation = getattr(torch.ops.aten, f"upsample_{mode}2d").vec
    settled = () if mode == "nearest" else (False,)
    how = ([size, size + 1], *settled, None) if by_size else (None, *settled, [scale, 2.0])
    check(f"upsample_{mode}2d", operation, x, *how)


@settings(deadline=None)
@given(maps(dtype=torch.float32), sizes)
def test_adaptive_pool(x: torch.Tensor, size: int) -> None:
    check("adaptive_avg_pool2d", torch.ops.aten.adaptive_avg_pool2d, x, [size, size])


@settings(deadline=None, max_examples=200)
@given(maps(), st.lists(st.integers(-5, 4), min_size=1, max_size=3), st.booleans())
def test_reductions(x: torch.Tensor, dims: list[int], keepdim: bool) -> None:
    aten = torch.ops.aten
    for name, operation in (("mean", aten.mean.dim), ("sum", aten.sum.dim_IntList), ("amax", aten.amax.default)):
        check(name, operation, x, dims, keepdim)


@settings(deadline=None)
@given(maps(dtype=torch.float32), st.booleans(), st.booleans())
def test_norms(x: torch.Tensor, off: bool, train: bool) -> None:
    c = empty(x.shape[1] + off)
    check("batch_norm", torch.ops.aten.batch_norm, x, c, c, c, c, train, 0.1, 1e-5, False)
    last = empty(x.shape[-1] + off)
    check("layer_norm", torch.ops.aten.layer_norm, x, list(last.shape), last, last)


@settings(deadline=None, max_examples=200)
@given(
    maps(dtype=torch.float32),
    st.lists(st.integers(-5, 4), min_size=1, max_size=3),
    st.lists(st.integers(0, 3), max_size=6),
)
def test_moves(x: torch.Tensor, dims: list[int], pads: list[int]) -> None:
    check("roll", torch.roll, x, [1] * len(dims), dims)
    check("pad", torch.ops.aten.pad, x, pads)
    check("contiguous", torch.Tensor.contiguous, x)


@settings(deadline=None, max_examples=400)
@given(maps(dtype=torch.float32), maps(dtype=torch.float32), st.lists(st.booleans(), min_size=4, max_size=4))
def test_layouts_of_elementwise_results(a: torch.Tensor, b: torch.Tensor, same: list[bool]) -> None:
    shape = [n if keep else 1 for n, keep in zip(a.shape, same, strict=True)]
    for other in (
        empty(*shape),
        empty(*shape).to(memory_format=torch.channels_last),
        empty(*reversed(shape)).permute(3, 2, 1, 0),
    ):
        check("add", torch.add, a, other)
        check("mul", torch.mul, other, a)
    check("add", torch.add, a, empty(*a.shape).to(memory_format=torch.channels_last))
    check("add", torch.add, a, empty(*a.shape))
    check("layer_norm", torch.ops.aten.layer_norm, a, [a.shape[-1]])
    check("mul", torch.mul, a[..., :-1, :], 2.0)
    check("gelu", F.gelu, a.movedim(1, 0)[:, :, 1:])
    check("cat", torch.cat, [a[0], a[0].transpose(0, 1).contiguous().transpose(0, 1)], 1)
    check("matmul", torch.matmul, a, empty(*a.shape).transpose(2, 3))
    check("linear", torch.nn.functional.linear, a[0, 0], empty(5, a.shape[-1]))
    check("conv2d", torch.ops.aten.conv2d, a, empty(4, a.shape[1], 1, 1), empty(4))


def test_one_image_whose_stride_is_not_the_largest() -> None:
    x = torch.empty(2, 2, 3, 2, device="meta")[:, 1:].movedim(1, 0)[:, :, 1:]
    assert x.stride() == (6, 12, 2, 1)
    check("gelu", F.gelu, x)
    check("mul", torch.mul, x, 2.0)
    check("add", torch.add, x, x)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", ["resnext50", "csp_darknet53"])
def test_whole_networks_give_the_same_record_without_the_answers(
    name: str, train: bool, channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cspprof.zoo import catalog

    with torch.device("meta"):
        model: nn.Module = catalog().get(name).factory()
        x = torch.empty(2, 3, 64, 64)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
        model = model.to(memory_format=torch.channels_last)
    op_cache.clear()
    with_answers = trace(model, x, train=train)
    repeated = trace(model, x, train=train)
    monkeypatch.setattr(dispatch, "OUTPUT_RULES", {})
    op_cache.clear()
    assert with_answers == repeated == trace(model, x, train=train)
