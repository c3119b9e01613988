"""The HTML report as a file: what stands in it, that nothing else is asked for, and how large it gets."""

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
from cspprof.render.page.stage_graph import stage_graph
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
    """Every start tag with its attributes, ids, links, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def chain_called(name: str) -> Profile:
    """conv → ReLU in place → conv, whose model and layers carry `name`."""
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


def test_the_command_writes_one_page(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("report", "resnet10", "-o", "r.html")
    assert (done.code, done.out, done.err) == (0, "", "wrote r.html\n")
    made = (tmp_path / "r.html").read_text()
    assert made.startswith("<!DOCTYPE html>")
    assert "cspprof report resnet10 --input 1x3x256x256 -o report.html" in made
    assert run("compare", "resnet10", "resnet10", "-o", "x.html").code == 0, "html is a format like any other"
    assert run("report", "resnet10").err == "wrote report.html\n"
    assert run("report", "resnet10").err == "replaced report.html\n", "a report of ours is made anew"
    assert (tmp_path / "report.html").read_text() == made, "the same input gives the same bytes"
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["r.html", "report.html", "x.html"]


def test_a_page_of_somebody_elses_is_kept(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    theirs = tmp_path / "report.html"
    theirs.write_text("<!DOCTYPE html><title>Our quarter</title>")
    done = run("report", "resnet10")
    assert (done.code, done.out) == (2, "")
    assert "report.html exists and is not a report of cspprof\n  Name another file: -o FILE" in done.err
    assert "Our quarter" in theirs.read_text()
    assert run("report", "resnet10", "-o", "report.html").code == 0, "who names a file means it"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("resnet10", "-o", "r.pdf"), "a report is an HTML page, and the name r.pdf does not end in .html"),
        (("resnet10", "-o", "nowhere/r.html"), "there is no folder nowhere"),
        (("resnet11", "-o", "r.html"), "Did you mean:"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(
    arguments: tuple[str, ...], said: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("report", *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert not list(tmp_path.iterdir())


def test_a_page_about_no_model_is_refused(run: Run) -> None:
    done = run("metrics", "--format", "html")
    assert (done.code, done.out) == (2, "")
    assert "html shows models" in done.err


def test_a_report_on_saved_profiles_loads_neither_torch_nor_matplotlib(pair: list[Profile], tmp_path: Path) -> None:
    paths = [str(p.save(tmp_path / f"{p.model}.profile.json")) for p in pair]
    script = (
        "import sys\nfrom cspprof.cli import main\n"
        f"try:\n    main(['report', *{paths!r}, '-o', {str(tmp_path / 'r.html')!r}])\nexcept SystemExit as e:\n"
        "    assert not e.code\nprint(sorted({'torch', 'matplotlib', 'pandas', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert done.stdout == "[]\n"
    assert (tmp_path / "r.html").stat().st_size > 50_000


# -- what stands in it --------------------------------------------------------------------------------


def test_every_number_of_every_model_is_there_as_its_definition_is(text: str, pair: list[Profile]) -> None:
    said = " ".join(Elements(text).words)
    for name, m in METRICS.items():
        assert f"id=def-{name} " in text
        assert m.title in said
    for number in ("34,411,496", "32,642,024", "−5.1 %", "5,055,135,744", "3,964,616,704", "−21.6 %"):
        assert number in said
    assert "part of the change is depth, not the refactor itself." in said
    for p in pair:
        assert f"{p.total('params'):,}" in said


def test_nothing_outside_the_file_is_asked_for(text: str) -> None:
    elements = Elements(text)
    for tag, attrs in elements.tags:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            target = attrs.get(name)
            assert target is None or target.startswith(("#", "data:,")), f"<{tag} {name}={target}>"
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert "default-src 'none'" in text, "and what is asked for all the same is refused"


def test_there_is_no_path_and_no_time_in_it(text: str) -> None:
    assert str(Path.home()) not in text
    assert str(CHECKOUT) not in text
    assert not re.search(r"20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d", text)


def test_ids_are_unique_and_links_lead_somewhere(text: str) -> None:
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


def test_rows_are_the_record(pair: list[Profile], text: str) -> None:
    for i, p in enumerate(pair):
        (table,) = re.findall(rf'<table class=layers data-name="{p.model}">.*?</table>', text, re.S)
        leaves = re.findall(rf"<tr\s+id=r{i}-(\d+) ", table)
        assert sorted(map(int, leaves)) == [r.index for r in layer_rows(p)]
        modules = re.findall(rf"<tr\s+id=m{i}-\S+ class=\"m d0\">", table)
        assert modules


def test_modules_add_up_to_the_whole(pair: list[Profile]) -> None:
    for p, table in zip(pair, layer_tables(pair), strict=True):
        at = [c.header for c in table.columns].index("MACs")
        top = [line for line in table.rows if line.depth == 0]
        assert sum(line.cells[at].value for line in top) == p.total("macs")
        leaves = [line for line in table.rows if not line.module]
        assert sum(line.cells[at].value for line in leaves) == p.total("macs")


def test_charts_are_those_of_the_figures(pair: list[Profile], text: str) -> None:
    """Every mark of the chart data is drawn, with its own value."""
    chart = draw("fig8", pair)
    drawn = [a["data-marks"] or "" for _, a in Elements(text).tags if "data-marks" in a]
    for panel in chart.panels:
        for series in panel.series:
            values = [panel.y.text(m.y) for m in series.marks]
            assert any([f"{line.split(' ', 1)[1]} {panel.y.unit}" for line in d.split("\n")] == values for d in drawn)


@pytest.mark.parametrize("kind", [*ONE_MODEL_PER_PANEL, "bottleneck"])
def test_a_mark_leads_to_the_row_of_its_own_model(kind: str, pair: list[Profile]) -> None:
    profiles = pair[:1] if kind == "bottleneck" else pair
    listed = [{r.path for r in layer_rows(p)} for p in profiles]
    for i, panel in enumerate(draw(kind, profiles).panels):
        for j, series in enumerate(panel.series):
            if series.style == "line":
                continue
            owner = model_of_panel(kind, i)
            assert {m.label for m in series.marks} <= listed[owner]
            assert (
                kind == "bottleneck" or profiles[owner].model in f"{panel.name} {panel.title}".replace(":", "").split()
            )


def test_a_series_has_a_part_of_its_path_for_every_mark(text: str) -> None:
    groups = re.findall(r'data-marks="([^"]*)"><path d="([^"]*)"', text)
    assert len(groups) > 8
    for told, path in groups:
        assert path.count("M") == told.count("\n") + 1


def test_names_of_users_are_text(monkeypatch: pytest.MonkeyPatch) -> None:
    evil = "<script>alert('x')</script>\"&"
    made = html_page([chain_called(evil)])
    assert made.count("<script>") == made.count("</script>") == 1, "only our own"
    assert "&lt;script&gt;alert(" in made
    assert not [attrs for _, attrs in Elements(made).tags if any(name.startswith("on") for name in attrs)]


def test_a_reading_is_called_one() -> None:
    made = html_page([cspprof.profile("csp_peleenet")])
    assert "<span class=tag>reading</span>" in made
    assert "csp_peleenet (reading)" in made


def test_what_is_unknown_is_not_zero(chain: Profile) -> None:
    first, *others = chain.specs
    unknown = replace(chain, specs=(first._replace(macs=None, target="x.mystery"), *others))
    made = html_page([unknown])
    assert "incomplete" in made
    assert "no rule for x.mystery (1)" in made
    assert "<td>?<td>" in made


def test_models_without_anything_to_draw_still_have_a_page() -> None:
    idle = chain_called("idle")
    idle = replace(idle, specs=tuple(s._replace(macs=0, kind=idle.specs[1].kind, weights=()) for s in idle.specs),
                   calls=Calls([1], [2], [0, 3]), outputs=(3,))  # fmt: skip
    made = html_page([idle, idle])
    assert "idle" in made
    assert "<svg" in made


# -- the stages ---------------------------------------------------------------------------------------


def test_stages_follow_each_other_and_what_a_partial_stage_lets_past_is_told() -> None:
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


def test_a_pyramid_passes_stages_by() -> None:
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


def test_sizes_are_those_of_maps_not_of_tokens() -> None:
    pytest.importorskip("timm", reason="timm is not installed: it is in the extra timm")
    boxes, _ = stage_graph(cspprof.profile("timm:convnext_tiny"))
    assert [b.size for b in boxes] == ["56×56", "28×28", "14×14", "7×7", ""]


def test_a_shortcut_of_a_block_is_no_bypass_of_its_stage() -> None:
    boxes, _ = stage_graph(cspprof.profile("resnet50_v1"))
    assert not any(b.bypass for b in boxes)


# -- sizes --------------------------------------------------------------------------------------------


def test_past_ten_thousand_rows_a_model_is_rolled_up_and_the_page_says_so(
    pair: list[Profile], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [len(layer_rows(p)) for p in pair]
    assert not any(t.grouping_note for t in layer_tables(pair))
    monkeypatch.setattr(layer_table, "MOST_ROWS", 100)
    tables = layer_tables(pair)
    for p, table, n in zip(pair, tables, whole, strict=True):
        assert len(table.rows) <= 50
        assert table.grouping_note.startswith(f"{p.label} has {n:,} operations; this table shows its ")
        assert table.grouping_note.endswith(f"{len(table.rows)} modules.")
        assert table.row_id("stage1.blocks.0.conv1.conv") in {line.id for line in table.rows}
    made = html_page(pair)
    assert "operations; this table shows its" in made


@pytest.mark.slow
def test_ten_ordinary_models_stay_below_a_megabyte() -> None:
    names = ("resnet50", "csp_resnet50", *PAIR, "darknet53", "csp_darknet53", "mobilenet_v2_darknet",
             "efficientnet_b0_darknet", "peleenet", "csp_peleenet")  # fmt: skip
    assert len(html_page([cspprof.profile(name) for name in names]).encode()) < 1_000_000


@pytest.mark.slow
def test_a_model_of_many_thousand_operations_has_a_small_page() -> None:
    spec = relu_spec(8, 4)
    n = 12_000
    made: dict[str, Any] = {
        "layers": (Layer("", "Net", 0, 1, 0), *(Layer(f"b{i}", "ReLU", 1, 60, 0) for i in range(200))),
        "specs": (conv_spec(3, 8, 4), spec),
        "calls": Calls([0] + [1] * n, [0] + [1 + i // 60 for i in range(n)], [0, 1, 2] + [2, 2] * n),
        "outputs": (2,),
    }
    profile = replace(chain_called("deep"), **made)
    (table,) = layer_tables([profile])
    assert len(table.rows) <= 201
    assert "12,001 operations" in table.grouping_note
    assert len(html_page([profile]).encode()) < 1_000_000
