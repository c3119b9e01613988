"""Fit a table into a narrow terminal: shorten names, and leave out the columns that matter least."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from cspprof.core.units import shortened
from cspprof.report.tables import Table

GAP = "  "
NAME_WIDTH = 32
"""Longer names are shortened to this width before a column is left out."""
SHORTEST_NAME = 24
"""Names such as paths are shortened to this width if the columns that must stay are still too wide."""
SHORTEST_HEADING = 14
"""The names of models above columns of numbers are shortened to this width."""
WRAPPED_WIDTH = 18
"""A text of this width is not wrapped to make place for a further column: `depthwise conv 3×3`."""


class _Widths(NamedTuple):
    """The widths of a column: of what stays whole, and of the names that can be shortened to `shortest`."""

    whole: int
    names: int
    shortest: int

    def least(self, longest_name: int) -> int:
        return max(self.whole, min(self.names, max(longest_name, self.shortest)))


def fit(table: Table, width: int) -> tuple[Table, list[str]]:
    """The table in at most `width` characters if possible, and the headings of the columns that are left out.

    Names are shortened only as far as needed. The columns get a place in the order of their priorities, those of
    equal priority together. A column that has no place is left out; a narrower one after it can still get one.
    """
    widths = [_widths(table, i) for i in range(len(table.columns))]
    if _total(widths, max((w.names for w in widths), default=0)) <= width:
        return table, []
    widths = [w._replace(whole=max(w.whole, _comfortable(table, i))) for i, w in enumerate(widths)]
    by_priority = defaultdict(list)
    for i, column in enumerate(table.columns):
        by_priority[column.priority].append(i)
    kept = by_priority.pop(0, [])
    for _, group in sorted(by_priority.items()):
        if _total([widths[k] for k in (*kept, *group)], NAME_WIDTH) <= width:
            kept += group
    kept.sort()
    longest = max((widths[i].names for i in kept), default=0)
    while longest > SHORTEST_HEADING and _total([widths[i] for i in kept], longest) > width:
        longest -= 1
    columns = [table.columns[i] for i in kept]
    rows = [[row[i] for i in kept] for row in table.rows]
    left_out = [c.header.partition(" [")[0] for i, c in enumerate(table.columns) if i not in kept]
    return _with_short_names(Table(table.title, columns, rows), longest), left_out


def least_width(table: Table) -> int:
    """The width below which the columns would lose text or break a word."""
    widths = [_widths(table, i) for i in range(len(table.columns))]
    return _total(widths, max((w.names for w in widths), default=0))


def can_wrap(table: Table, i: int) -> bool:
    """Whether column i can be narrower than its longest text. Numbers, names and layer paths stay on one line."""
    column = table.columns[i]
    return not (column.numeric or column.shortens) and any(" " in row[i].text for row in table.rows)


def heading(table: Table, i: int) -> str:
    """The heading of column i; the unit of numbers is on a line of its own."""
    column = table.columns[i]
    return column.header.replace(" (", "\n(").replace(" [", "\n[") if column.numeric else column.header


def _total(widths: Sequence[_Widths], longest_name: int) -> int:
    return sum(w.least(longest_name) for w in widths) + len(GAP) * (len(widths) - 1)


def _widths(table: Table, i: int) -> _Widths:
    column, wraps = table.columns[i], can_wrap(table, i)
    cells, head = [row[i].text for row in table.rows], [heading(table, i)]
    if not column.shortens:
        return _Widths(_longest_piece([*cells, *head], wraps), 0, 0)
    whole, names = (cells, head) if column.numeric else (head, cells)
    return _Widths(_longest_piece(whole, wraps), _longest_piece(names, wraps), _shortest(table, i))


def _shortest(table: Table, i: int) -> int:
    return SHORTEST_HEADING if table.columns[i].numeric else SHORTEST_NAME


def _comfortable(table: Table, i: int) -> int:
    """The width from which only long texts of column i wrap."""
    return min(_longest_piece([row[i].text for row in table.rows], False), WRAPPED_WIDTH) if can_wrap(table, i) else 0


def _longest_piece(texts: Sequence[str], wraps: bool) -> int:
    from rich.cells import cell_len

    return max((cell_len(p) for t in texts for p in (t.split() if wraps else t.split("\n"))), default=0)


def _with_short_names(table: Table, longest: int) -> Table:
    """The table with names of at most `longest` characters, or of the shortest width of their column."""
    columns, rows = list(table.columns), [list(row) for row in table.rows]
    for i, column in enumerate(table.columns):
        limit = max(longest, _shortest(table, i))
        if column.shortens and column.numeric:
            name, bracket, rest = column.header.partition(" (")  # csp_darknet53 (reading)
            columns[i] = replace(column, header=shortened(name, limit) + bracket + rest)
        elif column.shortens:
            for row in rows:
                row[i] = row[i]._replace(text=shortened(row[i].text, limit))
    return Table(table.title, columns, rows)
