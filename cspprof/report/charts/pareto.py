"""The chart `pareto`: models as points, one metric or published accuracy against another."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cspprof.analysis.pareto import pareto_optimal
from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.metrics import HIGHER_IS_BETTER, METRICS, Number
from cspprof.papers.accuracy import ACCURACIES, published_accuracy
from cspprof.report.chart_model import Axis, Chart, Mark, Panel, Series
from cspprof.report.charts.execution_order import input_text, prefixed_unit
from cspprof.report.charts.registry import chart
from cspprof.report.metric_labels import cio_remark

MARGIN = 0.12
"""The space around the points, relative to their range."""
LOG_RATIO = 8
"""The ratio of the largest to the smallest value above which an axis is logarithmic."""


@chart(
    "pareto",
    default=(
        "resnet10", "darknet_ref", "mobilenet_v2_darknet", "csp_mobilenet_v2", "efficientnet_b0_darknet", "peleenet",
        "csp_peleenet", "sparse_peleenet", "resnet50", "csp_resnet50", "resnext50", "csp_resnext50", "darknet53",
        "csp_darknet53",
    ),
    models=(2, 60),
)  # fmt: skip
def pareto(profiles: Sequence[Record], *, x: str = "bflops", y: str = "top1") -> Chart:
    """One metric or published accuracy against another, and the Pareto-optimal models."""
    unknown = y if y in ACCURACIES else x
    points, missing = [], []
    for p in profiles:
        across, up = metric_or_accuracy(p, x), metric_or_accuracy(p, y)
        if across is None or up is None:
            unknown = x if across is None else y
            missing.append(p.label)
        else:
            points.append((p, (across, up)))
    if len(points) < 2:
        raise CspprofError(
            f"{unknown} is known for {len(points)} of these models, so there is nothing to compare",
            "Published accuracies exist for zoo networks at their native inputs. Choose another metric: --y cio_cspnet",
        )
    marks = [
        Mark(a, b, p.label, text=p.label + "".join({cio_remark(m, [p]) for m in (x, y)}), detail=input_text([p]))
        for p, (a, b) in points
    ]
    panel = pareto_panel(marks, pareto_optimal([v for _, v in points], [is_maximized(x), is_maximized(y)]), x, y)
    notes = [f"not shown, {unknown} unknown: {', '.join(missing)}."] if missing else []
    caption = f"Input {input_text(profiles)}."
    if {x, y} & set(ACCURACIES):
        sources = dict.fromkeys(a.source for p, _ in points if (a := published_accuracy(p)))
        caption += f" Published accuracy: {'; '.join(sources)}. A reading has the accuracy of the published network."
    return Chart("pareto", pareto_title(panel), (panel,), caption, notes)


def pareto_title(panel: Panel) -> str:
    """`Top-1 accuracy against BFLOPs`."""
    title = f"{panel.y.title} against {panel.x.title}"
    return title[0].upper() + title[1:]


def pareto_panel(marks: Sequence[Mark], optimal: Collection[int], x: str, y: str) -> Panel:
    """Points of the metrics or accuracies `x` and `y`; those with an index in `optimal` make the front."""
    optimal = set(optimal)
    front = sorted((marks[i] for i in optimal), key=lambda m: (m.x, m.y))
    dominated = tuple(m for i, m in enumerate(marks) if i not in optimal)
    series = (
        Series("Pareto-optimal", "points", tuple(front), 0),
        Series("dominated", "points", dominated, "muted", hollow=True),
    )
    line = Series("front", "line", tuple(Mark(m.x, m.y) for m in front) if len(front) > 1 else (), "muted")
    axes = [axis_around(x, [m.x for m in marks]), axis_around(y, [m.y for m in marks])]
    return Panel("", axes[0], axes[1], tuple(s for s in (line, *series) if s.marks), height=2.2, name="models")


def is_maximized(name: str) -> bool:
    """Whether a larger value of the metric or accuracy is better."""
    return name in ACCURACIES or name in HIGHER_IS_BETTER


def metric_or_accuracy(record: Record, name: str) -> Number:
    """The total of a metric, or the published accuracy in percent; None if unknown, or only a lower bound."""
    if name in ACCURACIES:
        accuracy = published_accuracy(record)
        return getattr(accuracy, name) if accuracy else None
    amount = METRICS.get(name).total(record)
    return None if amount.missed else amount.value


def axis_around(name: str, values: Sequence[float]) -> Axis:
    """An axis around the values; unlike an axis of bars, it does not start at 0."""
    low, high = min(values), max(values)
    margin = (high - low) * MARGIN or abs(high) * MARGIN or 1
    if name in ACCURACIES:
        return Axis(name, ACCURACIES[name], "%", 1, low - margin, high + margin)
    m = METRICS.get(name)
    divisor, unit = (1, m.unit) if m.scale > 1 else prefixed_unit(high, m.unit)
    if low > 0 and high / low > LOG_RATIO:
        factor = (high / low) ** MARGIN
        return Axis(name, m.title, unit, divisor, low / factor, high * factor, log=True)
    return Axis(name, m.title, unit, divisor, max(low - margin, 0), high + margin)
