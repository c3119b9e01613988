"""A page in which the candidates of a sweep are explored: any two numbers, any part of the axes."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

from cspprof.core.printable import printable, without_controls
from cspprof.metrics import METRICS
from cspprof.papers.accuracy import ACCURACIES
from cspprof.report.charts.pareto import is_maximized
from cspprof.sweeps.candidate import Row
from cspprof.sweeps.front import Front, Rows, axis_text, label
from cspprof.sweeps.report import notes, number_label

TEMPLATE = Path(__file__).with_name("explorer.html")
MOST_ROWS = 5000
"""Candidates on a page. Of more, those of the front and every n-th other one are shown."""


def explorer_page(rows: Rows, front: Front, traced: int) -> str:
    """The page, which needs no network and no other file."""
    known = front.count - sum(front.failures.values())
    best = {row.key for row in front.optimal}
    step = max(1, -(-known // MOST_ROWS))
    fine = (row for row in rows() if row.status == "ok")
    shown = [row for i, row in enumerate(fine) if i % step == 0 or row.key in best]
    names = [name for name in (*METRICS.names(), *ACCURACIES) if any(name in row.values for row in shown)]
    axes = list(front.axes)
    more = [f"{known - len(shown):,} dominated candidates are not on this page."] if len(shown) < known else []
    data: dict[str, Any] = {
        "title": "Pareto-optimal: " + ", ".join(map(str, front.objectives)),
        "notes": [printable(note) for note in (*notes(front, traced), *more)],
        "objectives": [o.name for o in islice(front.objectives, 2)],
        "numbers": [{"name": n, "title": number_label(n), "maximized": is_maximized(n)} for n in names],
        "axes": axes,
        "rows": [_entry(row, axes, names) for row in shown],
    }
    text = without_controls(json.dumps(data, ensure_ascii=False)).replace("<", "\\u003c")
    return TEMPLATE.read_text(encoding="utf-8").replace("{{ data }}", text)


def _entry(row: Row, axes: list[str], names: list[str]) -> dict[str, Any]:
    choices = [printable(axis_text(row.axes.get(axis, "–"))) for axis in axes]
    return {
        "name": printable(label(row)), "input": row.input, "axes": choices,
        "values": [row.values.get(name) for name in names], "bounds": [n for n in row.at_least if n in names],
    }  # fmt: skip
