"""Tables as aligned columns where every row has room on its line, as in most answers: nothing has to be laid out then,
and what lays out need not be imported. What it gives is what `terminal` gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap

from cspprof.report.tables import Column, Report, Table

GAP = "  "
SINGLE = frozenset(map(chr, [*range(0x20, 0x7F), *range(0xA0, 0xAD), *range(0xAE, 0x300), *range(0x370, 0x483),
                             *range(0x2500, 0x25FD), *map(ord, "–−≤≥→…‘’“”")]))  # fmt: skip
"""Characters that take one place, as nearly all of ours do."""
BOLD, YELLOW = "1", "33"
GOOD = {True: "32", False: "31", None: ""}
"""Codes of colours by `Cell.good`."""


def aligned(report: Report, width: int, colour: bool) -> str | None:
    """The report in lines of at most `width` characters; None where that takes more than padding: a row is longer, a
    character is not as wide as others, a column is empty, a chart is drawn."""
    texts = [t for table in report.tables for t in _texts(table)] + [f"note: {note}" for note in report.notes]
    if report.charts or not all(map(SINGLE.issuperset, texts)):
        return None
    lines: list[str] = []
    for table in report.tables:
        heads = [head(column).split("\n") for column in table.columns]
        wide = [max(map(len, [*h, *(row[i].text for row in table.rows)])) for i, h in enumerate(heads)]
        if not table.rows or not all(wide) or sum(wide) + len(GAP) * (len(wide) - 1) > width:
            return None
        lines += [""] if lines else []
        lines += [_painted(line, BOLD, colour) for line in wrap(table.title, width, break_on_hyphens=False)]
        lines += _rows(table, heads, wide, colour)
    lines += [""] if report.notes else []
    for note in report.notes:
        first, *more = wrap(f"note: {note}", width, break_on_hyphens=False)
        lines += [first.replace("note:", _painted("note:", YELLOW, colour), 1), *more]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def head(column: Column) -> str:
    """A heading; over numbers its unit stands on a line of its own."""
    return column.header.replace(" (", "\n(").replace(" [", "\n[") if column.numeric else column.header


def _texts(table: Table) -> Iterator[str]:
    yield table.title
    yield from (column.header for column in table.columns)
    yield from (cell.text for row in table.rows for cell in row)


def _rows(table: Table, heads: Sequence[Sequence[str]], wide: Sequence[int], colour: bool) -> Iterator[str]:
    def row(cells: Sequence[str], codes: Sequence[str]) -> str:
        return GAP.join(
            padding + painted if column.numeric else painted + padding
            for cell, code, column, w in zip(cells, codes, table.columns, wide, strict=True)
            for painted, padding in [(_painted(cell, code, colour), " " * (w - len(cell)))]
        )

    tall = max(map(len, heads), default=0)
    for i in range(-tall, 0):
        yield row([h[i] if -i <= len(h) else "" for h in heads], [BOLD] * len(heads))
    yield "─" * (sum(wide) + len(GAP) * (len(wide) - 1))
    for cells in table.rows:
        yield row([c.text for c in cells], [GOOD[c.good] for c in cells])


def _painted(text: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour and code and text else text
