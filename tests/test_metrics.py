"""Metrics of small operations, against hand arithmetic; how values combine; how a metric is registered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import conv_spec, relu_spec, trace
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import cspprof
from cspprof.core.errors import CspprofError, UnknownNameError
from cspprof.core.record import Calls, Kind, Layer, OpSpec, Storage, TensorSpec
from cspprof.metrics import METRICS, Peak, Ratio, Sum, metric
from cspprof.metrics.memory import activation_bytes
from cspprof.profiles import Profile


def single(spec: OpSpec, n: int = 1) -> Profile:
    """A profile of `n` calls of `spec`. All calls read the same storages, and each writes storages of its own."""
    width = len(spec.reads) + len(spec.weights) + len(spec.writes)
    held = range(len(spec.reads) + len(spec.weights))
    roles = ["input"] * len(spec.reads) + ["parameter"] * len(spec.weights)
    tensors = (*spec.reads, *spec.weights)
    storage: list[int] = []
    for i in range(n):
        storage += [*held, *(width + i * 10 + k for k in range(len(spec.writes)))]
    return Profile(
        "one", "one", spec.reads[:1], (Layer("", "One", 0, 1, 0),), (spec,), Calls([0] * n, [0] * n, storage),
        tuple(Storage(i, str(i), r, t) for i, r, t in zip(held, roles, tensors, strict=True)),
        params=sum(t.numel for t in spec.weights),
    )  # fmt: skip


def test_metrics_of_two_convolutions(chain: Profile) -> None:
    chain.self_check()
    # conv a: 9·3·8·16 = 3,456; conv b: 9·8·8·16 = 9,216
    assert chain.total("macs") == 12_672
    assert chain.total("flops") == 25_344
    assert chain.total("bflops") == 25_344 / 1e9
    # a reads 48 and writes 128 elements, b reads 128 and writes 128
    assert chain.total("cio_hardnet") == 48 + 128 + 128 + 128
    assert chain.total("cio_bytes") == 4 * 432
    assert chain.total("activations") == 256
    assert chain.total("moc") == 12_672 / 432
    assert chain.total("params") == 792
    assert chain.total("conv_weights") == 216 + 576
    assert chain.total("bottleneck_macs") == 9_216
    assert chain.total("bottleneck_share") == 9_216 / 12_672
    assert chain.total("balance") == 12_672 / (2 * 9_216)
    # a: 48 + 216 + 128; ReLU in place: 128 + 128; b: 128 + 576 + 128; four bytes each
    assert chain.total("traffic_bytes") == 4 * (392 + 256 + 832)


def test_live_memory_of_two_convolutions(chain: Profile) -> None:
    # a: input 48 and output 128 are alive; ReLU in place: 128; b: 128 in and 128 out. The input is freed after a.
    assert chain.live_bytes == [4 * 176, 4 * 128, 4 * 256]
    assert chain.total("peak_bytes") == 4 * 256


def test_a_returned_output_lives_to_the_end() -> None:
    spec = conv_spec(2, 2, 2)
    two = replace(single(spec, 2), outputs=())
    size = spec.writes[0].nbytes
    assert two.total("peak_bytes") == 2 * size  # the input and one output
    both = replace(two, outputs=tuple(two.ops[i].writes[0].storage for i in range(2)))
    assert both.total("peak_bytes") == 3 * size


@pytest.mark.parametrize(
    ("kind", "attrs", "cspnet", "darknet"),
    [
        (Kind.MAX_POOL, {"kernel": (2, 2)}, 256, 256),
        (Kind.AVG_POOL, {"kernel": (2, 2)}, 256, 256),
        (Kind.AVG_POOL, {"kernel": (2, 2), "global": True}, 0, 0),
        (Kind.ACTIVATION, {}, 0, 0),
    ],
)
def test_bflops_of_pooling_by_three_rules(kind: Kind, attrs: dict[str, object], cspnet: int, darknet: int) -> None:
    x, y = TensorSpec((1, 16, 4, 4)), TensorSpec((1, 16, 2, 2))
    p = single(OpSpec("aten.x", kind, (x,), (), (y,), attrs, elementwise=256))
    assert (p.total("bflops"), p.total("bflops_cspnet"), p.total("bflops_darknet")) == (0, cspnet / 1e9, darknet / 1e9)


def test_pooling_counts_in_cio_cspnet_only() -> None:
    x, y = TensorSpec((1, 16, 4, 4)), TensorSpec((1, 16, 2, 2))
    p = single(OpSpec("aten.max_pool2d", Kind.MAX_POOL, (x,), (), (y,), {}, elementwise=256))
    assert (p.total("cio_hardnet"), p.total("cio_cspnet")) == (0, 256 + 64)


def test_bflops_darknet_of_a_shortcut_and_of_a_linear_layer() -> None:
    x = TensorSpec((1, 4, 3, 3))
    add = single(OpSpec("aten.add_", Kind.ELEMENTWISE, (x, x), (), (x,), elementwise=36))
    linear = single(
        OpSpec("aten.linear", Kind.LINEAR, (TensorSpec((1, 8)),), (TensorSpec((2, 8)),), (TensorSpec((1, 2)),), macs=16)
    )
    assert add.total("bflops_darknet") == 36 / 1e9
    assert (linear.total("bflops"), linear.total("bflops_darknet")) == (32 / 1e9, 0)


def test_a_shared_weight_counts_once() -> None:
    twice = single(conv_spec(4, 4, 4), 2)
    assert twice.total("conv_weights") == 9 * 16
    assert twice.total("params_darknet") == 9 * 16
    assert twice.total("macs") == 2 * 9 * 16 * 16


def test_views_of_a_weight_count_at_most_its_size() -> None:
    x, y = TensorSpec((1, 8)), TensorSpec((1, 4))
    half = OpSpec("aten.linear", Kind.LINEAR, (x,), (TensorSpec((4, 8)),), (y,), macs=32)
    embedding = OpSpec("aten.embedding", Kind.EMBEDDING, (TensorSpec((1,), "int64"),), (TensorSpec((8, 8)),), (x,))
    held = (Storage(0, "x", "input", x), Storage(1, "weight", "parameter", TensorSpec((8, 8))))

    def profile(calls: list[int], storages: list[int]) -> Profile:
        return Profile("net", "net", (x,), (Layer("", "Net", 0, 1, 64),), (half, embedding),
                       Calls(calls, [0] * len(calls), storages), held, params=64)  # fmt: skip

    assert profile([0, 0], [0, 1, 2, 0, 1, 3]).total("conv_weights") == 2 * 32
    assert profile([0, 0, 0], [0, 1, 2, 0, 1, 3, 0, 1, 4]).total("conv_weights") == 64
    assert profile([1, 0], [0, 1, 2, 2, 1, 3]).total("conv_weights") == 32  # an embedding multiplies no matrix


def test_params_darknet_of_a_batch_norm_and_of_a_biased_convolution() -> None:
    x = TensorSpec((1, 8, 4, 4))
    norm = single(OpSpec("aten.batch_norm", Kind.NORM, (x,), (TensorSpec((8,)),) * 4, (x,)))
    biased = conv_spec(8, 8, 4)
    conv = single(biased._replace(weights=(*biased.weights, TensorSpec((8,)))))
    assert norm.total("params_darknet") == 32
    assert (conv.total("params_darknet"), conv.total("conv_weights")) == (9 * 64 + 8, 9 * 64)


def test_cio_bytes_of_each_dtype() -> None:
    assert single(conv_spec(4, 4, 4, dtype="float16")).total("cio_bytes") == 2 * 128
    assert single(conv_spec(4, 4, 4, dtype="float64")).total("cio_bytes") == 8 * 128


def test_an_unknown_operation_is_reported() -> None:
    x = TensorSpec((1, 4, 4, 4))
    p = single(OpSpec("mylib.thing", Kind.UNKNOWN, (x,), (), (x,), macs=None), 3)
    assert p.uncounted == {"mylib.thing": 3}
    assert not p.complete
    assert METRICS.get("macs").op_value(p.specs[0]) is None


def test_a_ratio_with_denominator_zero_has_no_value() -> None:
    p = single(relu_spec(4, 4))
    assert p.total("moc") is None
    assert p.total("balance") is None
    assert p.total("bottleneck_macs") == 0


@given(st.lists(st.tuples(st.integers(0, 10**15), st.integers(1, 10**12)), min_size=1))
def test_ratios_sum_before_they_divide(parts: list[tuple[int, int]]) -> None:
    total = Ratio(0, 0)
    for numerator, denominator in parts:
        total += Ratio(numerator, denominator)
    assert total.value == sum(n for n, _ in parts) / sum(d for _, d in parts)


@given(st.integers(0, 10**18), st.integers(1, 1000))
def test_multiplication_is_repeated_addition(value: int, n: int) -> None:
    for amount in (Sum(value), Peak(value), Ratio(value, value + 1)):
        total = amount
        for _ in range(n - 1):
            total = total + amount  # type: ignore[operator]
        assert amount * n == total


def test_a_user_registers_metrics(chain: Profile) -> None:
    @metric("relu_elements", unit="elements")
    def relu_elements(op: OpSpec) -> int:
        """Elements that ReLU writes."""
        return op.writes[0].numel if op.name == "relu_" else 0

    @metric("largest_read", unit="elements", zero=Peak(0))
    def largest_read(op: OpSpec) -> int:
        """Elements of the largest map that an operation reads."""
        return max(t.numel for t in op.reads)

    try:
        assert chain.total("relu_elements") == 128
        assert chain.total("largest_read") == 128
        assert METRICS.get("largest_read").op_value(chain.specs[0]) == Peak(48)
    finally:
        METRICS.remove("relu_elements")
        METRICS.remove("largest_read")


def test_a_metric_without_a_definition_is_refused() -> None:
    with pytest.raises(CspprofError, match="has no definition"):
        metric("bare", unit="MACs")(lambda op: 0)


def test_duplicate_and_unknown_names_are_refused() -> None:
    with pytest.raises(CspprofError, match="registered already"):

        @metric("macs", unit="MACs")
        def again(op: OpSpec) -> int:
            """A second metric of this name."""
            return 0

    with pytest.raises(UnknownNameError, match=r"no metric named 'cio_hardnett'\nDid you mean: cio_hardnet"):
        METRICS.get("cio_hardnett")


@pytest.mark.parametrize("name", METRICS.names())
def test_every_metric_has_a_definition_and_a_contrast(name: str) -> None:
    m = METRICS.get(name)
    assert m.definition.endswith(".")
    assert m.is_not
    assert m.unit


class Kernel(nn.Module):
    """A convolution whose kernel is a buffer, computed from a small parameter, or one for each image."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.small = nn.Parameter(torch.ones(4, 3, 1, 1))
        self.register_buffer("fixed", torch.ones(4, 3, 3, 3))
        self.make = nn.Linear(3, 4 * 3 * 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "buffer":
            return F.conv2d(x, self.fixed)
        if self.kind == "expanded":
            return F.conv2d(x, self.small.expand(4, 3, 3, 3))
        if self.kind == "normalized":
            return F.conv2d(x, self.small / self.small.norm())
        kernels = self.make(x.mean((2, 3))).reshape(-1, 3, 3, 3)
        return F.conv2d(x.reshape(1, -1, *x.shape[2:]), kernels, groups=len(x))


@pytest.mark.parametrize(
    ("kind", "conv_weights"), [("buffer", 0), ("expanded", 12), ("normalized", 12), ("dynamic", 12 + 108 + 324)]
)
def test_conv_weights_are_never_more_than_the_parameters(kind: str, conv_weights: int) -> None:
    """The linear layer of the kernels for each image has 324 weights and 108 biases."""
    p = trace(Kernel(kind), (8, 3, 8, 8))
    assert p.params == 12 + 324 + 108
    assert p.total("conv_weights") == conv_weights


@pytest.mark.parametrize(
    ("a", "b", "both"),
    [
        (Sum(3, missed=1), Sum(4, missed=3), Sum(7, missed=4)),
        (Peak(3, missed=1), Peak(4, missed=3), Peak(4, missed=4)),
        (Ratio(1, 2, missed=1), Ratio(3, 6, missed=3), Ratio(4, 8, missed=4)),
    ],
)
def test_amounts_add_what_they_miss(a: Any, b: Any, both: Any) -> None:
    assert a + b == b + a == both


def test_allocated_activations_by_hand() -> None:
    """A convolution from 3 to 4 channels, a ReLU of its own, a view, and a linear layer; the image was there before."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 5))
    assert activation_bytes(cspprof.profile(net, (1, 3, 8, 8))) == 4 * (4 * 36 + 4 * 36 + 5)
