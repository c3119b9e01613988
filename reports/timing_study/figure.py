"""`study.png`: measured against predicted time, and the change of time against the change of CIO."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from timing_study.predictors import CALIBRATED, PREDICTORS
from timing_study.results import Row, key, least_differences, pairs, predicted_ms, scores, timed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = ("MACs", "CIO (CSPNet)", "traffic", CALIBRATED.title)
COLORS = {"zoo": "#0072b2", "timm": "#e69f00", "converted": "#009e73"}
ENGINES = ("onnxruntime", "torch")


def figure(table: Sequence[Row], measured: Mapping[str, Any]) -> bytes:
    """The image as PNG. Rows of panels: predictions on each engine, then the pairs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [e for e in ENGINES if timed(table, e)]
    canvas = Figure(figsize=(13, 3.3 * (len(shown) + 1)), layout="constrained", dpi=90)
    FigureCanvasAgg(canvas)
    grid = canvas.add_gridspec(len(shown) + 1, 4)
    for i, engine in enumerate(shown):
        for j, title in enumerate(SHOWN):
            _predicted(canvas.add_subplot(grid[i, j]), table, engine, title, legend=i == j == 0)
    for j, (column, label) in enumerate((("macs", "MACs"), ("cio_cspnet", "CIO (CSPNet)"))):
        for k, engine in enumerate(shown):
            axes = canvas.add_subplot(grid[len(shown), 2 * j + k])
            _pairs(axes, table, measured, engine, column, label)
    out = io.BytesIO()
    canvas.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _predicted(axes: Axes, table: Sequence[Row], engine: str, title: str, legend: bool) -> None:
    """Measured against predicted time, in logarithms, with the line where both are equal."""
    from matplotlib.ticker import FixedLocator, NullLocator

    predictor = next(p for p in PREDICTORS if p.title == title)
    predicted = predicted_ms(table, engine, predictor)
    axes.set_title(f"{engine}: {title}", fontsize=10)
    if not predicted:
        axes.text(0.5, 0.5, "not available", ha="center", transform=axes.transAxes)
        return
    rows = [row for row in timed(table, engine) if key(row) in predicted]
    for source, color in COLORS.items():
        own = [row for row in rows if row["source"] == source]
        axes.scatter(
            [predicted[key(r)] for r in own], [r[f"{engine}_ms"] for r in own], s=12, color=color, alpha=0.75,
            linewidths=0, label=source,
        )  # fmt: skip
    values = [*predicted.values(), *(r[f"{engine}_ms"] for r in rows)]
    ends = min(values) * 0.8, max(values) * 1.25
    axes.plot(ends, ends, color="#777777", linewidth=0.8, zorder=0)
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="predicted ms", ylabel="measured ms")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator([1, 3, 10, 30, 100, 300, 1000, 3000]))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter("{x:g}")
    s = dict(scores(table, engine))[predictor]
    text = f"rank {s.spearman:.3f}\nmedian error {100 * s.median_error:.0f} %"
    axes.text(0.97, 0.04, text, ha="right", va="bottom", transform=axes.transAxes, fontsize=8.5)
    if legend:
        axes.legend(loc="upper left", fontsize=8, frameon=False, handletextpad=0.2)


def _pairs(axes: Axes, table: Sequence[Row], measured: Mapping[str, Any], engine: str, column: str, label: str) -> None:
    """The ratio of times against the ratio of a count; a point above 1 is a CSP form that is slower."""
    found = list(pairs(table, engine, least_differences(measured, engine)))
    for source, color in COLORS.items():
        for claimed in (True, False):
            own = [p for p in found if p["source"] == source and (p["verdict"] != "no difference") == claimed]
            axes.scatter(
                [p[column] for p in own], [p["time"] for p in own], s=16, color=color if claimed else "none",
                edgecolors=color, linewidths=0.9, alpha=0.85,
            )  # fmt: skip
    axes.axhline(1, color="#777777", linewidth=0.8, zorder=0)
    axes.axvline(1, color="#777777", linewidth=0.8, zorder=0)
    axes.set(xlabel=f"ratio of {label}", ylabel="ratio of times (above 1: slower)")
    both = sum((p[column] < 1) == (p["time"] < 1) for p in found)
    axes.set_title(f"{engine}: CSP form / plain network\nsame direction: {both} of {len(found)}", fontsize=10)
