"""Models as points: any number against any other, and against published accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.metrics import HIGHER_IS_BETTER, METRICS, Number
from cspprof.papers.accuracy import ACCURACIES, published_accuracy
from cspprof.report.chart_model import Axis, Chart, Mark, Panel, Series
from cspprof.report.charts import chart
from cspprof.report.charts.order import inputs_of, name_of, scale

ROOM = 0.12
"""Around the points, as a part of what they span."""
DECADES = 8
"""The largest value over the least, beyond which an axis is logarithmic."""


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
    """Any number against any other, accuracy included, and the models that no other beats in both."""
    unknown = y if y in ACCURACIES else x
    points, missing = [], []
    for p in profiles:
        across, up = value_of(p, x), value_of(p, y)
        if across is None or up is None:
            missing.append(name_of(p))
        else:
            points.append((p, (across, up)))
    if len(points) < 2:
        raise CspprofError(
            f"{unknown} is known of {len(points)} of these models: there is nothing to compare",
            "Published accuracies hold for the zoo's networks at their own inputs. Take another number: --y cio_cspnet",
        )
    best = {i for i in range(len(points)) if not any(_beats(b, points[i][1], x, y) for _, b in points)}
    marks = [Mark(a, b, name_of(p), text=name_of(p), detail=inputs_of([p])) for p, (a, b) in points]
    front = sorted((marks[i] for i in best), key=lambda m: (m.x, m.y))
    series = (
        Series("not beaten in both", "points", tuple(front), 0),
        Series("beaten", "points", tuple(m for i, m in enumerate(marks) if i not in best), "muted", hollow=True),
    )
    line = Series("front", "line", tuple(Mark(m.x, m.y) for m in front), "muted")
    axes = [_axis(name, [v[i] for _, v in points]) for i, name in enumerate((x, y))]
    panel = Panel("", axes[0], axes[1], (line, *(s for s in series if s.marks)), height=2.2, name="models")
    notes = [f"not shown, {unknown} unknown: {', '.join(missing)}."] if missing else []
    caption = f"Input {inputs_of(profiles)}."
    if {x, y} & set(ACCURACIES):
        sources = dict.fromkeys(a.source for p, _ in points if (a := published_accuracy(p)))
        caption += f" Accuracy as published: {'; '.join(sources)}. Readings stand at the published network's accuracy."
    title = f"{axes[1].title} against {axes[0].title}"
    return Chart("pareto", title[0].upper() + title[1:], (panel,), caption, notes)


def value_of(record: Record, name: str) -> Number:
    """A registered number of the whole model, or its published accuracy in percent; None where nobody knows."""
    if name in ACCURACIES:
        known = published_accuracy(record)
        return getattr(known, name) if known else None
    return METRICS.get(name).total(record).value


def _beats(a: tuple[float, float], b: tuple[float, float], *names: str) -> bool:
    """Whether `a` is as good as `b` in both and better in one."""
    signs = [1 if n in ACCURACIES or n in HIGHER_IS_BETTER else -1 for n in names]
    gains = [s * (p - q) for s, p, q in zip(signs, a, b, strict=True)]
    return min(gains) >= 0 and max(gains) > 0


def _axis(name: str, values: Sequence[float]) -> Axis:
    """An axis around the values; it need not begin at 0, points have no length."""
    low, high = min(values), max(values)
    room = (high - low) * ROOM or abs(high) * ROOM or 1
    if name in ACCURACIES:
        return Axis(name, ACCURACIES[name], "%", 1, low - room, high + room)
    m = METRICS.get(name)
    divisor, unit = (1, m.unit) if m.scale > 1 else scale(high, m.unit)
    if low > 0 and high / low > DECADES:
        around = (high / low) ** ROOM
        return Axis(name, m.title, unit, divisor, low / around, high * around, log=True)
    return Axis(name, m.title, unit, divisor, max(low - room, 0), high + room)
