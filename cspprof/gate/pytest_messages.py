"""What a test that fails says: numbers first, then the layers they come from, in lines as pytest shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from cspprof.core.units import change, distinct_texts
from cspprof.gate.checking import explained
from cspprof.gate.measurement import Measured, exact
from cspprof.gate.report import forms, source
from cspprof.gate.rules import Cause, Finding, Outcome
from cspprof.metrics import METRICS

LAYERS = 5
"""Layers that a failing test names."""


def budget_text(failed: Sequence[Finding]) -> str:
    """The failures of one assertion, the worst first, each with its layers."""
    ordered = sorted(failed, key=lambda f: -f.severity)
    return "\n".join(line for f in ordered for line in (f.message, *_layers(f)))


def mismatch_text(folder: Path, found: Measured, before: Measured, metrics: Sequence[str], file: str) -> str:
    """How a model differs from what was recorded for it; empty where none of `metrics` does."""
    differing = [m for m in metrics if found.totals[m] != before.totals[m]]
    if not differing:
        return ""
    width = max(map(len, differing))
    lines = [f"{found.name} does not match {file}: {len(differing)} of {len(metrics)} numbers differ"]
    lines += [f"  {m:{width}}  {_moved(m, found, before)}" for m in differing]
    for metric in differing:
        then, now = before.total(metric), found.total(metric)
        grew = then is None or now is None or now > then
        # Without a limit, the layers that became smaller are meant.
        limit = (then or Fraction(0)) if grew else None
        finding = Finding("", "max_increase", "error", found.name, metric, Outcome.FAILS, value=now, limit=limit)
        if layers := list(_layers(explained(folder, finding, found, before, None))):
            lines += layers
            break
    return "\n".join([*lines, "  If that is meant, record it: pytest --cspprof-update"])


def _moved(metric: str, found: Measured, before: Measured) -> str:
    now, then = (exact(side.totals[metric]) for side in (found, before))
    unit = METRICS.get(metric).unit
    if now is None or then is None:
        texts = ["–" if v is None else distinct_texts(v, v, unit)[0] for v in (now, then)]
        return f"{texts[0]}, recorded {texts[1]}"
    texts = list(distinct_texts(now, then, unit))
    return f"{texts[0]}, recorded {texts[1]} ({change(float(now / then - 1) if then else None)})"


def _layers(finding: Finding) -> Iterator[str]:
    """The first layers of a failure, under a line that says what they are."""
    shown = finding.causes[:LAYERS]
    if not shown:
        return
    compared = any(c.new or c.before is not None for c in shown)
    moved = "grew" if finding.limit is not None else "fell"
    left = len(finding.causes) - len(shown)
    more = f" ({left} more)" if left else ""
    yield f"  where {finding.metric} {moved}{more}:" if compared else f"  the layers with most {finding.metric}{more}:"
    texts = [(c.layer, _value(c, finding.unit, compared), forms(c), source(c)) for c in shown]
    widths = [max(len(t[i]) for t in texts) for i in range(2)]
    for layer, value, form, place in texts:
        yield f"    {layer:{widths[0]}}  {value:>{widths[1]}}  {form}" + (f"  [{place}]" if place else "")


def _value(cause: Cause, unit: str, compared: bool) -> str:
    value = distinct_texts(cause.value, cause.value, unit)[0]
    if not compared:
        return value
    if cause.new:
        return f"{value} (new)"
    step = distinct_texts(cause.difference, cause.difference, unit)[0]
    return f"{value} ({'+' if cause.difference > 0 else ''}{step})"
