"""`advise`: what to change in a network, each change applied to a copy and traced again."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import Result
from torch import nn

import cspprof
from cspprof.core.errors import CspprofError, TraceError
from cspprof.csp.advice import ADVISERS, Suggestion, suggestions
from cspprof.csp.advice.apply import trace_with_change
from cspprof.csp.advice.engine_blocks import blocked_macs, idle_macs
from cspprof.csp.advice.network_widths import NetworkWidths, WidthChange
from cspprof.csp.conversion.channels import CouplingError
from cspprof.metrics import value_of
from cspprof.results import Advice

Run = Callable[..., Result]
INPUT = (1, 3, 8, 8)
PIXELS = 64
NUMBERS = ("macs", "cio_hardnet", "cio_cspnet", "cio_all", "params", "conv_weights", "traffic_bytes", "peak_bytes")


class Net(nn.Module):
    """Modules in a row, the mean over the map, and a classifier."""

    def __init__(self, *body: nn.Module, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)
        self.head = nn.Linear(width, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.body(x).mean((2, 3)))
        return y


def of(advice: Advice, adviser: str) -> list[Suggestion]:
    return [s for s in advice if s.adviser == adviser]


def only(advice: Advice, adviser: str) -> Suggestion:
    (suggestion,) = of(advice, adviser)
    return suggestion


# -- widths of the engine -------------------------------------------------------------------------------


def off_the_block(width: int) -> Net:
    return Net(nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1), width=width)


def test_62_channels_become_64_at_no_cost() -> None:
    advice = cspprof.advise(off_the_block(62), INPUT)
    found = of(advice, "width")
    idle = 9 * 3 * 2 * PIXELS + 9 * (64 * 64 - 62 * 62) * PIXELS
    assert [s.before for s in found[:1]] == [idle]
    assert "62 channels cost as much as 64 in ONNX Runtime" in found[0].proposal.finding
    assert found[0].proposal.action == "64 channels: the nearest multiple of 16 that costs no more"
    assert all(s.traced for s in found)
    macs = [PIXELS * (27 * c + 9 * c * c) + 4 * c for c in (62, 64)]
    assert found[0].worse(advice.profile)["macs"] == (macs[1] - macs[0]) / macs[0]
    assert f"MACs +{100 * (macs[1] / macs[0] - 1):.1f} %" in str(advice)


def test_the_image_and_grouped_convolutions_are_not_in_blocks() -> None:
    """3 channels are read as they are; a depthwise layer has whole blocks; 2 groups of 12 channels have none."""
    body = [nn.Conv2d(3, 24, 1), nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.Conv2d(24, 24, 1, groups=2)]
    p = cspprof.profile(Net(*body, width=24), INPUT)
    assert blocked_macs(p) == PIXELS * (3 * 32 + 9 * 32 + 24 * 12)
    assert idle_macs(p) == PIXELS * (3 * 8 + 9 * 8)


def test_66_channels_become_64_and_whole_blocks_are_left_alone() -> None:
    found = of(cspprof.advise(off_the_block(66), INPUT), "width")
    assert found[0].proposal.action == "64 channels: the nearest multiple of 16 that costs less"
    assert of(cspprof.advise(off_the_block(64), INPUT), "width") == []


# -- guidelines of ShuffleNetV2 -------------------------------------------------------------------------


class Bottleneck(nn.Module):
    """A shortcut around 1×1 convolutions to `mid` channels and back."""

    def __init__(self, channels: int, mid: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, mid, 1), nn.Conv2d(mid, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.expand(self.reduce(x))
        return y


def test_unequal_widths_come_nearer_at_the_same_macs() -> None:
    """Stem 3 → c and three bottlenecks c → m → c: MACs / pixel = 3c + 6cm, CIO / pixel = 3 + c + 6(c + m).

    The mean over the map reads c channels and writes c elements.
    """

    def macs(c: int, m: int) -> int:
        return PIXELS * (3 * c + 6 * c * m) + 4 * c

    def cio(c: int, m: int) -> int:
        return PIXELS * (3 + c + 6 * (c + m)) + PIXELS * c + c

    model = Net(nn.Conv2d(3, 128, 1), *(Bottleneck(128, 32) for _ in range(3)), width=128)
    suggestion = only(cspprof.advise(model, INPUT), "equal-width")
    widths = [
        (c, m)
        for c in range(32, 128, 16)
        for m in range(48, c + 1, 16)
        if 0.95 * macs(128, 32) <= macs(c, m) <= macs(128, 32)
    ]
    assert suggestion.before == cio(128, 32)
    assert suggestion.after == min(cio(c, m) for c, m in widths)
    assert suggestion.record is not None
    assert value_of(suggestion.record, "macs") <= macs(128, 32)
    assert "128 to 32 channels: 1.25 times the least CIO" in suggestion.proposal.finding


def test_equal_widths_are_left_alone() -> None:
    model = Net(nn.Conv2d(3, 64, 1), *(Bottleneck(64, 64) for _ in range(3)), width=64)
    assert of(cspprof.advise(model, INPUT), "equal-width") == []


def test_groups_become_one_group_at_the_same_macs() -> None:
    """3 → c, three 3×3 convolutions of 16 groups, c → 64: the largest c without groups that has at most the MACs."""
    convolutions = [nn.Conv2d(64, 64, 3, padding=1, groups=16) for _ in range(3)]
    model = Net(nn.Conv2d(3, 64, 1), *convolutions, nn.Conv2d(64, 64, 1), width=64)
    before = 3 * 64 + 3 * 9 * 64 * 4 + 64 * 64
    width = max(c for c in range(8, 65, 8) if 3 * c + 27 * c * c + 64 * c <= before)
    suggestion = only(cspprof.advise(model, INPUT), "groups")
    assert suggestion.proposal.action == f"one group and {width} channels, with at most the same MACs"
    mean = PIXELS * 64 + 64
    assert suggestion.before == PIXELS * (3 + 64 + 6 * 64 + 128) + mean
    assert suggestion.after == PIXELS * (3 + width + 6 * width + width + 64) + mean
    assert suggestion.traced


def test_a_depthwise_layer_of_low_moc_becomes_dense_at_the_same_macs() -> None:
    body = [nn.Conv2d(3, 64, 1), nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.Conv2d(64, 64, 1)]
    suggestion = only(cspprof.advise(Net(*body, width=64), INPUT), "low-moc")
    before = 3 * 64 + 9 * 64 + 64 * 64
    width = max(c for c in range(8, 65, 8) if 3 * c + 9 * c * c + 64 * c <= before)
    assert suggestion.proposal.metric == "moc"
    assert suggestion.before == Fraction(before, 3 + 64 + 128 + 128)
    assert suggestion.after == Fraction(3 * width + 9 * width * width + 64 * width, 3 + width + 2 * width + width + 64)
    assert suggestion.proposal.finding.startswith("depthwise, 64 channels: MoC 4.5")


# -- stages, concatenations, memory -----------------------------------------------------------------------


def row(width: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Conv2d(width, width, 3, padding=1) for _ in range(3)))


def test_the_stage_that_saves_most_has_the_macs_of_its_conversion() -> None:
    """Two stages: 32 channels at 8×8, and 48 channels at 4×4. Half of 32 run through the blocks and a transition."""
    model = Net(nn.Conv2d(3, 32, 1), row(32), nn.Conv2d(32, 48, 3, 2, 1), row(48), width=48)
    suggestion = only(cspprof.advise(model, INPUT), "stage")
    assert suggestion.proposal.place == "body.1"
    assert suggestion.before - suggestion.after == PIXELS * (27 * 32 * 32 - 27 * 16 * 16 - 16 * 16 - 32 * 32)
    assert suggestion.after == cspprof.convert(model, INPUT, stages=["body.1"]).after.total("macs")
    assert suggestion.after < cspprof.convert(model, INPUT, stages=["body.3"]).after.total("macs")
    assert suggestion.proposal.action == "16 of 32 channels bypass the blocks: cspprof convert --stages body.1"


class Branches(nn.Module):
    """A concatenation of 32 + 32 channels that three 1×1 convolutions and a 3×3 one read."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 32, 1), nn.Conv2d(3, 32, 1)
        self.ones = nn.ModuleList(nn.Conv2d(64, 16, 1) for _ in range(3))
        self.three = nn.Conv2d(64, 16, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.a(x), self.b(x)], 1)
        y: torch.Tensor = self.ones[0](x) + self.ones[1](x) + self.ones[2](x) + self.three(x)
        return y


def test_a_concatenation_that_is_read_several_times() -> None:
    """Reading it once for the three 1×1 convolutions saves two reads of 64 channels; only the forward can do that."""
    suggestion = only(cspprof.advise(Branches(), INPUT), "concat-reads")
    cio = PIXELS * (2 * (3 + 32) + 4 * (64 + 16))
    assert (suggestion.before, suggestion.after) == (cio, cio - 2 * 64 * PIXELS)
    assert suggestion.proposal.finding == "4 convolutions read 1×64×8×8: ones.0 and 3 more layers"
    assert suggestion.proposal.action == "one 1×1 convolution with the outputs of 3, and a split behind it"
    assert not suggestion.traced
    assert suggestion.reason == "only the code of the forward can do this"


def test_activations_in_place_lower_the_peak() -> None:
    """Two maps of 16 channels are alive at the activation; in place, the second convolution has 16 and 4."""
    model = Net(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 4, 1), width=4)
    suggestion = only(cspprof.advise(model, INPUT), "peak")
    assert (suggestion.before, suggestion.after) == (4 * PIXELS * 32, 4 * PIXELS * 20)
    assert (suggestion.proposal.place, suggestion.proposal.action) == ("body.1", "inplace=True for 1 activation")
    assert suggestion.traced
    assert not model.body[1].inplace


def test_an_activation_whose_input_is_read_again_stays_out_of_place() -> None:
    class Again(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.body[0](x)
            y: torch.Tensor = self.body[1](x) + x
            return y

    assert of(cspprof.advise(Again(nn.Conv2d(3, 16, 1), nn.ReLU(), width=16), INPUT), "peak") == []


def test_folded_batch_norms_lower_the_peak_behind_a_shortcut() -> None:
    """The image is alive to the addition. At the norm: 16 channels twice, and the 8 of the shortcut."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.side, self.conv, self.norm = nn.Conv2d(3, 16, 1), nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.side(x)
            y += self.norm(self.conv(x))
            return y

    suggestion = only(cspprof.advise(Net(Block(), width=16), INPUT), "peak")
    assert (suggestion.before, suggestion.after) == (4 * PIXELS * 48, 4 * PIXELS * (3 + 32))
    assert suggestion.proposal.action == "at inference, fold 1 batch norm into the convolutions"


def test_a_network_without_any_of_this_gets_nothing_worth_changing(run: Run, tmp_path: Path) -> None:
    body = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(inplace=True)]
    advice = cspprof.advise(Net(*body, width=64), INPUT)
    assert len(advice) == 0
    assert "nothing worth changing" in str(advice)
    advice.profile.save(tmp_path / "net.profile.json")
    got = run("advise", str(tmp_path / "net.profile.json"))
    assert got.code == 0
    assert "nothing worth changing" in got.out


# -- the check ----------------------------------------------------------------------------------------------


def test_a_change_that_improves_nothing_when_it_is_applied_is_left_out() -> None:
    p = cspprof.profile(off_the_block(62), INPUT)
    assert suggestions(p, lambda change: p) == []
    assert suggestions(p, None)


def test_a_change_that_fails_has_computed_numbers_and_says_why() -> None:
    def fail(change: object) -> cspprof.Profile:
        raise CouplingError("its forward has a fixed width")

    p = cspprof.profile(off_the_block(62), INPUT)
    found = [s for s in suggestions(p, fail) if s.adviser == "width"]
    assert found
    assert {(s.traced, s.reason) for s in found} == {(False, "its forward has a fixed width")}


SPECS = [
    "torchvision:shufflenet_v2_x0_5", "resnext50", "torchvision:resnet50", "torchvision:mobilenet_v2", "densenet121",
    "torchvision:efficientnet_b0", "torchvision:convnext_tiny", "torchvision:googlenet",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
def test_numbers_computed_from_shapes_are_those_of_the_trace(spec: str) -> None:
    """Every group of channels of a network with twice its width, in every metric."""
    from cspprof.sources import Request, open_model
    from cspprof.trace import trace

    with open_model(spec, Request()) as loaded:
        run = partial(trace, inputs=loaded.inputs, name=loaded.name)
        record = run(loaded.module)
        widths = NetworkWidths(record)
        groups = widths.groups()
        assert groups
        for group in groups[:: max(1, len(groups) // 4)]:
            change = WidthChange(((group.layers[0], 2 * group.width),))
            after = trace_with_change(loaded.module, record, change, run)
            computed = widths.resized(change)
            assert [value_of(after, m) for m in NUMBERS] == [value_of(computed, m) for m in NUMBERS], group


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
def test_every_suggestion_for_a_network_is_traced_and_has_the_computed_number(spec: str) -> None:
    advice = cspprof.advise(spec)
    assert len(advice) > 0
    for s in advice:
        assert float(s.after) == float(s.proposal.computed or 0)
        assert s.traced == (s.adviser != "concat-reads"), s.reason
        assert s.gain >= 0.01


def test_advice_changes_neither_the_module_nor_the_random_numbers() -> None:
    model = Net(nn.Conv2d(3, 62, 1), nn.ReLU(), nn.BatchNorm2d(62), nn.Conv2d(62, 62, 1), width=62).train()
    state, text, random = copy.deepcopy(model.state_dict()), repr(model), torch.get_rng_state()
    assert len(cspprof.advise(model, INPUT)) > 0
    assert (repr(model), model.training) == (text, True)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


# -- profiles, options, formats -------------------------------------------------------------------------------


def test_a_profile_has_the_same_advice_computed_from_shapes(tmp_path: Path, run: Run) -> None:
    model = off_the_block(62)
    p = cspprof.profile(model, INPUT)
    traced, computed = cspprof.advise(model, INPUT), cspprof.advise(p)
    assert [(s.adviser, s.proposal.place, s.before, s.after) for s in traced] == [
        (s.adviser, s.proposal.place, s.before, s.after) for s in computed
    ]
    assert {s.reason for s in computed} == {"the source contains no module"}
    p.save(tmp_path / "net.profile.json")
    got = run("advise", str(tmp_path / "net.profile.json"))
    assert got.code == 0
    assert "computed from shapes, not traced: the source contains no module" in got.out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet", "shufflenet_v2_x1_0"])
def test_an_onnx_graph_has_the_widths_of_its_module(name: str, tmp_path: Path) -> None:
    """Batch norms are folded in the graph and its slices have no offsets; what can be followed has the same numbers."""
    pytest.importorskip("onnx")
    torchvision = pytest.importorskip("torchvision")
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    model = torchvision.models.get_model(name, weights=None, **options).eval()
    for parameter in model.parameters():  # the export would merge equal weights, such as biases of zero
        nn.init.normal_(parameter)
    file = tmp_path / "net.onnx"
    torch.onnx.export(model, (torch.randn(1, 3, 224, 224),), str(file), dynamo=False, opset_version=17)

    def numbers(advice: cspprof.Advice) -> set[tuple[object, ...]]:
        return {(s.adviser, s.before, s.after) for s in advice if s.adviser in ("width", "equal-width")}

    graph, module = cspprof.advise(str(file)), cspprof.advise(f"torchvision:{name}")
    assert not any(s.traced for s in graph)
    assert numbers(graph)
    assert numbers(graph) <= numbers(module)


def test_a_metric_ranks_what_improves_it(run: Run) -> None:
    """Bottlenecks of equal widths save CIO and also some MACs; the stage saves MACs."""
    model = Net(nn.Conv2d(3, 128, 1), *(Bottleneck(128, 32) for _ in range(3)), width=128)
    advice = cspprof.advise(model, INPUT, metric="params")
    assert len(advice) > 0
    assert {s.proposal.metric for s in advice} == {"params"}
    assert [s.gain for s in advice] == sorted((s.gain for s in advice), reverse=True)
    assert all(s.after < s.before for s in advice)
    got = run("advise", "resnet10", "--metric", "mac")
    assert got.code == 2
    assert "no metric named 'mac'" in got.err


@pytest.mark.parametrize("format_name", ["json", "csv", "markdown", "latex", "html", "rich"])
def test_every_format_has_the_suggestions(format_name: str, run: Run, tmp_path: Path) -> None:
    cspprof.profile(off_the_block(62), INPUT).save(tmp_path / "net.profile.json")
    got = run("advise", str(tmp_path / "net.profile.json"), "--format", format_name, "--top", "1")
    assert got.code == 0
    assert "64 channels: the nearest multiple of 16" in got.out or format_name in ("html", "csv", "json")
    if format_name == "json":
        document = json.loads(got.out)
        assert document["schema"] == "cspprof.advise/1"
        (suggestion,) = document["suggestions"]
        assert suggestion["rank"] == 1
        assert suggestion["by"] == "computed from shapes"
        assert suggestion["before"] > suggestion["after"]


@pytest.mark.slow
def test_the_command_traces_each_change(run: Run) -> None:
    document = json.loads(run("advise", "resnet10", "--format", "json").out)
    assert document["suggestions"]
    assert {s["by"] for s in document["suggestions"]} == {"traced"}


def test_a_module_needs_an_input_and_an_unknown_metric_is_refused() -> None:
    with pytest.raises(TraceError, match="a module has no default input"):
        cspprof.advise(off_the_block(16))
    with pytest.raises(CspprofError, match="no metric named 'macz'"):
        cspprof.advise(off_the_block(16), INPUT, metric="macz")


def test_advisers_have_a_summary() -> None:
    assert all(entry.summary.endswith(".") for _, entry in ADVISERS.items())
