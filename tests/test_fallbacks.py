"""A forward that cannot run on meta, or without gradients, is traced in the way in which it runs; a note says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Result, trace
from networks import Function
from torch import nn

import cspprof
from cspprof.core.errors import NeedsValuesError, TraceError
from cspprof.sources import build

LINEAR = 2 * 6 * 7


class NeedsValues(nn.Module):
    example_input_shape = (2, 6)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 7)

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(x) if bool(x.abs().sum() > 0) else x


NEEDS_VALUES = """
import torch
from torch import nn

class Net(nn.Module):
    example_input_shape = (2, 6)

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 7)

    def forward(self, x):
        y = self.layer(x)
        {statement}
        return y
"""


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    def write(statement: str) -> str:
        path = tmp_path / "net.py"
        path.write_text(NEEDS_VALUES.format(statement=statement))
        return f"{path}:Net"

    return write


READS_WEIGHTS = "assert 0 < float(self.layer.weight.abs().sum()) < 1000"
FAILS_ANYWAY = "y.sum().item(); raise RuntimeError('no luck')"

# -- values -----------------------------------------------------------------------------------------


def test_a_module_that_needs_values_is_traced_on_the_device_of_its_weights() -> None:
    p = cspprof.profile(NeedsValues(), (2, 6))
    assert p.total("macs") == LINEAR
    (note,) = p.notes
    assert note.startswith("traced on the CPU, because the forward needs the values of tensors")


def test_a_device_that_is_named_is_the_only_one() -> None:
    with pytest.raises(NeedsValuesError, match="needs the values of a tensor") as error:
        cspprof.profile(NeedsValues(), (2, 6), device="meta")
    assert "--device cpu" in str(error.value)
    assert cspprof.profile(NeedsValues(), (2, 6), device="cpu").notes == ()


def test_weights_without_values_are_named() -> None:
    with torch.device("meta"):
        model = NeedsValues()
    with pytest.raises(NeedsValuesError, match="needs the values") as error:
        cspprof.profile(model, (2, 6))
    assert error.value.hint == "The model's weights have no values: build it on the CPU."


def test_a_failure_on_both_devices_tells_both() -> None:
    def forward(x: torch.Tensor) -> None:
        x.sum().item()
        raise RuntimeError("no luck")

    with pytest.raises(TraceError, match=r"needs the values of a tensor(.|\n)*and on the CPU: .*no luck"):
        cspprof.profile(Function(forward), (2, 6))


def test_a_file_that_needs_values_is_built_and_traced_on_the_cpu(
    run: Callable[..., Result], file: Callable[[str], str]
) -> None:
    spec = file(READS_WEIGHTS)
    assert cspprof.profile(spec).total("macs") == LINEAR
    for command in (["cio"], ["flops"], ["profile"], ["bottleneck"], ["summary"], ["verify"],
                    ["whatif", "--input", "2x6,4x6"]):  # fmt: skip
        got = run(command[0], spec, *command[1:], "-f", "json")
        assert got.code == 0, got.err
        assert "traced on the CPU" in got.err + got.out, command
    assert json.loads(run("flops", spec, "-f", "json").out)["models"][0]["macs"] == LINEAR
    refused = run("flops", spec, "--device", "meta")
    assert refused.code == 2
    assert "--device cpu" in refused.err


def test_a_file_that_fails_on_both_devices_tells_both(run: Callable[..., Result], file: Callable[[str], str]) -> None:
    got = run("flops", file(FAILS_ANYWAY))
    assert got.code == 2
    assert "needs the values of a tensor" in got.err
    assert "and on the CPU: " in got.err
    assert "no luck" in got.err


def test_large_weights_are_not_built_without_a_request(
    file: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "MOST_WEIGHT_BYTES", 100)
    spec = file(READS_WEIGHTS)
    with pytest.raises(NeedsValuesError, match=r"the weights take 0\.0 GiB") as error:
        cspprof.profile(spec)
    assert "--device cpu" in str(error.value)
    assert cspprof.profile(spec, device="cpu").total("macs") == LINEAR


def test_a_large_input_is_not_made_without_a_request() -> None:
    with pytest.raises(NeedsValuesError, match=r"the input takes 48\.0 GiB") as error:
        cspprof.profile(NeedsValues(), (2 * 2**30, 6))
    assert "--device cpu" in str(error.value)


def test_a_sparse_input_needs_values() -> None:
    sparse = torch.eye(6).to_sparse()
    assert cspprof.profile(Function(lambda x: x.to_dense() @ torch.ones(6, 2)), [sparse]).total("macs") == 72


def test_a_weight_that_takes_the_values_of_a_tensor_on_the_cpu_needs_values() -> None:
    class Net(NeedsValues):
        def forward(self, x: torch.Tensor) -> Any:
            self.layer.weight.data = torch.eye(7, 6)
            return self.layer(x)

    assert cspprof.profile(Net(), (2, 6)).total("macs") == LINEAR


@pytest.mark.filterwarnings("ignore")
def test_layers_of_onednn_need_values_and_are_counted() -> None:
    from torch.utils.mkldnn import to_mkldnn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = to_mkldnn(nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(True), nn.Linear(5, 7)).eval())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x.to_mkldnn()).to_dense()

    model, x = Net(), torch.randn(1, 4, 7, 7)
    y = model(x)
    p = cspprof.profile(model, x)
    assert p.complete, p.uncounted
    assert p.total("macs") == 6 * 2 * 9 * 25 + 6 * 5 * 5 * 7
    assert torch.equal(model(x), y)


@pytest.mark.parametrize("kind", ["Categorical", "Normal", "Dirichlet"])
def test_a_distribution_that_checks_its_arguments_is_traced_on_the_cpu(kind: str) -> None:
    layer = nn.Linear(6, 7)

    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: torch.Tensor) -> Any:
            y = self.layer(x).exp()
            return getattr(torch.distributions, kind)(*([y, y] if kind == "Normal" else [y]))

    p = cspprof.profile(Policy(), (2, 6))
    assert p.total("macs") == LINEAR
    assert p.complete, p.uncounted


# -- gradients --------------------------------------------------------------------------------------


class WithLayer(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 7)
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.layer, x)


def gradient(layer: nn.Module, x: torch.Tensor) -> Any:
    x.requires_grad_()
    return torch.autograd.grad(layer(x).sum(), x)


def with_hook(layer: nn.Module, x: torch.Tensor) -> Any:
    y = layer(x)
    y.register_hook(lambda gradient: gradient)
    return y


def with_retained_gradient(layer: nn.Module, x: torch.Tensor) -> Any:
    y = layer(x)
    y.retain_grad()
    return y


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize(("function", "products"), [(gradient, 2), (with_hook, 1), (with_retained_gradient, 1)])
def test_a_forward_that_needs_gradients_is_traced_with_them(
    device: str, function: Callable[..., Any], products: int
) -> None:
    model = WithLayer(function)
    p = trace(model, (2, 6), device=device)
    assert p.total("macs") == products * LINEAR
    assert p.notes == ("traced with gradients enabled: the forward fails without them",)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("wanted", [True, False])
def test_a_forward_may_assert_that_gradients_are_enabled_or_disabled(wanted: bool) -> None:
    def forward(layer: nn.Module, x: torch.Tensor) -> Any:
        assert torch.is_grad_enabled() is wanted
        return layer(x)

    p = trace(WithLayer(forward), (2, 6))
    assert (p.total("macs"), p.notes) == (LINEAR, ())


def test_the_first_failure_is_told_if_gradients_do_not_help() -> None:
    def forward(layer: nn.Module, x: torch.Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("second failure with grad")
        raise RuntimeError("first failure without grad")

    with pytest.raises(TraceError, match="first failure"):
        trace(WithLayer(forward), (2, 6))


def test_a_forward_that_fails_otherwise_runs_once() -> None:
    calls = []

    def forward(x: torch.Tensor) -> None:
        calls.append(1)
        raise RuntimeError("no luck")

    with pytest.raises(TraceError, match="no luck"):
        cspprof.profile(Function(forward), (2, 6))
    assert calls == [1]


# -- higher-order operators -------------------------------------------------------------------------


def rounds(layer: nn.Module, x: torch.Tensor) -> Any:
    from torch._higher_order_ops import while_loop

    start = torch.zeros((), dtype=torch.int64, device=x.device)
    return while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, layer(x)), (start, x))[1]


def either(layer: nn.Module, x: torch.Tensor) -> Any:
    return torch.cond(x.abs().sum() > 0, lambda x: layer(x), lambda x: x * 2, (x,))


def mapped(layer: nn.Module, x: torch.Tensor) -> Any:
    from torch._higher_order_ops.map import map as map_

    return map_(lambda row: layer(row), x[:, None])


def scanned(layer: nn.Module, x: torch.Tensor) -> Any:
    from torch._higher_order_ops.scan import scan

    return scan(lambda carry, row: (layer(carry) + row, carry * 1), x[:1], x[:, None], dim=0)[0]


@pytest.mark.parametrize(
    ("function", "macs", "needs_values"),
    [(rounds, 3 * 2 * 16, True), (either, 2 * 16, True), (mapped, 2 * 16, False), (scanned, 2 * 16, False)],
)
def test_a_higher_order_operator_is_counted_by_the_steps_that_it_takes(
    function: Callable[..., Any], macs: int, needs_values: bool
) -> None:
    model = WithLayer(function)
    model.layer = nn.Linear(4, 4)
    p = cspprof.profile(model, (2, 4))
    assert p.total("macs") == macs
    assert bool(p.notes) is needs_values
    if needs_values:
        with pytest.raises(NeedsValuesError, match="needs the values of a tensor"):
            cspprof.profile(model, (2, 4), device="meta")


def test_a_shape_beside_lengths_in_a_tensor_is_traced_with_values() -> None:
    """The shape is read as numbers first, which fails; read as a shape, the forward needs the lengths."""

    class Packs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.LSTM(4, 8)

        def forward(self, x: Any, lengths: Any) -> Any:
            return self.layer(nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True))[0].data

    p = cspprof.profile(Packs(), [(2, 5, 4), torch.tensor([5, 3])])
    assert p.total("macs") == (5 + 3) * 4 * (4 * 8 + 8 * 8)
    assert any("traced on the CPU" in note for note in p.notes)
