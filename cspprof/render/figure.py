"""Charts as pictures, with matplotlib: a figure that belongs to no window, and the same bytes every time."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from cspprof.core.errors import CspprofError, OutputError
from cspprof.core.files import check_writable, write_atomically
from cspprof.report.chart_model import Chart, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTHS = {"column": 3.4, "page": 7.0}
"""Inches: one column of a two-column paper, and its whole page."""
PICTURES = {".png": "png", ".svg": "svg", ".pdf": "pdf"}
UNDATED = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
"""What makers and clocks would leave in a file."""
PANEL = 1.15
"""Inches of a panel of height 1, without its title."""
CHARACTER = 0.042
"""Inches that a character of the caption takes."""


def inches(width: float | str) -> float:
    """`column`, `page` or a number. Raises CspprofError for what is no width of a picture."""
    try:
        wide = WIDTHS[width] if isinstance(width, str) and width in WIDTHS else float(width)
    except ValueError:
        wide = 0
    if not 2 <= wide <= 40:
        raise CspprofError(f"a picture cannot be {width!r} wide", "Give column, page, or inches from 2 to 40.")
    return wide


def draw(chart: Chart, width: float | str = "column") -> Figure:
    """The chart as a figure so many inches wide; its height follows from what it shows."""
    with _style():
        return _drawn(chart, inches(width))


def image(chart: Chart, form: str, width: float | str = "column", dpi: float | None = None) -> bytes:
    """The chart as the bytes of a picture, `png`, `svg` or `pdf`: the same every time."""
    with _style():
        out = io.BytesIO()
        figure = _drawn(chart, inches(width))
        figure.savefig(out, format=form, metadata=UNDATED[form], dpi=dpi or "figure")
    return out.getvalue()


def save(chart: Chart, path: Path, width: float | str = "column") -> Path:
    """Write the picture that the ending asks for, and a `.csv` of what it shows beside it."""
    from cspprof.render.data import table_of

    check_picture(path)
    write_atomically(path, image(chart, PICTURES[path.suffix.lower()], width))
    write_atomically(path.with_suffix(".csv"), table_of(chart.records).encode())
    return path


def check_picture(path: Path) -> None:
    """Raise OutputError, before any work is done, where no picture and table could be written there after it."""
    if path.suffix.lower() not in PICTURES:
        endings = ", ".join(PICTURES)
        raise OutputError(f"cannot draw {path.name}: no such picture", f"End it in {endings}; the table alone: .csv")
    check_writable(path)
    check_writable(path.with_suffix(".csv"))


@contextmanager
def _style() -> Iterator[None]:
    """The one style sheet, and nothing of the user's own settings."""
    from matplotlib import rc_context, rc_params_from_file, rcParamsDefault

    sheet = resources.files("cspprof.render") / "cspprof.mplstyle"
    with resources.as_file(sheet) as path, rc_context():
        from matplotlib import rcParams

        rcParams.update({k: v for k, v in rcParamsDefault.items() if not k.startswith("backend")})
        rcParams.update(rc_params_from_file(str(path), use_default_template=False))
        yield


def _drawn(chart: Chart, wide: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from cspprof.render.panels import draw_panel, settle

    caption = textwrap.fill(chart.caption, int(wide / CHARACTER))
    heights = [PANEL * p.height for p in chart.panels]
    frames = [_frame(chart.panels, i) for i in range(len(chart.panels))]
    tall = sum(heights) + sum(frames) + 0.25 + 0.11 * (1 + caption.count("\n"))
    figure = Figure(figsize=(wide, tall), layout="constrained", dpi=300)
    FigureCanvasAgg(figure)
    figure.suptitle(chart.title, x=0.01, ha="left")
    figure.supxlabel(caption, x=0.01, ha="left", fontsize=5.5, color="#555555")
    rows = _rows(figure, chart.panels, [h + f for h, f in zip(heights, frames, strict=True)])
    for i, (panel, axes) in enumerate(zip(chart.panels, rows, strict=True)):
        before = chart.panels[i - 1] if i else None
        draw_panel(axes, panel, before, wide, _labelled(chart.panels, i))
    settle(figure, rows, chart.panels)
    return figure


def _rows(figure: Figure, panels: Sequence[Panel], heights: Sequence[float]) -> list[Axes]:
    """Axes below each other. Neighbours that stand share their left edge; one that is lying has its own, as the
    names at its side would push the others away."""
    groups = [list(g) for _, g in groupby(range(len(panels)), lambda i: i if panels[i].lying else -1)]
    parts = figure.subfigures(len(groups), 1, squeeze=False, height_ratios=[sum(heights[i] for i in g) for g in groups])
    rows: list[Axes] = []
    for part, group in zip(parts[:, 0], groups, strict=True):
        made = part.subplots(len(group), squeeze=False, height_ratios=[panels[i].height for i in group])
        rows += list(made[:, 0])
    return rows


def _frame(panels: tuple[Panel, ...], i: int) -> float:
    """Inches above and below a panel: title, names of stages, ticks and the label of its axis."""
    panel = panels[i]
    return 0.18 * bool(panel.title) + 0.1 * bool(panel.spans) + (0.3 if _labelled(panels, i) else 0.08)


def _labelled(panels: tuple[Panel, ...], i: int) -> bool:
    """Whether the axis below a panel is named there; neighbours that share it are named once."""
    return i + 1 == len(panels) or panels[i + 1].x != panels[i].x or panels[i].lying
