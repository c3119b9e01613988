"""CIO counts convolutions: what it says about networks that compute mostly elsewhere, and `cio_all`, which counts every
operation that computes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Result, trace
from torch import nn
from torch.nn import functional as F

import cspprof
from cspprof.analysis.headline import cio_describes, headline
from cspprof.analysis.module_summary import peak_path
from cspprof.core.record import CONVOLUTIONS
from cspprof.gate.config import load
from cspprof.metrics import METRICS
from cspprof.profiles import Profile
from cspprof.render import Canvas, render
from cspprof.render.page.document import card_metrics, html_page
from cspprof.report.charts import draw
from cspprof.report.layer_tables import Breakdown
from cspprof.report.notes import cio_notes
from cspprof.report.profile import cio_metrics, profile_report, summary_tables

Run = Callable[..., Result]


class Block(nn.Module):
    """A transformer block of width 8 with 2 heads and 16 hidden channels."""

    def __init__(self, fused: bool = True) -> None:
        super().__init__()
        self.fused = fused
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.fc1, self.fc2 = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, length, 3, 2, 4).permute(2, 0, 3, 1, 4)
        if self.fused:
            a = F.scaled_dot_product_attention(q, k, v)
        else:
            a = torch.softmax(q @ k.transpose(-2, -1) / 2, dim=-1) @ v
        x = x + self.proj(a.transpose(1, 2).reshape(n, length, 8))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Patches(nn.Module):
    """A convolution to tokens, and two blocks: a small vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.blocks = nn.Conv2d(3, 8, 4, 4), nn.Sequential(Block(), Block())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.embed(x).flatten(2).transpose(1, 2))


@pytest.fixture(scope="module")
def vit() -> Profile:
    return trace(Patches(), (1, 3, 16, 16), name="vit")


@pytest.fixture(scope="module")
def cnn() -> Profile:
    return trace(nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 8, 1)), (1, 3, 16, 16), name="cnn")


# -- cio_all ----------------------------------------------------------------------------------------


def test_cio_all_of_a_transformer_block_by_hand() -> None:
    # x (1, 4, 8). qkv 32 + 96; attention 3·32 + 32; proj 32 + 32; fc1 32 + 64; fc2 64 + 32
    fused = trace(Block(), (1, 4, 8))
    assert fused.total("cio_all") == 128 + 128 + 64 + 96 + 96
    # the scores (1, 2, 4, 4) are written by one product and read by the other
    assert trace(Block(fused=False), (1, 4, 8)).total("cio_all") == 512 + 2 * (1 * 2 * 4 * 4)
    assert fused.total("cio_hardnet") == 0
    assert fused.total("macs") == 4 * 8 * 24 + 2 * (2 * 4 * 4 * 4) + 4 * 8 * 8 + 2 * 4 * 8 * 16


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: torch.Tensor) -> Any:
        return self.function(*tensors)


@pytest.mark.parametrize(
    ("module", "inputs", "expected"),
    [
        (Function(torch.matmul), [(2, 3, 4), (2, 4, 5)], 24 + 40 + 30),
        (Function(torch.bmm), [(2, 3, 4), (2, 4, 5)], 24 + 40 + 30),
        (Function(lambda a, b: torch.einsum("bij,bkj->bik", a, b)), [(2, 3, 4), (2, 5, 4)], 24 + 40 + 30),
        (Function(torch.baddbmm), [(2, 3, 5), (2, 3, 4), (2, 4, 5)], 30 + 24 + 40 + 30),
        (nn.Linear(4, 6), [(2, 3, 4)], 24 + 36),
        pytest.param(nn.LSTM(3, 4, batch_first=True), [(1, 5, 3)], 15 + 4 + 4 + 20 + 4 + 4, marks=pytest.mark.slow),
        (nn.ConvTranspose2d(4, 6, 2, 2), [(1, 4, 3, 3)], 36 + 6 * 36),
        (nn.Conv1d(4, 6, 3), [(1, 4, 9)], 36 + 6 * 7),
        (nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(4)), [(1, 4, 4, 4)], 0),
        (Function(lambda a, b: a * b + a), [(2, 3), (2, 3)], 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_cio_all_counts_the_activations_of_operations_with_macs(
    module: nn.Module, inputs: list[tuple[int, ...]], expected: int
) -> None:
    assert trace(module, inputs).total("cio_all") == expected


@pytest.mark.parametrize("size", [(1, 8, 4, 4), (2, 8, 7, 5)])
def test_a_linear_layer_and_its_1x1_convolution_have_the_same_cio_all(size: tuple[int, ...]) -> None:
    n, c, h, w = size
    as_linear, as_conv = trace(nn.Linear(c, 12), (n, h, w, c)), trace(nn.Conv2d(c, 12, 1), size)
    assert as_linear.total("cio_all") == as_conv.total("cio_all") == (c + 12) * n * h * w
    assert as_linear.total("macs") == as_conv.total("macs")
    assert (as_linear.total("cio_hardnet"), as_conv.total("cio_hardnet")) == (0, (c + 12) * n * h * w)


@pytest.mark.parametrize("name", ["resnext50", "csp_resnext50", "hardnet68", "squeezenet", "csp_darknet53"])
def test_cio_all_is_cio_hardnet_if_all_macs_are_in_convolutions(name: str) -> None:
    profile = cspprof.profile(name)
    linear = [s for s, _ in profile.spec_counts if s.macs and s.kind not in CONVOLUTIONS]
    rest = sum(s.reads[0].numel + s.writes[0].numel for s in linear)
    assert profile.total("cio_all") == profile.total("cio_hardnet") + rest
    assert (profile.total("conv_share") == 1) == (not linear)


@pytest.mark.parametrize("model", [Patches(), Block(fused=False), nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())])
def test_traffic_of_operations_with_macs_is_cio_all_and_weights(model: nn.Module) -> None:
    profile = trace(model, (1, 4, 8) if isinstance(model, Block) else (1, 3, 16, 16))
    computing = [(s, n) for s, n in profile.spec_counts if s.macs]
    weights = sum(n * sum(w.numel for w in s.weights) for s, n in computing)
    traffic = sum(n * METRICS.get("traffic_bytes").op_value(s).value for s, n in computing)  # type: ignore[union-attr]
    assert traffic == 4 * (profile.total("cio_all") + weights)


# -- the share that CIO sees ------------------------------------------------------------------------


def test_the_share_is_the_macs_of_convolutions_over_all_macs(vit: Profile, cnn: Profile) -> None:
    assert vit.total("macs") == 8 * 3 * 16 * 16 + 2 * (16 * 8 * 24 + 2 * 2 * 16 * 16 * 4 + 16 * 8 * 8 + 2 * 16 * 8 * 16)
    assert vit.total("conv_share") == 6144 / vit.total("macs")
    assert cnn.total("conv_share") == 1
    assert trace(nn.ReLU(), (1, 4)).total("conv_share") is None  # no MACs at all


def test_the_headline_of_a_network_without_convolutions_is_traffic(vit: Profile, cnn: Profile) -> None:
    assert (headline([cnn]), headline([vit]), headline([cnn, vit])) == ("cio_cspnet", "traffic_bytes", "traffic_bytes")
    assert cio_describes(trace(nn.MaxPool2d(2), (1, 4, 8, 8)))  # CIO counts pooling, and there are no MACs
    assert cio_metrics([vit])[:2] == ("traffic_bytes", "cio_all")


def test_half_of_the_macs_is_enough() -> None:
    class Half(nn.Module):
        def __init__(self, out: int) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(4, 4, 1), nn.Linear(4, out)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.conv(x).permute(0, 2, 3, 1))

    assert trace(Half(4), (1, 4, 8, 8)).total("conv_share") == 0.5
    assert cio_describes(trace(Half(4), (1, 4, 8, 8)))
    assert not cio_describes(trace(Half(5), (1, 4, 8, 8)))


def rows(profiles: list[Profile], metrics: list[str] | None = None) -> Mapping[str, Any]:
    (table,) = summary_tables(profiles, metrics)
    return {row[0].text: row[1:] for row in table.rows}


def test_tables_show_the_share_only_where_it_is_needed(vit: Profile, cnn: Profile) -> None:
    assert "MACs that CIO sees" not in rows([cnn])
    (share,) = rows([vit])["MACs that CIO sees"]
    assert share.text == f"{100 * 6144 / vit.total('macs'):.1f} %"
    assert "MACs that CIO sees" not in rows([vit], ["macs", "params"])  # no CIO, no remark


def test_a_change_of_cio_that_says_little_is_no_praise(vit: Profile, cnn: Profile) -> None:
    smaller = rows([cnn, vit])["CIO (HarDNet) [elements]"][2]
    assert smaller.value < 0
    assert smaller.good is None
    assert rows([cnn, cnn.of(trace(nn.Conv2d(3, 8, 1), (1, 3, 16, 16)))])["CIO (HarDNet) [elements]"][2].good is True
    assert rows([cnn, vit])["traffic"][2].good is not None
    text = render("rich", profile_report("compare", [cnn, vit], ["cio_hardnet"], "cio_hardnet", Breakdown()),
                  Canvas(100, True)).decode()  # fmt: skip
    assert "\x1b[32m" not in text  # green, in no table of changes either


def test_the_page_of_a_transformer_starts_with_traffic(vit: Profile, cnn: Profile) -> None:
    assert card_metrics([cnn])[:2] == ["macs", "cio_cspnet"]
    assert "cio_cspnet" not in card_metrics([vit])
    page = html_page([vit, cnn])
    assert "shares of MACs and traffic" in page
    assert "Where the change in traffic comes from" in page
    assert "Where the change in CIO" not in page
    assert "Input and output of every layer" not in page
    assert "Where the change in CIO (CSPNet) comes from" in html_page([cnn, trace(nn.Conv2d(3, 8, 1), (1, 3, 16, 16))])


def test_charts_name_the_share_beside_cio(vit: Profile, cnn: Profile) -> None:
    share = f"sees {100 * 6144 / vit.total('macs'):.1f} % of the MACs"
    assert f"CIO (CSPNet) {share} of vit." in draw("fig8", [vit]).caption
    assert "sees" not in draw("fig8", [cnn]).caption
    assert "%" not in draw("fig8", [cnn, vit]).panels[1].title  # such a change is no headline
    assert draw("stages", [cnn, vit]).title == "Where the change in traffic comes from"
    assert "sees 100.0 % of the MACs of cnn and" in draw("stages", [cnn, vit], metric="cio_cspnet").caption
    assert share in draw("bottleneck", [vit], metric="cio_hardnet").caption
    labels = {m.label: m.text for s in draw("pareto", [cnn, vit], x="macs", y="cio_hardnet").panels[0].series
              for m in s.marks}  # fmt: skip
    assert labels["vit"] == f"vit ({share})"
    assert labels["cnn"] == "cnn"


def test_json_has_the_share_of_every_model(vit: Profile, cnn: Profile) -> None:
    document = json.loads(render("json", profile_report("cio", [vit, cnn], ["macs"], "macs", Breakdown())))
    first, second = document["models"]
    assert (first["headline"], second["headline"]) == ("traffic_bytes", "cio_cspnet")
    assert first["conv_share"] == first["metrics"]["conv_share"] == vit.total("conv_share")
    assert (second["conv_share"], second["cio_all"]) == (1, cnn.total("cio_hardnet"))


def test_a_note_names_the_metrics_that_count_everything(vit: Profile, cnn: Profile) -> None:
    (note,) = cio_notes([vit, cnn])
    assert "CIO sees" in note
    assert "traffic_bytes" in note
    assert "cio_all" in note
    assert note in str(profile_report("cio", [vit], ["cio_cspnet"], "macs", Breakdown()).notes)
    assert list(profile_report("flops", [vit], ["macs"], "macs", Breakdown()).notes) == []  # shows no CIO
    assert "traffic" in str(vit)
    assert "of the MACs)" in str(vit)


def test_commands_start_with_traffic(run: Run, vit: Profile, cnn: Profile, tmp_path: Path) -> None:
    a, b = str(vit.save(tmp_path / "vit.profile.json")), str(cnn.save(tmp_path / "cnn.profile.json"))
    out = run("cio", a).out
    assert out.index("traffic") < out.index("CIO (all)") < out.index("MACs")
    assert "Largest layers of vit by traffic" in out
    assert "Largest layers of cnn by CIO (CSPNet)" in run("cio", b).out
    compared = run("compare", b, a).out
    assert "Where the change in traffic comes from" in compared
    asked = run("compare", b, a, "--metric", "cio_cspnet").out
    assert "Where the change in CIO (CSPNet) (sees " in asked
    assert run("cio", a, "--top", "1", "--format", "csv").out.count("traffic_bytes") == 1


def test_check_does_what_the_rule_says_and_adds_a_note(run: Run, vit: Profile, tmp_path: Path) -> None:
    vit.save(tmp_path / "vit.profile.json")
    config = tmp_path / "cspprof.toml"
    config.write_text('[models.vit]\ntarget = "vit.profile.json"\n[[rules]]\nid = "cio"\nmax = "1 G"\n')
    assert load(config).problems == ()
    got = run("check", "--config", str(config))
    share = f"{100 * vit.total('conv_share'):.1f} %"
    assert got.code == 0
    assert f"note: cio: cio_cspnet sees {share} of the MACs of vit" in " ".join(got.out.split())
    config.write_text(config.read_text().replace("1 G", "1"))
    got = run("check", "--config", str(config), "--format", "concise")
    assert got.code == 1
    assert f"cio_cspnet of vit (sees {share} of the MACs) is" in got.out


@pytest.mark.parametrize(
    ("format_name", "stream"),
    [("rich", "out"), ("concise", "out"), ("markdown", "out"), ("json", "out"), ("csv", "err"), ("github", "err"),
     ("junit", "err"), ("sarif", "err"), ("gitlab", "err"), ("bencher", "err"), ("github-action-benchmark", "err")],
)  # fmt: skip
def test_every_format_of_a_check_says_what_cio_sees(
    run: Run, vit: Profile, tmp_path: Path, format_name: str, stream: str
) -> None:
    vit.save(tmp_path / "vit.profile.json")
    (tmp_path / "cspprof.toml").write_text(
        '[models.vit]\ntarget = "vit.profile.json"\n[[rules]]\nid = "cio"\nmax = "1 G"\n'
    )
    got = run("check", "--config", str(tmp_path), "--format", format_name)
    assert got.code == 0
    text = getattr(got, stream).replace("\\_", "_")
    assert f"sees {100 * vit.total('conv_share'):.1f} % of the MACs of vit" in " ".join(text.split())


def test_a_rule_on_peak_memory_names_the_layer(run: Run, cnn: Profile, tmp_path: Path) -> None:
    cnn.save(tmp_path / "cnn.profile.json")
    config = tmp_path / "cspprof.toml"
    config.write_text(
        '[models.cnn]\ntarget = "cnn.profile.json"\n[[rules]]\nid = "peak"\nmetric = "peak_bytes"\nmax = "1 G"\n'
    )
    place = f"(at {peak_path(cnn)})"
    assert f"peak_bytes {place}" in run("check", "--config", str(config)).out
    config.write_text(config.read_text().replace("1 G", "1"))
    assert f"peak_bytes of cnn {place} is" in run("check", "--config", str(config), "-f", "concise").out
