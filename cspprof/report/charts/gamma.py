"""The chart of `convert` with several γ or fusions: what each conversion costs, and the best one.

It is not a kind of `cspprof plot`, because it shows conversions of one model instead of models.
"""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.analysis.constraints import Constraint
from cspprof.core.record import Record
from cspprof.csp.conversion.plan import FUSIONS
from cspprof.report.chart_model import Axis, Chart, Mark, Panel, ReferenceLine, Series
from cspprof.report.charts.execution_order import input_text
from cspprof.report.charts.pareto import axis_around, metric_or_accuracy
from cspprof.report.metric_labels import metric_label

MOST_PANELS = 4
Point = tuple[float, str, Record]
"""γ, the fusion, and the converted network."""


def gamma_chart(
    plain: Record, points: Sequence[Point], best: int | None, minimized: str, constraints: Sequence[Constraint] = ()
) -> Chart:
    """The minimized metric, the constrained ones and MACs against γ, with a line for each fusion.

    `best` is the index of the best point. A point that misses a constraint is hollow.
    """
    metrics = list(dict.fromkeys([minimized, *(c.metric for c in constraints), "macs"]))[:MOST_PANELS]
    gammas = [gamma for gamma, _, _ in points]
    margin = (max(gammas) - min(gammas)) * 0.08 or 0.05
    x = Axis("gamma", "γ, the bypassed fraction", low=min(gammas) - margin, high=max(gammas) + margin)
    panels = tuple(
        panel for metric in metrics if (panel := _panel(metric, x, plain, points, best, constraints)) is not None
    )
    where = f" with {' and '.join(map(str, constraints))}" if constraints else ""
    caption = f"Input {input_text([plain])}. Best: least {minimized}{where}."
    if any(not c.holds(record) for c in constraints for _, _, record in points):
        caption += " Hollow: a constraint is not met."
    return Chart("gamma", f"Conversions of {plain.label}", panels, caption)


def _panel(
    metric: str, x: Axis, plain: Record, points: Sequence[Point], best: int | None, constraints: Sequence[Constraint]
) -> Panel | None:
    """One metric against γ; None if it is not known for any conversion."""
    lines, dots = [], []
    for i, fusion in enumerate(FUSIONS):
        marks = [
            (Mark(gamma, value, f"{fusion} γ={gamma:g}"), any(not c.holds(record) for c in constraints))
            for gamma, of, record in points
            if of == fusion and (value := metric_or_accuracy(record, metric)) is not None
        ]
        meeting, missing = (tuple(m for m, misses in marks if misses is side) for side in (False, True))
        if len(marks) > 1:
            lines.append(Series("", "line", tuple(m for m, _ in marks), i))
        if meeting:
            dots.append(Series(f"fusion {fusion}", "points", meeting, i))
        if missing:
            dots.append(Series("" if meeting else f"fusion {fusion}", "points", missing, i, hollow=True))
    if not dots:
        return None
    if best is not None:
        gamma, fusion, record = points[best]
        text = f"best: {fusion}, γ = {gamma:g}"
        value = metric_or_accuracy(record, metric)
        dots += [Series("", "points", (Mark(gamma, value, text, text=text),), "strong", hollow=True)] if value else []
    references = [
        ReferenceLine(float(c.limit.value), f"limit {c.limit.text}", color="more", name=str(c))
        for c in constraints if c.metric == metric
    ]  # fmt: skip
    whole = metric_or_accuracy(plain, metric)
    if whole is not None:
        references.append(ReferenceLine(whole, "", name="plain"))
    values = [m.y for s in dots for m in s.marks] + [line.value for line in references]
    y = axis_around(metric, values)
    title = metric_label(metric).partition(" [")[0]
    if whole is not None:  # in the title, because beside the line it would cover points
        title += f"; dashed: plain network, {y.format(whole)}"
    return Panel(title, x, y, (*lines, *dots), tuple(references), height=1.3, name=metric)
