"""Parquet: the records as typed columns with exact values."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cspprof.render.registry import Canvas, renderer
from cspprof.report.tables import Report

if TYPE_CHECKING:
    from pyarrow import Array

INT64 = range(-(2**63), 2**63)


@renderer(
    "parquet", ".parquet", is_own=lambda head: head.startswith(b"PAR1"), binary=True, extra=("pyarrow", "parquet")
)
def as_parquet(report: Report, canvas: Canvas) -> bytes:
    """The rows and columns of the CSV format; a field that a record lacks is null."""
    import pyarrow
    from pyarrow import parquet

    fields = list(dict.fromkeys(key for record in report.records for key in record))
    columns = {name: _column([record.get(name) for record in report.records]) for name in fields}
    out = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), out)
    return out.getvalue()


def _column(values: Sequence[Any]) -> Array:
    """A column of exact values; integers beyond 64 bits are decimals."""
    import pyarrow

    if any(isinstance(v, int) and v not in INT64 for v in values):
        return pyarrow.array(values, pyarrow.decimal128(38, 0))
    return pyarrow.array([utf8(v) if isinstance(v, str) else v for v in values])


def utf8(text: str) -> str:
    """The text; escape sequences replace halves of surrogate pairs, which UTF-8 cannot contain."""
    return text.encode(errors="backslashreplace").decode()
