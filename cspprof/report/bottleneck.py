"""The report of `bottleneck`: the largest layers of each model as a table and as bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cspprof.core.record import Record
from cspprof.metrics import METRICS, lower_bounds, value_of
from cspprof.report.chart_model import Chart
from cspprof.report.charts import draw
from cspprof.report.charts.bottleneck import ties_note
from cspprof.report.charts.execution_order import layer_values
from cspprof.report.layer_tables import largest_layers
from cspprof.report.metric_labels import at_least_field, model_fields
from cspprof.report.notes import model_notes
from cspprof.report.tables import Report


def bottleneck_report(profiles: Sequence[Record], metric: str, top: int, ascending: bool = False) -> Report:
    """The largest layers of each model, or the smallest ones, with cumulative shares."""
    tables = [largest_layers(p, metric, top, ascending) for p in profiles]
    models = []
    records: list[dict[str, Any]] = []
    for p, table in zip(profiles, tables, strict=True):
        layers = [
            {"path": row[0].value, "kind": row[1].value, "sort": row[1].value, "stage": row[2].value,
             "in": row[3].value, "out": row[4].value, metric: row[5].value, "share": row[6].value,
             "cumulative_share": row[7].value if len(row) > 7 else None}
            for row in table.rows
        ]  # fmt: skip
        models.append({
            **model_fields(p), "metric": metric, "total": value_of(p, metric),
            "at_least": bool(lower_bounds(p, [metric])), "conv_share": value_of(p, "conv_share"), "layers": layers,
        })  # fmt: skip
        records += [{**model_fields(p), **layer, "in": row[3].text, "out": row[4].text,
                     **at_least_field(lower_bounds(p, [metric]))}
                    for layer, row in zip(layers, table.rows, strict=True)]  # fmt: skip
    notes = [note for p in profiles for note in model_notes(p)]
    document = {"schema": "cspprof.bottleneck/1", "models": models}
    bars = [] if ascending else _layer_bars(profiles, metric, top)
    return Report(tables, records, document, notes, profiles, metric, bars)


def _layer_bars(profiles: Sequence[Record], metric: str, top: int) -> list[Chart]:
    """The layers of each model as bars, for a metric that is a sum over layers and not 0 in all of them."""
    if not METRICS.get(metric).additive:
        return []
    charts = [
        (draw("bottleneck", [p], metric=metric, top=top), ties_note(layer_values(p, metric), top))
        for p in profiles
        if value_of(p, metric)
    ]
    return [replace(c, panels=tuple(p for p in c.panels if p.name != "share"), caption=ties) for c, ties in charts]
