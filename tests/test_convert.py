"""`convert`: the cross stage partial form of a network."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CHECKOUT, Result, quick
from torch import nn

import cspprof
from cspprof.analysis.constraints import parse_constraint
from cspprof.analysis.structural_hash import structural_hash
from cspprof.core import units
from cspprof.core.errors import CspprofError, TraceError
from cspprof.csp.conversion.stages import find_stages
from cspprof.report.charts.gamma import gamma_chart
from cspprof.results import Conversion
from cspprof.zoo.blocks import ConvNormAct, network

pytestmark = pytest.mark.slow

Run = Callable[..., Result]
TOTALS = ("macs", "params", "conv_weights", "cio_cspnet", "cio_hardnet", "peak_bytes")


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions and a shortcut."""

    def __init__(self, channels: int, mid: int, groups: int = 1) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, mid, 1, bias=False)
        self.conv = nn.Conv2d(mid, mid, 3, padding=1, groups=groups, bias=False)
        self.expand = nn.Conv2d(mid, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.norm(self.expand(self.conv(self.reduce(x)))))


class Net(nn.Module):
    """A stem, three bottlenecks of 32 channels at 8×8, and a classifier."""

    def __init__(self, block: Callable[[], nn.Module] = lambda: Bottleneck(32, 16)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1)
        self.body = nn.Sequential(*(block() for _ in range(3)))
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.body(self.stem(x)).mean((2, 3)))
        return y


INPUT = (1, 3, 16, 16)


def convert(model: nn.Module | None = None, **options: object) -> Conversion:
    return cspprof.convert(model or Net(), INPUT, **options)  # type: ignore[arg-type]  # options by name


# -- the paper's networks -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", quick(["densenet121", "densenet169", "densenet201"], 1))
def test_a_converted_densenet_is_the_csp_densenet_of_the_zoo(name: str) -> None:
    conversion = cspprof.convert(name)
    twin = cspprof.profile(f"csp_{name}")
    assert [conversion.after.total(m) for m in TOTALS] == [twin.total(m) for m in TOTALS]
    assert conversion.converted == ["stage1", "stage2", "stage3", "stage4"]


Convolution = tuple[str, int, int, int]
"""Stage, input channels, output channels, and MACs in M."""


def convolutions(profile: cspprof.Profile) -> Counter[Convolution]:
    rows = profile.to_pandas()
    rows = rows[rows["kind"].str.startswith("conv")]
    return Counter(
        (path.split(".")[0], into[0][1], out[0][1], macs // 10**6)
        for path, into, out, macs in zip(rows["path"], rows["in"], rows["out"], rows["macs"], strict=True)
    )


def halved(stage: int, width: int) -> tuple[list[Convolution], list[Convolution]]:
    """Stage 2 to 4 of ResNet-50: the convolutions of the conversion, and those of CSPResNet-50. The stage before ends
    with half of the width, so the strided 3×3 is a fourth and the split convolutions are half."""
    name, down, split, last = f"stage{stage}", 603, 67, 268
    return (
        [(name, width, width, down), *[(name, width, width, split)] * 2, (name, 2 * width, 2 * width, last)],
        [(name, width // 2, width // 2, down // 4), *[(name, width // 2, width, split // 2)] * 2,
         (name, 2 * width, width, last // 2)],
    )  # fmt: skip


RESNET50 = [halved(2, 256), halved(3, 512), halved(4, 1024)]
DIFFERENCES: dict[str, tuple[str, dict[str, str], list[Convolution], list[Convolution]]] = {
    # The first stage of the authors processes 64 of 192 channels, not 128 of 256. Both split convolutions make 128.
    "csp_resnext50": (
        "resnext50,depths=(3,3,5,2)", {"recipe": "paper"},
        [("stage1", 64, 128, 33), ("stage1", 128, 128, 67)], [("stage1", 64, 64, 16), ("stage1", 64, 128, 33)],
    ),
    # The same, and the last transition of each stage halves the width. The plain network has its classifier before the
    # pooling.
    "csp_resnet50": (
        "resnet50,depths=(3,3,5,2)", {"recipe": "paper"},
        [("stage1", 64, 128, 33), ("stage1", 128, 64, 33), ("stage1", 256, 256, 268), ("head", 2048, 1000, 131),
         *(c for ours, _ in RESNET50 for c in ours)],
        [("stage1", 64, 64, 16), ("stage1", 64, 64, 16), ("stage1", 256, 128, 134), ("head", 1024, 1000, 1),
         *(c for _, theirs in RESNET50 for c in theirs)],
    ),
    # The authors split the first stage into two parts of its full width. All other stages are equal.
    "csp_darknet53": (
        "darknet53", {"split": "conv"},
        [("stage1", 64, 32, 33), ("stage1", 64, 32, 33), ("stage1", 32, 32, 16), ("stage1", 32, 32, 16),
         ("stage1", 32, 32, 150), ("stage1", 64, 64, 67)],
        [("stage1", 64, 64, 67), ("stage1", 64, 64, 67), ("stage1", 64, 64, 67), ("stage1", 64, 32, 33),
         ("stage1", 32, 64, 301), ("stage1", 128, 64, 134)],
    ),
}  # fmt: skip
"""For each network of the paper: the plain network, the options, the convolutions that only the conversion has, and
those that only the network of the paper has."""


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_conversion_differs_from_the_network_of_the_paper_in_these_convolutions(name: str) -> None:
    plain, options, only_ours, only_theirs = DIFFERENCES[name]
    conversion = cspprof.convert(plain, **options)  # type: ignore[arg-type]  # options by name
    ours, theirs = convolutions(conversion.after), convolutions(cspprof.profile(name))
    assert (dict(ours - theirs), dict(theirs - ours)) == (
        dict(Counter(only_ours) - Counter(only_theirs)), dict(Counter(only_theirs) - Counter(only_ours)),
    )  # fmt: skip


# -- one stage, by hand -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fusion", "transitions"),
    [("csp", 16 * 16 + 32 * 32), ("first", 32 * 32), ("last", 16 * 16)],
)
def test_macs_of_a_residual_stage_by_hand(fusion: str, transitions: int) -> None:
    """Half of the 32 channels run through three bottlenecks with 16 channels in the middle."""
    conversion = convert(fusion=fusion)
    blocks = 3 * (16 * 16 + 9 * 16 * 16 + 16 * 16)
    plain = 3 * (32 * 16 + 9 * 16 * 16 + 16 * 32)
    assert conversion.before.total("macs") - conversion.after.total("macs") == 64 * (plain - blocks - transitions)
    assert conversion.converted == ["body"]


def test_split_by_convolutions_adds_two_of_them() -> None:
    sliced, split = convert(split="slice"), convert(split="conv")
    assert split.after.total("macs") - sliced.after.total("macs") == 64 * (32 * 16 + 32 * 16)


@pytest.mark.parametrize(("gamma", "multiple", "bypass"), [(0.25, 8, 8), (0.3, 8, 8), (0.3, 1, 10), (0.75, 8, 24)])
def test_gamma_is_the_bypassed_fraction_rounded_to_a_multiple(gamma: float, multiple: int, bypass: int) -> None:
    (stage,) = convert(gamma=gamma, multiple=multiple).stages
    assert stage.plan is not None
    assert (stage.plan.bypass, stage.plan.main) == (bypass, 32 - bypass)


def test_groups_stay_valid() -> None:
    """Eight groups need a multiple of eight channels, so γ = 0.4 becomes 0.5 or 0.25."""

    def block() -> nn.Module:
        return nn.Sequential(nn.Conv2d(32, 32, 3, padding=1, groups=8), nn.ReLU())

    (stage,) = convert(Net(block), gamma=0.4, multiple=1).stages
    assert stage.plan is not None
    assert stage.plan.main % 8 == 0


# -- the converted module ------------------------------------------------------------------------------


def test_the_converted_network_trains_and_the_original_is_unchanged() -> None:
    model = Net()
    state = copy.deepcopy(model.state_dict())
    text = repr(model)
    conversion = convert(model)
    assert repr(model) == text
    assert all(torch.equal(a, b) for a, b in zip(state.values(), model.state_dict().values(), strict=True))
    y = conversion.model.train()(torch.randn(2, 3, 16, 16))
    y.sum().backward()
    assert all(p.grad is not None for p in conversion.model.parameters())
    before = [p.data_ptr() for p in model.parameters()]
    assert not set(before) & {p.data_ptr() for p in conversion.model.parameters()}


def test_layers_that_did_not_change_have_their_weights() -> None:
    model = Net()
    conversion = convert(model)
    names = conversion.weights()
    old, new = model.state_dict(), conversion.model.state_dict()
    carried = {name: source for name, source in names.items() if source}
    assert all(torch.equal(new[name], old[source]) for name, source in carried.items())
    assert carried["stem.weight"] == "stem.weight"
    assert carried["body.blocks.1.conv.weight"] == "body.1.conv.weight"
    assert names["body.blocks.0.reduce.weight"] == names["body.transition.0.weight"] == ""


@pytest.mark.slow
def test_generated_code_builds_the_same_network_without_cspprof(tmp_path: Path) -> None:
    conversion = cspprof.convert("torchvision:resnet18")
    code = conversion.source()
    assert "cspprof" not in code
    (tmp_path / "net_csp.py").write_text(code)
    program = (
        "import sys, torch, net_csp\n"
        "model = net_csp.build()\n"
        "assert model(torch.randn(2, 3, 32, 32)).shape == (2, 1000)\n"
        "assert 'cspprof' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=120)
    p = cspprof.profile(f"{tmp_path}/net_csp.py:build", (1, 3, 224, 224))
    assert structural_hash(p) == structural_hash(conversion.after)


@pytest.mark.parametrize(
    ("spec", "recipe"),
    quick(
        [("torchvision:mobilenet_v3_small", "keep"), ("resnet50", "paper"), ("torchvision:convnext_tiny", "keep"),
         ("torchvision:regnet_x_400mf", "keep"), ("timm:nf_resnet26", "keep"), ("timm:fasternet_t0", "keep"),
         ("torchvision:shufflenet_v2_x0_5", "keep")],
        2,
    ),
)  # fmt: skip
def test_generated_code_has_the_structure_of_the_converted_network(spec: str, recipe: str, tmp_path: Path) -> None:
    conversion = cspprof.convert(spec, recipe=recipe)
    assert conversion.converted
    (tmp_path / "net_csp.py").write_text(conversion.source())
    p = cspprof.profile(f"{tmp_path}/net_csp.py:build", conversion.before.inputs[0])
    assert structural_hash(p) == structural_hash(conversion.after)


def test_onnx_graph_has_the_outputs_of_the_module(tmp_path: Path, run: Run) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from cspprof.csp.conversion.onnx_export import onnx_graph

    conversion = convert()
    graph = onnx_graph(conversion.model, conversion.after.inputs)
    assert not graph.not_compared
    session = onnxruntime.InferenceSession(graph.data, providers=["CPUExecutionProvider"])
    x = torch.randn(1, 3, 16, 16)
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        expected = conversion.model.eval()(x).numpy()
    assert abs(got - expected).max() < 1e-5


def test_an_onnx_graph_with_other_outputs_than_torch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    from cspprof.csp.conversion import onnx_export

    export = torch.onnx.export

    def wrong_export(model: nn.Module, *args: object, **kwargs: object) -> object:
        wrong = copy.deepcopy(model)
        for weight in wrong.parameters():
            weight.data.mul_(1.5)
        return export(wrong, *args, **kwargs)  # type: ignore[arg-type]  # as given

    monkeypatch.setattr(torch.onnx, "export", wrong_export)
    with pytest.raises(CspprofError, match="ONNX Runtime computes another result than torch"):
        onnx_export.onnx_graph(Net(), [INPUT])


def test_an_onnx_graph_has_named_inputs_in_the_order_of_the_forward() -> None:
    pytest.importorskip("onnxruntime")
    from cspprof.csp.conversion.onnx_export import onnx_graph

    class Difference(Net):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return super().forward(x - 3 * y)

    assert not onnx_graph(Difference(), {"y": INPUT, "x": INPUT}).not_compared


@pytest.mark.parametrize("in_place", [torch.relu_, lambda y: y.add_(1)], ids=["relu", "add"])
def test_a_network_that_changes_the_output_of_a_stage_in_place_can_be_trained(
    in_place: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """Autograd needs the output of a ReLU unchanged, so the stage ends with its norm."""

    class Changed(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.head(in_place(self.body(self.stem(x))).mean((2, 3)))
            return y

    model = convert(Changed()).model
    model.train()(torch.randn(2, 3, 16, 16)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    transition = model.get_submodule("body.transition")
    assert [type(layer) for layer in transition.children()] == [nn.Conv2d, nn.BatchNorm2d]
    assert len(list(convert().model.get_submodule("body.transition").children())) == 3


# -- stages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("torchvision:resnet50", ["layer1.1–2", "layer2.1–3", "layer3.1–5", "layer4.1–2"]),
        ("torchvision:densenet121", [f"features.denseblock{i}–{t}" for i, t in enumerate(
            ("transition1", "transition2", "transition3", "norm5"), 1)]),
        ("torchvision:convnext_tiny", ["features.1", "features.3", "features.5", "features.7"]),
        ("darknet53", [f"stage{i}.blocks" for i in range(1, 6)]),
        ("torchvision:swin_t", []),
    ],
)  # fmt: skip
def test_stages_are_found(spec: str, names: list[str]) -> None:
    assert [stage.name for stage in find_stages(cspprof.profile(spec)).stages] == names


def test_a_map_that_is_read_elsewhere_stays_a_border_between_stages() -> None:
    class Tapped(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            first = self.body[0](x)
            second = self.body[1](first)
            return self.head((self.body[2](second) + first).mean((2, 3)))

    assert convert(Tapped()).converted == ["body.0", "body.1–2"]


def test_a_block_that_runs_twice_is_left() -> None:
    class Shared(Net):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(*[Bottleneck(32, 16)] * 3)

    conversion = convert(Shared())
    assert conversion.converted == []
    assert conversion.after.total("macs") == conversion.before.total("macs")


def test_blocks_that_cannot_have_another_width_are_left_with_the_reason() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.other = nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 32, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[1] == 32, "this block has 32 channels"
            return x + self.other(self.conv(x))

    (stage,) = convert(Net(Fixed)).stages
    assert stage.plan is None
    assert stage.reason == "the CSP stage does not run: AssertionError: this block has 32 channels"


# -- options and errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 0}, "gamma=0 leaves one side of the split empty"),
        ({"gamma": 1}, "gamma=1 leaves one side of the split empty"),
        ({"fusion": "middle"}, "fusion='middle' is unknown"),
        ({"recipe": "paper", "split": "slice"}, "the recipe of the paper widens the maps"),
        ({"multiple": 0}, "cannot round to multiples of 0"),
        ({"stages": ["bodi"]}, "'bodi' is no stage"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(CspprofError, match=message):
        convert(**options)


def test_a_module_needs_an_input() -> None:
    with pytest.raises(TraceError, match="a module has no default input"):
        cspprof.convert(Net())


# -- the command -----------------------------------------------------------------------------------------


def test_convert_prints_totals_stages_and_what_was_left(run: Run) -> None:
    got = run("convert", "torchvision:resnet18")
    assert got.code == 0
    assert got.out.startswith("CIO rises while MACs fall: CIO +9.7 %, MACs −28.3 %\n")
    assert "layer2.1" in got.out
    assert "peak memory: " in got.out


@pytest.mark.slow
def test_convert_chooses_the_best_gamma_and_fusion_under_a_constraint(run: Run) -> None:
    arguments = ("convert", "torchvision:resnet18", "--gamma", "0.25:0.75:0.25", "--fusion", "csp,last")
    document = json.loads(run(*arguments, "--where", "macs<=1.3 G", "--minimize", "cio", "--format", "json").out)
    assert document["schema"] == "cspprof.convert/1"
    assert len(document["conversions"]) == 6
    best = document["conversions"][document["best"]]
    meeting = [c["after"] for c in document["conversions"] if c["after"]["macs"] <= 1_300_000_000]
    assert best["after"]["cio_cspnet"] == min(c["cio_cspnet"] for c in meeting)
    got = run(*arguments, "--where", "macs<=1 M")
    assert (got.code, got.out) == (1, "")
    assert "no conversion of torchvision:resnet18 meets macs<=1 M" in got.err
    assert "The nearest that is met with --gamma 0.75 --fusion last: --where " in got.err


@pytest.mark.slow
def test_convert_writes_code_and_both_profiles(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    got = run("convert", "torchvision:resnet18", "-o", "net_csp.py", "--save", "a.profile.json", "b.profile.json")
    assert got.code == 0
    assert "wrote net_csp.py" in got.err
    compile(Path("net_csp.py").read_text(), "net_csp.py", "exec")
    saved = [cspprof.Profile.load(f"{x}.profile.json") for x in "ab"]
    conversion = cspprof.convert("torchvision:resnet18")
    assert [p.total("macs") for p in saved] == [conversion.before.total("macs"), conversion.after.total("macs")]


def test_a_network_without_stages_exits_with_1_and_says_why(run: Run) -> None:
    got = run("convert", "torchvision:swin_t")
    assert got.code == 1
    assert "100% of its MACs are in attention and linear layers" in got.out


def test_zoo_helpers_are_convertible_too() -> None:
    """A plain row of 3×3 convolutions of one width: all of them become narrower."""
    model = network(
        ConvNormAct(3, 32, 3, 2), [nn.Sequential(*(ConvNormAct(32, 32, 3) for _ in range(3)))], nn.Identity()
    )
    conversion = convert(model)
    assert conversion.converted == ["stage1"]
    narrow, plain = 3 * 9 * 16 * 16, 3 * 9 * 32 * 32
    saved = 64 * (plain - narrow - 16 * 16 - 32 * 32)
    assert conversion.before.total("macs") - conversion.after.total("macs") == saved


def test_no_file_is_written_if_nothing_was_converted(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text("from torch import nn\nbuild = lambda: nn.Conv2d(3, 8, 3)\n")
    command = ("convert", "net.py:build", "--input", "1x3x8x8", "--save", "a.profile.json", "b.profile.json", "-o")
    for name in ("net_csp.py", "net_csp.onnx"):
        got = run(*command, name)
        assert got.code == 1
        assert f"note: {name} is not written: no stage was converted" in got.err
    got = run(*command, "gammas.png", "--gamma", "0.25,0.5")
    assert got.code == 1
    assert "best" not in got.out
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["net.py"]


# -- the page of networks --------------------------------------------------------------------------------

PAGE = CHECKOUT / "docs" / "conversion.md"
ROWS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")]
    for line in (PAGE.read_text(encoding="utf-8").splitlines() if PAGE.is_file() else [])
    if line.startswith("| ") and not line.startswith(("| network", "| ---"))
]


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS[3::20], ids=lambda row: str(row[0]))
def test_a_network_of_the_page_converts_as_it_says(row: list[str]) -> None:
    """Every 20th network of `docs/conversion.md`."""
    pytest.importorskip("timm")
    conversion = cspprof.convert(row[0])
    assert (str(len(conversion.converted)) if conversion.converted else "–") == row[1]
    if conversion.converted:
        relative = conversion.after.total("macs") / conversion.before.total("macs") - 1
        assert row[3] == units.change(relative)
    else:
        assert row[-1].startswith(conversion.stages[0].reason[:20].replace("|", "/"))


def test_most_convolutional_families_convert() -> None:
    text = PAGE.read_text(encoding="utf-8")
    share = re.search(r"other\s+(\d+),\s+(\d+)% convert", text)
    assert share is not None
    assert int(share[1]) >= 150
    assert int(share[2]) >= 80


# -- the chart of several conversions -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def nine() -> tuple[cspprof.Profile, list[tuple[float, str, cspprof.Profile]]]:
    """The plain network, and its conversions with three γ and three fusions."""
    conversions = [(g, f, convert(gamma=g, fusion=f)) for f in ("csp", "first", "last") for g in (0.25, 0.5, 0.75)]
    return conversions[0][2].before, [(g, f, c.after) for g, f, c in conversions]


def test_the_chart_shows_each_conversion_the_best_and_the_plain_network(nine: tuple[Any, Any]) -> None:
    plain, points = nine
    limit = parse_constraint("macs<=650 k")
    chart = gamma_chart(plain, points, 5, "cio_cspnet", [limit])
    assert [p.name for p in chart.panels] == ["cio_cspnet", "macs"]
    for panel in chart.panels:
        dots = [s for s in panel.series if s.style == "points"]
        shown = {m.label: m.y for s in dots for m in s.marks if not m.text}
        assert shown == {f"{f} γ={g:g}": p.total(panel.name) for g, f, p in points}
        (best,) = (m for s in dots for m in s.marks if m.text)
        assert (best.text, best.x, best.y) == ("best: first, γ = 0.75", 0.75, points[5][2].total(panel.name))
        hollow = {m.label for s in dots if s.hollow for m in s.marks if not m.text}
        assert hollow == {f"{f} γ={g:g}" for g, f, p in points if p.total("macs") > 650_000}
        assert 0 < len(hollow) < len(points)
        assert next(line.value for line in panel.lines if line.name == "plain") == plain.total(panel.name)
        for mark in (m for s in panel.series for m in s.marks):
            assert panel.x.low <= mark.x <= panel.x.high
            assert panel.y.low <= mark.y <= panel.y.high
    assert [line.value for line in chart.panels[1].lines if line.name == "macs<=650 k"] == [650_000]


def test_convert_writes_the_chart_as_an_image_with_its_data_and_into_the_page(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("convert", "torchvision:resnet18", "--input", "1x3x32x32", "--gamma", "0.5,0.75")
    got = run(*arguments, "-o", "choice.png")
    assert (got.code, "wrote choice.png and choice.csv" in got.err) == (0, True)
    assert Path("choice.png").read_bytes().startswith(b"\x89PNG")
    assert "best: csp, γ = 0.75" in Path("choice.csv").read_text()
    assert run(*arguments, "-o", "choice.html").code == 0
    page = Path("choice.html").read_text()
    assert page.index("Conversions of torchvision:resnet18") < page.index("best: csp, γ = 0.75")


def test_a_picture_of_one_conversion_is_refused_with_a_range_that_works(run: Run) -> None:
    got = run("convert", "torchvision:resnet18", "-o", "one.png")
    assert (got.code, got.out) == (2, "")
    assert "one.png would show one conversion only" in got.err
    assert "--gamma 0.25:0.75:0.125 -o one.png" in got.err


# -- what is left, and why --------------------------------------------------------------------------------


class SelectiveKernels(nn.Module):
    """Two convolutions whose outputs are weighted by an attention over both (Li et al. 2019): (N, 32, H, W) -> the
    same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.paths = nn.ModuleList([nn.Conv2d(32, 32, 3, padding=d, dilation=d) for d in (1, 2)])
        self.reduce, self.select = nn.Conv2d(32, 16, 1), nn.Conv2d(16, 64, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = torch.stack([path(x) for path in self.paths], dim=1)
        gates = self.select(self.reduce(maps.sum(1).mean((2, 3), keepdim=True)))
        n, c = gates.shape[:2]
        return x + (maps * gates.view(n, 2, c // 2, 1, 1).softmax(1)).sum(1)


def test_stacked_maps_change_together_with_the_gates_that_weight_them() -> None:
    conversion = convert(Net(SelectiveKernels))
    assert conversion.converted == ["body"]
    shapes = {name: tuple(p.shape) for name, p in conversion.model.named_parameters()}
    assert shapes["body.blocks.0.paths.1.weight"] == (16, 16, 3, 3)
    assert shapes["body.blocks.0.select.weight"] == (32, 16, 1, 1)


class PartialShortcut(nn.Module):
    """A convolution that widens, whose first channels are added to the input (RexNet, Han et al. 2020)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.c_in = c_in
        self.wide, self.out = nn.Conv2d(c_in, 64, 3, padding=1), nn.Conv2d(64, c_out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.out(self.wide(x))
        return torch.cat([y[:, : self.c_in] + x, y[:, self.c_in :]], 1)


class Widening(nn.Module):
    """Two convolutions without a shortcut."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.wide, self.out = nn.Conv2d(c_in, 64, 3, padding=1), nn.Conv2d(64, c_out, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.out(self.wide(x))
        return y


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (PartialShortcut, ", and the input is added to a part of the output: both would have to change by one factor"),
        (Widening, " without a concatenation of its input"),
    ],
)
def test_a_row_that_widens_is_left_with_the_reason(block: type[nn.Module], reason: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 27, 3), block(27, 38), block(38, 50))
    (stage,) = convert(model).stages
    assert stage.plan is None
    assert stage.reason == f"its width grows from 27 to 50{reason}"


LEFT = {
    "timm:rexnet_100": "the input is added to a part of the output",
    "timm:selecsls42": "without a concatenation of its input",
    "torchvision:alexnet": "no row of blocks keeps its width and its resolution, and none concatenates its input",
    "timm:cpubone_nano": "no row of blocks keeps its width and its resolution, and none concatenates its input",
    "timm:efficientvim_m1": "mul reads a tensor of fixed width",
    "timm:csatv2": "scaled_dot_product_attention mixes channels, and conversion does not follow it",
    "timm:davit_tiny": "scaled_dot_product_attention mixes channels, and conversion does not follow it",
}


@pytest.mark.parametrize("spec", LEFT)
def test_a_family_that_does_not_convert_is_left_with_the_reason(spec: str) -> None:
    if spec.startswith("timm:"):
        pytest.importorskip("timm")
    conversion = cspprof.convert(spec)
    assert conversion.converted == []
    assert LEFT[spec] in conversion.stages[0].reason
    assert conversion.after.total("macs") == conversion.before.total("macs")


@pytest.mark.parametrize("spec", ["timm:skresnet18", "timm:skresnext50_32x4d"])
def test_selective_kernel_networks_convert(spec: str) -> None:
    pytest.importorskip("timm")
    assert len(cspprof.convert(spec).converted) == 4


# -- forwards with a width of their own ------------------------------------------------------------------


def test_blocks_of_a_module_list_are_a_stage() -> None:
    class Loop(Net):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.ModuleList(self.body)  # type: ignore[assignment]  # a list instead of a Sequential

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            for block in self.body:
                x = block(x)
            return self.head(x.mean((2, 3)))

    conversion = convert(Loop())
    assert conversion.converted == ["body"]
    assert conversion.after.total("macs") == convert().after.total("macs")
    loop: Any = conversion.model
    assert [type(block).__name__ for block in loop.body] == ["CSPStage", "Identity", "Identity"]


class ShortcutOf32(nn.Module):
    """A block that adds its input only if it has 32 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.other(self.conv(x))
        return y + x if x.shape[1] == 32 else y


class Rolled(ShortcutOf32):
    """A block that moves its channels by half of 32."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.other(torch.roll(self.conv(x), 16, 1)) + x
        return y


class Masked(ShortcutOf32):
    """A block that multiplies every other channel by 0."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", (torch.arange(32) % 2).view(1, 32, 1, 1).float())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.other(self.conv(x)) * self.mask + x
        return y


class ShortcutAlways(ShortcutOf32):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.other(self.conv(x)) + x
        return y


class MaskedByParameter(Masked):
    """A block with a mask that is a parameter without gradient."""

    def __init__(self) -> None:
        super().__init__()
        mask = self.mask
        del self.mask
        self.mask = nn.Parameter(mask, requires_grad=False)


class Blurred(ShortcutOf32):
    """A block with a filter that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False)
        self.blur.weight.requires_grad_(False).fill_(1 / 9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.other(self.conv(self.blur(x))) + x
        return y


class SlopeOf32(ShortcutOf32):
    """A block whose activation has another slope if it has 32 channels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = nn.functional.leaky_relu(self.other(self.conv(x)), 0.1 if x.shape[1] == 32 else 0.5)
        return y + x


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (
            MaskedByParameter,
            "body.0.mask is a frozen parameter with a value for each channel, and no other width has them",
        ),
        (Blurred, "body.0.blur.weight is a frozen parameter, and a layer of another width has other values"),
        (SlopeOf32, "body.0 has negative_slope=0.5 with its new width instead of 0.1"),
        (ShortcutOf32, "body runs other operations with its new width: conv2d instead of add"),
        (Rolled, "body.0: roll moves channels, and conversion does not follow it"),
        (Masked, "body.0.mask is a buffer with a value for each channel, and no other width has them"),
    ],
)
def test_blocks_that_would_compute_something_else_are_left(block: type[nn.Module], reason: str) -> None:
    plain = Net(block)
    conversion = convert(plain)
    assert conversion.stages[0].reason == reason
    assert structural_hash(conversion.after) == structural_hash(conversion.before)
    x = torch.randn(INPUT)
    assert torch.equal(conversion.model.eval()(x), plain.eval()(x))


def test_a_buffer_of_equal_values_gets_the_new_width_beside_the_layers_of_its_block() -> None:
    class Scaled(Masked):
        def __init__(self) -> None:
            super().__init__()
            self.mask.fill_(0.5)  # type: ignore[operator]  # a buffer

    conversion = convert(Net(Scaled))
    assert conversion.converted == ["body"]
    state = conversion.model.state_dict()
    assert state["body.blocks.0.mask"].shape == (1, 16, 1, 1)
    assert (state["body.blocks.0.mask"] == 0.5).all()
    assert state["body.blocks.0.conv.weight"].shape == (32, 16, 3, 3)


@pytest.mark.parametrize(
    "doubles",
    [
        lambda net: isinstance(net.body, nn.Sequential),
        lambda net: len(list(net.modules())) < 20,
    ],
    ids=["class", "number of modules"],
)
def test_a_model_that_would_run_other_operations_around_a_stage_is_left(doubles: Callable[[Any], bool]) -> None:
    class Doubled(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.body(self.stem(x))
            return self.head((x * 2 if doubles(self) else x).mean((2, 3)))

    plain = Doubled()
    assert doubles(plain)
    conversion = convert(plain)
    assert conversion.stages[0].reason == "Doubled runs other operations around it: mean instead of mul"
    assert doubles(conversion.model)


def test_new_layers_have_the_mode_of_the_model_and_the_others_keep_theirs() -> None:
    plain = Net()
    plain.body[1].norm.eval()
    names = [n for n, m in convert(plain).model.named_modules() if not m.training]
    assert names == ["body.blocks.1.norm"]
    assert not any(m.training for m in convert(plain.eval()).model.modules())


def test_generated_code_gives_new_layers_the_mode_and_the_dtype_of_the_model() -> None:
    namespace: dict[str, Any] = {}
    exec(convert().source(), namespace)
    made = namespace["convert"](Net().double().eval())
    assert not any(m.training for m in made.modules())
    assert {p.dtype for p in made.parameters()} == {torch.float64}


def test_a_parameter_of_a_block_gets_the_values_of_its_first_channels() -> None:
    class OwnWeight(ShortcutOf32):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(32, 32, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.other(self.conv(nn.functional.conv2d(x, self.weight))) + x
            return y

    plain = Net(OwnWeight)
    weight = convert(plain).model.state_dict()["body.blocks.0.weight"]
    assert torch.equal(weight, plain.state_dict()["body.0.weight"][:, :16])


def test_a_resized_layer_keeps_its_hooks_also_in_generated_code() -> None:
    calls = []

    def hooked() -> Net:
        net = Net(ShortcutAlways)
        net.body[1].conv.register_forward_hook(lambda *_: calls.append("hook"))
        return net

    conversion = convert(hooked())
    namespace: dict[str, Any] = {}
    exec(conversion.source(), namespace)
    for model in (conversion.model, namespace["convert"](hooked())):
        calls.clear()
        model(torch.zeros(INPUT))
        assert calls == ["hook"]
        assert model.body.blocks[1].conv.weight.shape == (32, 16, 3, 3)


def test_a_buffer_without_values_leaves_the_stage(tmp_path: Path) -> None:
    """Networks of a SPEC are traced without values."""
    file = tmp_path / "net.py"
    file.write_text(
        "import torch\nfrom torch import nn\n"
        "class Block(nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1))\n"
        "        self.register_buffer('mask', (torch.arange(16) % 2).view(1, 16, 1, 1).float())\n"
        "    def forward(self, x):\n"
        "        return x + super().forward(x * self.mask)\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(3, 16, 3), Block(), nn.AdaptiveAvgPool2d(1))\n"
    )
    (stage,) = cspprof.convert(f"{file}:build", (1, 3, 16, 16)).stages
    assert stage.reason == "1.mask is a buffer, and only a module has its values: cspprof.convert(module, inputs)"


def test_a_row_whose_channels_cannot_be_followed_is_left_with_the_reason() -> None:
    class PartInPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.other = nn.Conv2d(32, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.clone()
            y[:, 16:] += self.other(self.conv(x))
            return y

    (stage,) = convert(Net(PartInPlace)).stages
    assert stage.plan is None
    assert "reads a tensor of fixed width" in stage.reason


@pytest.mark.parametrize(
    "place", ["net.py", "nets/net.py", "other-nets/my-net.py", "../here/net.py", "{here}/nets/net.py", "package/net.py"]
)
def test_generated_code_imports_the_network_from_its_file(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    file = here / place.format(here=here)
    file.parent.mkdir(parents=True, exist_ok=True)
    dot = "." if place.startswith("package") else ""
    if dot:
        (file.parent / "__init__.py").touch()
    (file.parent / "channels.py").write_text("WIDTH = 16\n")
    file.write_text(
        f"from {dot}channels import WIDTH\nfrom torch import nn\n"
        "def build():\n"
        "    row = nn.Sequential(*[nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(3)])\n"
        "    return nn.Sequential(nn.Conv2d(3, WIDTH, 3), row, nn.AdaptiveAvgPool2d(1))\n"
    )
    monkeypatch.chdir(here)
    conversion = cspprof.convert(f"{place.format(here=here)}:build", (1, 3, 16, 16))
    assert conversion.converted
    (here / "net_csp.py").write_text(conversion.source())
    program = "import net_csp, sys; print(len(net_csp.build().state_dict())); assert 'cspprof' not in sys.modules"
    got = subprocess.run(
        [sys.executable, "-c", program], cwd=here, check=True, timeout=120, capture_output=True, text=True
    )
    assert int(got.stdout) == len(conversion.model.state_dict())
