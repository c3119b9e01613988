"""JSON and CSV: exact values, no formatting."""

from __future__ import annotations

import csv
import io
import json

from cspprof.render import Canvas, renderer
from cspprof.tables import Report


@renderer("json", ".json")
def as_json(report: Report, canvas: Canvas) -> str:
    return json.dumps(report.document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@renderer("csv", ".csv")
def as_csv(report: Report, canvas: Canvas) -> str:
    """The records; a column that only some of them have is empty in the others."""
    out = io.StringIO()
    fields = list(dict.fromkeys(key for record in report.records for key in record))
    writer = csv.DictWriter(out, fields, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(report.records)
    return out.getvalue()
