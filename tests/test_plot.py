"""Charts as they are drawn: pictures, bars in a terminal, and the command that asks for them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy
import pytest
from conftest import Result
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

import cspprof
from cspprof.core.errors import CspprofError, OutputError
from cspprof.profiles import Profile
from cspprof.render import matplotlib_chart
from cspprof.render.page.svg_chart import Scale
from cspprof.render.terminal_chart import chart_lines
from cspprof.report.chart_model import Axis, Mark, Panel, Series
from cspprof.report.charts import CHARTS
from cspprof.report.charts import draw as draw_model
from cspprof.results import Chart

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def pair() -> list[Profile]:
    return [cspprof.profile("peleenet"), cspprof.profile("csp_peleenet")]


@pytest.fixture(scope="module")
def kinds(pair: list[Profile]) -> dict[str, Chart]:
    """A chart of every kind, of two small networks."""
    of = {"closed-form": [], "bottleneck": pair[:1]}
    options: dict[str, dict[str, Any]] = {"pareto": {"x": "macs", "y": "cio_cspnet"}}
    return {kind: draw(kind, of.get(kind, pair), **options.get(kind, {})) for kind in CHARTS}


# -- pictures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", ["column", pytest.param("page", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", CHARTS)
def test_a_picture_shows_what_the_chart_says(kind: str, width: str, kinds: dict[str, Chart]) -> None:
    """Every text of the chart is there, large enough to read and within the picture."""
    chart = kinds[kind]
    drawn = chart.figure(width)
    drawn.draw_without_rendering()
    texts = [t for t in drawn.findobj(Text) if t.get_text() and t.get_visible()]
    shown = " ".join(t.get_text() for t in texts).replace("\n", " ")
    for panel in chart.panels:
        assert panel.title in shown
        assert all(m.text in shown for s in panel.series for m in s.marks)
        assert all(line.text.replace("\n", " ") in shown for line in panel.lines)
    # Labels of ticks beyond the limits have a place and are not drawn.
    ticks = {id(t) for a in drawn.axes for s in (a.xaxis, a.yaxis) for t in s.get_ticklabels(which="both")}
    for text in texts:
        assert text.get_fontsize() >= 5.5
        if id(text) not in ticks:
            box = text.get_window_extent()
            assert -1 <= box.x0 <= box.x1 <= drawn.bbox.x1 + 1, text
            assert -1 <= box.y0 <= box.y1 <= drawn.bbox.y1 + 1, text
    assert drawn.get_size_inches()[0] == {"column": 3.4, "page": 7}[width]


def plain_lines(chart: Chart, width: int) -> list[str]:
    return ["".join(text for text, _ in line) for line in chart_lines(chart, width)]


def draw(kind: str, profiles: Any, **options: Any) -> Chart:
    return Chart.of(draw_model(kind, profiles, **options))


def test_names_of_points_do_not_cover_each_other() -> None:
    marks = tuple(Mark(1 + i % 3 * 0.02, 1 + i // 3 * 0.02, f"model {i}", text=f"network_{i}") for i in range(9))
    axis = Axis("x", "cost", low=0.8, high=1.3), Axis("y", "gain", low=0.8, high=1.3)
    drawn = Chart("pareto", "", (Panel("", *axis, (Series("", "points", marks),), height=2),)).figure()
    drawn.draw_without_rendering()
    boxes = [t.get_window_extent() for t in drawn.axes[0].texts]
    assert len(boxes) == 9
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            wide, tall = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert wide <= 0 or tall <= 0 or wide * tall < 0.1 * a.width * a.height


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_the_same_bytes_every_time(form: str, kinds: dict[str, Chart]) -> None:
    import matplotlib as mpl

    first = matplotlib_chart.image_bytes(kinds["stages"], form)
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": "other"}):  # a user's own settings
        assert matplotlib_chart.image_bytes(kinds["stages"], form) == first
        assert mpl.rcParams["font.size"] == 30  # and they are given back
    assert len(first) < 300_000
    assert b"atplotlib" not in first[:400]


@pytest.mark.slow
def test_another_process_draws_the_same_bytes_and_opens_no_window(kinds: dict[str, Chart]) -> None:
    code = (
        "import cspprof, hashlib, sys, cspprof.render.matplotlib_chart as f;"
        "chart = cspprof.plot('closed-form'); chart._repr_png_();"
        "print(hashlib.sha256(f.image_bytes(chart, 'svg')).hexdigest(), 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [hashlib.sha256(matplotlib_chart.image_bytes(kinds["closed-form"], "svg")).hexdigest(), "False"]


def test_places_of_layers_are_whole_even_of_one() -> None:
    marks = (Mark(1, 5),)
    axes = Axis("position", "layers", low=0.5, high=1.5, whole=True), Axis("macs", "MACs", high=6)
    chart = Chart("fig7", "", (Panel("", *axes, (Series("layers", "bars", marks),)),))
    (drawn,) = chart.figure().axes
    low, high = drawn.get_xlim()
    assert [t for t in drawn.get_xticks() if low <= t <= high] == [1]
    assert [text for _, text in Scale(axes[0], 0, 100).ticks(8)] == ["1"]


def test_five_hundred_bars_are_all_seen() -> None:
    """One high bar among 500: a column of its colour reaches its height in the picture."""
    marks = tuple(Mark(i, 100 if i == 250 else 1) for i in range(1, 501))
    axes = Axis("position", "layers", low=0.5, high=500.5), Axis("macs", "MACs", high=110)
    drawn = Chart("fig7", "", (Panel("", *axes, (Series("layers", "bars", marks),)),)).figure()
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    pixels = numpy.asarray(canvas.buffer_rgba()).astype(int)
    box = drawn.axes[0].get_window_extent()
    rows = slice(int(pixels.shape[0] - box.y1 + box.height * 0.15), int(pixels.shape[0] - box.y0 - box.height * 0.1))
    area = pixels[rows, int(box.x0) + 5 : int(box.x1) - 5]
    assert ((area[..., 0] < 80) & (area[..., 2] > 140)).any(axis=1).all()


@pytest.mark.parametrize("width", ["wide", 1, 100, "nan"])
def test_widths_that_are_none(width: Any, kinds: dict[str, Chart]) -> None:
    with pytest.raises(CspprofError, match="a picture cannot be"):
        kinds["fig8"].figure(width)


def test_saving_writes_the_table_beside_the_picture(tmp_path: Path, kinds: dict[str, Chart]) -> None:
    kinds["fig8"].save(tmp_path / "x.svg")
    kept = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text())))
    assert [{k: str(v) for k, v in r.items() if v != ""} for r in kinds["fig8"].records] == [
        {k: v for k, v in r.items() if v != ""} for r in kept
    ]
    with pytest.raises(OutputError, match=r"cannot draw x.gif: no such picture"):
        kinds["fig8"].save(tmp_path / "x.gif")
    with pytest.raises(OutputError, match="there is no folder"):
        kinds["fig8"].save(tmp_path / "no" / "x.png")


# -- the terminal ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CHARTS)
@pytest.mark.parametrize("width", [40, 60, 200])
def test_bars_fit_the_terminal(kind: str, width: int, kinds: dict[str, Chart]) -> None:
    lines = plain_lines(kinds[kind], width)
    drawn = [line for line in lines if set(line) & set("│└╵█▏")]
    assert drawn
    assert max(map(len, drawn)) <= width
    assert kinds[kind].title in lines[0]


def test_the_longest_bar_is_the_largest_layer() -> None:
    chart = cspprof.plot("bottleneck", "csp_darknet53", top=7)
    lines = plain_lines(chart, 80)
    shown = lines[lines.index("Largest 7") + 1 :][:7]
    assert shown[0].startswith("stage1.down.conv")
    lengths = [line.count("█") for line in shown]
    assert lengths[0] == lengths[5] == 2 * lengths[6] > 0  # 301,989,888 MACs six times, then half of it
    assert shown[6].endswith("2.3 %, so far 30.0 %")


def test_bars_in_the_answer_to_bottleneck(run: Run) -> None:
    got = run("bottleneck", "csp_darknet53", "--top", "3")
    assert "302" not in got.out.split("Largest 3")[1]
    assert got.out.split("Largest 3")[1].count("█") > 30
    assert "\x1b" not in got.out
    assert json.loads(run("bottleneck", "csp_darknet53", "--format", "json").out)["schema"] == "cspprof.bottleneck/1"
    assert "█" not in run("bottleneck", "csp_darknet53", "--metric", "moc").out  # adds up to nothing


def test_colour_where_it_is_asked_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[34m" in run("plot", "closed-form").out


# -- the command ----------------------------------------------------------------------------------------


def test_plot_in_the_terminal(run: Run) -> None:
    got = run("plot", "stages", "resnext50", "csp_resnext50")
    assert got.code == 0
    assert "resnext50 to csp_resnext50: −5.1 %" in got.out
    assert "note: resnext50 has stages 3-4-6-3" in got.out


def test_plot_writes_a_picture_and_its_table(run: Run, tmp_path: Path) -> None:
    got = run("plot", "fig8", "-o", str(tmp_path / "cio.png"), "--width", "page")
    assert (got.code, got.out, got.err) == (0, "", "")
    assert (tmp_path / "cio.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    rows = list(csv.DictReader(io.StringIO((tmp_path / "cio.csv").read_text())))
    assert sum(int(r["cio_cspnet"]) for r in rows if r["panel"] == "resnext50") == 34_411_496


def test_plot_as_data(run: Run, tmp_path: Path) -> None:
    told = json.loads(run("plot", "roofline", "peleenet", "--hardware", "chip:100:10", "--format", "json").out)
    jsonschema.validate(told, json.loads((resources.files("cspprof") / "schemas" / "chart-1.schema.json").read_text()))
    assert (told["schema"], told["kind"]) == ("cspprof.chart/1", "roofline")
    assert {r["panel"] for r in told["records"]} == {"peleenet on chip"}
    run("plot", "roofline", "peleenet", "-o", str(tmp_path / "r.csv"))
    assert (tmp_path / "r.csv").read_text().startswith("panel,series,label,stage,macs_per_byte,gmacs_per_s")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fig9"], "no chart named 'fig9'"),
        (["fig8", "peleenet", "-o", "x.gif"], "cannot draw x.gif: no such picture"),
        (["fig8", "peleenet", "-o", "none/x.png"], "there is no folder none"),
        (["fig8", "peleenet", "--width", "0.1", "-o", "x.png"], "a picture cannot be '0.1' wide"),
        (["stages", "peleenet"], "stages draws 2 to 5 models; 1 were named"),
        (["bottleneck", "peleenet", "--hardware", "t4"], "bottleneck does not take --hardware"),
        (["fig7", "peleenet", "--metric", "mcas"], "Did you mean: macs"),
        (["pareto", "peleenet", "vgg16", "--y", "top2"], "no metric named 'top2'"),
    ],
)
def test_plot_refuses(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    got = run("plot", *arguments)
    assert got.code == 2
    assert says in got.err
    assert list(tmp_path.iterdir()) == []


def test_plotting_a_saved_profile_needs_no_torch(tmp_path: Path, pair: list[Profile]) -> None:
    pair[0].save(tmp_path / "p.profile.json")
    code = (
        "import sys; from cspprof.cli import main\n"
        "try: main(['plot', 'fig8', 'p.profile.json', '-o', 'x.svg'])\n"
        "except SystemExit as leaving: assert not leaving.code\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_plot_in_python(pair: list[Profile]) -> None:
    chart = cspprof.plot("fig7", *pair)
    assert chart._repr_png_()[:4] == b"\x89PNG"
    assert list(chart.to_pandas().panel.unique()) == ["peleenet", "csp_peleenet (reading)"]
    with pytest.raises(CspprofError, match="does not take --colour"):
        cspprof.plot("fig7", *pair, colour="red")


def test_formats_that_write_list_what_a_chart_shows(run: Run) -> None:
    arguments = ("plot", "stages", "resnext50", "csp_resnext50", "--format")
    written = run(*arguments, "markdown").out
    assert "| csp\\_resnext50 | more | stage1 | stage1 | 2 | 1,835,008 |" in written
    assert "1,835,008" in run(*arguments, "latex").out


def test_endings_in_capitals(tmp_path: Path, kinds: dict[str, Chart]) -> None:
    kinds["stages"].save(tmp_path / "X.PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["X.PNG", "X.csv"]


def test_forms_of_a_network_without_them(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text("from torch import nn\n\ndef build():\n    return nn.Conv2d(3, 8, 3)\n")
    for spec in ("net.py:build", "vgg16"):
        refused = run("plot", "fusion", spec)
        assert refused.code == 2
        assert "fusion draws one model with fusion=none, fusion=first, fusion=last, fusion=csp" in refused.err
        assert f"or every form of yours: cspprof plot fusion {spec} SPEC…" in refused.err
    with pytest.raises(CspprofError, match="fusion draws one model with"):
        cspprof.plot("fusion", "vgg16")
    assert "unexpected keyword" in run("plot", "fusion", "vgg16,gamma=1", "resnet10").err, "more are as they are named"
