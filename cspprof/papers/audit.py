"""The audit of a paper's table: the rule under which each printed number comes out, and what does not fit together.

A number *comes out* under a rule if the exact value, rounded or truncated to the printed digits, is the printed one.
Several rules can explain a number. The audit prefers the rule that explains most of the column at the stated input
sizes, then the same rule at another size, then any other rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

from cspprof.core.record import Record
from cspprof.papers.counting_rules import CountingRule, rules_of
from cspprof.papers.paper_table import Column, PaperTable, PrintedCell, PrintedUnit, Quantity, Row
from cspprof.papers.printed_value import Agreement

Size = tuple[int, ...]
"""Height and width of an input."""
COMMON_SIZES: list[Size] = [(n, n) for n in (224, 256, 288, 320, 384, 416, 512, 608, 640)]
"""Sizes that papers use. They are tried after the likely ones."""


class Outcome(StrEnum):
    """The verdict on one printed number."""

    EXACT = "exact to the printed digit"
    TRUNCATED = "truncated in print"
    NOT_EXPLAINED = "not explained"
    UNKNOWN = "unknown"
    """The network has operations without a rule, so the number cannot be computed."""


class Convention(NamedTuple):
    """A rule, and whether units of bytes are powers of 1024."""

    rule: str
    binary: bool = False


OUTCOMES: dict[Agreement | None, Outcome] = {
    "exact": Outcome.EXACT,
    "truncated": Outcome.TRUNCATED,
    None: Outcome.NOT_EXPLAINED,
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A printed number as one rule computes it at one input size."""

    rule: CountingRule
    rank: int
    """The place of the rule in the order of `rules_of`."""
    size: Size
    stated: bool
    """Whether it is the size that the table states."""
    unit: PrintedUnit
    """The unit in which the number is read: a printed `MB` can be MiB."""
    value: Fraction
    """In that unit."""
    agreement: Agreement | None
    difference: Fraction
    """The value minus the printed one, as a fraction of the printed one."""

    @property
    def convention(self) -> Convention:
        """The properties that all numbers of one column should share."""
        return Convention(self.rule.name, self.unit.binary)


@dataclass(frozen=True, slots=True)
class TracedRow:
    """A row of the table with the records of its network."""

    row: Row
    record: Record
    """At the stated input."""
    native: Record | None = None
    """At the network's own input; None if it has none."""
    others: Mapping[Size, Record] = field(default_factory=dict)
    """At other sizes."""

    @property
    def size(self) -> Size:
        """Height and width of the stated input; the whole shape if it is no batch of images."""
        return size_of(self.record)


@dataclass(frozen=True, slots=True)
class CellResult:
    """A printed number, and the rule under which it comes out."""

    cell: PrintedCell
    best: Candidate | None
    """The rule that explains it, else the nearest one; None if no rule has a value."""
    others: tuple[Candidate, ...]
    """Further rules under which it comes out at the same size."""
    complete: bool
    """Whether every operation of the network on which the number depends has a rule."""
    convention: Convention | None
    """The rule and unit that explain most of the column; None if nothing explains any of it."""
    by_convention: Candidate | None
    """The number by the rule of the column at the stated size, if it does not come out."""

    @property
    def outcome(self) -> Outcome:
        if self.best is None or (self.best.agreement is None and not self.complete):
            return Outcome.UNKNOWN
        return OUTCOMES[self.best.agreement]

    @property
    def explained(self) -> Candidate | None:
        """The rule under which the number comes out; None if it does not."""
        return self.best if self.best is not None and self.best.agreement is not None else None

    @property
    def follows_column(self) -> bool:
        """Whether the number comes out under the rule that explains most of its column."""
        return self.explained is not None and self.explained.convention == self.convention


@dataclass(frozen=True)
class RowResult:
    """A row of the table: its cells, and whether they fit together."""

    traced: TracedRow
    cells: tuple[CellResult, ...]

    @cached_property
    def sizes(self) -> list[Size]:
        """The input sizes at which the numbers that depend on it come out, each once."""
        found = [c.explained for c in self.cells if c.explained]
        return list(dict.fromkeys(candidate.size for candidate in found if candidate.rule.of_input))

    @property
    def other_size(self) -> Size | None:
        """The size at which all such numbers come out, if it is not the stated one."""
        return self.sizes[0] if len(self.sizes) == 1 and self.sizes[0] != self.traced.size else None

    @property
    def other_rules(self) -> list[CellResult]:
        """The cells that come out under another rule than most of their columns."""
        return [c for c in self.cells if c.explained and not c.follows_column]

    @property
    def mixed(self) -> bool:
        """Whether its cells come from different input sizes, or only some of them follow the rules of the columns."""
        follow = any(c.follows_column for c in self.cells)
        return len(self.sizes) > 1 or bool(follow and self.other_rules)


@dataclass(frozen=True)
class Audit:
    """The audit of a table."""

    table: PaperTable
    rows: tuple[RowResult, ...]

    @property
    def cells(self) -> list[CellResult]:
        return [cell for row in self.rows for cell in row.cells]

    @cached_property
    def counts(self) -> dict[Outcome, int]:
        """The number of cells with each outcome, in the order of `Outcome`."""
        counts = Counter(cell.outcome for cell in self.cells)
        return {outcome: counts[outcome] for outcome in Outcome if counts[outcome]}

    @property
    def explained(self) -> bool:
        """Whether every printed number comes out."""
        return all(cell.explained for cell in self.cells)

    @property
    def unknown(self) -> bool:
        """Whether a number cannot be computed, so that the audit cannot say if it comes out."""
        return Outcome.UNKNOWN in self.counts

    def conventions_of(self, column: Column) -> Counter[Convention]:
        """The rules under which the cells of a column come out, with the number of cells."""
        return Counter(c.explained.convention for c in self.cells if c.cell.column is column and c.explained)

    @cached_property
    def sizes(self) -> Counter[Size]:
        """The input sizes at which rows come out, with the number of rows."""
        return Counter(size for row in self.rows for size in row.sizes)

    @property
    def mixed(self) -> bool:
        """Whether rows come from different input sizes, or cells of one column from different rules."""
        return len(self.sizes) > 1 or any(len(self.conventions_of(column)) > 1 for column in self.table.columns)


def size_of(record: Record) -> Size:
    """Height and width of the input of a record; the whole shape if it is no batch of images."""
    shape = record.inputs[0].shape if record.inputs else ()
    return shape[-2:] if len(shape) == 4 else shape


def likely_sizes(row: RowResult, rows: Iterable[RowResult]) -> list[Size]:
    """The sizes to try first, if a number does not come out by the rule of its column: those of the other rows, and
    that of the network's own input."""
    if all(cell.follows_column for cell in row.cells if cell.cell.column.quantity is not Quantity.PARAMS):
        return []
    sizes = [size for size, _ in Counter(other.traced.size for other in rows).most_common()]
    native = row.traced.native
    return _untried(row.traced, sizes if native is None else [*sizes, size_of(native)])


def common_sizes(row: RowResult, rows: Iterable[RowResult]) -> list[Size]:
    """The sizes to try then, if no rule at all explains a number: with few printed digits, one of many sizes often
    does."""
    if all(cell.explained for cell in row.cells if cell.cell.column.quantity is not Quantity.PARAMS):
        return []
    return _untried(row.traced, COMMON_SIZES)


def _untried(row: TracedRow, sizes: Iterable[Size]) -> list[Size]:
    """Those of `sizes` at which the network was not traced yet; none if its input is no batch of images."""
    tried = {row.size, *row.others}
    return [size for size in dict.fromkeys(sizes) if len(size) == len(row.size) == 2 and size not in tried]


def audit_table(table: PaperTable, rows: Sequence[TracedRow]) -> Audit:
    """The audit of a table, from the records of its networks."""
    stated = [[_candidates(cell, row.record, row.size, stated=True) for cell in row.row.cells] for row in rows]
    leading = _conventions(table, rows, stated)
    found = [
        [[*candidates, *_at_other_sizes(cell, row, leading[cell.column.heading])]
         for cell, candidates in zip(row.row.cells, of_row, strict=True)]
        for row, of_row in zip(rows, stated, strict=True)
    ]  # fmt: skip
    conventions = _conventions(table, rows, found)
    results = [_results(row, of_row, conventions) for row, of_row in zip(rows, found, strict=True)]
    return Audit(table, tuple(map(RowResult, rows, results)))


def _candidates(
    cell: PrintedCell, record: Record, size: Size, stated: bool, chosen: Callable[[CountingRule], bool] = lambda _: True
) -> list[Candidate]:
    """The number by each of the chosen rules at one size, in each unit that it can have."""
    found = []
    for rank, rule in enumerate(rules_of(cell.column.quantity)):
        count = rule.value(record) if chosen(rule) else None
        for unit in cell.units if count is not None else ():
            value = Fraction(count or 0) / unit.scale
            agreement, difference = cell.printed.agreement(value), cell.printed.difference(value)
            found.append(Candidate(rule, rank, size, stated, unit, value, agreement, difference))
    return found


def _at_other_sizes(cell: PrintedCell, row: TracedRow, leading: Convention | None) -> Iterator[Candidate]:
    """The number at other sizes, by the common rules and by the rule that explains most of the column."""

    def chosen(rule: CountingRule) -> bool:
        return rule.of_input and (rule.common or (leading is not None and rule.name == leading.rule))

    for size, record in row.others.items():
        yield from _candidates(cell, record, size, False, chosen)


Candidates = Sequence[Sequence[Sequence[Candidate]]]
"""For each row, for each of its cells."""


def _conventions(table: PaperTable, rows: Sequence[TracedRow], found: Candidates) -> dict[str, Convention | None]:
    """For each heading, the rule and unit that explain most of the column."""
    cells = [pair for row, of_row in zip(rows, found, strict=True) for pair in zip(row.row.cells, of_row, strict=True)]
    return {
        column.heading: _convention([candidates for cell, candidates in cells if cell.column is column])
        for column in table.columns
    }


def _convention(cells: Sequence[Sequence[Candidate]]) -> Convention | None:
    """The rule and unit that explain most cells of a column. A cell that comes out at its stated size counts twice as
    much as one that comes out at another size."""
    points: Counter[Convention] = Counter()
    stated: Counter[Convention] = Counter()
    exact: Counter[Convention] = Counter()
    order: dict[Convention, int] = {}
    for candidates in cells:
        agreeing = [c for c in candidates if c.agreement]
        at_stated = {c.convention for c in agreeing if c.stated}
        order |= {c.convention: c.rank for c in agreeing}
        points.update({c.convention for c in agreeing})
        points.update(at_stated)
        stated.update(at_stated)
        exact.update({c.convention for c in agreeing if c.stated and c.agreement == "exact"})
    return max(order, key=lambda c: (points[c], stated[c], exact[c], -order[c], not c.binary), default=None)


def _results(
    row: TracedRow, found: Sequence[Sequence[Candidate]], conventions: Mapping[str, Convention | None]
) -> tuple[CellResult, ...]:
    """The results of a row. Of several sizes that explain a cell equally well, the one that explains most cells."""
    votes = Counter(size for candidates in found for size in {c.size for c in candidates if c.agreement})
    return tuple(
        _result(
            cell, candidates, conventions[cell.column.heading], votes,
            row.record.complete or cell.column.quantity is Quantity.PARAMS,
        )
        for cell, candidates in zip(row.row.cells, found, strict=True)
    )  # fmt: skip


def _result(
    cell: PrintedCell, candidates: Sequence[Candidate], convention: Convention | None, votes: Counter[Size],
    complete: bool,
) -> CellResult:  # fmt: skip
    stated = [c for c in candidates if c.stated]
    agreeing = sorted(
        (c for c in candidates if c.agreement),
        key=lambda c: (c.convention != convention, not c.stated, -votes[c.size], c.agreement == "truncated", c.rank),
    )
    if agreeing:
        best = agreeing[0]
        others = tuple(c for c in agreeing[1:] if c.size == best.size)
        return CellResult(cell, best, others, complete, convention, None)
    nearest = min(stated, key=lambda c: (abs(c.difference), c.rank), default=None)
    by_convention = next((c for c in stated if c.convention == convention), None)
    return CellResult(cell, nearest, (), complete, convention, by_convention)
