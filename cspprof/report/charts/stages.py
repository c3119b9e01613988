"""The chart `stages`: a waterfall of the change from one model to another, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.analysis.comparison import Comparison, Contribution, Delta, check_additive
from cspprof.analysis.headline import headline
from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.core.units import MINUS, significant
from cspprof.metrics import METRICS
from cspprof.report.chart_model import Axis, Chart, Mark, Panel, ReferenceLine, Series
from cspprof.report.charts.execution_order import HEADROOM, cio_note, input_text, prefixed_unit
from cspprof.report.charts.registry import chart
from cspprof.report.tables import change_of, total

BAR_WIDTH = 0.72
ADDITIVE = ("macs", "params", "cio_cspnet", "traffic_bytes")
"""Metrics that an error suggests."""


@chart("stages", default=("resnext50", "csp_resnext50"), models=(2, 5))
def stages(profiles: Sequence[Record], *, metric: str | None = None) -> Chart:
    """A waterfall: the change from the first model, stage by stage, up to the total change.

    The metric is by default `cio_cspnet`, or `traffic_bytes` if CIO does not describe a model.
    """
    metric = metric or headline(profiles)
    check_additive(metric)
    comparison = Comparison(tuple(profiles))
    m = METRICS.get(metric)
    others = range(len(comparison.others))
    contributions = [comparison.by_stage(metric, i) for i in others]
    if not any(c.difference for by_stage in contributions for c in by_stage):
        other = [n for n in ADDITIVE if any(c.difference for i in others for c in comparison.by_stage(n, i))]
        raise CspprofError(
            f"no stage differs in {m.title}, so the chart is empty",
            f"Metrics in which they differ: --metric {' or '.join(other)}" if other else "Compare other models.",
        )
    waterfalls = [_waterfall(by_stage) for by_stage in contributions]
    ends = [v for bars in waterfalls for mark in bars for v in (mark.base, mark.base + mark.y)]
    low, high = min(ends), max(ends)
    margin = (high - low) * (HEADROOM - 1)
    divisor, unit = prefixed_unit(max(-low, high), m.unit)
    base = comparison.base.label
    y = Axis(metric, "change", unit, divisor, low - (low < 0) * margin, high + margin)
    panels = []
    for p, bars in zip(comparison.others, waterfalls, strict=True):
        delta = Delta.of(comparison.base, p, metric)
        title = f"{base} to {p.label}: {change_of(delta).text}"
        x = Axis("step", "", low=0.4, high=len(bars) + 0.6, tick_labels=tuple((k.x, k.label) for k in bars))
        zero = ReferenceLine(0, "", name=base)
        panels.append(Panel(title, x, y, _series_by_sign(bars, y), (zero,), name=p.label, legend=False))
    caption = (
        f"Input {input_text(profiles)}. 0 is the {m.title} of {base}, {total(metric, m.total(comparison.base)).text}; "
        f"the last bar is the total change.{cio_note(metric, profiles)}"
    )
    missed = [f"{n:,} of {p.label}" for p in profiles if (n := m.total(p).missed)]
    if missed:
        caption += f" It leaves out operations whose value is unknown ({', '.join(missed)})."
    return Chart("stages", f"Where the change in {m.title} comes from", tuple(panels), caption, comparison.notes)


def _waterfall(contributions: Sequence[Contribution]) -> tuple[Mark, ...]:
    """One bar per stage, which starts at the end of the bar before it, and one for the total, which starts at 0."""
    marks, total = [], 0
    for i, c in enumerate(contributions):
        marks.append(Mark(i + 1, c.difference, c.name, base=total, width=BAR_WIDTH, stage=c.name,
                          detail=f"{c.base or 0:,} -> {c.value or 0:,}"))  # fmt: skip
        total += c.difference
    return (*marks, Mark(len(marks) + 1, total, "total", width=BAR_WIDTH))


def _series_by_sign(marks: Sequence[Mark], y: Axis) -> tuple[Series, ...]:
    def annotated(mark: Mark) -> Mark:
        sign = "+" if mark.y > 0 else MINUS if mark.y < 0 else ""
        return mark._replace(text=sign + significant(abs(mark.y) / y.divisor))

    *parts, total = map(annotated, marks)
    series = (
        Series("less", "bars", tuple(k for k in parts if k.y < 0), "less"),
        Series("more", "bars", tuple(k for k in parts if k.y > 0), "more"),
        Series("unchanged", "bars", tuple(k for k in parts if k.y == 0), "muted"),
        Series("total", "bars", (total,), "strong"),
    )
    return tuple(s for s in series if s.marks)
