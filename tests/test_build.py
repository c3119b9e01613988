"""Modules built on meta without filling them: the same modules, only sooner."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import nn

from cspprof.sources.skip_init import RESETS, weightless
from cspprof.zoo import catalog

NETWORKS = [
    "resnext50",
    "csp_resnext50",
    "csp_darknet53",
    "timm:densenet201",
    "timm:convnext_base",
    "timm:vit_base_patch16_224",
    "timm:swin_tiny_patch4_window7_224",
    "timm:efficientnet_b0",
    "timm:mobilenetv3_large_100",
    "timm:regnety_032",
]


def factory(name: str) -> Callable[[], nn.Module]:
    if name.startswith("timm:"):
        timm = pytest.importorskip("timm", reason="the library of this network is not installed")
        return lambda: timm.create_model(name.removeprefix("timm:"))
    return catalog().get(name).factory


def tensors(model: nn.Module) -> list[tuple[object, ...]]:
    held = (*model.named_parameters(), *model.named_buffers())
    return [(n, t.shape, t.stride(), t.dtype, t.device, t.requires_grad, type(t), t.is_leaf) for n, t in held]


def originals() -> list[object]:
    ways = [nn.Module.__init__, nn.Module.__setattr__]
    return [getattr(nn.init, n) for n in dir(nn.init)] + [getattr(cls, name) for cls, name, _ in RESETS] + ways


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_the_ones_that_torch_builds_on_meta(name: str) -> None:
    make = factory(name)
    with torch.device("meta"):
        expected = make()
    before = originals()
    with weightless():
        built = make()
    assert originals() == before
    assert tensors(built) == tensors(expected)
    assert str(built) == str(expected)
    assert built.state_dict().keys() == expected.state_dict().keys()


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LSTM(3, 4, num_layers=2),
        lambda: nn.MultiheadAttention(8, 2, kdim=4, vdim=4),
        lambda: nn.TransformerEncoderLayer(8, 2),
        lambda: nn.Embedding(10, 4, padding_idx=0),
        lambda: nn.Bilinear(2, 3, 4),
        lambda: nn.ConvTranspose2d(3, 4, 2),
        lambda: nn.BatchNorm2d(4, affine=False),
        lambda: nn.BatchNorm2d(4, track_running_stats=False),
        lambda: nn.LazyConv2d(4, 3),
        lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)),
        lambda: nn.Conv2d(3, 4, 3, dtype=torch.float16),
    ],
)
def test_layers_of_every_sort(make: Callable[[], nn.Module]) -> None:
    def facts() -> list[tuple[object, ...]]:
        module = make()
        lazy = nn.parameter.is_lazy
        held = (*module.named_parameters(), *module.named_buffers())
        return [(n, type(t), t.dtype, t.device.type, lazy(t) or tuple(t.shape), t.requires_grad) for n, t in held]

    with torch.device("meta"):
        expected = facts()
    with weightless():
        assert facts() == expected


def test_tensors_that_are_asked_for_elsewhere_have_their_values() -> None:
    with weightless():
        table = nn.init.constant_(torch.empty(3, device="cpu"), 2.0)
        filled = torch.empty(3, device="cpu").fill_(1).mul_(3)
        norm = nn.BatchNorm2d(3, device="cpu")
        zeros = torch.zeros(2, device="cpu")
    assert table.tolist() == [2.0] * 3
    assert filled.tolist() == [3.0] * 3
    assert (norm.weight.tolist(), norm.running_var.tolist(), zeros.tolist()) == ([1.0] * 3, [1.0] * 3, [0.0, 0.0])


def test_what_torch_refuses_is_refused() -> None:
    with weightless():
        for wrong in (
            lambda: nn.init.kaiming_uniform_(torch.empty(3)),
            lambda: nn.Parameter(torch.empty(3)).fill_(0),
            lambda: torch.zeros(3).item(),
            lambda: nn.init.kaiming_normal_(torch.empty(3, 3), nonlinearity="none"),
            lambda: nn.init.kaiming_uniform_(torch.empty(3, 3), mode="none"),
        ):
            with pytest.raises((RuntimeError, ValueError)):
                wrong()


def test_what_a_class_of_ones_own_does_while_it_is_reset_is_done() -> None:
    class Counting(nn.BatchNorm2d):
        def reset_running_stats(self) -> None:
            super().reset_running_stats()
            self.register_buffer("steps", torch.zeros(2))

    class Padded(nn.Embedding):
        def _fill_padding_idx_with_zero(self) -> None:
            self.filled = True

    with weightless():
        norm, table = Counting(3), Padded(5, 4, padding_idx=0)
    with torch.device("meta"):
        assert tensors(norm) == tensors(Counting(3))
    assert table.filled


def test_another_thread_initialises_its_weights_meanwhile() -> None:
    made: list[nn.Linear] = []
    with weightless():
        other = threading.Thread(target=lambda: made.append(nn.init.ones_(nn.Linear(2, 2).weight)))
        other.start()
        other.join()
    assert made[0].tolist() == [[1.0, 1.0], [1.0, 1.0]]  # type: ignore[operator]


def test_torch_is_put_back_when_a_factory_fails() -> None:
    before = originals()
    with pytest.raises(ValueError, match="on purpose"), weightless():
        raise ValueError("on purpose")
    assert originals() == before
    assert torch.empty(1).device.type == "cpu"


class Counted(nn.Module):
    """Has what a module can have, and a property that is set like an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.weight = nn.Parameter(torch.empty(2))
        self.register_buffer("table", torch.empty(3), persistent=False)
        self.child = nn.ReLU()
        self.plain = 1

    @property
    def width(self) -> int:
        return len(self.calls)

    @width.setter
    def width(self, value: int) -> None:
        self.calls = ["set"] * value


class Mixed(nn.Module):
    """Initialises whatever comes after `nn.Module`."""

    call_super_init = True


class Unready(nn.Module):
    def __init__(self) -> None:
        self.weight = nn.Parameter(torch.empty(2))


def test_what_a_module_begins_with_is_its_own() -> None:
    with weightless():
        first, second = nn.Module(), nn.Module()
    assert {n: (type(v), v) for n, v in vars(first).items()} == {n: (type(v), v) for n, v in vars(nn.Module()).items()}
    assert list(vars(first)) == list(vars(nn.Module()))
    for name, value in vars(first).items():
        assert value is None or isinstance(value, bool) or value is not vars(second)[name]


@pytest.mark.parametrize("value", [3, None, (1, 2), "text", True, torch.float16, nn.Sigmoid])
@pytest.mark.parametrize("name", ["weight", "table", "child", "plain", "new", "width", "training"])
def test_an_attribute_is_set_as_torch_sets_it(name: str, value: object) -> None:
    """Or refused as torch refuses it: over a parameter, a buffer, a submodule, a property, or something new."""
    assert outcome(lambda m: setattr(m, name, value), torch.device("meta")) == outcome(
        lambda m: setattr(m, name, value), weightless()
    )


@pytest.mark.parametrize("make", [nn.Tanh, lambda: nn.Parameter(torch.empty(5)), lambda: nn.Buffer(torch.empty(5)),
                                  lambda: torch.empty(5), lambda: nn.Module])  # fmt: skip
@pytest.mark.parametrize("name", ["weight", "table", "child", "plain", "new", "training"])
def test_what_torch_registers_is_registered(name: str, make: Callable[[], object]) -> None:
    assert outcome(lambda m: setattr(m, name, make()), torch.device("meta")) == outcome(
        lambda m: setattr(m, name, make()), weightless()
    )


@pytest.mark.parametrize("make", [Unready, Mixed, lambda: Mixed(3), lambda: nn.Module(3), lambda: nn.Module(size=3)])
def test_a_module_begins_as_torch_lets_it(make: Callable[[], nn.Module]) -> None:
    assert outcome(lambda m: make(), torch.device("meta")) == outcome(lambda m: make(), weightless())


def test_whoever_waits_for_modules_and_parameters_hears_of_them() -> None:
    heard: list[str] = []
    hooks = [
        nn.modules.module.register_module_module_registration_hook(lambda m, name, value: heard.append(name)),
        nn.modules.module.register_module_parameter_registration_hook(lambda m, name, value: heard.append(name)),
    ]
    try:
        with weightless():
            Counted()
    finally:
        for hook in hooks:
            hook.remove()
    assert heard == ["weight", "child"]


def test_a_method_that_somebody_else_replaced_stays_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    plain = nn.Module.__setattr__

    def watched(module: nn.Module, name: str, value: object) -> None:
        seen.append(name)
        plain(module, name, value)

    monkeypatch.setattr(nn.Module, "__setattr__", watched)
    with weightless():
        Counted()
    assert {"weight", "child", "plain"} <= set(seen)


def outcome(act: Callable[[nn.Module], object], place: AbstractContextManager[object]) -> object:
    """What a module holds after `act`, or what was raised."""
    with place:
        module = Counted()
        try:
            act(module)
        except Exception as error:
            return type(error), str(error)
    return {
        name: {n: describe(v) for n, v in value.items()} if isinstance(value, dict) else describe(value)
        for name, value in vars(module).items()
    }


def describe(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return type(value), value.shape, value.dtype, value.device, value.requires_grad
    return str(value) if isinstance(value, nn.Module) else value
