"""Where a difference between two models comes from."""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.analysis.comparison import Comparison, Contribution, check_additive
from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.core.units import MINUS, change, significant
from cspprof.metrics import METRICS, value_of
from cspprof.report.chart_model import Axis, Chart, Line, Mark, Panel, Series
from cspprof.report.charts import chart
from cspprof.report.charts.order import HEADROOM, inputs_of, name_of, scale


@chart("stages", default=("resnext50", "csp_resnext50"), models=(2, 5))
def stages(profiles: Sequence[Record], *, metric: str = "cio_cspnet") -> Chart:
    """A waterfall: the change from the first model, stage by stage, to the whole difference."""
    check_additive(metric)
    comparison = Comparison(tuple(profiles))
    m = METRICS.get(metric)
    parts = [comparison.by_stage(metric, i) for i in range(len(comparison.others))]
    if not any(c.difference for found in parts for c in found):
        raise CspprofError(
            f"no stage differs in {m.title}: there is nothing to draw", "Take another number: --metric macs"
        )
    steps = [_steps(found) for found in parts]
    reached = [v for found in steps for mark in found for v in (mark.base, mark.base + mark.y)]
    low, high = min(reached), max(reached)
    room = (high - low) * (HEADROOM - 1)
    divisor, unit = scale(max(-low, high), m.unit)
    base = name_of(comparison.base)
    y = Axis(metric, "change", unit, divisor, low - (low < 0) * room, high + room)
    panels = []
    for p, marks in zip(comparison.others, steps, strict=True):
        before, after = value_of(comparison.base, metric), value_of(p, metric)
        title = f"{base} to {name_of(p)}: {change((after - before) / before if before else None)}"
        x = Axis("step", "", low=0.4, high=len(marks) + 0.6, ticks=tuple((k.x, k.label) for k in marks))
        panels.append(Panel(title, x, y, _by_sign(marks, y), (Line(0, "", name=base),), name=name_of(p), legend=False))
    caption = (
        f"Input {inputs_of(profiles)}. 0 is {base}'s {m.title}, {value_of(comparison.base, metric):,}; the last bar is the "
        "whole difference."
    )
    return Chart("stages", f"Where the change in {m.title} comes from", tuple(panels), caption, comparison.notes)


def _steps(parts: Sequence[Contribution]) -> tuple[Mark, ...]:
    """A bar from where the one before ended for every stage, and one for the whole, from 0."""
    marks, reached = [], 0
    for i, c in enumerate(parts):
        marks.append(Mark(i + 1, c.difference, c.name, base=reached, width=0.72, stage=c.name,
                          detail=f"{c.base or 0:,} -> {c.value or 0:,}"))  # fmt: skip
        reached += c.difference
    return (*marks, Mark(len(marks) + 1, reached, "total", width=0.72))


def _by_sign(marks: Sequence[Mark], y: Axis) -> tuple[Series, ...]:
    def told(mark: Mark) -> Mark:
        sign = "+" if mark.y > 0 else MINUS if mark.y < 0 else ""
        text = sign + significant(abs(mark.y) / y.divisor)
        return Mark(mark.x, mark.y, mark.label, mark.base, mark.width, stage=mark.stage, detail=mark.detail, text=text)

    *parts, whole = map(told, marks)
    series = (
        Series("less", "bars", tuple(k for k in parts if k.y < 0), "less"),
        Series("more", "bars", tuple(k for k in parts if k.y > 0), "more"),
        Series("unchanged", "bars", tuple(k for k in parts if k.y == 0), "muted"),
        Series("total", "bars", (whole,), "strong"),
    )
    return tuple(s for s in series if s.marks)
