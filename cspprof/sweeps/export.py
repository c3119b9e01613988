"""All rows of a sweep as CSV or Parquet, written piece by piece: a journal may have millions of rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

from cspprof.core.files import replacing
from cspprof.metrics import METRICS
from cspprof.papers.accuracy import ACCURACIES
from cspprof.render.json_csv import csv_value
from cspprof.render.parquet import utf8
from cspprof.sweeps.candidate import Row
from cspprof.sweeps.front import PIECE, Rows, axis_text
from cspprof.sweeps.report import axis_field

INT64 = range(-(2**63), 2**63)
Columns = dict[str, list[Any]]
"""The values of each column, for some rows."""


def export_rows(rows: Rows, axes: Sequence[str], traced: Collection[bytes], path: Path) -> None:
    """Write all rows to a `.csv` or `.parquet` file. If writing fails, an existing file keeps its content.

    Raises OutputError.
    """

    def pieces() -> Iterator[Columns]:
        remaining = rows()
        while piece := list(islice(remaining, PIECE)):
            yield _columns(piece, axes, traced)

    with replacing(path) as file:
        if path.suffix == ".parquet":
            _write_parquet(pieces, file)
        else:
            _write_csv(pieces, file)


def _columns(rows: Sequence[Row], axes: Sequence[str], traced: Collection[bytes]) -> Columns:
    return number_columns(rows, axes) | {
        "at_least": [" ".join(row.at_least) for row in rows],
        "error": [row.error for row in rows],
        "seconds": [row.seconds for row in rows],
        "origin": ["traced" if row.key in traced else "remembered" for row in rows],
        "versions": [row.versions for row in rows],
    }


def number_columns(rows: Sequence[Row], axes: Sequence[str]) -> Columns:
    """The model, the axes and all numbers of the rows, with the names of `record`."""
    names = [*METRICS.names(), *ACCURACIES]
    columns: Columns = {
        "model": [row.spec for row in rows],
        "status": [row.status for row in rows],
        "input": [row.input for row in rows],
    }
    for axis in axes:
        values = [row.axes.get(axis) for row in rows]
        columns[axis_field(axis, names)] = [axis_text(v) if isinstance(v, (list, tuple)) else v for v in values]
    return columns | {name: [row.values.get(name) for row in rows] for name in names}


def _write_csv(pieces: Callable[[], Iterator[Columns]], file: IO[bytes]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    for i, columns in enumerate(pieces()):
        if i == 0:
            writer.writerow(map(csv_value, columns))
        writer.writerows(zip(*(map(csv_value, values) for values in columns.values()), strict=True))
    text.detach()


def _write_parquet(pieces: Callable[[], Iterator[Columns]], file: IO[bytes]) -> None:
    """Each column has the narrowest type that holds all its values exactly; an axis of mixed types is text.

    The types are those of the first piece of the rows. If a later one does not fit, the file is written again.
    """
    kinds: dict[str, set[Any]] = {}
    while not _fits(pieces(), kinds, file):
        file.seek(0)
        file.truncate()


def _fits(pieces: Iterator[Columns], kinds: dict[str, set[Any]], file: IO[bytes]) -> bool:
    """Write the pieces; False as soon as one does not fit the types of those before it. `kinds` collects the types."""
    import pyarrow
    from pyarrow import parquet

    writer = None
    try:
        for columns in pieces:
            for name, values in columns.items():
                kinds.setdefault(name, set()).update(_kinds(values))
            schema = pyarrow.schema([(name, _type(name, kinds[name])) for name in columns])
            if writer is None:
                writer = parquet.ParquetWriter(file, schema)
            elif schema != writer.schema:
                return False
            arrays = [_array(columns[column.name], column.type) for column in schema]
            writer.write_table(pyarrow.table(arrays, schema=schema))
    finally:
        if writer is not None:
            writer.close()
    return True


def _kinds(values: list[Any]) -> set[Any]:
    """The types of the values, where an integer beyond 64 bits is "big"."""
    kinds: set[Any] = set(map(type, values)) - {type(None)}
    integers = [v for v in values if type(v) is int] if int in kinds else [0]
    return kinds if min(integers) in INT64 and max(integers) in INT64 else kinds | {"big"}


def _type(name: str, kinds: set[Any]) -> Any:
    import pyarrow

    if not kinds and name in (*METRICS.names(), *ACCURACIES):
        kinds = {float if name in ACCURACIES else int}
    if kinds == {int}:
        return pyarrow.int64()
    if kinds and kinds <= {int, "big"}:
        return pyarrow.decimal128(38, 0)
    return pyarrow.float64() if kinds and kinds <= {int, float} else pyarrow.string()


def _array(values: list[Any], kind: Any) -> Any:
    import pyarrow

    if kind == pyarrow.string():
        values = [None if v is None else utf8(str(v)) for v in values]
    return pyarrow.array(values, kind)
