"""Layers answered whole: what is written down is what running them writes down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import count, product
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from cspprof.api import profile
from cspprof.errors import TraceError
from cspprof.record import Profile
from cspprof.trace import layers, memo, recorder, running, trace
from cspprof.trace.asks import Slot, shown
from cspprof.trace.forms import OTHERS, form_of

NETWORKS = [
    "resnext50",
    "csp_darknet53",
    "timm:densenet121",
    "timm:convnext_tiny",
    "timm:vit_tiny_patch16_224",
    "timm:swin_tiny_patch4_window7_224",
    "timm:efficientnet_b0",
    "timm:mobilenetv3_small_100",
    "timm:regnety_002",
    "torchvision:googlenet",
    "torchvision:swin_t",
]


def plainly(run: Callable[[], Profile], monkeypatch: pytest.MonkeyPatch) -> Profile:
    """What `run` gives where every layer is run and every operation is answered by torch.

    All but attention, whose layout on meta is not the CPU's.
    """
    attention = "aten.scaled_dot_product_attention"
    with monkeypatch.context() as patch:
        patch.setattr(running, "way_through", lambda kind: None)
        patch.setattr(recorder, "ANSWERS", {attention: recorder.ANSWERS[attention]})
        memo.forget()
        try:
            return run()
        finally:
            memo.forget()


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_give_the_same_record_first_and_again_as_when_torch_answers_all(
    name: str, train: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ":" in name:
        pytest.importorskip(name.partition(":")[0], reason="the library of this network is not installed")

    def run() -> Profile:
        return profile(name, train=train)

    memo.forget()
    first, again = run(), run()
    first.self_check()
    assert first == again == plainly(run, monkeypatch)


VARIANTS: dict[Callable[..., nn.Module], list[dict[str, Any]]] = {
    lambda **k: nn.Conv2d(8, 8, 3, **k): [
        {}, {"stride": 2}, {"padding": 1}, {"padding": "same"}, {"dilation": 2}, {"groups": 2}, {"bias": False},
        {"padding": 1, "padding_mode": "circular"},
    ],
    lambda **k: nn.BatchNorm2d(8, **k): [{}, {"eps": 1e-3}, {"momentum": 0.5}, {"affine": False},
                                         {"track_running_stats": False}, {"momentum": None}],
    lambda **k: nn.LayerNorm(9, **k): [{}, {"eps": 1e-3}, {"elementwise_affine": False}, {"bias": False}],
    lambda **k: nn.GroupNorm(**{"num_groups": 2, "num_channels": 8, **k}): [{}, {"num_groups": 4}, {"eps": 1.0}],
    lambda **k: nn.Linear(9, 5, **k): [{}, {"bias": False}],
    nn.ReLU: [{}, {"inplace": True}],
    nn.LeakyReLU: [{}, {"negative_slope": 0.1}, {"negative_slope": 1}, {"negative_slope": 1.0}, {"inplace": True}],
    nn.GELU: [{}, {"approximate": "tanh"}],
    nn.Dropout: [{}, {"p": 0.1}, {"inplace": True}],
    nn.Softmax: [{"dim": 1}, {"dim": -1}],
    lambda **k: nn.MaxPool2d(2, **k): [{}, {"stride": 1}, {"padding": 1}, {"dilation": 2}, {"ceil_mode": True},
                                       {"return_indices": True}],
    lambda **k: nn.AvgPool2d(2, **k): [{}, {"stride": 1}, {"padding": 1}, {"ceil_mode": True},
                                       {"count_include_pad": False}, {"divisor_override": 3}],
    nn.AdaptiveAvgPool2d: [{"output_size": 1}, {"output_size": 3}, {"output_size": (3, 1)}, {"output_size": [3, None]}],
}  # fmt: skip


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("make", VARIANTS, ids=[str(i) for i in range(len(VARIANTS))])
def test_every_setting_tells_layers_apart(
    make: Callable[..., nn.Module], train: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kwargs, dtype in product(VARIANTS[make] * 2, (torch.float32, torch.float64)):
        model = nn.Sequential(nn.Conv2d(3, 8, 1), make(**kwargs), nn.Identity()).to(dtype)

        for batch, height in ((1, 9), (2, 12)):  # the second is worked out from what the first was

            def run(
                model: nn.Module = model, dtype: torch.dtype = dtype, batch: int = batch, height: int = height
            ) -> Profile:
                return trace(model, torch.empty(batch, 3, height, 9, dtype=dtype), train=train)

            short = run()
            expected = plainly(run, monkeypatch)
            assert short == expected
            run()  # known again for the next size and variant
            assert run() == expected


def test_settings_changed_between_calls_and_in_the_forward_are_those_of_each_call() -> None:
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

    for _ in range(3):
        p = trace(Net(), (1, 3, 9, 9))
        assert [op.writes[0].shape for op in p.ops] == [(1, 4, 9, 9), (1, 4, 9, 9), (1, 4, 4, 4), (1, 8, 2, 2)]
        assert [op.layer for op in p.ops] == ["stem", "conv", "conv", "conv"]
        assert [y.calls for y in p.layers] == [1, 1, 3]


def test_what_is_special_about_a_layer_is_run() -> None:
    class Twice(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(super().forward(x))

    seen: list[str] = []
    hooked, early, own = (nn.Conv2d(4, 4, 1) for _ in range(3))
    hooked.register_forward_hook(lambda m, a, out: [seen.append("after"), out * 2][1])
    early.register_forward_pre_hook(lambda m, a: [seen.append("before"), (a[0] + 1,)][1])
    own.forward = lambda x: seen.append("own") or x.relu()  # type: ignore[method-assign]
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), hooked, early, own, Twice(4, 4, 1))
    for _ in range(2):
        seen.clear()
        p = trace(model, (1, 3, 5, 5))
        assert seen == ["after", "before", "own"]
        assert [(op.layer, op.spec.name) for op in p.ops] == [
            ("0", "conv2d"), ("1", "conv2d"), ("2", "conv2d"), ("2", "mul"), ("3", "add"), ("3", "conv2d"),
            ("4", "relu"), ("5", "conv2d"), ("5", "conv2d"),
        ]  # fmt: skip
        assert "_compiled_call_impl" not in model[1].__dict__


def test_a_layer_is_left_however_it_is_left_and_whatever_hooks_come_and_go() -> None:
    class Fails(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain, self.hooked, self.fails, self.again = nn.ReLU(), nn.Sequential(nn.Tanh()), Fails(), nn.Mish()
            self.hooked.register_forward_hook(lambda m, a, out: out + 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.hooked(self.plain(x))
            for module in (self.fails, nn.Sequential(self.hooked, self.fails)):
                try:
                    module(x)
                except ValueError:
                    x = x.abs()
            handle = self.again.register_forward_pre_hook(lambda m, a: (a[0] * 2,))
            x = self.again(x)
            handle.remove()
            return self.again(x)

    for _ in range(3):
        p = trace(Net(), (1, 3, 5, 5))
        assert [(op.layer, op.spec.name) for op in p.ops] == [
            ("plain", "relu"), ("hooked.0", "tanh"), ("hooked", "add"), ("", "abs"),
            ("hooked.0", "tanh"), ("hooked", "add"), ("", "abs"),
            ("again", "mul"), ("again", "mish"), ("again", "mish"),
        ]  # fmt: skip
        assert {y.path: y.calls for y in p.layers} == {
            "": 1, "plain": 1, "hooked": 2, "hooked.0": 2, "fails": 2, "again": 2,
        }  # fmt: skip


VIEWS: list[Callable[[torch.Tensor], Any]] = [
    lambda x: x.transpose(1, 3),
    lambda x: x[:, 1:, ::2, 2],
    lambda x: x.chunk(3, 1),
    lambda x: x.unbind(0),
    lambda x: x.expand(5, 2, 6, 4, 4),
    lambda x: x[1].split([1, 5], 0),
    lambda x: x.permute(0, 2, 3, 1).view(2, 16, 6),
    lambda x: x.diagonal(0, 2, 3),
    lambda x: x.unfold(3, 3, 1),
    lambda x: x.view(torch.int32),
    lambda x: torch.view_as_complex(x.view(2, 6, 4, 2, 2)),
    lambda x: torch.view_as_complex(x.view(2, 6, 4, 2, 2)).conj().imag,
    lambda x: x.narrow(1, 2, 3).narrow(2, 1, 2).select(3, 1).squeeze(),
]


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_seen_before_is_the_one_that_torch_makes(view: Callable[[torch.Tensor], Any]) -> None:
    found = []

    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            made = view(x.relu())
            found.append([
                (t.shape, t.stride(), t.storage_offset(), t.dtype, t.is_conj(), t.is_neg(), type(made))
                for t in (made if isinstance(made, tuple) else [made])
            ])  # fmt: skip
            return made

    net = Net()
    with torch.inference_mode():
        net(torch.empty(2, 6, 4, 4, device="meta"))
    profiles = [trace(net, (2, 6, 4, 4)) for _ in range(3)]
    assert found[0] == found[1] == found[2] == found[3]
    assert profiles[0] == profiles[1] == profiles[2]
    assert (
        len({s for op in profiles[0].ops if op.kind == "view" for s in (op.reads[0].storage, op.writes[0].storage)})
        == 1
    )


def test_hooks_that_somebody_set_for_all_modules_see_every_call() -> None:
    seen: list[str] = []
    handle = nn.modules.module.register_module_forward_hook(lambda m, a, out: seen.append(type(m).__name__))
    try:
        for _ in range(2):
            seen.clear()
            trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), (1, 3, 5, 5))
            assert seen == ["Conv2d", "ReLU", "Sequential"]
    finally:
        handle.remove()


def test_an_autocast_region_of_known_layers_is_noted() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.conv(x)

    for _ in range(2):
        assert any("autocast" in note for note in trace(Net(), (1, 3, 5, 5)).notes)


def test_a_class_of_another_library_is_known_only_where_its_forward_uses_the_known_names() -> None:
    F = nn.functional  # noqa: N806  by the name that libraries import it under

    class GELU(nn.Module):
        __module__ = "timm.layers.activations"
        __qualname__ = "GELU"

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.gelu(x)

    class Other(GELU):
        __module__ = "timm.layers.activations"
        __qualname__ = "GELU"

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.gelu(x, approximate=self.approximate)  # type: ignore[arg-type]

    assert form_of(GELU) is OTHERS["timm.layers.activations.GELU"]
    assert form_of(Other) is None


def test_an_in_place_dropout_that_is_off_is_no_operation_and_one_that_is_on_is() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Dropout(0.5, inplace=True), nn.ReLU())
    off, on = (trace(model, torch.empty(1, 3, 9, 9), train=train) for train in (False, True))
    assert [op.target for op in off.ops] == ["aten.conv2d", "aten.relu"]
    assert [op.target for op in on.ops] == ["aten.conv2d", "aten.dropout_", "aten.relu"]
    assert [layer.calls for layer in off.layers] == [1, 1, 1, 1]


NORM_ACT: list[dict[str, Any]] = [
    {}, {"affine": False}, {"track_running_stats": False}, {"momentum": None}, {"apply_act": False},
    {"act_layer": nn.SiLU}, {"drop_layer": nn.Dropout},
]  # fmt: skip


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("kwargs", NORM_ACT, ids=str)
def test_a_norm_with_an_activation_gives_the_record_of_running_it(
    kwargs: dict[str, Any], train: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    norm_act = pytest.importorskip("timm.layers", reason="the library of this layer is not installed").BatchNormAct2d
    model = nn.Sequential(nn.Conv2d(3, 8, 1), norm_act(8, **kwargs))

    def run() -> Profile:
        return trace(model, torch.empty(2, 3, 9, 9), train=train)

    first, again = run(), run()
    assert first == again == plainly(run, monkeypatch)


def test_what_follows_a_norm_may_be_any_function(monkeypatch: pytest.MonkeyPatch) -> None:
    norm_act = pytest.importorskip("timm.layers", reason="the library of this layer is not installed").BatchNormAct2d
    model = nn.Sequential(nn.Conv2d(3, 8, 1), norm_act(8))
    del model[1].act
    model[1].act = torch.tanh

    def run() -> Profile:
        return trace(model, torch.empty(2, 3, 9, 9))

    first, again = run(), run()
    assert [(op.target, op.layer) for op in again.ops][1:] == [("aten.batch_norm", "1"), ("aten.tanh", "1")]
    assert first == again == plainly(run, monkeypatch)


def ran(model: nn.Module, *shape: int, train: bool = False) -> list[str]:
    """The operations, and the height of what each gives."""
    profile = trace(model, torch.empty(shape), train=train)
    return [f"{op.spec.name} {op.writes[0].shape[-1]}" for op in profile.ops if op.writes[0].shape]


def padded(self: nn.Conv2d, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return nn.functional.conv2d(x, weight, bias, padding=5)


def test_a_layer_with_a_part_of_its_own_is_run_and_teaches_nothing_about_others() -> None:
    ordinary, patched = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
    patched._conv_forward = padded.__get__(patched)  # type: ignore[method-assign]
    assert ran(patched, 1, 3, 9, 9) == ["conv2d 17"]
    assert ran(ordinary, 1, 3, 9, 9) == ["conv2d 9"]
    assert ran(nn.Sequential(ordinary, nn.Conv2d(4, 3, 1), patched), 1, 3, 9, 9) == [
        "conv2d 9",
        "conv2d 9",
        "conv2d 17",
    ]


def test_a_function_of_torchs_that_was_replaced_is_called_and_forgotten_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    assert ran(model, 1, 3, 9, 9) == ["conv2d 9", "relu 9"]
    with monkeypatch.context() as patch:
        patch.setattr(nn.functional, "relu", lambda x, inplace=False: x.sigmoid())
        assert ran(model, 1, 3, 9, 9) == ["conv2d 9", "sigmoid 9"]
    assert ran(model, 1, 3, 9, 9) == ["conv2d 9", "relu 9"]


def test_norms_of_other_ranks_refuse_what_theirs_takes() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm1d(4))
    with pytest.raises(TraceError, match="expected 2D or 3D input"):
        trace(model, torch.empty(2, 3, 9, 9))


def test_a_norm_that_does_not_count_its_batches_says_nothing_of_one_that_does() -> None:
    def model(counts: bool) -> nn.Module:
        norm = nn.BatchNorm2d(4)
        if not counts:
            norm.num_batches_tracked = None
        return nn.Sequential(nn.Conv2d(3, 4, 1), norm)

    for counts, expected in ((False, 2), (True, 3), (False, 2)):
        assert len(trace(model(counts), torch.empty(2, 3, 9, 9), train=True).ops) == expected


def test_a_forward_that_is_set_while_the_model_runs_is_run() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act, self.rest = nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.act(self.rest(self.conv(x)))
            self.act.forward = torch.tanh  # type: ignore[method-assign]
            self.rest.forward = torch.sigmoid  # type: ignore[method-assign]
            return self.act(self.rest(x))  # type: ignore[no-any-return]

    for _ in range(2):
        assert ran(Net(), 1, 3, 9, 9) == ["conv2d 9", "relu 9", "sigmoid 9", "tanh 9"]


def test_gradients_in_a_forward_are_taken_the_second_time_too() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode(False), torch.enable_grad():
                y = torch.zeros(x.shape, device=x.device, requires_grad=True)
                return torch.autograd.grad(self.conv(y).sum(), y)[0]

    first, again = (trace(model, torch.empty(1, 3, 9, 9)) for model in [Net()] * 2)
    assert (first.specs, first.calls) == (again.specs, again.calls)


def test_a_mode_of_the_users_sees_every_layer() -> None:
    class Calls(TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.names: list[str] = []

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.names.append(getattr(func, "__name__", ""))
            return func(*args, **(kwargs or {}))

    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    for _ in range(2):
        with Calls() as calls:
            trace(model, torch.empty(1, 3, 9, 9))
        assert {"conv2d", "relu"} <= set(calls.names)


ASKING: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Conv1d(4, 4, 3, padding=1), (1, 4, 9)),
    (nn.Conv2d(4, 8, 3), (1, 4, 9, 9)),
    (nn.Conv2d(4, 8, 3, stride=2, padding=1, dilation=2, groups=2, bias=False), (2, 4, 9, 9)),
    (nn.Conv3d(4, 4, (1, 2, 3), bias=False), (1, 4, 5, 5, 5)),
    (nn.Linear(9, 5), (3, 9)),
    (nn.Linear(9, 5, bias=False), (1, 2, 9)),
    (nn.BatchNorm1d(4), (2, 4)),
    (nn.BatchNorm1d(4, affine=False), (2, 4, 9)),
    (nn.BatchNorm2d(4, momentum=None), (1, 4, 3, 3)),
    (nn.BatchNorm3d(4, eps=1), (1, 4, 3, 3, 3)),
    (nn.LayerNorm(9), (2, 9)),
    (nn.LayerNorm((3, 9), eps=1e-3, elementwise_affine=False), (2, 3, 9)),
    (nn.LayerNorm(9, bias=False), (2, 9)),
    *[(kind(inplace=i), (2, 4)) for kind in (nn.ReLU, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Mish) for i in (0, 1)],
    (nn.LeakyReLU(), (2, 4)),
    (nn.LeakyReLU(0.2, inplace=True), (2, 4)),
    (nn.LeakyReLU(1), (2, 4)),
    (nn.Sigmoid(), (2, 4)),
    (nn.Tanh(), (2, 4)),
    (nn.MaxPool2d(2), (1, 4, 9, 9)),
    (nn.MaxPool2d((3, 2), stride=2, padding=1, ceil_mode=True), (1, 4, 9, 9)),
    (nn.AvgPool2d(3, 1, 1, count_include_pad=False), (1, 4, 9, 9)),
    (nn.AvgPool2d(2, divisor_override=3), (1, 4, 9, 9)),
    (nn.AdaptiveAvgPool2d(1), (1, 4, 9, 9)),
    (nn.AdaptiveAvgPool2d((3, 2)), (1, 4, 9, 9)),
]


@pytest.mark.parametrize(("layer", "shape"), ASKING, ids=[f"{i} {a[0]}" for i, a in enumerate(ASKING)])
def test_what_a_layer_asks_for_by_its_settings_is_what_torch_shows(layer: nn.Module, shape: tuple[int, ...]) -> None:
    seen: list[tuple[Any, ...]] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append((func, args, kwargs))
            return func(*args, **(kwargs or {}))

    layer = layer.eval().to("meta")
    own, form, x = vars(layer), form_of(type(layer)), torch.empty(shape, device="meta")
    assert form is not None
    assert form.asks is not None
    with torch.inference_mode(), Watch():
        layer(x)
    held = [x, *form.parameters(own["_parameters"]), *form.buffers(own["_buffers"])]
    numbers = count()
    places = [None if t is None else Slot(next(numbers)) for t in held]
    op, args = shown(*form.asks(form.settings(own), len(shape), places))
    tensors = [t for t in held if t is not None]
    given = tuple(tensors[a] if isinstance(a, Slot) else a for a in args)
    ((func, shown_args, kwargs),) = seen
    assert op.func is func
    assert not kwargs
    assert len(given) == len(shown_args)
    for a, b in zip(given, shown_args, strict=True):
        assert a is b if isinstance(b, torch.Tensor) else (type(a), a) == (type(b), b)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (nn.Conv2d, {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding": "same"}),
        (nn.Conv2d, {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding_mode": "circular"}),
        (nn.Conv2d, {"in_channels": 4, "out_channels": 4, "kernel_size": 3, "stride": (2.0, 2.0)}),
        (nn.BatchNorm2d, {"num_features": 4, "track_running_stats": False}),
        (nn.BatchNorm2d, {"num_features": 4, "eps": -1.0}),
        (nn.MaxPool2d, {"kernel_size": 2.0}),
        (nn.MaxPool2d, {"kernel_size": 2, "return_indices": True}),
        (nn.MaxPool2d, {"kernel_size": 2, "ceil_mode": 1}),
        (nn.AvgPool2d, {"kernel_size": 2, "divisor_override": True}),
        (nn.AvgPool2d, {"kernel_size": 2, "count_include_pad": 0}),
        (nn.AdaptiveAvgPool2d, {"output_size": (3, None)}),
        (nn.LeakyReLU, {"negative_slope": "0.1"}),
    ],
)
def test_a_layer_whose_settings_do_not_tell_is_run(kind: Callable[..., nn.Module], settings: dict[str, Any]) -> None:
    layer = kind(**settings)
    own, form = vars(layer.eval()), form_of(type(layer))
    assert form is not None
    assert form.asks is not None
    held = [0, *form.parameters(own["_parameters"]), *form.buffers(own["_buffers"])]
    assert form.asks(form.settings(own), 4, [None if t is None else Slot(i) for i, t in enumerate(held)]) is None


@pytest.mark.parametrize("name", ["csp_darknet53", "resnext50", "timm:mobilenetv3_small_100"])
def test_no_layer_of_torchs_own_is_run_even_the_first_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm", reason="the library of this network is not installed")
    run: Counter[type] = Counter()
    learn = layers._learn

    def learning(module: nn.Module, *args: Any) -> Any:
        run[type(module)] += 1
        return learn(module, *args)

    monkeypatch.setattr(layers, "_learn", learning)
    memo.forget()
    profile(name)
    assert not run


@pytest.mark.parametrize(
    ("kind", "normal", "odd"),
    [
        (nn.MaxPool2d, {"kernel_size": 2}, {"kernel_size": 2, "ceil_mode": 0}),
        (nn.MaxPool2d, {"kernel_size": 2}, {"kernel_size": 2.0}),
        (nn.AdaptiveAvgPool2d, {"output_size": 1}, {"output_size": True}),
    ],
)
def test_a_setting_that_torch_refuses_is_refused_after_an_equal_one_too(
    kind: Callable[..., nn.Module], normal: dict[str, Any], odd: dict[str, Any]
) -> None:
    expected = trace(kind(**normal), (1, 4, 8, 8))
    with pytest.raises(TraceError):
        trace(kind(**odd), (1, 4, 8, 8))
    assert trace(kind(**normal), (1, 4, 8, 8)) == expected


def test_a_function_replaced_in_the_forward_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with monkeypatch.context() as patch:
                patch.setattr(nn.functional, "relu", lambda x, inplace=False: x + 1)
                return self.relu(x)

    memo.forget()
    assert [op.target for op in trace(Net(), (1, 4, 8, 8)).ops] == ["aten.add"]
    assert [op.target for op in trace(nn.ReLU(), (1, 4, 8, 8)).ops] == ["aten.relu"], "what it did is not remembered"
