"""The chart `fig8`: input and output of every convolution and pool (CSPNet, Fig. 8)."""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.analysis.comparison import bound_of_change
from cspprof.analysis.headline import cio_describes_all
from cspprof.core.record import Record
from cspprof.report.chart_model import Chart, Panel, Series
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

METRIC = "cio_cspnet"


@chart("fig8", default=("resnext50", "csp_resnext50"), traced_on=(1, 3, 256, 256), models=(1, 6))
def fig8(profiles: Sequence[Record]) -> Chart:
    """Input and output elements of every convolution and pool, and their sum, the CIO."""
    models = [layer_values(p, METRIC) for p in profiles]
    x = order_axis("convolutions and pools in execution order", max(len(f.rows) for f in models))
    y = value_axis(METRIC, max(f.values[f.peak] for f in models))._replace(title="elements")
    panels, thinning = [], ""
    for f in models:
        thinned, n = thin(list(zip(f.rows, f.values, strict=True)), lambda rv: rv[1])
        thinning += thinning_note(f.profile, len(f.rows), n)
        reads, writes = [], []
        for i, (row, _) in thinned:
            read, written = row.spec.reads[0].numel, row.spec.writes[0].numel
            reads.append(layer_mark(i, row, read))
            writes.append(layer_mark(i, row, written, base=read))
        base = models[0]
        bound = bound_of_change(base.missed, f.missed)
        compared = f is not base and cio_describes_all([base.profile, f.profile])
        relative = "" if not compared else f" ({change((f.total - base.total) / base.total, None, bound).text})"
        series = (Series("input", "bars", tuple(reads), 0), Series("output", "bars", tuple(writes), 1))
        label = f.profile.label
        total = f.with_bound(_in_millions(f.total))
        title = f"{label}: CIO {total}{relative}"
        panels.append(Panel(title, x, y, series, spans=stage_spans(f.rows), name=label))
    rule = "CIO by the rule of CSPNet: convolutions and pools only."
    caption = f"Input {input_text(profiles)}. {rule}{cio_note(METRIC, profiles)}{missed_note(models)}{thinning}"
    return Chart("fig8", "Input and output of every layer", tuple(panels), caption)


def _in_millions(total: int) -> str:
    """`34.4 M elements`, as in the paper; smaller totals with their own prefix."""
    return f"{total / 1e6:,.1f} M elements" if total >= 10**6 else format_value(METRIC, total)
