"""The trace: what it sees, and that it leaves no change behind."""

from __future__ import annotations

import copy
import dataclasses
import functools
import gc
import random
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import trace
from torch import nn

from cspprof import op_rule
from cspprof.api import profile
from cspprof.core.errors import TraceError
from cspprof.core.record import Kind
from cspprof.metrics import METRICS
from cspprof.ops import RULES, Facts
from cspprof.profiles import Profile


def names(profile: Profile) -> list[str]:
    return [op.spec.name for op in profile.ops if op.kind is not Kind.VIEW]


class Small(nn.Module):
    """conv 3→4, batch norm, ReLU in place, and a linear layer on the pooled map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.act(self.norm(self.conv(x))).mean((2, 3)))


# -- what it sees ---------------------------------------------------------------------------------


def test_every_operation_has_the_layer_that_ran_it() -> None:
    p = trace(Small(), (1, 3, 8, 8))
    p.self_check()
    assert [(op.layer, op.spec.name) for op in p.ops] == [
        ("conv", "conv2d"), ("norm", "batch_norm"), ("act", "relu_"), ("", "mean"), ("fc", "linear"),
    ]  # fmt: skip
    assert p.total("macs") == 27 * 4 * 64 + 8
    assert [layer.calls for layer in p.layers] == [1] * 5


def test_a_functional_net_is_counted_in_full() -> None:
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


@pytest.mark.parametrize(
    ("module", "inputs", "macs"),
    [
        (nn.Conv1d(4, 8, 3), (2, 4, 10), 2 * 8 * 8 * 12),
        (nn.Conv2d(4, 8, (1, 3), stride=2, dilation=2, groups=2), (1, 4, 9, 9), 8 * 5 * 3 * 6),
        (nn.Conv2d(4, 8, 3, padding="same"), (1, 4, 6, 6), 8 * 36 * 36),
        (nn.Conv3d(2, 3, 2), (1, 2, 4, 4, 4), 3 * 27 * 16),
        (nn.ConvTranspose2d(4, 8, 2, stride=2), (1, 4, 5, 5), 100 * 8 * 4),
        (nn.Linear(7, 3), (2, 5, 7), 10 * 21),
        (nn.Bilinear(3, 4, 5), [(2, 3), (2, 4)], 2 * 5 * 3 * 5),
        (nn.LSTM(6, 5, num_layers=2, bidirectional=True), (4, 1, 6), 4 * (2 * 20 * (6 + 5) + 2 * 20 * (10 + 5))),
        (nn.GRU(6, 5), (4, 2, 6), 8 * 15 * 11),
        (nn.MultiheadAttention(8, 2, bias=False), [(5, 1, 8)] * 3, 4 * 5 * 64 + 2 * 2 * 25 * 4),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (1, 5, 8), 4 * 5 * 64 + 2 * 25 * 8 + 2 * 5 * 8 * 16),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else None,
)
def test_macs_by_hand(module: nn.Module, inputs: Any, macs: int) -> None:
    p = trace(module, inputs)
    p.self_check()
    assert p.uncounted == {}
    assert p.total("macs") == macs


def test_attention_whose_batches_broadcast_is_counted_for_every_output() -> None:
    class Net(nn.Module):
        def forward(self, q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
            return F.scaled_dot_product_attention(q, kv, kv)

    assert trace(Net(), [(1, 2, 5, 8), (4, 2, 7, 8)]).total("macs") == 4 * 2 * 5 * 7 * (8 + 8)
    assert trace(Net(), [(4, 2, 5, 8), (1, 1, 7, 8)]).total("macs") == 4 * 2 * 5 * 7 * (8 + 8)


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_packed_sequences_cost_their_steps_without_the_padding(kind: type[nn.RNNBase], gates: int) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = kind(6, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([4, 3]))
            return nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0])[0]

    p = trace(Net(), (4, 2, 6), device="cpu")
    assert (p.uncounted, p.total("macs")) == ({}, (4 + 3) * gates * 5 * (6 + 5))


def test_views_made_in_place_are_free() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * 2).unsqueeze_(0).transpose_(1, 2).squeeze_(0).t_() + 1

    p = trace(Net(), (3, 4))
    assert (p.uncounted, p.total("traffic_bytes"), p.total("peak_bytes")) == ({}, 4 * 48, 96)
    assert names(p) == ["mul", "add"]
    assert p.ops[-1].reads[0].shape == (3, 4)


def test_views_share_a_storage_and_in_place_operations_write_what_they_read() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, b = x.chunk(2, dim=1)
            return F.relu_(a + b) + x.sum(1)

    p = trace(Net(), (1, 4, 2, 2))
    chunk, add, relu, total, last = p.ops
    assert chunk.kind is Kind.VIEW
    assert {t.storage for t in chunk.writes} == {chunk.reads[0].storage}
    assert [t.storage for t in add.reads] == [0, 0]
    assert relu.reads == relu.writes == add.writes
    assert [t.storage for t in total.reads] == [0]  # the input is read again: a skip
    assert [t.storage for t in last.reads] == [relu.writes[0].storage, total.writes[0].storage]
    assert p.outputs == (last.writes[0].storage,)


def test_inputs_may_be_many_named_or_nested() -> None:
    class Net(nn.Module):
        def forward(self, pair: list[torch.Tensor], *, scale: torch.Tensor, more: dict[str, torch.Tensor]) -> Any:
            return {"sum": pair[0] + pair[1] * scale + more["z"]}

    from cspprof.core.inputs import Call

    shape = (1, 2, 3)
    p = trace(Net(), Call(([shape, torch.zeros(shape)],), {"scale": (1,), "more": {"z": shape}}))
    assert [t.shape for t in p.inputs] == [shape, shape, (1,), shape]
    assert names(p) == ["mul", "add", "add"]
    assert [s.name for s in p.storages if s.role == "input"][2] == "scale"


def test_a_shared_module_counts_at_every_call_and_its_parameters_once() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(4, 4, 1, bias=False)
            self.again = self.a

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.again(self.a(x))

    p = trace(Net(), (1, 4, 2, 2))
    assert (p.total("macs"), p.total("params"), p.total("conv_weights")) == (2 * 64, 16, 16)
    assert [(y.path, y.calls, y.shared_with) for y in p.layers[1:]] == [("a", 2, ("again",))]


def test_tied_parameters_count_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    p = trace(model, (1, 4))
    assert (p.total("params"), p.total("conv_weights"), p.total("macs")) == (16, 16, 32)


def test_global_pooling_by_any_name() -> None:
    for pool in (nn.AdaptiveAvgPool2d(1), lambda x: x.mean((2, 3)), lambda x: x.mean([-1, -2], keepdim=True)):

        class Net(nn.Module):
            def __init__(self, pool: Any) -> None:
                super().__init__()
                self.pool = pool

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.pool(x)

        p = trace(Net(pool), (1, 4, 6, 6))
        assert p.ops[0].kind is Kind.AVG_POOL
        assert p.total("cio_cspnet") == 4 * 36 + 4


def test_learned_maps_are_convolved_and_weights_are_not_pooled() -> None:
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


def test_named_tuples_dataclasses_and_the_same_tensor_twice() -> None:
    class Pair(NamedTuple):
        a: Any
        b: Any

    @dataclasses.dataclass(slots=True)
    class Inner:
        value: torch.Tensor

    @dataclasses.dataclass
    class Outer:
        inner: Inner

    class Net(nn.Module):
        def forward(self, pair: Pair) -> Outer:
            return Outer(Inner(pair.a + pair.b))

    x = torch.ones(1, 4)
    for device in ("meta", "cpu"):
        p = trace(Net(), [Pair(x, x)], device=device)
        assert p.outputs == (p.ops[-1].writes[0].storage,)
        assert p.total("peak_bytes") == 32
    assert trace(Net(), [Pair((1, 4), (1, 4))]).total("peak_bytes") == 48


def test_the_default_dtype_of_the_day_is_used() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / x

    found = []
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            found.append(trace(Net(), torch.ones(3, dtype=torch.long)).ops[0].writes[0].dtype)
        finally:
            torch.set_default_dtype(torch.float32)
    assert found == ["float32", "float64"]


def test_the_dtype_reaches_every_tensor_and_the_model_keeps_its_own() -> None:
    model = Small()
    p = trace(model, (1, 3, 8, 8), dtype="float16")
    assert p.dtype == "float16"
    assert {t.dtype for op in p.ops for t in (*op.reads, *op.weights, *op.writes)} == {"float16"}
    assert p.total("cio_bytes") * 2 == trace(model, (1, 3, 8, 8)).total("cio_bytes")
    assert model.conv.weight.dtype is torch.float32


def test_a_batch_of_eight_has_eight_times_the_work() -> None:
    one, eight = trace(Small(), (1, 3, 8, 8)), trace(Small(), (8, 3, 8, 8))
    for metric in ("macs", "cio_hardnet", "cio_cspnet", "activations"):
        assert eight.total(metric) == 8 * one.total(metric)


# -- values on meta -------------------------------------------------------------------------------


def test_tensors_made_in_the_forward_and_kept_outside_the_parameters_work_on_meta() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loose = torch.ones(4)  # neither a parameter nor a buffer
            self.register_buffer("index", torch.tensor([2, 0]))
            self.table = nn.Parameter(torch.randn(3, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mask = torch.arange(4) < 2  # made on the CPU, by nobody's wish
            x = x * self.loose + torch.arange(4)
            if mask.sum().item() != 2:  # its value is known: it comes from no input
                raise AssertionError
            return torch.where(mask, x, x.new_zeros(())) + self.table[self.index].sum(0)

    p = trace(Net(), (1, 4))
    p.self_check()
    assert p.complete


def test_a_cached_tensor_of_one_trace_does_not_confuse_the_next() -> None:
    @functools.lru_cache
    def table(n: int) -> torch.Tensor:
        return torch.linspace(0, 1, n)

    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * table(4)

    first, second = trace(Net(), (1, 4)), trace(Net(), (1, 4))
    second.self_check()
    assert names(first) == ["linspace", "mul"]
    assert names(second) == ["mul"]


def test_a_constant_that_an_unknown_was_written_into_is_unknown() -> None:
    class Net(nn.Module):
        def __init__(self, write: Callable[[torch.Tensor, torch.Tensor], Any]) -> None:
            super().__init__()
            self.write = write

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores = torch.zeros(4)
            last = scores[3:]
            self.write(scores, x)
            return x.relu() if last.item() == 0 else x.tanh()

    for write in (lambda s, x: s.add_(x[0]), lambda s, x: s.copy_(x[0]), lambda s, x: torch.sigmoid(x[0], out=s)):
        with pytest.raises(TraceError, match="needs the values"):
            trace(Net(write), (1, 4))
        assert names(trace(Net(write), torch.ones(1, 4), device="cpu"))[-1] == "tanh"
    assert names(trace(Net(lambda s, x: s.add_(1)), (1, 4)))[-1] == "tanh"


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_table_that_the_forward_caches_can_be_trained_with(device: str) -> None:
    @functools.lru_cache
    def table(n: int) -> torch.Tensor:
        return torch.linspace(0, 1, n) * 2

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x) * table(4)

    model = Net()
    trace(model, (1, 4), device=device)
    model(torch.randn(1, 4)).sum().backward()
    assert model.fc.weight.grad is not None


def test_sizes_that_depend_on_values_are_those_of_each_call() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[x > 0].sum() + x[x > 10].sum()

    for _ in range(2):
        p = trace(Net(), torch.tensor([1.0, 2.0, -1.0, 20.0]), device="cpu")
        assert [op.writes[0].shape for op in p.ops if op.spec.name == "index"] == [(3,), (1,)]


class DataDependent(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu() if x.sum().item() > 0 else x.tanh()


def test_a_forward_that_needs_values_says_so_and_works_on_a_real_device() -> None:
    with pytest.raises(TraceError, match="needs the values") as error:
        trace(DataDependent(), (1, 4))
    assert "--device cpu" in str(error.value)
    p = trace(DataDependent(), torch.ones(1, 4), device="cpu")
    assert names(p)[-1] == "relu"


def test_a_detection_model_runs_on_a_real_device_and_comes_back_untouched() -> None:
    models = pytest.importorskip("torchvision", reason="the extra torchvision is not installed").models
    model = models.get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None).eval()
    before = state(model)
    p = trace(model, [[(3, 320, 320)]], device="cpu")
    assert p.complete
    assert same(before, state(model))


def test_attention_layers_are_counted_on_a_real_device() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    meta, cpu = (trace(model, (1, 5, 8), device=device) for device in ("meta", "cpu"))
    assert (cpu.uncounted, cpu.total("macs")) == ({}, meta.total("macs"))
    assert torch.backends.mha.get_fastpath_enabled()


def test_meta_and_cpu_see_the_same_operations() -> None:
    meta, cpu = trace(Small(), (2, 3, 8, 8)), trace(Small(), (2, 3, 8, 8), device="cpu")
    assert [op.spec for op in meta.ops] == [op.spec for op in cpu.ops]
    assert meta.total("peak_bytes") == cpu.total("peak_bytes")


# -- no change left behind ------------------------------------------------------------------------


def state(model: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {
        "rng": torch.get_rng_state().tolist(), "python": random.getstate(), "numpy": np.random.get_state(),
    }  # fmt: skip
    for path, m in model.named_modules():
        found[path] = {k: v for k, v in m.__dict__.items() if not k.startswith("_")}
        found[path + "/hooks"] = [list(v) for k, v in m.__dict__.items() if k.endswith("_hooks")]
    for k, v in (*model.named_parameters(), *model.named_buffers()):
        found[k] = (id(v), v.device, v.dtype, v.requires_grad, v.clone(), v.__dict__.copy())
    return found


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return bool((a == b).all())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


class Leaky(Small):
    """Keeps what it sees, draws random numbers, and fails if told to."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.fails = fails
        self.cache: dict[str, torch.Tensor] = {}
        self.seen: list[torch.Tensor] = []
        self.last: torch.Tensor | None = None
        self.drop = nn.Dropout()

    def train(self, mode: bool = True) -> Leaky:
        self.conv.weight.requires_grad_(mode)
        return super().train(mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.cache["x"] = x
        self.seen.append(x)
        self.last = x + torch.rand(1) + random.random() + np.random.rand()
        self.conv.register_forward_hook(lambda *_: None)
        self.register_buffer("late", torch.zeros(1))
        y = self.drop(super().forward(x))
        if self.fails:
            raise ValueError("on purpose")
        return y


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_comes_back_untouched(device: str, train: bool, fails: bool) -> None:
    model = Leaky(fails).train()
    model.norm.eval()  # flags that differ stay different
    before = state(model)
    if fails:
        with pytest.raises(TraceError, match="on purpose"):
            trace(model, (2, 3, 8, 8), device=device, train=train)
    else:
        trace(model, (2, 3, 8, 8), device=device, train=train)
    assert same(before, state(model))
    model.fails = False
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 2)


def test_a_scalar_has_nothing_to_crop() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x.mean().unsqueeze(0)[None]

    assert [op.spec.name for op in trace(Net(), (2, 3)).ops] == ["mean", "unsqueeze", "unsqueeze", "add"]


def test_hooks_that_the_forward_removes_or_writes_itself_are_put_back() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)
            self.handle = self.register_state_dict_post_hook(lambda *_: None)
            self.tables = self._modules

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.handle.remove()
            hooks: Any = self.conv._forward_hooks
            hooks["by hand"] = lambda *_: None
            self.conv.register_forward_pre_hook(lambda *_: None)
            self.tables["late"] = nn.ReLU()
            return x + 1

    model = Net()
    trace(model, (1, 4, 8, 8))
    assert list(model._modules) == ["conv"]
    assert not model.conv._forward_hooks
    assert not model.conv._forward_pre_hooks
    assert len(model._state_dict_hooks) == 1


def test_a_module_from_an_old_file_and_one_of_torchscript_are_traced() -> None:
    old = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())
    for name in ("_non_persistent_buffers_set", "_backward_pre_hooks"):
        del old[0].__dict__[name]
    assert len(trace(old, (1, 4, 8, 8)).ops) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()), torch.zeros(1, 4, 6, 6))
    for model in (traced, nn.Sequential(traced)):
        assert [op.spec.name for op in trace(model, (1, 4, 8, 8)).ops][-1] == "relu"


def test_names_orders_and_contents_of_attributes_are_put_back() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = self.two = object()
            self.act = nn.ReLU()
            self.table = {"a": 1, "b": 2}
            self.items = [1, 2]
            self.none: list[int] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.three = self.one
            del self.one  # as many attributes with the same values, under other names
            self.table["a"] = self.table.pop("a")
            self.items[:] = [True, 2]  # equal to what was there, and not the same
            self.none.append(1)
            self.act.added = 1
            del self.act._modules
            self.act.__dict__["_modules"] = {}
            return self.act(x)

    net = Net()
    before = [list(m.__dict__.items()) for m in (net, net.act)]
    trace(net, (1, 3))
    assert all(
        [(k, id(v)) for k, v in m.__dict__.items()] == [(k, id(v)) for k, v in then]
        for m, then in zip((net, net.act), before, strict=True)
    )
    assert list(net.table.items()) == [("a", 1), ("b", 2)]
    assert net.items[0] is not True
    assert net.none == []


def test_statistics_of_an_unregistered_norm_are_put_back() -> None:
    norm = nn.BatchNorm2d(4)

    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return norm(x)

    before = state(norm)
    trace(Net(), (2, 4, 8, 8), device="cpu")
    assert same(before, state(norm))


def test_what_is_only_read_keeps_its_version() -> None:
    model = Small().eval()
    before = [b._version for b in model.buffers()]
    loss = model(torch.randn(1, 3, 8, 8)).sum()
    trace(model, (1, 3, 8, 8), device="cpu")
    loss.backward()  # refuses tensors that were written since
    assert [b._version for b in model.buffers()] == before


@pytest.mark.slow
def test_an_exported_module_is_a_module_like_any_other() -> None:
    example = (torch.randn(1, 3, 8, 8),)
    model = torch.export.export(Small().eval(), example).module()
    assert trace(model, (1, 3, 8, 8)).total("macs") == trace(Small(), (1, 3, 8, 8)).total("macs")


def test_train_mode_is_asked_for() -> None:
    assert "dropout" in names(trace(Leaky(False), (2, 3, 8, 8), train=True))
    assert "dropout" not in names(trace(Leaky(False).train(), (2, 3, 8, 8)))


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_write_through_a_view_is_undone_too(device: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))
            self.loose = torch.ones(4)
            self.register_buffer("count", torch.zeros(4, dtype=torch.long))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.weight.data[0].mul_(5)
            self.loose[1:].view(-1)[0] = 7
            self.count[0] += 1
            x[:, 0].mul_(5)
            return x * self.weight + self.loose + self.count

    model, x = Net(), torch.ones(2, 4)
    before = state(model)
    trace(model, x, device=device)
    assert same(before, state(model))
    assert torch.equal(x, torch.ones(2, 4))


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_the_users_tensor_is_not_written(device: str) -> None:
    class InPlace(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mul_(2).add_(1)

    x = torch.ones(2, 2)
    p = trace(InPlace(), x, device=device)
    assert torch.equal(x, torch.ones(2, 2))
    assert p.total("peak_bytes") == 16


def test_real_weights_are_not_copied_or_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a weight was copied")

    model = Small()
    for name in ("to", "clone", "cpu"):
        monkeypatch.setattr(nn.Parameter, name, refuse, raising=False)
    monkeypatch.setattr(copy, "deepcopy", refuse)
    monkeypatch.setattr(nn.Module, "to", refuse)
    assert trace(model, (1, 3, 8, 8)).complete


# -- wrappers, unknown operations, threads, errors -------------------------------------------------


@pytest.mark.slow
def test_compiled_models_are_traced_as_they_were_written() -> None:
    expected = [op.spec for op in trace(Small(), (1, 3, 8, 8)).ops]
    whole = torch.compile(Small())
    inner = Small()
    nested = nn.Sequential(torch.compile(inner))
    in_place = Small()
    in_place.compile()
    for model in (whole, nested, in_place):
        p = trace(model, (1, 3, 8, 8))
        assert [op.spec for op in p.ops] == expected
        assert not any("_orig_mod" in layer.path for layer in p.layers)
    assert in_place._compiled_call_impl is not None


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_an_unknown_operation_that_returns_no_tensor_is_named(device: str) -> None:
    with torch.library._scoped_library("cspprofsilent", "FRAGMENT") as library:
        library.define("into(Tensor x, Tensor(a!) out) -> ()")
        library.impl("into", lambda x, out: [out.copy_(x @ x), None][1], "CPU")
        library.impl("into", lambda x, out: None, "Meta")
        library.define("count(Tensor x) -> int")
        library.impl("count", lambda x: 3, "CompositeExplicitAutograd")

        class Net(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                out = torch.empty_like(x)
                torch.ops.cspprofsilent.into(x, out)
                return torch._foreach_add([out], torch.ops.cspprofsilent.count(x))[0]

        p = trace(Net(), (4, 4), device=device)
    p.self_check()
    assert p.uncounted == {"aten._foreach_add": 1, "cspprofsilent.count": 1, "cspprofsilent.into": 1}
    empty, into = p.ops[:2]
    assert into.writes == empty.writes


def test_what_only_takes_a_shape_reads_nothing() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(x) + torch.empty_like(x).fill_(1) + x.new_ones(1, 4)

    p = trace(Net(), (1, 4))
    reads_and_writes = {"zeros_like": 1, "empty_like": 0, "fill_": 2, "add": 3 + 3, "new_ones": 1}
    assert p.total("traffic_bytes") == 16 * sum(reads_and_writes.values())


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_out_arguments_are_written_and_not_read(device: str) -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            product = torch.matmul(x, x, out=x.new_empty(4, 4))
            gate = torch.sigmoid(x, out=x.new_empty(4, 4))
            return torch.cat([product, gate], out=x.new_empty(0))

    p = trace(Net(), (4, 4), device=device)
    p.self_check()
    assert (p.uncounted, p.total("macs")) == ({}, 64)
    made = {op.spec.name: op for op in p.ops}
    assert {name: len(op.reads) for name, op in made.items()} == {"new_empty": 0, "matmul": 2, "sigmoid": 1, "cat": 2}
    assert made["cat"].writes[0].shape == (8, 4)
    assert [t.storage for t in made["cat"].reads] == [
        made["matmul"].writes[0].storage,
        made["sigmoid"].writes[0].storage,
    ]


@pytest.fixture(scope="module")
def thing() -> Callable[..., torch.Tensor]:
    @torch.library.custom_op("cspproftest::thing", mutates_args=())
    def thing(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @thing.register_fake
    def _(x: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(x)

    return thing


def using(function: Callable[..., torch.Tensor]) -> nn.Module:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(function(x))

    return Net()


def test_an_unknown_operation_is_named_and_a_users_rule_counts_it(thing: Callable[..., torch.Tensor]) -> None:
    p = trace(using(thing), (2, 3))
    assert p.uncounted == {"cspproftest.thing": 2}
    assert [op.macs for op in p.ops] == [None, None]

    @op_rule("cspproftest.thing")
    def rule(x: Any, *, out: Any) -> Facts:
        return Facts("matmul", macs=10 * out.numel)

    try:
        assert trace(using(thing), (2, 3)).total("macs") == 120
    finally:
        RULES.remove("cspproftest.thing")
    assert not trace(using(thing), (2, 3)).complete


def test_torchs_own_registry_of_flop_formulas_is_honoured(thing: Callable[..., torch.Tensor]) -> None:
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    packet = torch.ops.cspproftest.thing
    register_flop_formula(packet)(lambda shape, *args, out_shape=None, **kwargs: 8 * shape[0] * shape[1])
    try:
        p = trace(using(thing), (2, 3))
    finally:
        del flop_registry[packet]
    assert (p.total("macs"), p.ops[0].kind) == (2 * 24, Kind.CUSTOM)


def test_two_threads_trace_at_once() -> None:
    expected = {n: trace(nn.Conv2d(n, n, 3), (1, n, 9, 9)).total("macs") for n in (3, 5)}
    wrong: list[tuple[int, int]] = []

    def work(n: int) -> None:
        model = nn.Sequential(*(nn.Conv2d(n, n, 3, padding=1) for _ in range(5)), nn.Conv2d(n, n, 3))
        for _ in range(20):
            got = trace(model, (1, n, 9, 9))
            got.self_check()
            if got.ops[-1].macs != expected[n]:
                wrong.append((n, got.total("macs")))

    threads = [threading.Thread(target=work, args=(n,)) for n in (3, 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_layers_that_run_in_threads_of_their_own_are_not_free() -> None:
    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with ThreadPoolExecutor(2) as pool:
                a, b = pool.map(lambda layer: layer(x), (self.left, self.right))
            return a + b

    with pytest.raises(TraceError, match=r"layer '(left|right)' was called by another thread"):
        profile(Parallel(), (1, 3, 8, 8))


def test_threads_that_trace_one_model_leave_it_as_it_was() -> None:
    pytest.importorskip("torch._dynamo", reason="this build of torch has no compiler")
    from torch._dynamo import eval_frame

    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(10)))
    before, stance = state(model), eval_frame._stance
    wrong: list[Any] = []

    def work() -> None:
        for _ in range(8):
            try:
                found: Any = [(op.layer, op.macs) for op in trace(model, (1, 3, 8, 8)).ops]
            except Exception as error:
                found = error
            if found != [(str(i), 81 * 64) for i in range(10)]:
                wrong.append(found)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work) for _ in range(3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []
    assert same(before, state(model))
    assert eval_frame._stance == stance


def test_a_wrong_shape_names_the_layer_and_what_it_was_given() -> None:
    with pytest.raises(TraceError) as error:
        trace(nn.Sequential(nn.ReLU(), Small()), (1, 4, 8, 8), name="net")
    text = str(error.value)
    assert "net: layer '1.conv' (Conv2d) failed at aten.conv2d on 1×4×8×8, 4×3×3×3" in text
    assert "model input 1×4×8×8" in text
    assert "--input 1x3x224x224" in text


def test_lazy_parameters_are_settled_first() -> None:
    with pytest.raises(TraceError, match="has lazy parameters"):
        trace(nn.LazyConv2d(4, 3), (1, 3, 8, 8))


def test_autocast_checkpoints_and_parametrised_weights_are_seen_through() -> None:
    from torch.utils.checkpoint import checkpoint

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return checkpoint(self.conv, x, use_reentrant=False) + self.conv(x)

    model = Net()
    p = trace(model, (1, 3, 8, 8))
    p.self_check()
    assert (p.uncounted, p.total("macs"), p.total("params")) == ({}, 2 * 27 * 4 * 36, 4 + 4 + 108)
    assert model(torch.randn(1, 3, 8, 8)).shape == (1, 4, 6, 6)


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("cleared", [False, True])
def test_weights_in_a_plain_list_are_used_as_they_are(device: str, cleared: bool) -> None:
    """They are no parameters of the model: no `register_parameter` has seen them, and no optimizer would."""

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
    held = list(net.scales)
    profile = trace(net, (1, 3, 8, 8), device=device)
    assert (profile.params, profile.total("macs")) == (3 * 4 + 4, 8 * 8 * 3 * 4)
    assert all(a is b for a, b in zip(net.scales, held, strict=True))


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_layers_that_are_not_registered_are_counted(device: str) -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 1)
            self.others = [nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, bias=False)]
            self.scale = torch.ones(4, 1, 1)  # a plain attribute, which no layer learns

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x) * self.scale
            for layer in (*self.others, self.others[0]):
                x = layer(x)
            return x

    net = Listed()
    profile = trace(net, (1, 3, 8, 8), device=device)
    assert (profile.params, profile.total("macs")) == (3 * 4 + 4, 8 * 8 * (3 * 4 + 3 * 4 * 4))


def test_recurrent_weights_reached_through_a_list_are_parameters() -> None:
    p = trace(nn.LSTM(6, 5), (4, 2, 6))
    assert p.total("conv_weights") == 20 * 6 + 20 * 5
    assert not [s for s in p.storages if s.role == "constant"]


def test_script_modules_are_counted_with_their_caller() -> None:
    with pytest.warns((FutureWarning, DeprecationWarning), match="torch.jit.script"):
        scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    p = trace(nn.Sequential(scripted, nn.Conv2d(4, 4, 1)), (1, 3, 8, 8))
    assert p.total("macs") == 27 * 4 * 36 + 16 * 36


def test_what_is_not_a_module_is_refused() -> None:
    with pytest.raises(TraceError, match=r"a function is not a torch\.nn\.Module"):
        trace(lambda x: x, (1, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", ["timm:deit_tiny_patch16_224", "torchvision:swin_t"])
def test_attention_moves_on_meta_what_it_moves_on_the_cpu(spec: str) -> None:
    pytest.importorskip(spec.partition(":")[0], reason="the library of this model is not installed")
    meta, cpu = profile(spec), profile(spec, device="cpu")
    for metric in ("macs", "peak_bytes"):
        assert meta.total(metric) == cpu.total(metric)

    def moved(p: Profile) -> int:
        """Without numbers written into slices: one operation on a CPU, three on every other device."""
        aside = ("fill_", "copy_", "scalar_tensor")
        return METRICS.get("traffic_bytes").over((op.spec, 1) for op in p.ops if op.spec.name not in aside).value

    assert moved(meta) == moved(cpu) > 0


def test_a_trace_leaves_nothing_to_the_collector_and_what_was_frozen_frozen() -> None:
    model = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(100)))
    trace(model, (1, 8, 8, 8))
    gc.collect()
    trace(model, (1, 8, 8, 8))
    assert gc.isenabled()
    assert gc.collect() < 50  # objects in cycles; there are 100 operations
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        trace(model, (1, 8, 8, 8))
        assert gc.get_freeze_count() > frozen // 2  # some may have been freed meanwhile
    finally:
        gc.unfreeze()
