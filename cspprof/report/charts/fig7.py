"""The chart `fig7`: BFLOPs of every layer and the peak of each model (CSPNet, Fig. 7)."""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.analysis.comparison import bound_of_change
from cspprof.core.record import Record
from cspprof.metrics import METRICS
from cspprof.report.chart_model import Chart, Panel, ReferenceLine, Series
from cspprof.report.charts.execution_order import (
    cio_note,
    format_value,
    input_text,
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
from cspprof.report.tables import change

MOST_CHANGES = 3
"""Panels that show their changes from all panels before them, as in the paper."""


@chart("fig7", default=("peleenet_yolo", "peleenet_prn", "csp_peleenet_efm"), traced_on=(1, 3, 416, 416), models=(1, 6))
def fig7(profiles: Sequence[Record], *, metric: str = "bflops") -> Chart:
    """BFLOPs of every layer, the peak of each model, and its change from the peaks of the models before it.

    Of more than `MOST_CHANGES` models, only the change from the first one.
    """
    models = [layer_values(p, metric) for p in profiles]
    peaks = [f.values[f.peak] for f in models]
    x = order_axis("layers in execution order", max(len(f.rows) for f in models))
    y = value_axis(metric, max(peaks))
    panels, thinning = [], ""
    for i, (f, peak) in enumerate(zip(models, peaks, strict=True)):
        thinned, n = thin(list(zip(f.rows, f.values, strict=True)), lambda rv: rv[1])
        thinning += thinning_note(f.profile, len(f.rows), n)
        bars = tuple(layer_mark(at, row, value) for at, (row, value) in thinned)
        before = list(zip(models, peaks, strict=True))[: i if len(models) <= MOST_CHANGES else min(i, 1)]
        changes = "".join(
            f"\n{change((peak - value) / value, None, bound_of_change(e.missed, f.missed)).text} from {e.profile.label}"
            for e, value in before
        )
        lines = [
            ReferenceLine(value, "", color=j, name=f"peak of {e.profile.label}") for j, (e, value) in enumerate(before)
        ]
        label = f.profile.label
        own_line = ReferenceLine(
            peak, f"peak {f.with_bound(format_value(metric, peak))}{changes}", color=i, name=f"peak of {label}"
        )  # fmt: skip
        panels.append(
            Panel(f"{label}: {f.total_text}", x, y, (Series("layers", "bars", bars, color=i),),
                  (*lines, own_line), stage_spans(f.rows), name=label)
        )  # fmt: skip
    layers = ", ".join(f"{f.profile.label} at {f.peak_text}" for f in models)
    caption = (
        f"Input {input_text(profiles)}. Peaks: {layers}.{cio_note(metric, profiles)}{missed_note(models)}{thinning}"
    )
    title = METRICS.get(metric).title
    return Chart("fig7", f"{title[0].upper()}{title[1:]} of every layer", tuple(panels), caption)
