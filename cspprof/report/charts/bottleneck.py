"""The chart `bottleneck`: every layer in execution order, the cumulative share, and the largest layers by name."""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.metrics import METRICS
from cspprof.report.chart_model import Axis, Chart, Mark, Panel, Series
from cspprof.report.charts.execution_order import (
    LayerValues,
    cio_note,
    input_text,
    layer_detail,
    layer_mark,
    layer_values,
    missed_note,
    order_axis,
    stage_spans,
    thin,
    thinning_note,
    value_axis,
)
from cspprof.report.charts.registry import chart


@chart("bottleneck", default=("csp_darknet53",), models=(1, 1))
def bottleneck(profiles: Sequence[Record], *, metric: str = "macs", top: int = 10) -> Chart:
    """Every layer over the stages of the model, the cumulative share, and the largest layers by name."""
    (profile,) = profiles
    if top < 1:
        raise CspprofError(f"top={top} shows no layer", "Show at least one: top=10")
    layers = layer_values(profile, metric)
    m = METRICS.get(metric)
    largest = sorted(range(len(layers.values)), key=lambda i: (-layers.values[i], i))[:top]
    thinned, n = thin(list(zip(layers.rows, layers.values, strict=True)), lambda rv: rv[1])
    bars = [layer_mark(i, row, value) for i, (row, value) in thinned]
    least = layers.values[largest[-1]]
    highlighted = {i + 1 for i, value in enumerate(layers.values) if value >= least}
    x = order_axis("layers in execution order", len(layers.rows))
    y = value_axis(metric, layers.values[layers.peak])
    series = (
        Series(f"largest {len(highlighted)}", "bars", tuple(b for b in bars if b.x in highlighted), color=1),
        Series("others", "bars", tuple(b for b in bars if b.x not in highlighted), color=0),
    )
    spans = stage_spans(layers.rows)
    share_name = f"of known {m.title}" if layers.missed else f"cumulative {m.title}"
    share_axis = Axis("share_so_far", share_name, "%", 0.01, 0, 1)
    title = f"{profile.label}: {layers.total_text}"
    panels = (
        Panel(title, x, y, tuple(s for s in series if s.marks), spans=spans, name="layers"),
        Panel("", x, share_axis, (Series("cumulative share", "steps", _cumulative_shares(layers, n), 2),), spans=spans,
              height=0.7, name="share"),
        _largest_panel(layers, largest, y),
    )  # fmt: skip
    part = layers.share_text(layers.values[layers.peak])
    each = " each" if layers.values.count(layers.values[layers.peak]) > 1 else ""
    caption = f"Input {input_text(profiles)}. Largest layer: {layers.peak_text}, {part} of {m.title}{each}."
    caption += f" {note}" if (note := ties_note(layers, top)) else ""
    caption += cio_note(metric, profiles) + missed_note([layers]) + thinning_note(profile, len(layers.rows), n)
    return Chart("bottleneck", f"Largest layers by {m.title}", panels, caption)


def _cumulative_shares(layers: LayerValues, n: int) -> tuple[Mark, ...]:
    """The share of all layers up to every n-th one."""
    marks, cumulative = [], 0
    for i, (row, value) in enumerate(zip(layers.rows, layers.values, strict=True)):
        cumulative += value
        if (i + 1) % n == 0 or i + 1 == len(layers.rows):
            marks.append(Mark(i + 1, cumulative / layers.total, row.path, stage=row.stage))
    return tuple(marks)


def _largest_panel(layers: LayerValues, largest: Sequence[int], y: Axis) -> Panel:
    """The largest layers as horizontal bars, with their share and the cumulative share."""
    marks, cumulative = [], 0
    for place, i in enumerate(largest):
        row, value = layers.rows[i], layers.values[i]
        cumulative += value
        text = f"{layers.share_text(value)}, so far {layers.share_text(cumulative)}"
        marks.append(Mark(place + 1, value, row.path, stage=row.stage, detail=layer_detail(row), text=text))
    x = Axis("place", "", low=0.5, high=len(marks) + 0.5, tick_labels=tuple((m.x, m.label) for m in marks))
    return Panel(f"Largest {len(marks)}", x, y, (Series("largest", "bars", tuple(marks), 1),), horizontal=True,
                 height=0.1 + len(marks) * 0.12, name="largest")  # fmt: skip


def ties_note(layers: LayerValues, top: int) -> str:
    """A sentence if the list of the `top` largest layers leaves out layers that equal its last one; else empty."""
    values = sorted(layers.values, reverse=True)
    least = values[:top][-1]
    listed, equal = values[:top].count(least), values.count(least)
    if equal == listed:
        return ""
    return f"{'Listed' if listed == top else 'Listed last'}: {listed:,} of {equal:,} equal layers."
