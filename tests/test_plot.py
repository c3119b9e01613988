"""Drawn charts: images, charts in a terminal, and the command `plot`. Chart data is tested in test_charts."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import numpy
import pytest
from conftest import Result, quick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

import cspprof
from cspprof.core.errors import CspprofError, OutputError
from cspprof.profiles import Profile
from cspprof.render import matplotlib_chart
from cspprof.render.label_placement import Box, Label, place_labels
from cspprof.render.page.svg_chart import Scale
from cspprof.render.terminal_chart import chart_lines
from cspprof.report.chart_model import Axis, Mark, Panel, Series
from cspprof.report.charts import CHARTS
from cspprof.report.charts import draw as draw_model
from cspprof.results import Chart

pytestmark = pytest.mark.slow

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def pair() -> list[Profile]:
    return [cspprof.profile("peleenet"), cspprof.profile("csp_peleenet")]


@pytest.fixture(scope="module")
def charts(pair: list[Profile]) -> dict[str, Chart]:
    """One chart of every kind, of two small networks."""
    of = {"closed-form": [], "bottleneck": pair[:1]}
    options: dict[str, dict[str, Any]] = {"pareto": {"x": "macs", "y": "cio_cspnet"}}
    return {kind: draw(kind, of.get(kind, pair), **options.get(kind, {})) for kind in CHARTS}


# -- images ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", quick(["column", "page"], 1))
@pytest.mark.parametrize("kind", quick(CHARTS, 3))
def test_images_show_every_text_of_the_chart(kind: str, width: str, charts: dict[str, Chart]) -> None:
    """Every text is present, large enough to read, and within the image."""
    chart = charts[kind]
    figure = chart.figure(width)
    figure.draw_without_rendering()
    texts = [t for t in figure.findobj(Text) if t.get_text() and t.get_visible()]
    content = " ".join(t.get_text() for t in texts).replace("\n", " ")
    for panel in chart.panels:
        assert panel.title in content
        assert all(m.text in content for s in panel.series for m in s.marks)
        assert all(line.text.replace("\n", " ") in content for line in panel.lines)
    # Tick labels beyond the limits have a position but are not drawn.
    ticks = {id(t) for a in figure.axes for s in (a.xaxis, a.yaxis) for t in s.get_ticklabels(which="both")}
    for text in texts:
        assert text.get_fontsize() >= 5.5
        if id(text) not in ticks:
            box = text.get_window_extent()
            assert -1 <= box.x0 <= box.x1 <= figure.bbox.x1 + 1, text
            assert -1 <= box.y0 <= box.y1 <= figure.bbox.y1 + 1, text
    assert figure.get_size_inches()[0] == {"column": 3.4, "page": 7}[width]


def plain_lines(chart: Chart, width: int) -> list[str]:
    return ["".join(text for text, _ in line) for line in chart_lines(chart, width)]


def draw(kind: str, profiles: Any, **options: Any) -> Chart:
    return Chart.of(draw_model(kind, profiles, **options))


def test_point_labels_do_not_overlap() -> None:
    marks = tuple(Mark(1 + i % 3 * 0.02, 1 + i // 3 * 0.02, f"model {i}", text=f"network_{i}") for i in range(9))
    axis = Axis("x", "cost", low=0.8, high=1.3), Axis("y", "gain", low=0.8, high=1.3)
    figure = Chart("pareto", "", (Panel("", *axis, (Series("", "points", marks),), height=2),)).figure()
    figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in figure.axes[0].texts]
    assert len(boxes) == 9
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert width <= 0 or height <= 0 or width * height < 0.1 * a.width * a.height


def test_names_keep_clear_of_lines_points_and_the_frame() -> None:
    """Three points on a steep front, and a name that would leave the frame on the right."""
    points = [(10.0, 10.0), (50.0, 50.0), (90.0, 90.0), (95.0, 12.0)]
    lines = [(points[0], points[1]), (points[1], points[2])]
    frame = Box(0, 0, 100, 100)
    placed = place_labels([Label(p, 30, 8) for p in points], points, lines, [], frame, 3)
    for (box, _), own in zip(placed, points, strict=True):
        assert not any(box.length_inside(*line) for line in lines)
        assert not box.area_outside(frame)
        assert not any(box.common_area(other) for other, _ in placed if other is not box)
        assert not any(box.common_area(Box(x, y, x, y).padded(2)) for x, y in points if (x, y) != own)


def test_the_length_of_a_line_in_a_box() -> None:
    box = Box(0, 0, 4, 3)
    assert box.length_inside((-4, -3), (8, 6)) == 5  # the diagonal
    assert box.length_inside((1, -9), (1, 9)) == pytest.approx(3)
    assert box.length_inside((5, -9), (5, 9)) == 0
    assert box.length_inside((1, 1), (2, 1)) == 1


@pytest.mark.slow
def test_the_front_keeps_clear_of_the_names_in_the_chart_of_the_paper() -> None:
    entry = CHARTS.get("pareto")
    figure = draw("pareto", [cspprof.profile(s) for s in entry.default]).figure()
    axes = figure.axes[0]
    front = axes.transData.transform(axes.lines[0].get_xydata())
    for text in axes.texts:
        extent = text.get_window_extent()
        box = Box(extent.x0, extent.y0, extent.x1, extent.y1)
        assert not any(box.length_inside(tuple(a), tuple(b)) for a, b in pairwise(front)), text.get_text()


@pytest.mark.parametrize("image_format", quick(["svg", "png", "pdf"], 1))
def test_images_are_reproducible(image_format: str, charts: dict[str, Chart]) -> None:
    import matplotlib as mpl

    first = matplotlib_chart.image_bytes(charts["stages"], image_format)
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": "other"}):  # the user's settings
        assert matplotlib_chart.image_bytes(charts["stages"], image_format) == first
        assert mpl.rcParams["font.size"] == 30  # they are restored
    assert len(first) < 300_000
    assert b"atplotlib" not in first[:400]


@pytest.mark.slow
def test_images_are_reproducible_in_another_process_without_pyplot(charts: dict[str, Chart]) -> None:
    code = (
        "import cspprof, hashlib, sys, cspprof.render.matplotlib_chart as f;"
        "chart = cspprof.plot('closed-form'); chart._repr_png_();"
        "print(hashlib.sha256(f.image_bytes(chart, 'svg')).hexdigest(), 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        hashlib.sha256(matplotlib_chart.image_bytes(charts["closed-form"], "svg")).hexdigest(),
        "False",
    ]


def test_ticks_of_layer_positions_are_integers() -> None:
    marks = (Mark(1, 5),)
    axes = Axis("position", "layers", low=0.5, high=1.5, integer=True), Axis("macs", "MACs", high=6)
    chart = Chart("fig7", "", (Panel("", *axes, (Series("layers", "bars", marks),)),))
    (subplot,) = chart.figure().axes
    low, high = subplot.get_xlim()
    assert [t for t in subplot.get_xticks() if low <= t <= high] == [1]
    assert [text for _, text in Scale(axes[0], 0, 100).ticks(8)] == ["1"]


def test_a_single_high_bar_among_500_is_visible() -> None:
    """A column of its color reaches its height in the image."""
    marks = tuple(Mark(i, 100 if i == 250 else 1) for i in range(1, 501))
    axes = Axis("position", "layers", low=0.5, high=500.5), Axis("macs", "MACs", high=110)
    figure = Chart("fig7", "", (Panel("", *axes, (Series("layers", "bars", marks),)),)).figure()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = numpy.asarray(canvas.buffer_rgba()).astype(int)
    box = figure.axes[0].get_window_extent()
    rows = slice(int(pixels.shape[0] - box.y1 + box.height * 0.15), int(pixels.shape[0] - box.y0 - box.height * 0.1))
    area = pixels[rows, int(box.x0) + 5 : int(box.x1) - 5]
    assert ((area[..., 0] < 80) & (area[..., 2] > 140)).any(axis=1).all()


@pytest.mark.parametrize("width", ["wide", 1, 100, "nan"])
def test_invalid_widths(width: Any, charts: dict[str, Chart]) -> None:
    with pytest.raises(CspprofError, match="a picture cannot be"):
        charts["fig8"].figure(width)


@pytest.mark.slow
def test_saving_writes_the_data_beside_the_image(tmp_path: Path, charts: dict[str, Chart]) -> None:
    charts["fig8"].save(tmp_path / "x.svg")
    saved = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text())))
    assert [{k: str(v) for k, v in r.items() if v != ""} for r in charts["fig8"].records] == [
        {k: v for k, v in r.items() if v != ""} for r in saved
    ]
    with pytest.raises(OutputError, match=r"cannot draw x.gif: unknown image format"):
        charts["fig8"].save(tmp_path / "x.gif")
    with pytest.raises(OutputError, match="there is no folder"):
        charts["fig8"].save(tmp_path / "no" / "x.png")


# -- the terminal ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CHARTS)
@pytest.mark.parametrize("width", [40, 60, 200])
def test_charts_fit_the_terminal(kind: str, width: int, charts: dict[str, Chart]) -> None:
    lines = plain_lines(charts[kind], width)
    bars = [line for line in lines if set(line) & set("│└╵█▏")]
    assert bars
    assert max(map(len, bars)) <= width
    assert charts[kind].title in lines[0]


def test_the_longest_bar_is_the_largest_layer() -> None:
    chart = cspprof.plot("bottleneck", "csp_darknet53", top=7)
    lines = plain_lines(chart, 80)
    bars = lines[lines.index("Largest 7") + 1 :][:7]
    assert bars[0].startswith("stage1.down.conv")
    lengths = [line.count("█") for line in bars]
    assert lengths[0] == lengths[5] == 2 * lengths[6] > 0  # 301,989,888 MACs six times, then half of it
    assert bars[6].endswith("2.3 %, so far 30.0 %")


def test_areas_one_behind_the_other_are_all_visible() -> None:
    """Three series of heights 8, 4 and 2, then 6, 6 and 6, on an axis up to 8, which has eight lines."""
    x, y = Axis("x", "operations", low=0.5, high=2.5), Axis("y", "bytes", high=8)
    heights = {"all": (8, 6), "saved": (4, 6), "weights": (2, 6)}
    series = [Series(name, "steps", (Mark(1, a), Mark(2, b)), i) for i, (name, (a, b)) in enumerate(heights.items())]
    lines = plain_lines(Chart("memory", "Memory", (Panel("", x, y, tuple(series)),), ""), 80)
    first, _, _, second, *_ = zip(*(line.partition("│")[2].ljust(6) for line in lines if "│" in line), strict=True)
    assert "".join(first) == "████▒▒▓▓"
    assert "".join(second) == "  ▓▓▓▓▓▓"


def test_points_of_two_series_have_two_markers() -> None:
    lines = plain_lines(cspprof.plot("receptive-field", "csp_peleenet"), 80)
    markers = [line[0] for line in lines if line[2:] in ("branches that meet", "sides of a cross stage split")]
    assert len(set(markers)) == 2


def test_bottleneck_command_draws_bars(run: Run) -> None:
    got = run("bottleneck", "csp_darknet53", "--top", "3")
    assert "302" not in got.out.split("Largest 3")[1]
    assert got.out.split("Largest 3")[1].count("█") > 30
    assert "Listed: 3 of 6 equal layers." in got.out
    assert "\x1b" not in got.out
    assert json.loads(run("bottleneck", "csp_darknet53", "--format", "json").out)["schema"] == "cspprof.bottleneck/1"
    assert "█" not in run("bottleneck", "csp_darknet53", "--metric", "moc").out  # is no sum


def test_force_color(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[34m" in run("plot", "closed-form").out


def test_no_color_is_stronger_than_force_color(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in run("plot", "closed-form").out


# -- the command ----------------------------------------------------------------------------------------


def test_plot_in_the_terminal(run: Run) -> None:
    got = run("plot", "stages", "resnext50", "csp_resnext50")
    assert got.code == 0
    assert "resnext50 to csp_resnext50: −5.1 %" in got.out
    assert "note: resnext50 has stages 3-4-6-3" in got.out


def test_plot_writes_an_image_and_its_data(run: Run, tmp_path: Path) -> None:
    got = run("plot", "fig8", "-o", str(tmp_path / "cio.png"), "--width", "page")
    assert (got.code, got.out) == (0, "")
    assert got.err == f"wrote {tmp_path / 'cio.png'} and {tmp_path / 'cio.csv'}\n"
    assert (tmp_path / "cio.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    rows = list(csv.DictReader(io.StringIO((tmp_path / "cio.csv").read_text())))
    assert sum(int(r["cio_cspnet"]) for r in rows if r["panel"] == "resnext50") == 34_411_496


def test_plot_as_data(run: Run, tmp_path: Path) -> None:
    document = json.loads(run("plot", "roofline", "peleenet", "--hardware", "chip:100:10", "--format", "json").out)
    jsonschema.validate(
        document, json.loads((resources.files("cspprof") / "schemas" / "chart-1.schema.json").read_text())
    )
    assert (document["schema"], document["kind"]) == ("cspprof.chart/1", "roofline")
    assert {r["panel"] for r in document["records"]} == {"peleenet on chip"}
    run("plot", "roofline", "peleenet", "-o", str(tmp_path / "r.csv"))
    assert (tmp_path / "r.csv").read_text().startswith("panel,series,label,stage,macs_per_byte,gmacs_per_s")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fig9"], "no chart named 'fig9'"),
        (["fig8", "peleenet", "-o", "x.gif"], "cannot draw x.gif: unknown image format"),
        (["fig8", "peleenet", "-o", "none/x.png"], "there is no folder none"),
        (["fig8", "peleenet", "--width", "0.1", "-o", "x.png"], "a picture cannot be '0.1' wide"),
        (["stages", "peleenet"], "stages shows 2 to 5 models, not 1"),
        (["bottleneck", "peleenet", "--hardware", "t4"], "bottleneck has no option --hardware"),
        (["fig7", "peleenet", "--metric", "mcas"], "Did you mean: macs"),
        (["pareto", "peleenet", "vgg16", "--y", "top2"], "no metric named 'top2'"),
    ],
)
def test_plot_rejects(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    got = run("plot", *arguments)
    assert got.code == 2
    assert message in got.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_plot_of_a_saved_profile_does_not_import_torch(tmp_path: Path, pair: list[Profile]) -> None:
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
    with pytest.raises(CspprofError, match="has no option --color"):
        cspprof.plot("fig7", *pair, color="red")


def test_text_formats_list_the_data_of_a_chart(run: Run) -> None:
    arguments = ("plot", "stages", "resnext50", "csp_resnext50", "--format")
    markdown = run(*arguments, "markdown").out
    assert "| csp\\_resnext50 | more | stage1 | stage1 | 2 | 1,835,008 |" in markdown
    assert "1,835,008" in run(*arguments, "latex").out


def test_suffixes_in_capitals(tmp_path: Path, charts: dict[str, Chart]) -> None:
    charts["stages"].save(tmp_path / "X.PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["X.PNG", "X.csv"]


def test_variants_of_a_network_without_the_options(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text("from torch import nn\n\ndef build():\n    return nn.Conv2d(3, 8, 3)\n")
    for spec in ("net.py:build", "vgg16"):
        rejected = run("plot", "fusion", spec)
        assert rejected.code == 2
        assert "fusion traces a single SPEC with fusion=none, fusion=first, fusion=last, fusion=csp" in rejected.err
        assert f"or several SPECs: cspprof plot fusion {spec} SPEC…" in rejected.err
    with pytest.raises(CspprofError, match="fusion traces a single SPEC with"):
        cspprof.plot("fusion", "vgg16")
    assert "unexpected keyword" in run("plot", "fusion", "vgg16,gamma=1", "resnet10").err


def test_texts_of_a_crowded_chart_stay_inside_and_clear_of_each_other() -> None:
    """A narrow figure with ten bars: the names below them and the lines of the caption."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    models = [cspprof.profile(name) for name in ("resnet50", "mobilenet_v2")]
    for kind in ("stages", "fig7"):
        figure = cspprof.plot(kind, *models).figure("column")
        FigureCanvasAgg(figure).draw()
        (caption,) = [t for t in figure.texts if t.get_text().startswith("Input ")]
        assert caption.get_window_extent().x1 <= figure.bbox.x1
        for part in figure.subfigs:
            for axes in part.axes:
                boxes = [t.get_window_extent() for t in axes.get_xticklabels() if t.get_text()]
                assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
