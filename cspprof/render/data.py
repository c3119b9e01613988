"""JSON and CSV: exact values, no formatting."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from cspprof.render import Canvas, renderer
from cspprof.report.tables import Report


@renderer("json", ".json")
def as_json(report: Report, canvas: Canvas) -> str:
    document = report.document() if callable(report.document) else report.document
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@renderer("csv", ".csv")
def as_csv(report: Report, canvas: Canvas) -> str:
    """The records; a column that only some of them have is empty in the others."""
    return table_of(report.records)


def table_of(records: Sequence[dict[str, Any]]) -> str:
    """Records as CSV, a column for every field that one of them has."""
    out = io.StringIO()
    fields = list(dict.fromkeys(key for record in records for key in record))
    writer = csv.DictWriter(out, fields, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue()
