"""The text of a failed assertion: the values, then the layers that cause the failure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cspprof.core.printable import printable, printable_lines
from cspprof.core.units import change
from cspprof.gate.baseline import TotalChange
from cspprof.gate.causes import Cause, find_causes
from cspprof.gate.measurement import Measurement
from cspprof.gate.report import change_texts, metric_unit, operation_change, signed_text, source_location, value_text
from cspprof.gate.rules import RuleResult

LAYERS = 5
"""The number of layers that a failure lists."""


def budget_text(failures: Sequence[RuleResult]) -> str:
    """The failures of one assertion, the worst first, each with its causes."""
    lines = []
    for r in sorted(failures, key=lambda r: -r.severity):
        lines += [r.message, *_cause_lines(r.metric, r.unit, r.causes, decreased=r.limit is None)]
    return "\n".join(map(printable, lines))


def mismatch_text(
    folder: Path, measurement: Measurement, recorded: Measurement, metrics: Sequence[str], file: str
) -> str:
    """The differences from the recorded measurement in `metrics`; empty if there are none."""
    differing = [metric for metric in metrics if measurement.totals[metric] != recorded.totals[metric]]
    if not differing:
        return ""
    width = max(map(len, differing))
    lines = [f"{measurement.name} does not match {file}: {len(differing)} of {len(metrics)} numbers differ"]
    lines += [f"  {metric:{width}}  {_difference(metric, measurement, recorded)}" for metric in differing]
    for metric in differing:
        before, now = recorded.total(metric), measurement.total(metric)
        decreased = before is not None and now is not None and now < before
        causes = find_causes(folder, metric, measurement, recorded, None, decreased=decreased)
        if causes:
            lines += _cause_lines(metric, metric_unit(metric), causes, decreased)
            break
    return printable_lines("\n".join([*lines, "  To record the new numbers: pytest --cspprof-update"]))


def _difference(metric: str, measurement: Measurement, recorded: Measurement) -> str:
    before, now = (side.totals[metric].exact for side in (recorded, measurement))
    old, new = change_texts(TotalChange("", metric, recorded.totals[metric], measurement.totals[metric]))
    if metric == "peak_bytes" and measurement.peak_path:
        new = f"{new} at {measurement.peak_path}"
    if before is None or now is None:
        return f"{new}, recorded {old}"
    return f"{new}, recorded {old} ({change(float(now / before - 1) if before else None)})"


def _cause_lines(metric: str, unit: str, causes: Sequence[Cause], decreased: bool) -> Iterator[str]:
    first = causes[:LAYERS]
    if not first:
        return
    compared = any(c.new or c.before is not None for c in first)
    more = f" ({len(causes) - LAYERS} more)" if len(causes) > LAYERS else ""
    title = f"where {metric} {'decreased' if decreased else 'increased'}" if compared else f"layers with most {metric}"
    yield f"  {title}{more}:"
    rows = [(c.layer, _value(c, unit, compared), operation_change(c), source_location(c)) for c in first]
    layer_width, value_width = (max(len(row[i]) for row in rows) for i in range(2))
    for layer, value, operation, place in rows:
        yield f"    {layer:{layer_width}}  {value:>{value_width}}  {operation}" + (f"  [{place}]" if place else "")


def _value(cause: Cause, unit: str, compared: bool) -> str:
    value = value_text(cause.value, unit)
    if not compared:
        return value
    return f"{value} (new)" if cause.new else f"{value} ({signed_text(cause.difference, unit)})"
