"""JSON and CSV, with exact values."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from cspprof.render.registry import Canvas, renderer
from cspprof.report.tables import Report


@renderer("json", ".json")
def as_json(report: Report, canvas: Canvas) -> str:
    document = report.document() if callable(report.document) else report.document
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@renderer("csv", ".csv")
def as_csv(report: Report, canvas: Canvas) -> str:
    return csv_text(report.records)


def csv_text(records: Sequence[dict[str, Any]]) -> str:
    """Records as CSV, with one column per field; a field that a record lacks is empty."""
    out = io.StringIO()
    fields = list(dict.fromkeys(key for record in records for key in record))
    writer = csv.DictWriter(out, fields, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue()
