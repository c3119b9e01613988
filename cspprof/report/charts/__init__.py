"""One file per chart: a registered function from records to a `Chart`.

To add a chart, write a file here with a function `(profiles, *, options) -> Chart` and decorate it with
`registry.chart`. Its keyword arguments are the options of `cspprof plot KIND` and `cspprof.plot(kind, …)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from cspprof.core.record import Record
from cspprof.metrics.names import resolve_metric
from cspprof.report.chart_model import Chart
from cspprof.report.charts.registry import CHARTS
from cspprof.report.notes import cio_notes, incomplete_note
from cspprof.report.tables import Report

__all__ = ["CHARTS", "chart_report", "draw"]


def draw(kind: str, profiles: Sequence[Record], **options: Any) -> Chart:
    """The chart `kind` of `profiles`. Raises CspprofError if it cannot show these models."""
    entry = CHARTS.get(kind)
    entry.check(len(profiles), options)
    options |= {name: resolve_metric(options[name]) for name in ("metric", "x", "y") if name in options}
    return entry.function(profiles, **options)


def chart_report(chart: Chart, profiles: Sequence[Record]) -> Report:
    """The report of `plot`: a chart for the terminal, and its data for the other formats."""
    notes = [*chart.notes, *(incomplete_note(p) for p in profiles if not p.complete)]
    notes += cio_notes(profiles)
    document = {"schema": "cspprof.chart/1", "kind": chart.kind, "title": chart.title, "caption": chart.caption,
                "records": chart.records, "notes": notes}  # fmt: skip
    return Report([], chart.records, document, notes, profiles, charts=[chart])


for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
