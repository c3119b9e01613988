"""All rows of a sweep as CSV or Parquet, written piece by piece: a journal may have millions of rows."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any

from cspprof.core.errors import OutputError
from cspprof.metrics import METRICS
from cspprof.papers.accuracy import ACCURACIES
from cspprof.sweeps.front import Rows, axes_of
from cspprof.sweeps.report import record

PIECE = 20_000
"""Rows that are held in memory at once."""
INT64 = range(-(2**63), 2**63)


def export_rows(rows: Rows, traced: set[bytes], path: Path) -> None:
    """Write all rows to a `.csv` or `.parquet` file. If writing fails, an existing file keeps its content.

    Raises OutputError.
    """
    with _replacing(path) as file:
        if path.suffix == ".parquet":
            _write_parquet(rows, traced, file)
        else:
            _write_csv(rows, traced, file)


def _records(rows: Rows, traced: set[bytes]) -> Iterator[dict[str, Any]]:
    """The rows as records that all have the same fields."""
    axes = axes_of(rows())
    names = [*METRICS.names(), *ACCURACIES]
    for row in rows():
        yield record(row, axes, names) | {
            "at_least": " ".join(row.at_least), "error": row.error, "seconds": row.seconds,
            "origin": "traced" if row.key in traced else "remembered", "versions": row.versions,
        }  # fmt: skip


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that replaces `path` when it is complete. Raises OutputError."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}", "Give another file with -o.") from None


def _write_csv(rows: Rows, traced: set[bytes], file: IO[bytes]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer: csv.DictWriter[str] | None = None
    for fields in _records(rows, traced):
        if writer is None:
            writer = csv.DictWriter(text, list(fields), lineterminator="\n", restval="")
            writer.writeheader()
        writer.writerow(fields)
    text.detach()


def _write_parquet(rows: Rows, traced: set[bytes], file: IO[bytes]) -> None:
    """Each column has the narrowest type that holds all its values exactly; an axis of mixed types is text."""
    import pyarrow
    from pyarrow import parquet

    kinds: dict[str, set[Any]] = {}
    for fields in _records(rows, traced):
        for name, value in fields.items():
            kinds.setdefault(name, set()).add(_kind(value))
    schema = pyarrow.schema([(name, _type(kinds[name] - {type(None)})) for name in kinds])
    records = _records(rows, traced)
    with parquet.ParquetWriter(file, schema) as writer:
        while piece := list(islice(records, PIECE)):
            columns = [_column([r[column.name] for r in piece], column.type) for column in schema]
            writer.write_table(pyarrow.table(columns, schema=schema))


def _kind(value: Any) -> Any:
    return "big" if type(value) is int and value not in INT64 else type(value)


def _type(kinds: set[Any]) -> Any:
    import pyarrow

    if kinds == {int}:
        return pyarrow.int64()
    if kinds and kinds <= {int, "big"}:
        return pyarrow.decimal128(38, 0)
    return pyarrow.float64() if kinds and kinds <= {int, float} else pyarrow.string()


def _column(values: list[Any], kind: Any) -> Any:
    import pyarrow

    if kind == pyarrow.string():
        values = [None if v is None else str(v) for v in values]
    return pyarrow.array(values, kind)
