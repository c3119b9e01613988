"""Live memory over the execution order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cspprof.analysis.layer_rows import layer_rows
from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.core.units import nbytes
from cspprof.metrics.memory import live_bytes
from cspprof.report.chart_model import Chart, Line, Mark, Panel, Series
from cspprof.report.charts import chart
from cspprof.report.charts.order import (
    describe,
    inputs_of,
    name_of,
    order_axis,
    stage_spans,
    thinned,
    thinning,
    value_axis,
)


@chart("memory", default=("resnext50", "csp_resnext50"), models=(1, 6))
def memory(profiles: Sequence[Record]) -> Chart:
    """Activation memory alive while each operation runs, and where it is most."""
    found = [
        [(r, alive[r.index]) for r in layer_rows(p)]
        for p, alive in zip(profiles, map(live_bytes, profiles), strict=True)
    ]
    for p, live in zip(profiles, found, strict=True):
        if not any(held for _, held in live):
            raise CspprofError(f"{p.model} holds no activations: there is nothing to draw", "Take another model.")
    y = value_axis("peak_bytes", max(held for live in found for _, held in live))
    y = replace(y, name="live_bytes", title="live memory")
    x = order_axis("operations in execution order", max(map(len, found)))
    panels, peaks, thinned_to = [], [], ""
    for i, (p, live) in enumerate(zip(profiles, found, strict=True)):
        chosen, n = thinned(live, lambda rh: rh[1])
        thinned_to += thinning(p, len(live), n)
        steps = tuple(Mark(at + 1, held, r.path, stage=r.stage, detail=describe(r)) for at, (r, held) in chosen)
        row, most = max(live, key=lambda rh: rh[1])
        peaks.append(f"{name_of(p)} at {row.path}")
        panels.append(
            Panel(name_of(p), x, y, (Series("live memory", "steps", steps, i),),
                  (Line(most, f"peak {nbytes(most)}", tone=i, name="peak"),), stage_spans([r for r, _ in live]))
        )  # fmt: skip
    caption = (
        f"Input {inputs_of(profiles)}. Activations only, each from its writer to its last reader. "
        f"Peaks: {', '.join(peaks)}.{thinned_to}"
    )
    return Chart("memory", "Live memory", tuple(panels), caption)
