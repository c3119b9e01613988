"""A trace leaves the model, the user's tensors and the random generators as they were, also with several threads."""

from __future__ import annotations

import copy
import functools
import gc
import random
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import trace
from networks import ConvNet, Function
from torch import nn

import cspprof
from cspprof.core.errors import TraceError

DEVICES = pytest.mark.parametrize("device", ["meta", "cpu"])


def state(model: nn.Module) -> dict[str, Any]:
    """The attributes, hooks and tensors of the modules of a model, and the state of the random generators."""
    found: dict[str, Any] = {
        "torch": torch.get_rng_state().tolist(), "python": random.getstate(), "numpy": np.random.get_state(),
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


# -- the model ------------------------------------------------------------------------------------


class ChangesItself(ConvNet):
    """Stores tensors, registers a hook and a buffer, and draws random numbers in its forward, then fails if `fails`."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.fails = fails
        self.cache: dict[str, torch.Tensor] = {}
        self.seen: list[torch.Tensor] = []
        self.last: torch.Tensor | None = None
        self.drop = nn.Dropout()

    def train(self, mode: bool = True) -> ChangesItself:
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


@DEVICES
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_and_the_random_generators_are_restored(device: str, train: bool, fails: bool) -> None:
    model = ChangesItself(fails).train()
    model.norm.eval()  # differs from the mode of the whole model
    before = state(model)
    if fails:
        with pytest.raises(TraceError, match="on purpose"):
            trace(model, (2, 3, 8, 8), device=device, train=train)
    else:
        trace(model, (2, 3, 8, 8), device=device, train=train)
    assert same(before, state(model))
    model.fails = False
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 2)


def test_hooks_and_submodules_that_the_forward_adds_or_removes_are_restored() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)
            self.handle = self.register_state_dict_post_hook(lambda *_: None)
            self.submodules = self._modules

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.handle.remove()
            self.conv._forward_hooks["without register_forward_hook"] = lambda *_: None
            self.conv.register_forward_pre_hook(lambda *_: None)
            self.submodules["late"] = nn.ReLU()
            return x + 1

    model = Net()
    trace(model, (1, 4, 8, 8))
    assert list(model._modules) == ["conv"]
    assert not model.conv._forward_hooks
    assert not model.conv._forward_pre_hooks
    assert len(model._state_dict_hooks) == 1


def test_attributes_are_restored_by_name_order_and_identity() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = self.two = object()
            self.act = nn.ReLU()
            self.table = {"a": 1, "b": 2}
            self.items = [1, 2]
            self.empty: list[int] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.three = self.one
            del self.one  # as many attributes as before with the same values, under other names
            self.table["a"] = self.table.pop("a")
            self.items[:] = [True, 2]  # equal to the items before, but other objects
            self.empty.append(1)
            self.act.added = 1
            del self.act._modules
            self.act.__dict__["_modules"] = {}
            return self.act(x)

    net = Net()
    before = [[(k, id(v)) for k, v in m.__dict__.items()] for m in (net, net.act)]
    trace(net, (1, 3))
    assert [[(k, id(v)) for k, v in m.__dict__.items()] for m in (net, net.act)] == before
    assert list(net.table.items()) == [("a", 1), ("b", 2)]
    assert net.items[0] is not True
    assert net.empty == []


def test_the_statistics_of_an_unregistered_norm_are_restored() -> None:
    norm = nn.BatchNorm2d(4)
    before = state(norm)
    trace(Function(lambda x: norm(x)), (2, 4, 8, 8), device="cpu")
    assert same(before, state(norm))


@pytest.mark.slow
def test_a_detection_model_is_restored() -> None:
    models = pytest.importorskip("torchvision", reason="the extra torchvision is not installed").models
    model = models.get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None).eval()
    before = state(model)
    p = trace(model, [[(3, 320, 320)]], device="cpu")
    assert p.complete
    assert same(before, state(model))


def test_weights_are_neither_copied_nor_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a weight was copied")

    model = ConvNet()
    for name in ("to", "clone", "cpu"):
        monkeypatch.setattr(nn.Parameter, name, refuse, raising=False)
    monkeypatch.setattr(copy, "deepcopy", refuse)
    monkeypatch.setattr(nn.Module, "to", refuse)
    assert trace(model, (1, 3, 8, 8)).complete


# -- tensors --------------------------------------------------------------------------------------


@DEVICES
def test_writes_through_views_of_weights_and_inputs_are_undone(device: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))
            self.attribute = torch.ones(4)
            self.register_buffer("count", torch.zeros(4, dtype=torch.long))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.weight.data[0].mul_(5)
            self.attribute[1:].view(-1)[0] = 7
            self.count[0] += 1
            x[:, 0].mul_(5)
            return x * self.weight + self.attribute + self.count

    model, x = Net(), torch.ones(2, 4)
    before = state(model)
    trace(model, x, device=device)
    assert same(before, state(model))
    assert torch.equal(x, torch.ones(2, 4))


@DEVICES
def test_writes_into_small_tensors_that_torch_does_not_see_are_undone(device: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(4, dtype=torch.long))
            self.register_buffer("tail", self.count[2:])
            self.attribute = torch.ones(4)
            self.fc = nn.Linear(4, 4)
            self.seen: list[Any] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count.numpy()[2] = 7
            assert self.tail[0] == 7, "they share memory, as in the model"
            self.attribute.untyped_storage().fill_(0)
            if not x.is_meta:
                self.fc.weight.detach().numpy()[0, 0] = 7.0
                x.numpy()[0] = 7.0
            return self.fc(x) + self.attribute + self.count.sum()

    model, x = Net(), torch.ones(2, 4)
    before = state(model)
    trace(model, x, device=device)
    assert same(before, state(model))
    assert torch.equal(model.attribute, torch.ones(4))
    assert torch.equal(x, torch.ones(2, 4))


@DEVICES
@pytest.mark.parametrize("dtype", [None, "float64"])
def test_a_forward_sees_the_gradients_of_the_weights(device: str, dtype: str | None) -> None:
    class Net(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.weight.grad is None:
                return x
            self.weight.grad.mul_(2)
            return super().forward(x) @ self.weight.grad

    model = Net(4, 4)
    model.weight.grad = torch.ones(4, 4)
    for _ in range(2):
        p = trace(model, (2, 4), device=device, dtype=dtype)
        assert (p.total("macs"), p.complete) == (64, True)
    assert torch.equal(model.weight.grad, torch.ones(4, 4))


def test_a_write_into_a_sparse_tensor_is_undone() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.eye(4).to_sparse())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.table.mul_(2).to_dense()

    model = Net()
    assert trace(model, (2, 4), device="cpu").total("macs") == 2 * 16
    assert torch.equal(model.table.to_dense(), torch.eye(4))


@DEVICES
def test_the_input_is_not_changed_by_in_place_operations(device: str) -> None:
    x = torch.ones(2, 2)
    p = trace(Function(lambda x: x.mul_(2).add_(1)), x, device=device)
    assert torch.equal(x, torch.ones(2, 2))
    assert p.total("peak_bytes") == 16


def test_tensors_that_are_only_read_keep_their_version() -> None:
    model = ConvNet().eval()
    before = [b._version for b in model.buffers()]
    loss = model(torch.randn(1, 3, 8, 8)).sum()
    trace(model, (1, 3, 8, 8), device="cpu")
    loss.backward()  # fails if a saved tensor has a new version
    assert [b._version for b in model.buffers()] == before


def scaled_by_a_cached_table() -> nn.Module:
    """A linear layer whose output is scaled by a tensor that the first forward creates and keeps."""

    @functools.lru_cache
    def table(n: int) -> torch.Tensor:
        return torch.linspace(0, 1, n) * 2

    fc = nn.Linear(4, 4)
    net = Function(lambda x: fc(x) * table(4))
    net.fc = fc
    return net


@DEVICES
def test_a_tensor_that_the_forward_caches_can_be_trained_with(device: str) -> None:
    model = scaled_by_a_cached_table()
    trace(model, (1, 4), device=device)
    model(torch.randn(1, 4)).sum().backward()
    assert model.fc.weight.grad is not None


def test_a_tensor_that_the_forward_caches_is_a_constant_of_the_next_trace() -> None:
    model = scaled_by_a_cached_table()
    first, second = ([op.spec.name for op in trace(model, (1, 4)).ops] for _ in range(2))
    assert first == ["linear", "linspace", "mul", "mul"]
    assert second == ["linear", "mul"]
    trace(model, (1, 4)).self_check()


def test_a_trace_creates_no_reference_cycle_for_each_operation() -> None:
    model = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(100)))
    trace(model, (1, 8, 8, 8))
    gc.collect()
    gc.freeze()  # so that the collection below searches new objects only
    try:
        trace(model, (1, 8, 8, 8))
        assert gc.collect() < 50, "fewer objects in cycles than there are operations"
    finally:
        gc.unfreeze()
    assert gc.isenabled()


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_garbage_collection_pauses_during_a_trace(enabled: bool, error: type[BaseException] | None) -> None:
    during = []

    class Net(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            during.append(gc.isenabled())
            if error is not None:
                raise error
            return super().forward(x)

    (gc.enable if enabled else gc.disable)()
    try:
        with nullcontext() if error is None else pytest.raises((TraceError, KeyboardInterrupt)):
            trace(Net(4, 4), (1, 4))
        assert gc.isenabled() is enabled
    finally:
        gc.enable()
    assert set(during) == {False}


def test_garbage_collection_pauses_during_a_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "collected.py").write_text(
        "import gc\nfrom torch import nn\n\n\ndef make():\n    assert not gc.isenabled()\n    return nn.Linear(4, 4)\n"
    )
    assert gc.isenabled()
    assert cspprof.profile("collected.py:make", (1, 4)).total("macs") == 16
    assert gc.isenabled()


@DEVICES
@pytest.mark.parametrize("of_result", [False, True])
def test_a_shape_that_an_assignment_to_data_changes_is_counted(device: str, of_result: bool) -> None:
    class Net(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight = self.weight * 1 if of_result else self.weight
            weight.data = torch.ones(7, 4, device=x.device)
            return nn.functional.linear(x, weight)

    p = trace(Net(4, 5), (2, 4), device=device)
    assert p.total("macs") == 2 * 4 * 7
    p.self_check()


# -- threads --------------------------------------------------------------------------------------


def in_threads(n: int, work: Callable[[int], None]) -> None:
    """Run `work(0)`, `work(1)` … each in a thread, switching between them often. An exception fails the test."""
    errors: list[BaseException] = []

    def run(i: int) -> None:
        try:
            work(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]


def test_threads_may_trace_different_models() -> None:
    def work(i: int) -> None:
        n = 3 + 2 * i
        model = nn.Sequential(*(nn.Conv2d(n, n, 3, padding=1) for _ in range(5)), nn.Conv2d(n, n, 3))
        for _ in range(20):
            p = trace(model, (1, n, 9, 9))
            p.self_check()
            assert [op.macs for op in p.ops] == [9 * n * n * 81] * 5 + [9 * n * n * 49]

    in_threads(2, work)


def test_two_hundred_profiles_at_the_same_time_are_those_of_their_models() -> None:
    """While another thread computes on tensors."""
    stop = threading.Event()
    x = torch.ones(8, 8)

    def compute() -> None:
        while not stop.is_set():
            assert (x @ x).sum() == 512

    def profile(width: int) -> tuple[float, float]:
        p = cspprof.profile(nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 2, 1)), (1, 3, 10, 10))
        return p.total("macs"), p.total("params")

    with ThreadPoolExecutor(21) as pool:
        other = pool.submit(compute)
        try:
            found = list(pool.map(profile, range(1, 201)))
        finally:
            stop.set()
        other.result()
    assert found == [(64 * (27 * w + 2 * w), 27 * w + w + 2 * w + 2) for w in range(1, 201)]


def test_threads_may_trace_the_same_model() -> None:
    pytest.importorskip("torch._dynamo", reason="this build of torch has no compiler")
    from torch._dynamo import eval_frame

    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(10)))
    before, stance = state(model), eval_frame._stance

    def work(i: int) -> None:
        for _ in range(8):
            assert [(op.layer, op.macs) for op in trace(model, (1, 3, 8, 8)).ops] == [
                (str(i), 81 * 64) for i in range(10)
            ]

    in_threads(3, work)
    assert same(before, state(model))
    assert eval_frame._stance == stance


def test_a_model_that_runs_in_another_thread_gets_its_right_outputs() -> None:
    model = ConvNet().train()
    model.norm.momentum = 0.0  # else its real forward changes the statistics
    x = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        expected = model(x)
    stop = threading.Event()
    outputs: list[torch.Tensor] = []

    def work(i: int) -> None:
        if i == 0:
            while not stop.is_set():
                with torch.no_grad():
                    outputs.append(model(x))
        else:
            try:
                for device in ("meta", "cpu") * 5:
                    p = trace(model, (2, 3, 8, 8), device=device, train=device == "cpu")
                    assert [y.calls for y in p.layers] == [1] * 5
            finally:
                stop.set()

    in_threads(2, work)
    assert outputs
    assert all(torch.equal(y, expected) for y in outputs)


def test_the_draws_of_another_thread_do_not_repeat() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout())
    stop = threading.Event()
    draws: list[tuple[float, float]] = []

    def work(i: int) -> None:
        if i == 0:
            while not stop.is_set():
                draws.append((torch.rand(1, dtype=torch.double).item(), random.random()))
        else:
            try:
                for device in ("meta", "cpu") * 10:
                    trace(model, (2, 4), device=device, train=True)
            finally:
                stop.set()

    in_threads(2, work)
    assert len(draws) > 20
    for kind in zip(*draws, strict=True):
        assert len(set(kind)) == len(kind)


@DEVICES
def test_a_forward_that_traces_another_model_does_not_count_its_operations(device: str) -> None:
    inner = nn.Linear(3, 5)
    macs: list[int] = []

    def forward(x: torch.Tensor) -> torch.Tensor:
        macs.append(trace(inner, (7, 3), device=device).total("macs"))
        return net.fc(x)

    net = Function(forward)
    net.fc = nn.Linear(3, 2)
    assert trace(net, (1, 3), device=device).total("macs") == 6
    assert macs == [7 * 15]


# -- modules that refer to the model --------------------------------------------------------------

GLOBAL = nn.Sequential(nn.Linear(4, 4), nn.Dropout())


def forward_by_a_global_variable(x: torch.Tensor) -> torch.Tensor:
    return GLOBAL[1](GLOBAL[0](x))


class UsesAGlobal(nn.Module):
    """Uses its own layers by a global variable in the forward of its class."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = GLOBAL

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        GLOBAL[0].weight.data.mul_(2)
        return GLOBAL[0](x)


@DEVICES
def test_a_function_that_refers_to_modules_by_a_global_variable_runs_the_copy(device: str) -> None:
    model = nn.Sequential(GLOBAL)
    model.forward = forward_by_a_global_variable  # type: ignore[method-assign,assignment]
    p = trace(model, (1, 4), device=device)
    assert [(op.layer, op.macs) for op in p.ops] == [("0.0", 16)], "the dropout is off"
    assert p.notes == ()


@DEVICES
def test_a_method_that_reaches_the_model_by_a_global_variable_is_counted_noted_and_undone(device: str) -> None:
    before = GLOBAL[0].weight.clone()
    p = trace(UsesAGlobal(), (1, 4), device=device)
    assert (p.total("macs"), p.params) == (16, 20)
    assert "by a global variable" in p.notes[0]
    assert torch.equal(GLOBAL[0].weight, before)


# -- the mode -------------------------------------------------------------------------------------


def test_a_mode_that_a_property_returns_is_noted() -> None:
    class Always(nn.Module):
        @property
        def training(self) -> bool:
            return True

        @training.setter
        def training(self, mode: bool) -> None:
            pass

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.dropout(x, training=self.training)

    p = trace(Always(), (1, 4))
    assert [op.spec.name for op in p.ops] == ["dropout"]
    assert p.notes == ("Always: `training` is a property; the trace runs in the mode that it returns",)
    assert trace(Always(), (1, 4), train=True).notes == ()


def test_a_train_method_of_the_class_is_not_called_and_noted_if_the_mode_differs() -> None:
    class Loop(nn.Sequential):
        def train(self, mode: bool = True) -> Loop:
            raise AssertionError("called")

    model = Loop(nn.Dropout())
    p = trace(model, (1, 4))
    assert list(p.ops) == []
    assert "Loop: train() is a method of the class, which a trace does not call" in p.notes[0]
    assert trace(model, (1, 4), train=True).notes == ()
