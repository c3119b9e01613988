"""Which layer an operation belongs to, and modules that are called in unusual ways."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from conftest import trace
from networks import ConvNet, Function, layer_ops, op_names
from torch import nn
from torch.overrides import TorchFunctionMode

from cspprof.core.errors import TraceError

# -- layers ---------------------------------------------------------------------------------------


def test_a_shared_module_is_one_layer_and_counts_at_each_call() -> None:
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


def test_settings_that_change_between_calls_are_those_of_each_call() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 1)
            self.conv = nn.Conv2d(4, 4, 3, padding=1)
            self.other = nn.Parameter(torch.empty(8, 4, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(self.stem(x))
            self.conv.padding, self.conv.stride = (0, 0), (2, 2)
            x = self.conv(x)
            self.conv.weight, self.conv.bias = self.other, None
            return self.conv(x)

    model = Net()
    for _ in range(2):
        p = trace(model, (1, 3, 9, 9))
        assert [op.writes[0].shape for op in p.ops] == [(1, 4, 9, 9), (1, 4, 9, 9), (1, 4, 4, 4), (1, 8, 2, 2)]
        assert [op.layer for op in p.ops] == ["stem", "conv", "conv", "conv"]
        assert [y.calls for y in p.layers] == [1, 1, 3]


def test_a_submodule_that_raises_is_left_when_the_forward_catches_the_exception() -> None:
    class Fails(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain, self.hooked, self.fails = nn.ReLU(), nn.Sequential(nn.Tanh()), Fails()
            self.hooked.register_forward_hook(lambda m, a, out: out + 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.hooked(self.plain(x))
            for module in (self.fails, nn.Sequential(self.hooked, self.fails)):
                try:
                    module(x)
                except ValueError:
                    x = x.sigmoid()
            return x

    p = trace(Net(), (1, 3, 5, 5))
    assert layer_ops(p) == [
        ("plain", "relu"), ("hooked.0", "tanh"), ("hooked", "add"), ("", "sigmoid"),
        ("hooked.0", "tanh"), ("hooked", "add"), ("", "sigmoid"),
    ]  # fmt: skip
    assert {y.path: y.calls for y in p.layers} == {"": 1, "plain": 1, "hooked": 2, "hooked.0": 2, "fails": 2}


# -- hooks and modes of the user ------------------------------------------------------------------


def test_subclasses_hooks_and_replaced_forwards_run() -> None:
    class Twice(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(super().forward(x))

    calls: list[str] = []
    post, pre, own = (nn.Conv2d(4, 4, 1) for _ in range(3))
    post.register_forward_hook(lambda m, a, out: [calls.append("hook"), out * 2][1])
    pre.register_forward_pre_hook(lambda m, a: [calls.append("pre-hook"), (a[0] + 1,)][1])
    own.forward = lambda x: [calls.append("forward"), x.relu()][1]
    model = nn.Sequential(nn.Conv2d(3, 4, 1), post, pre, own, Twice(4, 4, 1))
    for _ in range(2):
        calls.clear()
        assert layer_ops(trace(model, (1, 3, 5, 5))) == [
            ("0", "conv2d"), ("1", "conv2d"), ("1", "mul"), ("2", "add"), ("2", "conv2d"), ("3", "relu"),
            ("4", "conv2d"), ("4", "conv2d"),
        ]  # fmt: skip
        assert calls == ["hook", "pre-hook", "forward"]


def test_a_hook_that_the_forward_registers_and_removes_runs_in_between() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.Mish()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            handle = self.act.register_forward_pre_hook(lambda m, a: (a[0] * 2,))
            x = self.act(x)
            handle.remove()
            return self.act(x)

    model = Net()
    for _ in range(2):
        assert layer_ops(trace(model, (1, 3))) == [("act", "mul"), ("act", "mish"), ("act", "mish")]


def test_a_forward_that_is_replaced_while_the_model_runs_is_called() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.rest = nn.ReLU(), nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.act(self.rest(x))
            self.act.forward = torch.tanh
            self.rest.forward = torch.sigmoid
            return self.act(self.rest(x))

    model = Net()
    for _ in range(2):
        assert layer_ops(trace(model, (1, 3))) == [("act", "relu"), ("rest", "sigmoid"), ("act", "tanh")]


def test_global_hooks_of_the_user_see_every_call() -> None:
    calls: list[str] = []
    handle = nn.modules.module.register_module_forward_hook(lambda m, a, out: calls.append(type(m).__name__))
    try:
        for _ in range(2):
            calls.clear()
            trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), (1, 3, 5, 5))
            assert calls == ["Conv2d", "ReLU", "Sequential"]
    finally:
        handle.remove()


def test_a_function_mode_of_the_user_sees_every_layer() -> None:
    class CalledFunctions(TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.names: list[str] = []

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.names.append(getattr(func, "__name__", ""))
            return func(*args, **(kwargs or {}))

    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    for _ in range(2):
        with CalledFunctions() as called:
            trace(model, torch.empty(1, 3, 9, 9))
        assert {"conv2d", "relu"} <= set(called.names)


@contextmanager
def relu_replaced() -> Iterator[None]:
    """`torch.nn.functional.relu` is sigmoid during the context."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.functional, "relu", lambda x, inplace=False: x.sigmoid())
        yield


def test_a_replaced_function_of_torch_is_called_and_not_remembered() -> None:
    class Replaces(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with relu_replaced():
                return self.act(x)

    for _ in range(2):
        assert op_names(trace(nn.ReLU(), (1, 3))) == ["relu"]
        with relu_replaced():
            assert op_names(trace(nn.ReLU(), (1, 3))) == ["sigmoid"]
        assert op_names(trace(Replaces(), (1, 3))) == ["sigmoid"]


# -- modules of other kinds -----------------------------------------------------------------------


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_layers_that_are_not_registered_are_counted(device: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 1)
            self.others = [nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, bias=False)]
            self.scale = torch.ones(4, 1, 1)  # a plain attribute, not a parameter

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x) * self.scale
            for layer in (*self.others, self.others[0]):
                x = layer(x)
            return x

    p = trace(Net(), (1, 3, 8, 8), device=device)
    assert (p.params, p.total("macs")) == (3 * 4 + 4, 8 * 8 * (3 * 4 + 3 * 4 * 4))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_that_is_not_registered_is_counted(kind: type[nn.RNNBase]) -> None:
    layers = [kind(3, 5, batch_first=True)]
    meta, cpu = (trace(Function(lambda x: layers[0](x)[0]), (2, 7, 3), device=device) for device in ("meta", "cpu"))
    assert meta.total("macs") == cpu.total("macs") > 0
    assert all(kind.__name__ in p.notes[0] for p in (meta, cpu))


def test_operations_of_a_script_module_belong_to_its_caller() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript
        scripted = torch.jit.script(layers)
        traced = torch.jit.trace(layers, torch.zeros(1, 3, 6, 6))
    for module in (scripted, traced):
        p = trace(nn.Sequential(module, nn.Conv2d(4, 4, 1)), (1, 3, 8, 8))
        assert [(op.layer, op.macs) for op in p.ops] == [("", 27 * 4 * 36), ("", 0), ("1", 16 * 36)]
        assert trace(module, (1, 3, 8, 8)).total("macs") == 27 * 4 * 36


def test_a_module_of_an_old_file_without_the_set_of_non_persistent_buffers_is_traced() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())
    del model[0].__dict__["_non_persistent_buffers_set"]
    assert layer_ops(trace(model, (1, 4, 8, 8))) == [("0", "conv2d"), ("1", "relu")]
    assert "_non_persistent_buffers_set" not in model[0].__dict__


@pytest.mark.slow
def test_compiled_modules_are_traced_as_they_were_written() -> None:
    expected = [op.spec for op in trace(ConvNet(), (1, 3, 8, 8)).ops]
    in_place = ConvNet()
    in_place.compile()
    for model in (torch.compile(ConvNet()), nn.Sequential(torch.compile(ConvNet())), in_place):
        p = trace(model, (1, 3, 8, 8))
        assert [op.spec for op in p.ops] == expected
        assert not any("_orig_mod" in layer.path for layer in p.layers)
    assert in_place._compiled_call_impl is not None


@pytest.mark.slow
def test_an_exported_module_is_traced() -> None:
    exported = torch.export.export(ConvNet().eval(), (torch.randn(1, 3, 8, 8),)).module()
    assert trace(exported, (1, 3, 8, 8)).total("macs") == trace(ConvNet(), (1, 3, 8, 8)).total("macs")


def test_layers_that_run_in_another_thread_are_refused() -> None:
    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with ThreadPoolExecutor(2) as pool:
                a, b = pool.map(lambda layer: layer(x), (self.left, self.right))
            return a + b

    with pytest.raises(TraceError, match=r"layer '(left|right)' was called by another thread"):
        trace(Parallel(), (1, 3, 8, 8))


def test_a_global_pre_hook_of_the_user_that_raises_leaves_the_layers_right() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Tanh(), nn.ReLU())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) + 1

    def refuse_relu(module: nn.Module, args: Any) -> None:
        if isinstance(module, nn.ReLU):
            raise ValueError("refused")

    class Tolerant(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for module in self:
                try:
                    x = module(x)
                except ValueError:
                    x = x.abs()
            return x

    net = Net()
    net.inner = Tolerant(*net.inner)
    handle = nn.modules.module.register_module_forward_pre_hook(refuse_relu)
    try:
        assert layer_ops(trace(net, (1, 3))) == [("inner.0", "tanh"), ("inner", "abs"), ("", "add")]
    finally:
        handle.remove()
