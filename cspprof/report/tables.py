"""The report that every renderer takes: tables of cells, each with its exact value and its text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from cspprof.core import units
from cspprof.core.printable import printable
from cspprof.core.record import Record
from cspprof.metrics import METRICS, Amount, Number, Ratio

if TYPE_CHECKING:
    from cspprof.analysis.comparison import Bound, Delta
    from cspprof.report.chart_model import Chart


@dataclass(frozen=True, slots=True)
class Formula:
    """The value of a cell that contains an expression: one line of text, and LaTeX source."""

    text: str
    latex: str


class Cell(NamedTuple):
    """A value and its text. `good` is True for an improvement or a success, False for the opposite, None otherwise."""

    value: Any
    text: str
    good: bool | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A heading, whether the cells below it are numbers, and what a narrow terminal can do without."""

    header: str
    numeric: bool = False
    priority: int = 0
    """0: the column is always there. Of the others, those with the smallest numbers get a place first, and
    those with the same number together."""
    name: str = ""
    """The name in `--columns`; empty if the table has no such choice."""
    shortens: bool = False
    """Whether its names, such as paths of layers, can be shortened. In a column of numbers, that is its heading."""


class Table(NamedTuple):
    """Rows of cells under columns."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    label: str = ""
    """The label for references in LaTeX: `tab:complexity`."""


class PageSection(NamedTuple):
    """A section of the HTML page: what the page does not compute from the models, such as measured times."""

    title: str
    tables: Sequence[Table]

    def printable(self) -> PageSection:
        return self._replace(tables=[_printable_table(table) for table in self.tables])


@dataclass(frozen=True, slots=True)
class Report:
    """The output of one command: tables for people, records for CSV, a document for JSON."""

    tables: Sequence[Table]
    records: Sequence[dict[str, Any]]
    document: dict[str, Any] | Callable[[], dict[str, Any]]
    """The JSON document, or a function that makes it: it is large, and only the JSON format needs it."""
    notes: Sequence[str] = field(default_factory=tuple)
    profiles: Sequence[Record] = field(default_factory=tuple)
    """The models, for formats that show the network itself."""
    focus: str = "macs"
    """The main metric, for formats that color layers by one metric."""
    charts: Sequence[Chart] = field(default_factory=tuple)
    """Charts below the tables, for formats that can draw."""
    hints: Sequence[str] = field(default_factory=tuple)
    """Commands that a reader at a terminal can type next."""
    section: PageSection | None = None
    """Tables that the HTML page shows beside what it computes from the models."""
    paper: Report | None = None
    """The report that LaTeX and Markdown show in place of this one."""

    def printable(self) -> Report:
        """The report with the names in it on one line each. Names come from files and modules. The document, which
        JSON escapes by itself, stays as it is."""
        return replace(
            self,
            tables=[_printable_table(table) for table in self.tables],
            notes=[printable(note) for note in self.notes],
            hints=[printable(hint) for hint in self.hints],
            charts=[chart.printable() for chart in self.charts],
            section=self.section and self.section.printable(),
            paper=self.paper and self.paper.printable(),
        )

    @property
    def tables_or_chart_data(self) -> Sequence[Table]:
        """The tables; if there are none, the data of the charts. For formats that cannot draw."""
        return self.tables or [_data_table(c) for c in self.charts]


def _printable_table(table: Table) -> Table:
    columns = [replace(column, header=printable(column.header)) for column in table.columns]
    rows = [[cell._replace(text=printable(cell.text)) for cell in row] for row in table.rows]
    return table._replace(title=printable(table.title), columns=columns, rows=rows)


def _data_table(chart: Chart) -> Table:
    """One row per mark and reference line of a chart."""
    fields = dict.fromkeys(key for record in chart.records for key in record)
    numeric = [all(isinstance(r.get(f, 0), (int, float)) for r in chart.records) for f in fields]
    columns = [Column(f.replace("_", " "), n) for f, n in zip(fields, numeric, strict=True)]
    return Table(chart.title, columns, [[_data_cell(record.get(f)) for f in fields] for record in chart.records])


def _data_cell(value: Any) -> Cell:
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


UNKNOWN = Cell(None, "?")
"""A value of which nothing is known."""


def share(part: float, whole: float, missed_in_part: int = 0, missed_in_whole: int = 0) -> Cell:
    """A part of a whole: `≤` if only the whole misses operations, `?` if the part does."""
    if missed_in_part:
        return UNKNOWN
    if not whole:
        return UNKNOWN if missed_in_whole else Cell(None, "–")
    return Cell(part / whole, ("≤ " if missed_in_whole and part else "") + units.share(part / whole))


def change(relative: float | None, lower_is_better: bool | None = True, bound: Bound = "") -> Cell:
    """A relative change, of which `bound` says whether it is exact. It is good or bad only if that is certain."""
    if bound == "?":
        return UNKNOWN
    text = f"{bound} {units.change(relative)}".strip()
    return Cell(relative, text, _good(relative, bound, lower_is_better))


def change_of(delta: Delta, lower_is_better: bool | None = True) -> Cell:
    """The relative change of a metric; of a percentage, the difference in percentage points."""
    if delta.base_value is None or delta.value is None:
        return UNKNOWN if delta.base_missed or delta.missed else Cell(None, "–")
    if METRICS.get(delta.metric).unit == "fraction" and delta.bound != "?":
        step = delta.value - delta.base_value
        return Cell(step, f"{delta.bound} {units.points(step)}".strip(), _good(step, delta.bound, lower_is_better))
    return change(delta.relative, lower_is_better, delta.bound)


def difference(metric: str, n: int, bound: Bound = "", lower_is_better: bool | None = True) -> Cell:
    """A signed difference in a metric. It is good or bad only if that is certain."""
    if bound == "?":
        return UNKNOWN
    sign = "+" if n > 0 else ""
    return Cell(n, f"{bound} {sign}{quantity(metric, n).text}".strip(), _good(n, bound, lower_is_better))


def _good(change: float | None, bound: Bound, lower_is_better: bool | None) -> bool | None:
    certain = (
        not bound
        or (bound == "≥" and change is not None and change > 0)
        or (bound == "≤" and change is not None and change < 0)
    )
    return (change < 0) == lower_is_better if change and certain and lower_is_better is not None else None


def total(metric: str, amount: Amount) -> Cell:
    """The total of a model: `≥ 1,234` if it misses operations, `?` for a ratio that does."""
    if not amount.missed:
        return quantity(metric, amount.value)
    return UNKNOWN if isinstance(amount, Ratio) else at_least(quantity(metric, amount.value))


def part(metric: str, amount: Amount | None) -> Cell:
    """The value of some operations of a model: as a total, but `?` if nothing of it is known."""
    if amount is None:
        return Cell(None, "–")
    return UNKNOWN if amount.missed and not amount.value else total(metric, amount)


def at_least(cell: Cell) -> Cell:
    """A lower bound: `≥ 1,234`."""
    return cell._replace(text=f"≥ {cell.text}")


def quantity(metric: str, value: Number) -> Cell:
    """The value of a registered metric in the metric's unit."""
    if value is None:
        return Cell(None, "–")
    unit = METRICS.get(metric).unit
    if unit == "bytes":
        return Cell(value, units.nbytes(int(value)))
    if unit == "fraction":
        return Cell(value, units.share(value))
    return Cell(value, units.count(value) if isinstance(value, int) else units.decimal(value))


def sort_key(value: Number, ascending: bool) -> tuple[bool, int | float]:
    """The key that sorts values largest first or smallest first, and a missing value last."""
    return value is None, (value or 0) if ascending else -(value or 0)
