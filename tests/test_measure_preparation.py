"""What `cspprof measure` prepares: weights with which outputs depend on the input, and the correct output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cspprof.deployment.random_weights import VanishedError, calibrate, check_depends_on_input, rescale
from cspprof.measure.parity import LARGEST_TOLERANCE, TOLERANCE, tolerance_for
from cspprof.measure.torch_model import (
    TensorsOnly,
    copied_state,
    has_only_tensors,
    output_tensors,
    read_changes,
    write_changes,
)


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def conv_norm(c_in: int, c_out: int) -> nn.Sequential:
    """A convolution whose weights shrink its input by a factor of 10, and a batch norm with default statistics."""
    conv = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(seeded(*conv.weight.shape) * 0.02)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU())


def test_calibration_gives_every_batch_norm_an_output_of_mean_0_and_deviation_1() -> None:
    net, x = nn.Sequential(conv_norm(3, 8), conv_norm(8, 8)).eval(), seeded(1, 3, 16, 16)
    with torch.no_grad():
        assert float(net(x).abs().max()) < 0.2
        notes = calibrate(net, lambda: net(x))
        assert notes == ["statistics of 2 batch norms set by one forward pass on random input"]
        y = x
        for block in net:
            normalized = block[1](block[0](y))
            y = block(y)
            assert torch.allclose(normalized.mean((0, 2, 3)), torch.zeros(8), atol=1e-4)
            assert torch.allclose(normalized.std((0, 2, 3), correction=0), torch.ones(8), atol=0.01)


def test_statistics_that_were_trained_stay() -> None:
    net = conv_norm(3, 4).eval()
    net[1].running_mean.fill_(0.25)
    before = copied_state(net)
    assert calibrate(net, lambda: net(seeded(1, 3, 8, 8))) == []
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_a_batch_norm_with_one_value_per_channel_uses_all_channels() -> None:
    norm = nn.BatchNorm1d(4).eval()
    x = torch.tensor([[1.0, 2.0, 3.0, 6.0]])
    with torch.no_grad():
        calibrate(norm, lambda: norm(x))
    assert norm.running_mean.tolist() == [3.0] * 4
    assert norm.running_var.tolist() == [3.5] * 4


class Scaled(nn.Module):
    """A layer scale as in ConvNeXt, and a norm whose weight is 0 as at the end of a residual branch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.gamma = nn.Parameter(torch.full((4, 1, 1), 1e-6))
        self.norm = nn.BatchNorm2d(4)
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Any) -> Any:
        return self.norm(self.conv(x)) + self.conv(x) * self.gamma


def test_weights_that_switch_a_branch_off_become_1_and_biases_of_0_stay() -> None:
    net = Scaled().eval()
    with torch.no_grad():
        notes = calibrate(net, lambda: net(seeded(1, 3, 8, 8)))
    assert "2 weights of norms and layer scales that switched a branch off set to 1" in notes
    assert bool((net.gamma == 1).all() and (net.norm.weight == 1).all())
    assert bool((net.norm.bias == 0).all() and (net.conv.bias == 0).all())


def test_rescaled_layers_have_outputs_of_deviation_1() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1e-4)
        x = seeded(2, 3, 8, 8)
        assert "2 convolutions and linear layers" in rescale(net, lambda: net(x))
        first = nn.functional.conv2d(x, net[0].weight)
        assert float(first.std(correction=0)) == pytest.approx(1, rel=1e-4)
        last = nn.functional.linear(net[:3](x), net[3].weight)
        assert float(last.std(correction=0)) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1.0, 2.0], [1.0, 2.0], "changes by 0.0e"),
        ([1.0, 2.0], [1.0, 2.0001], "so it is constant"),
        ([1e-9, 1e-9], [2e-9, 3e-9], "the largest output is 1.0e-09, so the activations vanish"),
        ([1e9, 1.0], [1.0, 1.0], "the largest output is 1.0e"),
        ([float("nan"), 1.0], [1.0, 1.0], "not finite"),
        ([0.0, 0.0], [0.0, 0.0], "vanish"),
    ],
)
def test_an_output_that_proves_nothing_is_refused(first: list[float], second: list[float], message: str) -> None:
    with pytest.raises(VanishedError, match=message):
        check_depends_on_input([torch.tensor(first)], [torch.tensor(second)])


def test_an_output_that_depends_on_the_input_is_accepted() -> None:
    check_depends_on_input([torch.tensor([1.0, 2.0])], [torch.tensor([1.0, 2.1])])
    check_depends_on_input([torch.tensor([1, 2])], [torch.tensor([1, 2])])  # classes say little, and are no error
    check_depends_on_input([torch.ones(3), torch.ones(3)], [torch.ones(3), torch.zeros(3)])


@pytest.mark.parametrize(
    ("change", "tolerance"), [(0.0, TOLERANCE), (5e-5, TOLERANCE), (1e-3, 2e-3), (1.0, LARGEST_TOLERANCE)]
)
def test_the_tolerance_follows_the_reaction_to_small_changes(change: float, tolerance: float) -> None:
    assert tolerance_for(change) == tolerance


def test_only_changed_weights_are_written(tmp_path: Path) -> None:
    net, other = conv_norm(3, 4).eval(), conv_norm(3, 4).eval()
    before = copied_state(net)
    with torch.no_grad():
        calibrate(net, lambda: net(seeded(1, 3, 8, 8)))
    write_changes(net, before, tmp_path)
    assert set(torch.load(tmp_path / "changed_weights.pt")) == {"1.running_mean", "1.running_var"}
    read_changes(other, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True))


def test_results_with_other_values_than_tensors_are_reduced_to_tensors() -> None:
    x = torch.ones(2)
    assert has_only_tensors({"a": [x, (x,)]})
    assert not has_only_tensors((x, None))
    assert not has_only_tensors([x, 3])

    class Mixed(nn.Module):
        def forward(self, x: Any) -> Any:
            return {"b": x + 1, "a": None}, 3, [x]

    result = TensorsOnly(Mixed())(x)
    assert [t.tolist() for t in result] == [[2.0, 2.0], [1.0, 1.0]]
    assert len(output_tensors(Mixed()(x))) == 2
