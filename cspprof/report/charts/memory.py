"""The chart `memory`: live activation memory over the execution order."""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.analysis.layer_rows import layer_rows
from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.core.units import nbytes
from cspprof.metrics.memory import live_bytes
from cspprof.metrics.training_memory import DEFAULT_OPTIMIZER
from cspprof.report.chart_model import Chart, Mark, Panel, ReferenceLine, Series
from cspprof.report.charts.execution_order import (
    input_text,
    layer_detail,
    order_axis,
    stage_spans,
    thin,
    thinning_note,
    value_axis,
    with_equal,
)
from cspprof.report.charts.registry import chart
from cspprof.report.charts.training_memory import training_chart


@chart("memory", default=("resnext50", "csp_resnext50"), models=(1, 6))
def memory(profiles: Sequence[Record], *, training: bool = False, optimizer: str | None = None) -> Chart:
    """Activation memory that is live while each operation runs, and its peak; with --training all memory of a step."""
    if training:
        return training_chart(profiles, optimizer or DEFAULT_OPTIMIZER)
    if optimizer is not None:
        raise CspprofError("--optimizer needs --training", f"Write: --training --optimizer {optimizer}")
    models = [
        [(r, live[r.index]) for r in layer_rows(p)] for p, live in zip(profiles, map(live_bytes, profiles), strict=True)
    ]
    for p, operations in zip(profiles, models, strict=True):
        if not any(live for _, live in operations):
            raise CspprofError(f"{p.model} has no live activations, so the chart is empty", "Choose another model.")
    largest = max(live for operations in models for _, live in operations)
    x = order_axis("operations in execution order", max(map(len, models)))
    y = value_axis("peak_bytes", largest)._replace(name="live_bytes", title="live memory")
    panels, peaks, thinning = [], [], ""
    for i, (p, operations) in enumerate(zip(profiles, models, strict=True)):
        thinned, n = thin(operations, lambda row_and_bytes: row_and_bytes[1])
        thinning += thinning_note(p, len(operations), n)
        steps = tuple(Mark(at + 1, live, r.path, stage=r.stage, detail=layer_detail(r)) for at, (r, live) in thinned)
        row, peak = max(operations, key=lambda row_and_bytes: row_and_bytes[1])
        peaks.append(f"{p.label} at {with_equal(row.path, [live for _, live in operations])}")
        line = ReferenceLine(peak, f"peak {nbytes(peak)}", color=i, name="peak")
        spans = stage_spans([r for r, _ in operations])
        panels.append(Panel(p.label, x, y, (Series("live memory", "steps", steps, i),), (line,), spans))
    caption = (
        f"Input {input_text(profiles)}. Activations only, each from the operation that writes it to the last one that "
        f"reads it. Peaks: {', '.join(peaks)}.{thinning}"
    )
    return Chart("memory", "Live memory", tuple(panels), caption)
