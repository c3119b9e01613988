"""Answers that are drawn: the largest layers with their bars, and charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cspprof.core.record import Record
from cspprof.metrics import METRICS, value_of
from cspprof.report.chart_model import Chart
from cspprof.report.charts import draw
from cspprof.report.notes import incomplete, remarks
from cspprof.report.profile import largest, named
from cspprof.report.tables import Report


def bottleneck(profiles: Sequence[Record], metric: str, top: int) -> Report:
    """The largest layers of each model, with cumulative shares."""
    tables = [largest(p, metric, top) for p in profiles]
    models = []
    records: list[dict[str, Any]] = []
    for p, table in zip(profiles, tables, strict=True):
        listed = [
            {"path": r[0].value, "sort": r[1].value, "stage": r[2].value, "in": r[3].value, "out": r[4].value,
             metric: r[5].value, "share": r[6].value, "cumulative_share": r[7].value}
            for r in table.rows
        ]  # fmt: skip
        models.append({**named(p), "metric": metric, "total": value_of(p, metric), "layers": listed})
        records += [{**named(p), **r, "in": rows_[3].text, "out": rows_[4].text}
                    for r, rows_ in zip(listed, table.rows, strict=True)]  # fmt: skip
    notes = [note for p in profiles for note in remarks(p)]
    document = {"schema": "cspprof.bottleneck/1", "models": models}
    return Report(tables, records, document, notes, profiles, metric, _bars_of_largest(profiles, metric, top))


def _bars_of_largest(profiles: Sequence[Record], metric: str, top: int) -> list[Chart]:
    """Each model's layers as bars, where the number adds up over them and is not 0 in all."""
    if not METRICS.get(metric).additive:
        return []
    charts = [draw("bottleneck", [p], metric=metric, top=top) for p in profiles if value_of(p, metric)]
    return [replace(c, panels=tuple(p for p in c.panels if p.name != "share"), caption="") for c in charts]


def picture(chart: Chart, profiles: Sequence[Record]) -> Report:
    """A chart as the answer to a command: drawn in a terminal, and the records of what it shows."""
    notes = (*chart.notes, *(incomplete(p) for p in profiles if not p.complete))
    document = {"schema": "cspprof.chart/1", "kind": chart.kind, "title": chart.title, "caption": chart.caption,
                "records": chart.records, "notes": list(notes)}  # fmt: skip
    return Report([], chart.records, document, notes, profiles, charts=[chart])
