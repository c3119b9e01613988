"""What every renderer takes: tables of cells that hold the raw value beside the text that people read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from cspprof.core import units
from cspprof.core.record import Record
from cspprof.metrics import METRICS, Number

if TYPE_CHECKING:
    from cspprof.report.chart_model import Chart


@dataclass(frozen=True, slots=True)
class Formula:
    """The value of a cell that is an expression: a line of text, and LaTeX source for whoever can set it."""

    text: str
    latex: str


class Cell(NamedTuple):
    """A value and how it reads. `good` says whether a change is for the better; None where that is no question."""

    value: Any
    text: str
    good: bool | None = None


class Column(NamedTuple):
    """A heading, and whether numbers stand under it."""

    header: str
    numeric: bool = False


class Table(NamedTuple):
    """Rows of cells under columns."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Report:
    """The answer to one command, in every form: tables for people, records for CSV, a document for JSON."""

    tables: Sequence[Table]
    records: Sequence[dict[str, Any]]
    document: dict[str, Any] | Callable[[], dict[str, Any]]
    """Or what makes it: most of it nobody but JSON shows."""
    notes: Sequence[str] = field(default_factory=tuple)
    profiles: Sequence[Record] = field(default_factory=tuple)
    """The models that it is about, for formats that show the network itself."""
    focus: str = "macs"
    """The number that it is about, for formats that colour by one."""
    charts: Sequence[Chart] = field(default_factory=tuple)
    """What is drawn below the tables, where the format can draw."""

    @property
    def written(self) -> Sequence[Table]:
        """The tables; where there are none, what the charts show: for formats that write and do not draw."""
        return self.tables or [_listed(c) for c in self.charts]


def _listed(chart: Chart) -> Table:
    """A row for every mark and line of a chart."""
    fields = dict.fromkeys(key for record in chart.records for key in record)
    numeric = [all(isinstance(r.get(f, 0), (int, float)) for r in chart.records) for f in fields]
    columns = [Column(f.replace("_", " "), n) for f, n in zip(fields, numeric, strict=True)]
    return Table(chart.title, columns, [[_told(record.get(f)) for f in fields] for record in chart.records])


def _told(value: Any) -> Cell:
    if value is None:
        return Cell(None, "")
    if isinstance(value, str):
        return text(value)
    return Cell(value, units.count(value) if isinstance(value, int) else units.significant(value, 6))


def text(value: str) -> Cell:
    return Cell(value, value)


def integer(n: int | None) -> Cell:
    return Cell(None, "?") if n is None else Cell(n, units.count(n))


def shapes(tensors: Sequence[Any]) -> Cell:
    """`1×64×56×56, 1×64×56×56`."""
    return Cell([list(t.shape) for t in tensors], ", ".join(units.shape(t.shape) for t in tensors))


def share(part: float, whole: float) -> Cell:
    return Cell(part / whole, units.share(part / whole)) if whole else Cell(None, "–")


def change(relative: float | None, lower_is_better: bool | None = True) -> Cell:
    good = None
    if relative and lower_is_better is not None:
        good = (relative < 0) == lower_is_better
    return Cell(relative, units.change(relative), good)


def difference(n: int) -> Cell:
    sign = "+" if n > 0 else ""
    return Cell(n, sign + units.count(n), (n < 0) if n else None)


def quantity(metric: str, value: Number) -> Cell:
    """A registered number's value in its own unit."""
    if value is None:
        return Cell(None, "–")
    unit = METRICS.get(metric).unit
    if unit == "bytes":
        return Cell(value, units.nbytes(int(value)))
    if unit == "fraction":
        return Cell(value, units.share(value))
    return Cell(value, units.count(value) if isinstance(value, int) else units.decimal(value))
