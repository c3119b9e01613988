"""Metrics for charts of a project's history: Bencher, and the action github-action-benchmark."""

from __future__ import annotations

import json

from cspprof.core.printable import printable
from cspprof.gate.checking import Verdict
from cspprof.gate.formats.registry import verdict_format
from cspprof.gate.report import json_number
from cspprof.metrics import HIGHER_IS_BETTER, METRICS, NEITHER_IS_BETTER


def _values(verdict: Verdict) -> dict[str, dict[str, int | float]]:
    """The totals of each model. Metrics without a value are left out, and lower bounds: a chart would show them as
    values."""
    return {
        printable(name): {
            metric: v for metric, a in m.totals.items() if not a.missed and (v := json_number(a.exact)) is not None
        }
        for name, m in verdict.measurements.items()
    }


@verdict_format("bencher", own=r'\A(\{\}|\{\n "[^"]+": \{(\}|\n  "[^"]+": \{\n   "value": ))')
def as_bencher(verdict: Verdict) -> str:
    """Bencher Metric Format: a benchmark for each model, a measure for each metric."""
    document = {
        model: {metric: {"value": value} for metric, value in values.items()}
        for model, values in _values(verdict).items()
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


@verdict_format("github-action-benchmark", own=r'\A(\[\]|\[\n \{\n  "name": )')
def as_action_benchmark(verdict: Verdict) -> str:
    """Input of its tool `customSmallerIsBetter`; other metrics are left out."""
    entries = [
        {"name": f"{model} {metric}", "unit": METRICS.get(metric).unit, "value": value}
        for model, values in _values(verdict).items()
        for metric, value in values.items()
        if metric not in HIGHER_IS_BETTER | NEITHER_IS_BETTER
    ]
    return json.dumps(entries, indent=1, ensure_ascii=False) + "\n"
