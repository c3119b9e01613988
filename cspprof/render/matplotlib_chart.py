"""Charts as pictures with matplotlib: figures without a window, and reproducible image files."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from cspprof.core.errors import CspprofError, OutputError
from cspprof.core.files import check_replaceable, check_writable, write_atomically
from cspprof.render.json_csv import csv_text, is_own_csv
from cspprof.render.matplotlib_panel import draw_panel, place_annotations
from cspprof.report.chart_model import Chart, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTHS = {"column": 3.4, "page": 7.0}
"""Inches: one column of a two-column paper, and the whole page."""
IMAGE_FORMATS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}
METADATA = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""Without dates and versions, so that the same chart gives the same bytes."""
MARKS_OF_PNG = b"pHYs" + (11811).to_bytes(4, "big") * 2
START_OF_PDF = b"%PDF-1.4\n%\xac\xdc \xab\xba"
MARK_OF_SVG = b'<g id="figure_1">'
PANEL_INCHES = 1.15
"""The height of a panel of height 1, without its title."""
CHARACTER_INCHES = 0.0445
"""The width of a character of the caption."""


def width_in_inches(width: float | str) -> float:
    """The width of a picture: `column`, `page` or a number of inches. Raises CspprofError."""
    try:
        inches = WIDTHS[width] if isinstance(width, str) and width in WIDTHS else float(width)
    except ValueError:
        inches = 0
    if not 2 <= inches <= 40:
        raise CspprofError(f"a picture cannot be {width!r} wide", "Give column, page, or inches from 2 to 40.")
    return inches


def draw_figure(chart: Chart, width: float | str = "column") -> Figure:
    """The chart as a figure; its height follows from its panels."""
    with _style():
        return _figure(chart, width_in_inches(width))


def image_bytes(chart: Chart, image_format: str, width: float | str = "column", dpi: float | None = None) -> bytes:
    """The chart as a `png`, `svg` or `pdf`; the same chart gives the same bytes."""
    with _style():
        out = io.BytesIO()
        figure = _figure(chart, width_in_inches(width))
        figure.savefig(out, format=image_format, metadata=METADATA[image_format], dpi=dpi or "figure")
    return out.getvalue()


def save_image(chart: Chart, path: Path, width: float | str = "column") -> Path:
    """Write an image in the format of the file suffix, and a `.csv` of the chart's data beside it."""
    check_image_path(path)
    write_atomically(path, image_bytes(chart, IMAGE_FORMATS[path.suffix.lower()], width))
    write_atomically(path.with_suffix(".csv"), csv_text(chart.records).encode())
    return path


def check_image_path(path: Path) -> None:
    """Raise OutputError if an image and its `.csv` cannot be written there, or would replace another kind of file."""
    if path.suffix.lower() not in IMAGE_FORMATS:
        suffixes = ", ".join(IMAGE_FORMATS)
        raise OutputError(
            f"cannot draw {path.name}: unknown image format",
            f"Use one of {suffixes}; for the data alone: .csv, .json, .md, .tex, .txt",
        )
    data = path.with_suffix(".csv")
    for file, is_own, kind in ((path, _is_image, "a chart"), (data, is_own_csv, "the data of a chart")):
        check_writable(file)
        check_replaceable(file, is_own, kind)


def _is_image(head: bytes) -> bool:
    """Whether the file starts as a PNG of 300 dpi, a PDF or an SVG of matplotlib does."""
    return MARKS_OF_PNG in head[:64] or head.startswith(START_OF_PDF) or (b"<svg" in head and MARK_OF_SVG in head)


@contextmanager
def _style() -> Iterator[None]:
    """The style sheet of cspprof; the user's own settings have no effect. A character without a glyph is a box, without
    a warning."""
    from matplotlib import rc_context, rc_params_from_file, rcParams, rcParamsDefault

    sheet = resources.files("cspprof.render") / "chart.mplstyle"
    with resources.as_file(sheet) as path, rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ ")
        rcParams.update({k: v for k, v in rcParamsDefault.items() if not k.startswith("backend")})
        rcParams.update(rc_params_from_file(str(path), use_default_template=False))
        yield


def _figure(chart: Chart, width: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chart = chart.printable()
    caption = textwrap.fill(chart.caption, int(width / CHARACTER_INCHES))
    panel_heights = [PANEL_INCHES * p.height for p in chart.panels]
    frame_heights = [_frame_height(chart.panels, i) for i in range(len(chart.panels))]
    height = sum(panel_heights) + sum(frame_heights) + 0.25 + 0.11 * (1 + caption.count("\n"))
    figure = Figure(figsize=(width, height), layout="constrained", dpi=300)
    FigureCanvasAgg(figure)
    figure.suptitle(chart.title, x=0.01, ha="left")
    figure.supxlabel(caption, x=0.01, ha="left", fontsize=5.5, color="#555555")
    heights = [p + f for p, f in zip(panel_heights, frame_heights, strict=True)]
    rows = _subplots(figure, chart.panels, heights)
    for i, (panel, axes) in enumerate(zip(chart.panels, rows, strict=True)):
        before = chart.panels[i - 1] if i else None
        draw_panel(axes, panel, before, width, _has_x_label(chart.panels, i))
    place_annotations(figure, rows, chart.panels)
    return figure


def _subplots(figure: Figure, panels: Sequence[Panel], heights: Sequence[float]) -> list[Axes]:
    """Axes from top to bottom.

    Neighbors that are not horizontal share their left edge. A horizontal panel has its own, because the names at its
    side would push the edges of the others.
    """
    groups = [list(g) for _, g in groupby(range(len(panels)), lambda i: i if panels[i].horizontal else -1)]
    parts = figure.subfigures(len(groups), 1, squeeze=False, height_ratios=[sum(heights[i] for i in g) for g in groups])
    rows: list[Axes] = []
    for part, group in zip(parts[:, 0], groups, strict=True):
        subplots = part.subplots(len(group), squeeze=False, height_ratios=[panels[i].height for i in group])
        rows += list(subplots[:, 0])
    return rows


def _frame_height(panels: tuple[Panel, ...], i: int) -> float:
    """Inches above and below a panel, for the title, the stage names, the ticks and the label of the x axis."""
    panel = panels[i]
    return 0.18 * bool(panel.title) + 0.1 * bool(panel.spans) + (0.3 if _has_x_label(panels, i) else 0.08)


def _has_x_label(panels: tuple[Panel, ...], i: int) -> bool:
    """Whether the axis below a panel has its label there; neighbors with the same axis share one label."""
    return i + 1 == len(panels) or panels[i + 1].x != panels[i].x or panels[i].horizontal
