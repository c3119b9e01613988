"""Parquet: the records as columns, exact and typed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cspprof.render import Canvas, renderer
from cspprof.report.tables import Report

if TYPE_CHECKING:
    from pyarrow import Array

INT64 = range(-(2**63), 2**63)


@renderer("parquet", ".parquet", binary=True, extra=("pyarrow", "parquet"))
def as_parquet(report: Report, canvas: Canvas) -> bytes:
    """The same rows and columns as of CSV; what a record does not have is null."""
    import pyarrow
    from pyarrow import parquet

    fields = list(dict.fromkeys(key for record in report.records for key in record))
    columns = {name: _column([record.get(name) for record in report.records]) for name in fields}
    out = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), out)
    return out.getvalue()


def _column(values: Sequence[Any]) -> Array:
    """Integers stay exact: those past 64 bits are decimals."""
    import pyarrow

    if any(isinstance(v, int) and v not in INT64 for v in values):
        return pyarrow.array(values, pyarrow.decimal128(38, 0))
    return pyarrow.array(values)
