"""The front of a sweep as a report: its table, its chart and the JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cspprof.core import units
from cspprof.metrics import METRICS
from cspprof.papers.accuracy import ACCURACIES
from cspprof.report.chart_model import Chart, Mark
from cspprof.report.charts.pareto import pareto_panel, pareto_title
from cspprof.report.metric_labels import metric_label
from cspprof.report.tables import UNKNOWN, Cell, Column, Report, Table, at_least, quantity, text
from cspprof.sweeps.candidate import Row
from cspprof.sweeps.front import Front, axes_of, axis_text, label

SCHEMA = "cspprof.sweep/1"
MOST_FAILURES = 8
"""Reasons of failures that the notes list, the most frequent first."""
ROW_FIELDS = ("model", "status", "input", "at_least", "error", "seconds", "origin", "versions")
"""Columns of CSV and Parquet that are neither an axis nor a number."""
MOST_NAMES = 12
"""Optimal points up to which a chart shows their names."""


def front_report(front: Front, metrics: Sequence[str], traced: int, more: Sequence[str] = ()) -> Report:
    """The Pareto-optimal candidates with their axes and numbers. `traced` is the number of rows made in this run;
    `more` are further notes."""
    names = list(dict.fromkeys([*(o.name for o in front.objectives), *(c.metric for c in front.constraints), *metrics]))
    axes = axes_of(front.optimal)
    specs = len({row.spec.partition(",")[0] for row in front.optimal}) > 1 or not axes
    columns = [Column("model", shortens=True)] if specs else []
    columns += [Column(axis) for axis in axes]
    columns += [Column(number_label(name), True) for name in names]
    rows = [_cells(row, specs, axes, names) for row in front.optimal]
    records = [record(row, axes, names) for row in front.optimal]
    title = "Pareto-optimal: " + ", ".join(map(str, front.objectives))
    tables = [Table(title, columns, rows)] if rows else []
    charts = [chart] if (chart := front_chart(front)) else []
    return Report(tables, records, lambda: document(front, traced), [*notes(front, traced), *more], charts=charts)


def _cells(row: Row, specs: bool, axes: Sequence[str], names: Sequence[str]) -> list[Cell]:
    cells = [text(row.spec)] if specs else []
    cells += [Cell(row.axes.get(axis), axis_text(row.axes.get(axis, "–"))) for axis in axes]
    return cells + [_number(row, name) for name in names]


def _number(row: Row, name: str) -> Cell:
    value = row.values.get(name)
    if value is None:
        return UNKNOWN
    if name in ACCURACIES:
        return Cell(value, f"{value:.1f} %")
    cell = quantity(name, value)
    return at_least(cell) if name in row.at_least else cell


def number_label(name: str) -> str:
    """The title of a metric or an accuracy."""
    return ACCURACIES.get(name) or metric_label(name)


def record(row: Row, axes: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """A row as a record for CSV and Parquet, always with the same fields."""
    fields: dict[str, Any] = {"model": row.spec, "status": row.status, "input": row.input}
    for axis in axes:
        value = row.axes.get(axis)
        fields[axis_field(axis, names)] = axis_text(value) if isinstance(value, (list, tuple)) else value
    return fields | {name: row.values.get(name) for name in names}


def axis_field(axis: str, names: Sequence[str]) -> str:
    """The column of an axis in CSV and Parquet, which differs from every other column."""
    return f"axis_{axis}" if axis in (*ROW_FIELDS, *names) else axis


def notes(front: Front, traced: int) -> list[str]:
    """Notes on traced and remembered candidates, on failures, and on candidates outside the front."""
    remembered = front.count - traced
    lines = [f"{units.counted(front.count, 'candidate')}: {traced:,} traced, {remembered:,} remembered."]
    if front.unmet:
        held = " and ".join(map(str, front.constraints))
        lines.append(f"{units.counted(front.unmet, 'candidate')} not shown: {held} does not hold.")
    if front.nearest is not None:
        values = ", ".join(f"{c.metric} {_number(front.nearest, c.metric).text}" for c in front.constraints)
        lines.append(f"No candidate meets the constraints. The nearest is {label(front.nearest)}: {values}.")
    if front.unknown:
        lines.append(f"{units.counted(front.unknown, 'candidate')} not shown: an objective is unknown.")
    if front.repeated:
        rows = units.counted(front.repeated, "row")
        lines.append(f"{rows} of candidates that have another one: see the column versions of -o rows.csv")
    for (status, error), times in front.failures.most_common(MOST_FAILURES):
        lines.append(f"{units.counted(times, 'candidate')} without numbers ({status}): {error.splitlines()[0]}")
    rest = len(front.failures) - MOST_FAILURES
    if rest > 0:
        lines.append(f"{units.counted(rest, 'other reason')}: see the column error of -o rows.csv")
    return lines


def front_chart(front: Front) -> Chart | None:
    """The candidates in the first two objectives; None if there is only one, or no candidate."""
    if len(front.objectives) < 2 or not front.optimal:
        return None
    x, y = (o.name for o in front.objectives[:2])
    named = len(front.optimal) <= MOST_NAMES
    marks = [
        Mark(row.values[x], row.values[y], label(row), text=label(row) if named else "", detail=row.input)
        for row in front.optimal
    ]
    marks += [Mark(point.values[0], point.values[1], point.label) for point in front.dominated]
    panel = pareto_panel(marks, range(len(front.optimal)), x, y)
    hidden = front.count - front.unmet - front.unknown - sum(front.failures.values()) - len(marks)
    more = [f"{hidden:,} dominated candidates are not drawn."] if hidden > 0 else []
    return Chart("pareto", pareto_title(panel), (panel,), f"{front.count:,} candidates.", more)


def document(front: Front, traced: int) -> dict[str, Any]:
    """The JSON document of a sweep."""
    names = METRICS.names()
    return {
        "schema": SCHEMA,
        "objectives": [{"name": o.name, "maximized": o.maximized} for o in front.objectives],
        "constraints": [str(c) for c in front.constraints],
        "candidates": front.count,
        "traced": traced,
        "unmet": front.unmet,
        "unknown": front.unknown,
        "failures": [
            {"status": status, "error": error, "count": n} for (status, error), n in front.failures.most_common()
        ],
        "front": [
            {
                "model": row.spec, "axes": dict(row.axes), "input": row.input,
                "metrics": {name: row.values.get(name) for name in names},
                "accuracy": {name: row.values[name] for name in ACCURACIES if name in row.values},
                "at_least": list(row.at_least), "versions": row.versions,
            }
            for row in front.optimal
        ],
    }  # fmt: skip
