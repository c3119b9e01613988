"""The HTML report as a file: its content, that it needs nothing else, and its size. See also test_report_browser."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from conftest import CHECKOUT, Result, conv_spec, relu_spec

import cspprof
from cspprof.analysis.layer_rows import layer_rows
from cspprof.core.record import Calls, Layer, Storage, TensorSpec
from cspprof.metrics import METRICS
from cspprof.profiles import Profile
from cspprof.render.page import layer_table
from cspprof.render.page.document import ONE_MODEL_PER_PANEL, html_page, model_of_panel
from cspprof.render.page.layer_table import layer_tables
from cspprof.render.page.stage_graph import stage_graph, stage_graph_svg
from cspprof.report.charts import draw

Run = Callable[..., Result]
PAIR = ("resnext50", "csp_resnext50")


@pytest.fixture(scope="module")
def pair() -> list[Profile]:
    return [cspprof.profile(name) for name in PAIR]


@pytest.fixture(scope="module")
def text(pair: list[Profile]) -> str:
    return html_page(pair)


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def chain_named(name: str) -> Profile:
    """conv → ReLU in place → conv; `name` is the name of the model and of its first layer."""
    first, relu, second = conv_spec(3, 8, 4), relu_spec(8, 4), conv_spec(8, 8, 4)
    return Profile(
        model=name, source=name, inputs=(TensorSpec((1, 3, 4, 4)),),
        layers=(Layer("", "Net", 0, 1, 0), Layer(name, "Conv2d", 1, 1, 216), Layer("act", "ReLU", 1, 1, 0),
                Layer("b", "Conv2d", 1, 1, 576)),
        specs=(first, relu, second), calls=Calls([0, 1, 2], [1, 2, 3], [0, 1, 3, 3, 3, 3, 2, 4]),
        storages=(Storage(0, "input", "input", TensorSpec((1, 3, 4, 4))),
                  Storage(1, "v", "parameter", TensorSpec((8, 3, 3, 3))),
                  Storage(2, "w", "parameter", TensorSpec((8, 8, 3, 3)))),
        params=792, outputs=(4,),
    )  # fmt: skip


# -- the command --------------------------------------------------------------------------------------


def test_command_writes_one_file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("report", "resnet10", "-o", "r.html")
    assert (done.code, done.out, done.err) == (0, "", "wrote r.html\n")
    content = (tmp_path / "r.html").read_text()
    assert content.startswith("<!DOCTYPE html>")
    assert "cspprof report resnet10 --input 1x3x256x256 -o report.html" in content
    assert run("compare", "resnet10", "resnet10", "-o", "x.html").code == 0, (
        "html is an output format of other commands, too"
    )
    assert run("report", "resnet10").err == "wrote report.html\n"
    assert run("report", "resnet10").err == "replaced report.html\n", "a report of cspprof is replaced"
    assert (tmp_path / "report.html").read_text() == content, "the same input gives the same bytes"
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["r.html", "report.html", "x.html"]


def test_command_does_not_replace_a_file_of_another_program(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "report.html"
    other.write_text("<!DOCTYPE html><title>Our quarter</title>")
    done = run("report", "resnet10")
    assert (done.code, done.out) == (2, "")
    assert "report.html exists and is not a report of cspprof\n  Name another file: -o FILE" in done.err
    assert "Our quarter" in other.read_text()
    assert run("report", "resnet10", "-o", "report.html").code == 2, "also not by an explicit name"
    other.unlink()
    assert run("report", "resnet10", "-o", "report.html").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet10", "-o", "r.pdf"), "a report is an HTML page, and the name r.pdf does not end in .html"),
        (("resnet10", "-o", "nowhere/r.html"), "there is no folder nowhere"),
        (("resnet11", "-o", "r.html"), "Did you mean:"),
    ],
)
def test_command_rejects(
    arguments: tuple[str, ...], message: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("report", *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert not list(tmp_path.iterdir())


def test_html_rejects_reports_without_models(run: Run) -> None:
    done = run("metrics", "--format", "html")
    assert (done.code, done.out) == (2, "")
    assert "html shows models" in done.err


def test_report_of_saved_profiles_imports_neither_torch_nor_matplotlib(pair: list[Profile], tmp_path: Path) -> None:
    paths = [str(p.save(tmp_path / f"{p.model}.profile.json")) for p in pair]
    script = (
        "import sys\nfrom cspprof.cli import main\n"
        f"try:\n    main(['report', *{paths!r}, '-o', {str(tmp_path / 'r.html')!r}])\nexcept SystemExit as e:\n"
        "    assert not e.code\nprint(sorted({'torch', 'matplotlib', 'pandas', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert done.stdout == "[]\n"
    assert (tmp_path / "r.html").stat().st_size > 50_000


# -- content ------------------------------------------------------------------------------------------


def test_page_has_every_metric_with_its_definition(text: str, pair: list[Profile]) -> None:
    words = " ".join(Elements(text).words)
    for name, m in METRICS.items():
        assert f"id=def-{name} " in text
        assert m.title in words
    for number in ("34,411,496", "32,642,024", "−5.1 %", "5,055,135,744", "3,964,616,704", "−21.6 %"):
        assert number in words
    assert "part of the change is depth, not the refactor itself." in words
    for p in pair:
        assert f"{p.total('params'):,}" in words


def test_page_requests_nothing_else(text: str) -> None:
    elements = Elements(text)
    for tag, attrs in elements.tags:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            target = attrs.get(name)
            assert target is None or target.startswith(("#", "data:,")), f"<{tag} {name}={target}>"
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert "default-src 'none'" in text, "the browser blocks other requests"


def test_page_contains_no_path_and_no_time(text: str) -> None:
    assert str(Path.home()) not in text
    assert str(CHECKOUT) not in text
    assert not re.search(r"20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d", text)


def test_ids_are_unique_and_links_have_targets(text: str) -> None:
    elements = Elements(text)
    ids = [attrs["id"] for _, attrs in elements.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for _, a in elements.tags if (a.get("href") or "").startswith("#")}  # type: ignore[index]
    targets |= {a["aria-labelledby"] or "" for _, a in elements.tags if "aria-labelledby" in a}
    assert targets <= set(ids)
    marks = [
        line.split(" ")[0]
        for _, a in elements.tags
        if "data-marks" in a
        for line in (a["data-marks"] or "").split("\n")
    ]
    assert {m for m in marks if m != "-"} <= set(ids)
    assert sum(m != "-" for m in marks) > 500


def test_layer_table_has_one_row_per_operation(pair: list[Profile], text: str) -> None:
    for i, p in enumerate(pair):
        (table,) = re.findall(rf'<table class=layers data-name="{p.model}">.*?</table>', text, re.S)
        leaves = re.findall(rf"<tr\s+id=r{i}-(\d+) ", table)
        assert sorted(map(int, leaves)) == [r.index for r in layer_rows(p)]
        modules = re.findall(rf"<tr\s+id=m{i}-\S+ class=\"m d0\">", table)
        assert modules


def test_modules_add_up_to_the_total(pair: list[Profile]) -> None:
    for p, table in zip(pair, layer_tables(pair), strict=True):
        at = [c.header for c in table.columns].index("MACs")
        top = [line for line in table.rows if line.depth == 0]
        assert sum(line.cells[at].value for line in top) == p.total("macs")
        leaves = [line for line in table.rows if not line.module]
        assert sum(line.cells[at].value for line in leaves) == p.total("macs")


def test_charts_have_the_values_of_the_chart_data(pair: list[Profile], text: str) -> None:
    """Every mark is drawn, with its own value."""
    chart = draw("fig8", pair)
    tooltips = [a["data-marks"] or "" for _, a in Elements(text).tags if "data-marks" in a]
    for panel in chart.panels:
        for series in panel.series:
            values = [panel.y.format(m.y) for m in series.marks]
            assert any(
                [f"{line.split(' ', 1)[1]} {panel.y.unit}" for line in d.split("\n")] == values for d in tooltips
            )


@pytest.mark.parametrize("kind", [*ONE_MODEL_PER_PANEL, "bottleneck"])
def test_marks_link_to_the_layers_of_their_model(kind: str, pair: list[Profile]) -> None:
    profiles = pair[:1] if kind == "bottleneck" else pair
    listed = [{r.path for r in layer_rows(p)} for p in profiles]
    for i, panel in enumerate(draw(kind, profiles).panels):
        for series in panel.series:
            if series.style == "line":
                continue
            model_index = model_of_panel(kind, i)
            assert {m.label for m in series.marks} <= listed[model_index]
            assert (
                kind == "bottleneck"
                or profiles[model_index].model in f"{panel.name} {panel.title}".replace(":", "").split()
            )


def test_series_have_one_subpath_per_mark(text: str) -> None:
    groups = re.findall(r'data-marks="([^"]*)"><path d="([^"]*)"', text)
    assert len(groups) > 8
    for tooltips, path in groups:
        assert path.count("M") == tooltips.count("\n") + 1


def test_the_drawing_for_a_phone_has_the_same_marks(text: str) -> None:
    drawings = re.findall(r"<svg viewBox[^>]*class=(chart|\"chart narrow\")>(.*?)</svg>", text, re.DOTALL)
    assert len(drawings) == 2 * len(re.findall("<figcaption>", text)) - 4  # but the stage graphs
    assert [name for name, _ in drawings] == ["chart", '"chart narrow"'] * (len(drawings) // 2)
    for (_, wide), (_, narrow) in zip(drawings[::2], drawings[1::2], strict=True):
        paths = re.findall(r'data-marks="[^"]*"><path d="([^"]*)" id=(\S+)', wide)
        copies = re.findall(r'data-copy(?: transform="[^"]*"><use href=#(\S+)|><path d="([^"]*)")', narrow)
        for (path, path_id), (used, own) in zip(paths, copies, strict=True):
            assert used == path_id or own.count("M") == path.count("M")
    ids = re.findall(r'<path d="[^"]*" id=(\S+)', text)
    assert len(ids) == len({*ids}) > 8


def test_charts_that_say_nothing_are_left_out_with_a_reason() -> None:
    from torch import nn

    encoder = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(2), nn.TransformerEncoderLayer(64, 4, 256))
    transformer = cspprof.profile(encoder, (1, 3, 32, 32), name="encoder")
    page = html_page([transformer])
    share = round(100 * 8 * 64 * 48 / transformer.total("macs"), 1)
    assert f"<li>The chart fig8 is left out: CIO sees {share} % of the MACs of encoder; the page shows the" in page
    assert "Input and output of every layer" not in page
    assert "traffic of every layer" in page

    plain = cspprof.profile(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (1, 3, 8, 8), name="plain")
    idle = cspprof.profile(nn.Sequential(nn.ReLU(), nn.ReLU()), (1, 3, 8, 8), name="idle")
    page = html_page([plain, idle])
    assert page.count("The chart fig7 is left out: idle has no layer with BFLOPs, so the chart is empty.") == 1
    assert page.count("The chart bottleneck is left out: idle has no layer with MACs, so the chart is empty.") == 1
    assert ">plain: " in page  # the chart of the other model is there
    assert "left out" not in html_page([plain])


def test_names_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "<script>alert('x')</script>\"&"
    content = html_page([chain_named(name)])
    assert content.count("<script>") == content.count("</script>") == 1, "only the page's own script"
    assert "&lt;script&gt;alert(" in content
    assert not [attrs for _, attrs in Elements(content).tags if any(name.startswith("on") for name in attrs)]


def test_readings_are_labeled() -> None:
    content = html_page([cspprof.profile("csp_peleenet")])
    assert "<span class=tag>reading</span>" in content
    assert "csp_peleenet (reading)" in content


def test_unknown_macs_are_not_0(chain: Profile) -> None:
    first, *others = chain.specs
    unknown = replace(chain, specs=(first._replace(macs=None, target="x.mystery"), *others))
    content = html_page([unknown])
    assert "incomplete" in content
    assert "no rule for x.mystery (1)" in content
    assert "<td>?<td>" in content


def test_page_of_models_without_chart_data() -> None:
    idle = chain_named("idle")
    idle = replace(idle, specs=tuple(s._replace(macs=0, kind=idle.specs[1].kind, weights=()) for s in idle.specs),
                   calls=Calls([1], [2], [0, 3]), outputs=(3,))  # fmt: skip
    content = html_page([idle, idle])
    assert "idle" in content
    assert "<svg" in content


# -- stage graph --------------------------------------------------------------------------------------


def test_stage_graph_shows_bypasses_of_partial_stages() -> None:
    plain, partial = (stage_graph(cspprof.profile(name)) for name in PAIR)
    assert (
        [b.stage for b in plain[0]]
        == [b.stage for b in partial[0]]
        == ["stem", "stage1", "stage2", "stage3", "stage4", "head"]
    )
    assert {(f.source, f.target) for f in plain[1]} == {(i - 1, i) for i in range(7)}
    assert not any(b.bypass for b in plain[0])
    assert [bool(b.bypass) for b in partial[0]] == [False, True, True, True, True, False]
    assert partial[0][1].bypass == "128×64×64 past 11 of 13 convolutions"
    assert plain[1][1].text == "64×64×64"


def test_stage_graph_of_a_feature_pyramid() -> None:
    from torch import nn
    from torch.nn.functional import interpolate

    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fine, self.coarse = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
            self.side, self.merged = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 4, 3, padding=1)

        def forward(self, x):  # type: ignore[no-untyped-def]
            fine = self.fine(x)
            return self.merged(fine + interpolate(self.side(self.coarse(fine)), scale_factor=2))

    boxes, flows = stage_graph(cspprof.profile(Pyramid(), (1, 3, 32, 32)))
    assert [b.stage for b in boxes] == ["32×32", "16×16", "32×32"]
    assert [(f.source, f.target, f.text) for f in flows] == [
        (-1, 0, "3×32×32"), (0, 1, "8×32×32"), (0, 2, "8×32×32"), (1, 2, "8×16×16"), (2, 3, "4×32×32"),
    ]  # fmt: skip


def test_labels_beside_the_stage_graph_have_a_lane_each_and_keep_clear_of_crossing_arrows() -> None:
    """csp_peleenet_efm has six arrows beside its boxes, and two of them cross the lanes of others."""
    svg = stage_graph_svg(cspprof.profile("csp_peleenet_efm"), lambda _: "")
    arrow = r'class="flow skip" d="M\S+ (\S+?)H[^Q]+Q(\S+) [^Q]+Q\S+ (\S+) '
    paths = [tuple(map(float, found)) for found in re.findall(arrow, svg)]
    labels = [
        (float(x), float(y), len(text) * 6.2 / 2)
        for x, y, text in re.findall(r'translate\((\S+) (\S+)\) rotate\(-90\)" text-anchor=middle>(.*?)<', svg)
    ]
    assert len(paths) == len(labels) == 6
    for (start, lane, end), (x, y, half) in zip(paths, labels, strict=True):
        assert x == lane + 12
        assert min(start, end) <= y - half < y + half <= max(start, end)
        assert not any(abs(other - y) < half for s, at, e in paths if at > lane for other in (s, e))
    same_lane = [(a, b) for i, a in enumerate(labels) for b in labels[:i] if a[0] == b[0]]
    assert same_lane
    assert all(abs(a[1] - b[1]) > a[2] + b[2] for a, b in same_lane)


def test_a_stage_of_one_operation_is_singular_and_its_long_name_is_shortened() -> None:
    from torch import nn

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 2, 1), nn.ReLU()))
    net[0].cspprof_stage = "a_stage_with_a_name_longer_than_its_box"
    net[1].cspprof_stage = "last"
    record = cspprof.profile(net, (1, 3, 8, 8), name="net")
    svg = stage_graph_svg(record, lambda _: "")
    assert ">a_stag…han_its_box · 6×6<" in svg
    assert re.findall(r">(\d+ operations?)<", svg) == ["1 operation", "2 operations"]
    assert "1 operations" not in html_page([record])


def test_stage_sizes_are_those_of_feature_maps() -> None:
    pytest.importorskip("timm", reason="timm is not installed: it is in the extra timm")
    boxes, _ = stage_graph(cspprof.profile("timm:convnext_tiny"))
    assert [b.size for b in boxes] == ["56×56", "28×28", "14×14", "7×7", ""]


def test_a_residual_shortcut_is_no_bypass_of_its_stage() -> None:
    boxes, _ = stage_graph(cspprof.profile("resnet50_v1"))
    assert not any(b.bypass for b in boxes)


# -- size ---------------------------------------------------------------------------------------------


def test_layer_table_lists_modules_if_there_are_too_many_operations(
    pair: list[Profile], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = [len(layer_rows(p)) for p in pair]
    assert not any(t.grouping_note for t in layer_tables(pair))
    monkeypatch.setattr(layer_table, "MOST_ROWS", 100)
    tables = layer_tables(pair)
    for p, table, n in zip(pair, tables, counts, strict=True):
        assert len(table.rows) <= 50
        assert table.grouping_note.startswith(f"{p.label} has {n:,} operations; this table shows its ")
        assert table.grouping_note.endswith(f"{len(table.rows)} modules.")
        assert table.row_id("stage1.blocks.0.conv1.conv") in {line.id for line in table.rows}
    content = html_page(pair)
    assert "operations; this table shows its" in content


def test_page_of_four_models_has_one_row_per_model_instead_of_tables_for_each_pair(pair: list[Profile]) -> None:
    content = html_page([*pair, cspprof.profile("resnet50"), cspprof.profile("csp_resnet50")])
    assert "<title>resnext50 and 3 other models – cspprof report</title>" in content
    assert "CIO (CSPNet) by stage" in content
    assert "Largest layer of each model by MACs" in content
    assert "Where the change in MACs comes from</caption>" not in content
    peaks = re.findall(r">(peak [^<]* BFLOPs[^<]*)<", content)
    assert peaks[3].endswith("from resnext50")
    assert all(text.count("from") <= 1 for text in peaks)


@pytest.mark.slow
def test_page_of_ten_models_is_smaller_than_1_1_mb() -> None:
    names = ("resnet50", "csp_resnet50", *PAIR, "darknet53", "csp_darknet53", "mobilenet_v2_darknet",
             "efficientnet_b0_darknet", "peleenet", "csp_peleenet")  # fmt: skip
    assert len(html_page([cspprof.profile(name) for name in names]).encode()) < 1_100_000


@pytest.mark.slow
def test_page_of_12000_operations_is_smaller_than_1_mb() -> None:
    spec = relu_spec(8, 4)
    n = 12_000
    content: dict[str, Any] = {
        "layers": (Layer("", "Net", 0, 1, 0), *(Layer(f"b{i}", "ReLU", 1, 60, 0) for i in range(200))),
        "specs": (conv_spec(3, 8, 4), spec),
        "calls": Calls([0] + [1] * n, [0] + [1 + i // 60 for i in range(n)], [0, 1, 2] + [2, 2] * n),
        "outputs": (2,),
    }
    profile = replace(chain_named("deep"), **content)
    (table,) = layer_tables([profile])
    assert len(table.rows) <= 201
    assert "12,001 operations" in table.grouping_note
    assert len(html_page([profile]).encode()) < 1_000_000
