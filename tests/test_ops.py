"""Rules of operations: costs equal to fvcore's, and output rules that agree with torch on shape, strides and dtype."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import quick, trace
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils import _pytree as pytree

import cspprof
from cspprof import ops
from cspprof.core.errors import CspprofError
from cspprof.core.tensors import TensorSpec
from cspprof.operands.tensor_meta import meta_of
from cspprof.ops import OUTPUT_RULES, RULES, Facts, op_rule
from cspprof.trace import dispatch, op_cache
from cspprof.zoo import catalog

# -- costs ------------------------------------------------------------------------------------------


def test_every_family_of_operations_is_imported() -> None:
    assert {module.name for module in pkgutil.iter_modules(ops.__path__)} <= set(dir(ops))


def fvcore_count(counter: type, name: str) -> Any:
    """A counter of fvcore for a network of the zoo at 64×64."""
    model = catalog().get(name).factory().eval()
    return counter(model, torch.zeros(1, 3, 64, 64)).unsupported_ops_warnings(False).uncalled_modules_warnings(False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", quick(["csp_resnext50", "resnet50", "csp_darknet53"], 1))
def test_convolution_macs_equal_fvcore(name: str) -> None:
    from fvcore.nn import FlopCountAnalysis

    expected = fvcore_count(FlopCountAnalysis, name).by_operator()["conv"]  # fvcore calls MACs "flops"
    assert cspprof.profile(name, (1, 3, 64, 64)).total("macs") == expected


@pytest.mark.filterwarnings("ignore")
def test_activations_equal_fvcore() -> None:
    from fvcore.nn import ActivationCountAnalysis

    expected = fvcore_count(ActivationCountAnalysis, "csp_resnet50").total()
    assert cspprof.profile("csp_resnet50", (1, 3, 64, 64)).total("activations") == expected


def test_a_rule_limits_the_recorded_outputs() -> None:
    class Pool(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pooled, indices = nn.functional.adaptive_max_pool2d(x, 2, return_indices=True)
            return nn.functional.max_unpool2d(pooled, indices, 2)

    p = trace(Pool(), (1, 4, 4, 4))
    p.self_check()
    pool, unpool = p.ops
    assert len(pool.writes) == 1  # without the indices, which the kernel always writes
    assert p.total("cio_cspnet") == 64 + 16
    assert [t.dtype for t in unpool.reads] == ["float32", "int64"]
    assert [s.role for s in p.storages] == ["input", "byproduct"]


def test_a_second_rule_for_an_operation_is_refused() -> None:
    with pytest.raises(CspprofError, match=r"operation rule 'aten\.conv2d' is registered already"):
        op_rule("aten.conv2d")(lambda *args, **kwargs: Facts("conv"))


def test_the_gradients_of_a_recurrent_layer_of_the_cpu_by_hand() -> None:
    """5 steps of a batch of 2: two matrices of 20 rows, each with a gradient for itself and one for what it reads."""
    rule = RULES.get("aten.mkldnn_rnn_layer_backward")
    x, matrices, bias = TensorSpec((5, 2, 6)), [TensorSpec((20, 6)), TensorSpec((20, 5))], TensorSpec((20,))
    facts = rule(x, *matrices, bias, bias, out=x)
    assert (facts.macs, facts.elementwise) == (2 * 5 * 2 * 20 * (6 + 5), 5 * 2 * (20 + 20))


def test_the_gradient_of_distances_by_hand() -> None:
    """2 batches of 5 × 7 distances between vectors of 3."""
    left, right, distances = TensorSpec((2, 5, 3)), TensorSpec((2, 7, 3)), TensorSpec((2, 5, 7))
    facts = RULES.get("aten._cdist_backward")(distances, left, right, 2.0, distances, out=left)
    assert (facts.macs, facts.elementwise) == (2 * 5 * 7 * 3, 2 * 5 * 7 * 3)


# -- outputs ----------------------------------------------------------------------------------------

sizes = st.integers(1, 9)
dtypes = st.sampled_from([torch.float32, torch.float16, torch.float64, torch.int64])


def check(name: str, function: Callable[..., torch.Tensor], *args: Any) -> None:
    """The output rule gives what torch gives, or None. If torch raises an error, it gives None."""
    metas = pytree.tree_map_only(torch.Tensor, meta_of, args)
    output = OUTPUT_RULES[f"aten.{name}"](*metas)
    try:
        with torch.inference_mode():
            expected = meta_of(function(*args))
    except (RuntimeError, ValueError, IndexError, NotImplementedError, ZeroDivisionError):
        assert output is None
        return
    assert output in (None, expected), (args, output and (output.shape, output.strides), expected.strides)


@st.composite
def maps(draw: Any, rank: int = 4, dtype: Any = None) -> torch.Tensor:
    """A small meta tensor: contiguous, channels-last, transposed, or channels of a wider map."""
    shape = [draw(sizes) for _ in range(rank)]
    tensor = torch.empty(shape, device="meta", dtype=dtype or draw(dtypes))
    layout = draw(st.sampled_from(["contiguous", "contiguous", "channels_last", "transposed", "sliced"]))
    if layout == "sliced" and rank > 1:
        batch = draw(st.sampled_from([1, 1, shape[0]]))
        return torch.empty([batch, shape[1] + 1, *shape[2:]], device="meta", dtype=tensor.dtype)[:, 1:]
    if layout == "channels_last" and rank == 4:
        return tensor.to(memory_format=torch.channels_last)
    return tensor.transpose(0, -1) if layout == "transposed" else tensor


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, device="meta", dtype=dtype)


@settings(deadline=None, max_examples=100)
@given(maps(dtype=torch.float32), sizes, st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2),
       st.integers(1, 3), st.booleans())  # fmt: skip
def test_conv2d_output(
    x: torch.Tensor, c_out: int, k: int, stride: int, padding: int, dilation: int, groups: int, wrong: bool
) -> None:
    w = empty(c_out * groups, max(x.shape[1] // groups, 1) + wrong, k, k)
    args = (None, [stride, stride], [padding, padding], [dilation, dilation], groups)
    check("conv2d", torch.ops.aten.conv2d, x, w, *args)


@settings(deadline=None)
@given(maps(rank=3, dtype=torch.float32), sizes, st.booleans())
def test_linear_output(x: torch.Tensor, out: int, wrong: bool) -> None:
    check("linear", F.linear, x, empty(out, x.shape[-1] + wrong), empty(out))


@settings(deadline=None)
@given(maps(rank=3), maps(rank=3), st.booleans())
def test_matmul_output(a: torch.Tensor, b: torch.Tensor, fit: bool) -> None:
    check("matmul", torch.matmul, a, empty(a.shape[0], a.shape[2], 3, dtype=a.dtype) if fit else b)


@settings(deadline=None, max_examples=100)
@given(maps(), maps(), st.sampled_from(["add", "sub", "mul", "div"]), st.booleans())
def test_binary_output(a: torch.Tensor, b: torch.Tensor, name: str, fit: bool) -> None:
    if fit:
        b = empty(*(n if i % 2 else 1 for i, n in enumerate(a.shape)), dtype=a.dtype)
    for right in (b, 2, 2.5, True):
        check(name, getattr(torch, name), a, right)


@settings(deadline=None)
@given(maps(), st.sampled_from(["relu", "silu", "gelu", "hardswish", "sigmoid", "tanh", "leaky_relu", "elu"]))
def test_unary_output(x: torch.Tensor, name: str) -> None:
    check(name, getattr(F, name, None) or getattr(torch, name), x)


@settings(deadline=None)
@given(maps(), st.integers(-5, 4))
def test_softmax_output(x: torch.Tensor, dim: int) -> None:
    check("softmax", lambda t, d: t.softmax(d), x, dim)


@settings(deadline=None, max_examples=100)
@given(maps(), st.integers(-4, 3), st.integers(1, 3), st.booleans())
def test_cat_output(x: torch.Tensor, dim: int, n: int, wrong: bool) -> None:
    tensors = [x.clone() if i % 2 else x for i in range(n)]
    if wrong:
        tensors.append(empty(*(s + 1 for s in x.shape), dtype=x.dtype))
    check("cat", torch.cat, tensors, dim)


@settings(deadline=None, max_examples=100)
@given(maps(dtype=torch.float32), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.booleans(), st.booleans())
def test_pooling_output(x: torch.Tensor, k: int, stride: int, padding: int, ceil: bool, maximum: bool) -> None:
    if maximum:
        args: tuple[Any, ...] = ([k, k], [stride, stride], [padding, padding], [1, 1], ceil)
        check("max_pool2d", torch.ops.aten.max_pool2d, x, *args)
    else:
        check("avg_pool2d", torch.ops.aten.avg_pool2d, x, [k, k], [stride, stride], [padding, padding], ceil)


@settings(deadline=None, max_examples=100)
@given(maps(), sizes, st.sampled_from([0.4, 0.5, 1.0, 1.5, 2.0, 2.3]),
       st.sampled_from(["nearest", "bilinear", "bicubic"]), st.booleans())  # fmt: skip
def test_resize_output(x: torch.Tensor, size: int, scale: float, mode: str, by_size: bool) -> None:
    operation = getattr(torch.ops.aten, f"upsample_{mode}2d").vec
    align_corners = () if mode == "nearest" else (False,)
    sizes = ([size, size + 1], *align_corners, None) if by_size else (None, *align_corners, [scale, 2.0])
    check(f"upsample_{mode}2d", operation, x, *sizes)


@settings(deadline=None)
@given(maps(dtype=torch.float32), sizes)
def test_adaptive_pool_output(x: torch.Tensor, size: int) -> None:
    check("adaptive_avg_pool2d", torch.ops.aten.adaptive_avg_pool2d, x, [size, size])


@settings(deadline=None, max_examples=100)
@given(maps(), st.lists(st.integers(-5, 4), min_size=1, max_size=3), st.booleans())
def test_reductions_output(x: torch.Tensor, dims: list[int], keepdim: bool) -> None:
    aten = torch.ops.aten
    for name, operation in (("mean", aten.mean.dim), ("sum", aten.sum.dim_IntList), ("amax", aten.amax.default)):
        check(name, operation, x, dims, keepdim)


@settings(deadline=None)
@given(maps(dtype=torch.float32), st.booleans(), st.booleans())
def test_norms_output(x: torch.Tensor, wrong: bool, train: bool) -> None:
    c = empty(x.shape[1] + wrong)
    check("batch_norm", torch.ops.aten.batch_norm, x, c, c, c, c, train, 0.1, 1e-5, False)
    check("batch_norm", torch.ops.aten.batch_norm, x, c, None, None, None, train, 0.1, 1e-5, False)
    check("group_norm", torch.ops.aten.group_norm, x, 1 + train, c, c, 1e-5, False)
    last = empty(x.shape[-1] + wrong)
    check("layer_norm", torch.ops.aten.layer_norm, x, list(last.shape), last, last)


@settings(deadline=None, max_examples=100)
@given(
    maps(dtype=torch.float32),
    st.lists(st.integers(-5, 4), min_size=1, max_size=3),
    st.lists(st.integers(0, 3), max_size=6),
)
def test_roll_pad_and_contiguous_output(x: torch.Tensor, dims: list[int], pads: list[int]) -> None:
    check("roll", torch.roll, x, [1] * len(dims), dims)
    check("pad", torch.ops.aten.pad, x, pads)
    check("contiguous", torch.Tensor.contiguous, x)


def wide(*shape: int) -> torch.Tensor:
    """A map in channels-last order."""
    return empty(*shape).to(memory_format=torch.channels_last)


aten = torch.ops.aten
X = empty(2, 4, 8, 6)
COVERED: list[tuple[str, Callable[..., torch.Tensor], tuple[Any, ...]]] = [
    ("conv2d", aten.conv2d, (X, empty(8, 4, 3, 3))),
    ("conv2d", aten.conv2d, (X, empty(8, 2, 3, 1), empty(8), [2, 1], [1, 0], [1, 2], 2)),
    ("conv2d", aten.conv2d, (empty(2, 7, 8, 6)[:, 2:6], empty(8, 4, 1, 1), empty(8))),
    ("linear", F.linear, (empty(5, 4), empty(3, 4))),
    ("linear", F.linear, (empty(4, 5).t(), empty(3, 4))),
    ("linear", F.linear, (X, empty(3, 6), empty(3))),
    ("matmul", torch.matmul, (empty(5, 4), empty(4, 3))),
    ("matmul", torch.matmul, (empty(2, 5, 4), empty(2, 4, 3))),
    ("matmul", torch.matmul, (X, empty(2, 4, 6, 3))),
    ("matmul", torch.matmul, (X, empty(2, 4, 3, 6).mT)),
    *((name, getattr(torch, name), (X, other)) for name in ("add", "sub", "mul", "div")
      for other in (empty(2, 4, 8, 6), empty(4, 1, 1), empty(6), 2, 0.5)),
    *((name, function, (x,)) for x in (X, wide(2, 4, 8, 6)) for name, function in (
        ("relu", F.relu), ("silu", F.silu), ("gelu", F.gelu), ("hardswish", F.hardswish), ("sigmoid", torch.sigmoid),
        ("tanh", torch.tanh), ("leaky_relu", F.leaky_relu), ("elu", F.elu), ("mish", F.mish), ("relu6", F.relu6),
        ("hardsigmoid", F.hardsigmoid), ("softplus", F.softplus), ("hardtanh", F.hardtanh),
    )),
    *((name, getattr(torch, name), (wide(2, 4, 8, 6), other)) for name in ("add", "mul")
      for other in (wide(2, 4, 8, 6), 2)),
    ("softmax", aten.softmax.int, (X, -1)),
    ("log_softmax", aten.log_softmax.int, (X, 1)),
    ("cat", torch.cat, ([X, empty(2, 3, 8, 6)], 1)),
    ("cat", torch.cat, ([X, empty(1, 4, 8, 6), X],)),
    ("cat", torch.cat, ([X, empty(2, 4, 8, 1)], -1)),
    ("max_pool2d", aten.max_pool2d, (X, [3, 3], [2, 2], [1, 1], [1, 1], False)),
    ("max_pool2d", aten.max_pool2d, (X, [2, 3], [2, 1], [1, 0], [1, 2], True)),
    ("avg_pool2d", aten.avg_pool2d, (X, [3, 3], [2, 2], [1, 1], False)),
    ("avg_pool2d", aten.avg_pool2d, (X, [2, 2])),
    ("adaptive_avg_pool2d", aten.adaptive_avg_pool2d, (X, [1, 1])),
    ("adaptive_avg_pool2d", aten.adaptive_avg_pool2d, (X, [3, 5])),
    ("upsample_nearest2d", aten.upsample_nearest2d.vec, (X, [16, 9], None)),
    ("upsample_nearest2d", aten.upsample_nearest2d.vec, (X, None, [2.0, 1.5])),
    ("upsample_bilinear2d", aten.upsample_bilinear2d.vec, (X, [4, 3], False, None)),
    ("upsample_bicubic2d", aten.upsample_bicubic2d.vec, (X, None, True, [2.0, 2.0])),
    ("mean", aten.mean.dim, (X, [2, 3], True)),
    ("mean", aten.mean.dim, (X, [-1])),
    ("sum", aten.sum.dim_IntList, (X, [1], False)),
    ("amax", aten.amax, (X, [1, 3], True)),
    ("amin", aten.amin, (X, [0])),
    ("batch_norm", aten.batch_norm, (X, *[empty(4)] * 4, False, 0.1, 1e-5, False)),
    ("batch_norm", aten.batch_norm, (X, empty(4), empty(4), None, None, True, 0.1, 1e-5, False)),
    ("group_norm", aten.group_norm, (X, 2, empty(4), empty(4), 1e-5, False)),
    ("layer_norm", aten.layer_norm, (X, [6], empty(6), empty(6))),
    ("layer_norm", aten.layer_norm, (X, [8, 6], empty(8, 6))),
    ("pad", aten.pad, (X, [1, 2])),
    ("pad", aten.pad, (X, [1, 0, 0, 3])),
    ("roll", torch.roll, (X, [1, -2], [2, 3])),
    ("roll", torch.roll, (X, [3], [-4])),
    ("contiguous", torch.Tensor.contiguous, (empty(4, 6, 8).movedim(0, 1),)),
    ("scaled_dot_product_attention", F.scaled_dot_product_attention, (X, X, X)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "function", "args"), COVERED)
def test_common_operations_need_no_kernel_of_torch(name: str, function: Callable[..., Any], args: Any) -> None:
    output = OUTPUT_RULES[f"aten.{name}"](*pytree.tree_map_only(torch.Tensor, meta_of, args))
    assert output == meta_of(function(*args))


def test_every_output_rule_covers_an_operation() -> None:
    assert {f"aten.{name}" for name, *_ in COVERED} == set(OUTPUT_RULES)


WRONG: list[tuple[str, Callable[..., torch.Tensor], tuple[Any, ...]]] = [
    ("conv2d", aten.conv2d, (X, empty(8, 3, 3, 3))),
    ("conv2d", aten.conv2d, (X, empty(8, 4, 9, 3))),
    ("conv2d", aten.conv2d, (X, empty(8, 4, 3))),
    ("matmul", torch.matmul, (X, empty(3, 4, 6, 3))),
    ("matmul", torch.matmul, (X, empty(2, 3, 6, 3))),
    ("matmul", torch.matmul, (X, empty(2, 4, 5, 3))),
    ("cat", torch.cat, ([X, empty(2, 4, 8)], 1)),
    ("cat", torch.cat, ([X, empty(3, 4, 8, 6)], 1)),
    ("cat", torch.cat, ([X, empty(2, 4, 8, 7)], 1)),
    ("max_pool2d", aten.max_pool2d, (X, [3, 3], [2, 2], [1, 2], [1, 1], False)),
    ("max_pool2d", aten.max_pool2d, (X, [3, 3], [0, 2], [1, 1], [1, 1], False)),
    ("max_pool2d", aten.max_pool2d, (X, [9, 3], [1, 1], [0, 0], [1, 1], False)),
    ("upsample_nearest2d", aten.upsample_nearest2d.vec, (X[0], [16, 9], None)),
    ("upsample_bilinear2d", aten.upsample_bilinear2d.vec, (X[0], [16, 9], False, None)),
    ("upsample_nearest2d", aten.upsample_nearest2d.vec, (X[None], [16, 9], None)),
    ("upsample_nearest2d", aten.upsample_nearest2d.vec, (X, [16, 9, 3], None)),
    ("batch_norm", aten.batch_norm, (X, *[empty(5)] * 4, True, 0.1, 1e-5, False)),
    ("group_norm", aten.group_norm, (X, 3, empty(4), empty(4), 1e-5, False)),
    ("layer_norm", aten.layer_norm, (X, [8], empty(8))),
    ("roll", torch.roll, (X, [1, 2], [2])),
]


@pytest.mark.parametrize(("name", "function", "args"), WRONG)
def test_torch_refuses_what_does_not_fit(name: str, function: Callable[..., Any], args: Any) -> None:
    """An output rule leaves it to torch, whose error a user sees."""
    with pytest.raises((RuntimeError, IndexError)):
        function(*args)
    check(name, function, *args)


@st.composite
def projections(draw: Any, shape: tuple[int, ...]) -> torch.Tensor:
    """Queries, keys or values (N, H, L, E) on the CPU, cut from a projection with any order of batch, heads and length:
    alone, one of three that lie side by side, or all but the last token."""
    order = draw(st.permutations(range(3)))
    base = [*(shape[d] for d in order), shape[3]]
    place = draw(st.sampled_from([None, None, 0, 1, 2, 3]))
    if place is not None:
        base.insert(place, 3)
    tensor = torch.zeros(base) if place is None else torch.zeros(base).select(place, 1)
    return tensor.permute(*(order.index(d) for d in range(3)), 3)


@settings(deadline=None, max_examples=200)
@given(st.data(), st.lists(st.integers(1, 4), min_size=5, max_size=5), st.sampled_from([None, "shared", "of a batch"]))
def test_attention_output(data: Any, dims: list[int], masked: str | None) -> None:
    """The output lies as that of the CPU's kernel: torch's meta kernel has another layout."""
    n, heads, queries, keys, size = dims
    q, k, v = (data.draw(projections((n, heads, length, size))) for length in (queries, keys, keys))
    masks = {None: None, "shared": torch.zeros(queries, keys), "of a batch": torch.zeros(n, 1, queries, keys)}
    args = (q, k, v, masks[masked])
    output = OUTPUT_RULES["aten.scaled_dot_product_attention"](*(t if t is None else meta_of(t) for t in args))
    assert output == meta_of(torch.nn.functional.scaled_dot_product_attention(*args))


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(maps(dtype=torch.float32), maps(dtype=torch.float32), st.lists(st.booleans(), min_size=4, max_size=4))
def test_layout_of_outputs(a: torch.Tensor, b: torch.Tensor, same: list[bool]) -> None:
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


def test_a_batch_of_one_whose_stride_is_not_the_largest() -> None:
    x = torch.empty(2, 2, 3, 2, device="meta")[:, 1:].movedim(1, 0)[:, :, 1:]
    assert x.stride() == (6, 12, 2, 1)
    check("gelu", F.gelu, x)
    check("mul", torch.mul, x, 2.0)
    check("add", torch.add, x, x)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", quick(["resnext50", "csp_darknet53"], 1))
def test_a_network_has_the_same_record_without_output_rules(
    name: str, train: bool, channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.device("meta"):
        model: nn.Module = catalog().get(name).factory()
        x = torch.empty(2, 3, 64, 64)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
        model = model.to(memory_format=torch.channels_last)
    op_cache.clear()
    with_rules = trace(model, x, train=train)
    repeated = trace(model, x, train=train)
    monkeypatch.setattr(dispatch, "OUTPUT_RULES", {})
    op_cache.clear()
    assert with_rules == repeated == trace(model, x, train=train)
