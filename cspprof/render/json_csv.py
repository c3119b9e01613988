"""JSON and CSV, with exact values."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from typing import Any

from cspprof.core.printable import printable
from cspprof.render.registry import Canvas, renderer
from cspprof.report.tables import Report


@renderer("json", ".json", is_own=lambda head: head.startswith(b'{\n  "schema": "cspprof.'))
def as_json(report: Report, canvas: Canvas) -> str:
    document = report.document() if callable(report.document) else report.document
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


FORMULA = re.compile("[=+\\-@\uff1d\uff0b\uff0d\uff20]")
"""The start of a text that a spreadsheet computes as a formula."""
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?%?")

CSV_COLUMNS = (
    "model,status,", "model,input", "panel,series,", "form,", "name,takes,", "name,family,", "name,title,",
    "name,unit,", "name,stands_for,", "name,tool,", "name,definition,", "layer,path,", "network,default,",
    "folder,profiles,", "engine,model,", "rule,level,", "path,class,", "table,title,",
    "line,network,",
)  # fmt: skip
"""The first columns of the CSV files of all commands."""


def is_own_csv(head: bytes) -> bool:
    """Whether the file has the first columns of an output of cspprof."""
    return head.startswith(tuple(columns.encode() for columns in CSV_COLUMNS)) or not head.strip()


@renderer("csv", ".csv", is_own=is_own_csv)
def as_csv(report: Report, canvas: Canvas) -> str:
    return csv_text(report.records)


def csv_text(records: Sequence[dict[str, Any]]) -> str:
    """Records as CSV, with one column per field and one line per record; a field that a record lacks is empty."""
    out = io.StringIO()
    fields = list(dict.fromkeys(key for record in records for key in record))
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(csv_value, fields))
    writer.writerows([csv_value(record.get(field, "")) for field in fields] for record in records)
    return out.getvalue()


def csv_value(value: Any) -> Any:
    """A value as CSV shows it: text on one line and, if a spreadsheet would compute it, with `'` before it.

    Numbers stay numbers, negative ones too.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text
