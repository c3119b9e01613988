"""What a trace records: operations, tensors, parameters, values that are known on meta, and how a trace fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from conftest import trace
from networks import ConvNet, Function, layer_ops, op_names
from torch import nn

from cspprof import op_rule
from cspprof.core.errors import TraceError
from cspprof.core.inputs import ModelArguments
from cspprof.core.record import Kind
from cspprof.metrics import METRICS
from cspprof.ops import RULES, Facts
from cspprof.profiles import Profile

DEVICES = pytest.mark.parametrize("device", ["meta", "cpu"])

# -- operations -----------------------------------------------------------------------------------


def test_operations_are_recorded_in_order_with_their_layers() -> None:
    p = trace(ConvNet(), (1, 3, 8, 8))
    p.self_check()
    assert layer_ops(p) == [
        ("conv", "conv2d"),
        ("norm", "batch_norm"),
        ("act", "relu_"),
        ("", "mean"),
        ("fc", "linear"),
    ]
    assert p.total("macs") == 27 * 4 * 64 + 8
    assert [layer.calls for layer in p.layers] == [1] * 5


def test_operations_without_a_module_are_counted() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(8, 3, 3, 3))
            self.table = nn.Parameter(torch.randn(64, 5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = F.conv2d(x, self.w, padding=1).flatten(2).transpose(1, 2)  # (1, 64, 8)
            y = F.scaled_dot_product_attention(y, y, y)  # 2·64·64·8
            y = y @ y.transpose(1, 2)  # 64·64·8
            return torch.einsum("bij,jk->bik", y, self.table)  # 64·64·5

    p = trace(Functional(), (1, 3, 8, 8))
    assert p.complete
    assert [op.macs for op in p.ops if op.macs] == [27 * 8 * 64, 2 * 64 * 64 * 8, 64 * 64 * 8, 64 * 64 * 5]
    assert {op.layer for op in p.ops} == {""}
    assert p.total("conv_weights") == 27 * 8 + 64 * 5


def test_meta_and_cpu_give_the_same_operations() -> None:
    meta, cpu = trace(ConvNet(), (2, 3, 8, 8)), trace(ConvNet(), (2, 3, 8, 8), device="cpu")
    assert [op.spec for op in meta.ops] == [op.spec for op in cpu.ops]
    assert meta.total("peak_bytes") == cpu.total("peak_bytes")


def small_swin() -> nn.Module:
    models = pytest.importorskip("torchvision", reason="the extra torchvision is not installed").models
    return models.SwinTransformer([4, 4], embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=[7, 7])


def small_vit() -> nn.Module:
    models = pytest.importorskip("timm", reason="the extra timm is not installed").models
    return models.VisionTransformer(img_size=64, embed_dim=48, depth=2, num_heads=3)


def decoder_layer() -> nn.Module:
    class Decoder(nn.TransformerDecoderLayer):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x, x[:, :5])

    return Decoder(16, 4, 32, batch_first=True)


@pytest.mark.parametrize(
    ("make", "shape"),
    [(small_swin, (1, 3, 64, 64)), (small_vit, (1, 3, 64, 64)), (decoder_layer, (3, 7, 16))],
)
def test_attention_has_the_same_memory_traffic_on_meta_and_cpu(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    model = make()
    meta, cpu = (trace(model, shape, device=device) for device in ("meta", "cpu"))
    for metric in ("macs", "peak_bytes"):
        assert meta.total(metric) == cpu.total(metric)

    def traffic(p: Profile) -> int:
        """Without numbers that are written into slices: one operation on a CPU, three on every other device."""
        left_out = ("fill_", "copy_", "scalar_tensor")
        counted = [(op.spec, 1) for op in p.ops if op.spec.name not in left_out]
        return METRICS.get("traffic_bytes").group_value(counted).value

    assert traffic(meta) == traffic(cpu) > 0


def test_encoder_layers_are_counted_on_the_cpu_although_torch_has_a_fused_kernel() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    meta, cpu = (trace(model, (1, 5, 8), device=device) for device in ("meta", "cpu"))
    assert (cpu.uncounted, cpu.total("macs")) == ({}, meta.total("macs"))
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_batch_of_eight_costs_eight_times_as_much() -> None:
    one, eight = trace(ConvNet(), (1, 3, 8, 8)), trace(ConvNet(), (8, 3, 8, 8))
    for metric in ("macs", "cio_hardnet", "cio_cspnet", "activations"):
        assert eight.total(metric) == 8 * one.total(metric)


def test_dropout_is_recorded_only_in_train_mode() -> None:
    for inplace, name in ((False, "dropout"), (True, "dropout_")):
        model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Dropout(0.5, inplace), nn.ReLU()).train()
        assert op_names(trace(model, (1, 3, 9, 9))) == ["conv2d", "relu"]
        assert op_names(trace(model, (1, 3, 9, 9), train=True)) == ["conv2d", name, "relu"]
        assert [layer.calls for layer in trace(model, (1, 3, 9, 9)).layers] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "pool",
    [nn.AvgPool2d(6), nn.AdaptiveAvgPool2d(1), lambda x: x.mean((2, 3)), lambda x: x.mean([-1, -2], keepdim=True)],
    ids=["AvgPool2d", "AdaptiveAvgPool2d", "mean", "mean with keepdim"],
)
def test_global_pooling_is_pooling_in_every_notation(pool: Callable[..., torch.Tensor]) -> None:
    p = trace(Function(pool), (1, 4, 6, 6))
    assert p.ops[0].kind is Kind.AVG_POOL
    assert p.total("cio_cspnet") == 4 * 36 + 4


# -- tensors and storages -------------------------------------------------------------------------


def test_views_share_a_storage_and_in_place_operations_write_what_they_read() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, dim=1)
        return F.relu_(a + b) + x.sum(1)

    p = trace(Function(forward), (1, 4, 2, 2))
    chunk, add, relu, total, last = p.ops
    assert chunk.kind is Kind.VIEW
    assert {t.storage for t in chunk.writes} == {chunk.reads[0].storage}
    assert [t.storage for t in add.reads] == [0, 0]
    assert relu.reads == relu.writes == add.writes
    assert [t.storage for t in total.reads] == [0]  # the input is read again: a skip connection
    assert [t.storage for t in last.reads] == [relu.writes[0].storage, total.writes[0].storage]
    assert p.outputs == (last.writes[0].storage,)


def test_in_place_views_cost_nothing() -> None:
    p = trace(Function(lambda x: (x * 2).unsqueeze_(0).transpose_(1, 2).squeeze_(0).t_() + 1), (3, 4))
    assert (p.uncounted, p.total("traffic_bytes"), p.total("peak_bytes")) == ({}, 4 * 48, 96)
    assert op_names(p) == ["mul", "add"]
    assert p.ops[-1].reads[0].shape == (3, 4)


def test_views_of_a_scalar_are_recorded() -> None:
    assert [op.spec.name for op in trace(Function(lambda x: x + x.mean().unsqueeze(0)[None]), (2, 3)).ops] == [
        "mean", "unsqueeze", "unsqueeze", "add",
    ]  # fmt: skip


def test_operations_that_use_only_a_shape_read_nothing() -> None:
    p = trace(Function(lambda x: torch.zeros_like(x) + torch.empty_like(x).fill_(1) + x.new_ones(1, 4)), (1, 4))
    reads_and_writes = {"zeros_like": 1, "empty_like": 0, "fill_": 2, "add": 3 + 3, "new_ones": 1}
    assert p.total("traffic_bytes") == 16 * sum(reads_and_writes.values())


@DEVICES
def test_out_arguments_are_written_and_not_read(device: str) -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        product = torch.matmul(x, x, out=x.new_empty(4, 4))
        gate = torch.sigmoid(x, out=x.new_empty(4, 4))
        return torch.cat([product, gate], out=x.new_empty(0))

    p = trace(Function(forward), (4, 4), device=device)
    p.self_check()
    assert (p.uncounted, p.total("macs")) == ({}, 64)
    by_name = {op.spec.name: op for op in p.ops}
    assert {name: len(op.reads) for name, op in by_name.items()} == {
        "new_empty": 0, "matmul": 2, "sigmoid": 1, "cat": 2,
    }  # fmt: skip
    assert by_name["cat"].writes[0].shape == (8, 4)
    assert [t.storage for t in by_name["cat"].reads] == [by_name[n].writes[0].storage for n in ("matmul", "sigmoid")]


def test_inputs_may_be_several_named_or_nested() -> None:
    class Net(nn.Module):
        def forward(self, pair: list[torch.Tensor], *, scale: torch.Tensor, more: dict[str, torch.Tensor]) -> Any:
            return {"sum": pair[0] + pair[1] * scale + more["z"]}

    shape = (1, 2, 3)
    p = trace(Net(), ModelArguments(([shape, torch.zeros(shape)],), {"scale": (1,), "more": {"z": shape}}))
    assert [t.shape for t in p.inputs] == [shape, shape, (1,), shape]
    assert op_names(p) == ["mul", "add", "add"]
    assert [s.name for s in p.storages if s.role == "input"][2] == "scale"


def test_named_tuples_and_dataclasses_are_searched_for_tensors() -> None:
    class Pair(NamedTuple):
        a: Any
        b: Any

    @dataclasses.dataclass(slots=True)
    class Inner:
        value: torch.Tensor

    @dataclasses.dataclass
    class Outer:
        inner: Inner

    net, x = Function(lambda pair: Outer(Inner(pair.a + pair.b))), torch.ones(1, 4)
    for device in ("meta", "cpu"):
        p = trace(net, [Pair(x, x)], device=device)
        assert p.outputs == (p.ops[-1].writes[0].storage,)
        assert p.total("peak_bytes") == 32, "one tensor that is passed twice is one input"
    assert trace(net, [Pair((1, 4), (1, 4))]).total("peak_bytes") == 48


def test_the_dtype_option_applies_to_every_tensor_and_not_to_the_model() -> None:
    model = ConvNet()
    p = trace(model, (1, 3, 8, 8), dtype="float16")
    assert p.dtype == "float16"
    assert {t.dtype for op in p.ops for t in (*op.reads, *op.weights, *op.writes)} == {"float16"}
    assert p.total("cio_bytes") * 2 == trace(model, (1, 3, 8, 8)).total("cio_bytes")
    assert model.conv.weight.dtype is torch.float32


# -- parameters -----------------------------------------------------------------------------------


def test_tied_parameters_count_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    p = trace(model, (1, 4))
    assert (p.total("params"), p.total("conv_weights"), p.total("macs")) == (16, 16, 32)


def test_a_convolved_parameter_is_an_activation_and_a_pooled_weight_is_no_layer() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.map = nn.Parameter(torch.randn(1, 3, 8, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scale = self.conv.weight.mean((2, 3)).sum() + F.max_pool2d(self.map, 2).sum()
            return x + self.conv(self.map) * scale

    p = trace(Net(), (1, 4, 6, 6))
    p.self_check()
    assert (p.total("macs"), p.total("cio_hardnet"), p.total("cio_cspnet")) == (27 * 144, 192 + 144, 192 + 144)


def test_weights_that_a_recurrent_layer_passes_in_a_list_are_parameters() -> None:
    p = trace(nn.LSTM(6, 5), (4, 2, 6))
    assert p.total("conv_weights") == 20 * 6 + 20 * 5
    assert not [s for s in p.storages if s.role == "constant"]


@DEVICES
@pytest.mark.parametrize("cleared", [False, True])
def test_parameters_in_a_plain_list_are_used_and_not_counted(device: str, cleared: bool) -> None:
    """They are not registered, so an optimizer does not train them either."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.scales = [nn.Parameter(torch.ones(4)), self.conv.weight]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x) * self.scales[0].view(-1, 1, 1)
            if cleared:
                self.scales.clear()
            return y

    net = Scaled()
    scales = list(net.scales)
    p = trace(net, (1, 3, 8, 8), device=device)
    assert (p.params, p.total("macs")) == (3 * 4 + 4, 8 * 8 * 3 * 4)
    assert all(a is b for a, b in zip(net.scales, scales, strict=True))


def test_weight_norm_checkpoints_and_autocast_change_no_count() -> None:
    from torch.utils.checkpoint import checkpoint

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return checkpoint(self.conv, x, use_reentrant=False) + self.conv(x)

    model = Net()
    p = trace(model, (1, 3, 8, 8))
    p.self_check()
    assert (p.uncounted, p.total("macs"), p.total("params")) == ({}, 2 * 27 * 4 * 36, 4 + 4 + 108)
    assert model(torch.randn(1, 3, 8, 8)).shape == (1, 4, 6, 6)


# -- values on meta -------------------------------------------------------------------------------


def test_constants_have_values_on_meta() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attribute = torch.ones(4)  # neither a parameter nor a buffer
            self.register_buffer("index", torch.tensor([2, 0]))
            self.table = nn.Parameter(torch.randn(3, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mask = torch.arange(4) < 2
            x = x * self.attribute + torch.arange(4)
            assert mask.sum().item() == 2
            return torch.where(mask, x, x.new_zeros(())) + self.table[self.index].sum(0)

    p = trace(Net(), (1, 4))
    p.self_check()
    assert p.complete


@pytest.mark.parametrize(
    "write",
    [
        lambda scores, x: scores.add_(x[0]),
        lambda scores, x: scores.copy_(x[0]),
        lambda scores, x: torch.sigmoid(x[0], out=scores),
    ],
    ids=["add_", "copy_", "out="],
)
def test_a_constant_has_no_values_on_meta_after_an_unknown_value_was_written_into_it(
    write: Callable[[torch.Tensor, torch.Tensor], Any],
) -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(4)
        last = scores[3:]
        write(scores, x)
        return x.relu() if last.item() == 0 else x.tanh()

    with pytest.raises(TraceError, match="needs the values"):
        trace(Function(forward), (1, 4))
    assert op_names(trace(Function(forward), torch.ones(1, 4), device="cpu"))[-1] == "tanh"


def test_a_constant_keeps_its_values_after_a_known_value_was_written_into_it() -> None:
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.relu() if torch.zeros(4).add_(1)[3:].item() == 0 else x.tanh()

    assert op_names(trace(Function(forward), (1, 4)))[-1] == "tanh"


def test_control_flow_on_values_fails_on_meta_and_runs_on_the_cpu() -> None:
    net = Function(lambda x: x.relu() if x.sum().item() > 0 else x.tanh())
    with pytest.raises(TraceError, match="needs the values of a tensor") as error:
        trace(net, (1, 4))
    assert "--device cpu" in str(error.value)
    assert op_names(trace(net, torch.ones(1, 4), device="cpu"))[-1] == "relu"


def test_a_shape_that_depends_on_values_is_recorded_for_each_call() -> None:
    for _ in range(2):
        x = torch.tensor([1.0, 2.0, -1.0, 20.0])
        p = trace(Function(lambda x: x[x > 0].sum() + x[x > 10].sum()), x, device="cpu")
        assert [op.writes[0].shape for op in p.ops if op.spec.name == "index"] == [(3,), (1,)]


# -- unknown operations and the user's rules -------------------------------------------------------


@DEVICES
def test_unknown_operations_that_return_no_tensor_are_reported(device: str) -> None:
    with torch.library._scoped_library("cspprofsilent", "FRAGMENT") as library:
        library.define("into(Tensor x, Tensor(a!) out) -> ()")
        library.impl("into", lambda x, out: [out.copy_(x @ x), None][1], "CPU")
        library.impl("into", lambda x, out: None, "Meta")
        library.define("count(Tensor x) -> int")
        library.impl("count", lambda x: 3, "CompositeExplicitAutograd")

        def forward(x: torch.Tensor) -> torch.Tensor:
            out = torch.empty_like(x)
            torch.ops.cspprofsilent.into(x, out)
            return torch._foreach_add([out], torch.ops.cspprofsilent.count(x))[0]

        p = trace(Function(forward), (4, 4), device=device)
    p.self_check()
    assert p.uncounted == {"aten._foreach_add": 1, "cspprofsilent.count": 1, "cspprofsilent.into": 1}
    empty, into = p.ops[:2]
    assert into.writes == empty.writes


@pytest.fixture(scope="module")
def custom_op_twice() -> nn.Module:
    """Calls an operation that no rule counts, cspproftest.double, twice."""

    @torch.library.custom_op("cspproftest::double", mutates_args=())
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @double.register_fake
    def _(x: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(x)

    return Function(lambda x: double(double(x)))


def test_an_unknown_operation_is_reported_until_a_rule_counts_it(custom_op_twice: nn.Module) -> None:
    p = trace(custom_op_twice, (2, 3))
    assert p.uncounted == {"cspproftest.double": 2}
    assert [op.macs for op in p.ops] == [None, None]

    @op_rule("cspproftest.double")
    def rule(x: Any, *, out: Any) -> Facts:
        return Facts("matmul", macs=10 * out.numel)

    try:
        assert trace(custom_op_twice, (2, 3)).total("macs") == 120
    finally:
        RULES.remove("cspproftest.double")
    assert not trace(custom_op_twice, (2, 3)).complete


def test_a_formula_registered_with_torch_counts_an_unknown_operation(custom_op_twice: nn.Module) -> None:
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    packet = torch.ops.cspproftest.double
    register_flop_formula(packet)(lambda shape, *args, out_shape=None, **kwargs: 8 * shape[0] * shape[1])
    try:
        p = trace(custom_op_twice, (2, 3))
    finally:
        del flop_registry[packet]
    assert (p.total("macs"), p.ops[0].kind) == (2 * 24, Kind.CUSTOM)


def test_a_formula_of_an_odd_number_of_flops_keeps_it(custom_op_twice: nn.Module) -> None:
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    packet = torch.ops.cspproftest.double
    register_flop_formula(packet)(lambda *args, out_shape=None, **kwargs: 9001)
    try:
        p = trace(custom_op_twice, (2, 3))
    finally:
        del flop_registry[packet]
    assert (p.total("flops"), p.total("bflops")) == (2 * 9001, 2 * 9001 / 10**9)
    assert p.total("macs") == 2 * 4501  # each call is rounded up to whole MACs


# -- failures -------------------------------------------------------------------------------------


def test_a_failure_names_the_layer_the_operation_and_the_shapes() -> None:
    with pytest.raises(TraceError) as error:
        trace(nn.Sequential(nn.ReLU(), ConvNet()), (1, 4, 8, 8), name="net")
    text = str(error.value)
    assert "net: layer '1.conv' (Conv2d) failed at aten.conv2d on 1×4×8×8, 4×3×3×3" in text
    assert "model input 1×4×8×8" in text
    assert "--input 1x3x8x8" in text


def test_a_layer_refuses_an_input_of_the_wrong_rank_also_after_a_layer_that_takes_it() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm1d(4))
    with pytest.raises(TraceError, match="expected 2D or 3D input"):
        trace(model, (2, 3, 9, 9))


def test_lazy_parameters_are_refused() -> None:
    with pytest.raises(TraceError, match="has lazy parameters"):
        trace(nn.LazyConv2d(4, 3), (1, 3, 8, 8))


def test_a_model_that_is_not_a_module_is_refused() -> None:
    with pytest.raises(TraceError, match=r"a function is not a torch\.nn\.Module"):
        trace(lambda x: x, (1, 3))
