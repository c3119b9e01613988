"""Laws that hold for any convolutional network: random networks, against other counters and against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from conftest import trace
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import cspprof
from cspprof.metrics import METRICS
from cspprof.storage.profile_file import from_bytes, to_bytes
from cspprof.trace import op_cache

CHANNELS = 4
SIDE = 16
ADDITIVE = [name for name in METRICS.names() if METRICS.get(name).additive and METRICS.get(name).scale == 1]
"""Metrics that are whole numbers and add up."""

COUNTS = settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
"""A network takes about 10 ms."""


class Part(NamedTuple):
    """A part of a network that keeps the size of its input, at most halves it, and returns `width` channels."""

    kind: str
    width: int = CHANNELS
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    dilation: int = 1


def parts() -> st.SearchStrategy[Part]:
    widths = st.sampled_from([4, 8, 12])
    convolution = st.builds(
        Part, st.just("conv"), widths, st.sampled_from([1, 3, 5]), st.sampled_from([1, 2]), st.sampled_from([1, 2, 4]),
        st.sampled_from([1, 2]),
    )  # fmt: skip
    others = st.sampled_from(["depthwise", "residual", "concat", "norm", "relu", "max_pool", "avg_pool"]).map(Part)
    return convolution | others


NETWORKS = st.lists(parts(), min_size=1, max_size=5)


class Residual(nn.Module):
    """x + f(x): shapes stay."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.f = nn.Sequential(nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c), nn.ReLU())

    def forward(self, x: Any) -> Any:
        return x + self.f(x)


class Concat(nn.Module):
    """[x, f(x)], reduced to the channels of x."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.f, self.reduce = nn.Conv2d(c, c, 1), nn.Conv2d(2 * c, c, 1)

    def forward(self, x: Any) -> Any:
        return self.reduce(torch.cat([x, self.f(x)], 1))


def module_of(network: list[Part], channels: int = CHANNELS) -> nn.Sequential:
    """The network on (N, channels, H, W)."""
    made: list[nn.Module] = []
    for part in network:
        if part.kind == "conv":
            padding = part.dilation * (part.kernel // 2)
            made.append(
                nn.Conv2d(channels, part.width, part.kernel, part.stride, padding, part.dilation, part.groups)
            )  # fmt: skip
            channels = part.width
        else:
            made.append({
                "depthwise": lambda c: nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False), "residual": Residual,
                "concat": Concat, "norm": nn.BatchNorm2d, "relu": lambda c: nn.ReLU(),
                "max_pool": lambda c: nn.MaxPool2d(3, 1, 1), "avg_pool": lambda c: nn.AvgPool2d(3, 1, 1),
            }[part.kind](channels))  # fmt: skip
    return nn.Sequential(*made).eval()


def width_of(network: list[Part]) -> int:
    """The channels of the output."""
    return next((part.width for part in reversed(network) if part.kind == "conv"), CHANNELS)


def numbers(model: nn.Module, batch: int = 1) -> dict[str, Any]:
    profile = trace(model, (batch, CHANNELS, SIDE, SIDE))
    return {name: profile.total(name) for name in METRICS.names()}


@COUNTS
@given(NETWORKS)
def test_macs_are_half_the_flops_of_torchs_counter(network: list[Part]) -> None:
    model = module_of(network)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, CHANNELS, SIDE, SIDE))
    assert 2 * trace(model, (1, CHANNELS, SIDE, SIDE)).total("macs") == counter.get_total_flops()


@COUNTS
@given(NETWORKS)
def test_the_values_of_layers_add_up_to_those_of_the_model(network: list[Part]) -> None:
    profile = trace(module_of(network), (1, CHANNELS, SIDE, SIDE))
    table = profile.to_pandas()
    for name in ADDITIVE:
        assert table[name].sum() == profile.total(name), name


@COUNTS
@given(NETWORKS, st.integers(2, 5))
def test_a_batch_multiplies_macs_and_traffic_of_activations(network: list[Part], batch: int) -> None:
    model = module_of(network)
    one, many = numbers(model), numbers(model, batch)
    for name in ("macs", "flops", "cio_hardnet", "cio_cspnet", "cio_all", "activations", "peak_bytes"):
        assert many[name] == batch * one[name], name
    for name in ("params", "conv_weights", "moc", "bottleneck_share"):
        assert many[name] == one[name], name


@COUNTS
@given(NETWORKS, NETWORKS)
def test_costs_of_networks_in_a_row_add_up(first: list[Part], second: list[Part]) -> None:
    a = module_of(first)
    b = module_of(second, width_of(first))
    middle = a(torch.zeros(1, CHANNELS, SIDE, SIDE)).shape
    whole = trace(nn.Sequential(a, b), (1, CHANNELS, SIDE, SIDE))
    apart = trace(a, (1, CHANNELS, SIDE, SIDE)), trace(b, tuple(middle))
    for name in ("macs", "cio_hardnet", "cio_cspnet", "activations", "traffic_bytes", "params", "conv_weights"):
        assert whole.total(name) == sum(profile.total(name) for profile in apart), name


@COUNTS
@given(NETWORKS)
def test_a_record_survives_its_file(network: list[Part]) -> None:
    profile = trace(module_of(network), (1, CHANNELS, SIDE, SIDE))
    again = from_bytes(to_bytes(profile, compressed=False), "a file")
    assert to_bytes(again, compressed=False) == to_bytes(profile, compressed=False)
    assert {name: again_total(again, name) for name in METRICS.names()} == {
        name: profile.total(name) for name in METRICS.names()
    }


def again_total(record: Any, name: str) -> Any:
    return METRICS.get(name).total(record).value


@COUNTS
@given(NETWORKS)
def test_parameters_are_at_least_the_weights_of_convolutions(network: list[Part]) -> None:
    found = numbers(module_of(network))
    assert found["params"] >= found["conv_weights"]


@COUNTS
@given(st.lists(NETWORKS, min_size=2, max_size=3))
def test_numbers_do_not_depend_on_what_was_profiled_before(networks: list[list[Part]]) -> None:
    models = [module_of(network) for network in networks]
    together = [numbers(model) for model in models]
    backwards = [numbers(model) for model in reversed(models)][::-1]
    alone = []
    for model in models:
        op_cache.clear()
        alone.append(numbers(model))
    assert together == backwards == alone


DARKNET_LAYERS = st.lists(
    st.tuples(st.sampled_from([4, 8, 12]), st.sampled_from([1, 3, 5]), st.sampled_from([1, 2])), min_size=1, max_size=4
)


@COUNTS
@given(DARKNET_LAYERS, st.integers(8, 40))
def test_networks_of_convolutions_cost_what_darknet_prints(
    tmp_path_factory: pytest.TempPathFactory, layers: list[tuple[int, int, int]], side: int
) -> None:
    """Darknet: 2 · n · size² · c · out² / 10⁹ for each convolution, with out = (side + 2·pad − size) / stride + 1."""
    text, channels, expected = f"[net]\nwidth={side}\nheight={side}\nchannels=3\n", 3, 0
    for filters, size, stride in layers:
        text += f"[convolutional]\nfilters={filters}\nsize={size}\nstride={stride}\npad=1\nactivation=leaky\n"
        side = (side + 2 * (size // 2) - size) // stride + 1
        expected += 2 * filters * size**2 * channels * side**2
        channels = filters
    path: Path = tmp_path_factory.mktemp("cfg") / "net.cfg"
    path.write_text(text)
    profile = cspprof.profile(str(path))
    assert profile.total("bflops_darknet") == pytest.approx(expected / 1e9, abs=1e-12)
    assert profile.total("flops") == expected


BLOCKS = st.lists(st.integers(1, 3), min_size=1, max_size=2)


@settings(deadline=None, max_examples=4)
@given(BLOCKS, st.sampled_from([0.25, 0.5]), st.sampled_from(["csp", "first", "last"]))
@pytest.mark.slow
def test_a_conversion_keeps_the_shapes_of_outputs(blocks: list[int], gamma: float, fusion: str) -> None:
    stages: list[nn.Module] = []
    width = 16
    for count in blocks:
        down = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU())
        width *= 2
        stages += [down, nn.Sequential(*(Residual(width) for _ in range(count + 1)))]
    model = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), *stages).eval()
    converted = cspprof.convert(model, (1, 3, 32, 32), gamma=gamma, fusion=fusion).model
    x = torch.zeros(1, 3, 32, 32)
    assert converted.eval()(x).shape == model(x).shape
