"""Tables and charts for a terminal, laid out by rich. A pipe gets the same text without color,
and without wrapping unless COLUMNS is set."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from cspprof.render.registry import Canvas, renderer
from cspprof.render.terminal_chart import chart_lines
from cspprof.report.tables import Cell, Column, Report, Table

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from rich.text import Text

GAP = "  "
PIPED_WIDTH = 10_000
"""Wide enough that nothing wraps, so that piped text does not depend on the width of the terminal."""


@renderer("rich", ".txt", is_own=lambda head: any(mark.encode() in head for mark in "─│█"))
def rich_text(report: Report, canvas: Canvas) -> str:
    """Tables, charts and notes. A table that is wider than the canvas is printed as one block of lines per row."""
    from rich.console import Console
    from rich.text import Text

    out = io.StringIO()
    console = Console(
        file=out,
        width=canvas.width or PIPED_WIDTH,
        force_terminal=canvas.color,
        no_color=not canvas.color,
        color_system="standard" if canvas.color else None,
        highlight=False,
        legacy_windows=False,
    )
    for i, table in enumerate(report.tables):
        if i:
            console.print()
        if table.title:
            console.print(Text(table.title, style="bold"))
        fits = canvas.width is None or _least_width(table) <= canvas.width
        console.print(_columns(table) if fits else _blocks(table))
    for i, chart in enumerate(report.charts):
        if i or report.tables:
            console.print()
        lines = chart_lines(chart, console.width)
        console.print(Text("\n").join(Text.assemble(*segments) for segments in lines))
    if report.notes:
        console.print()
    for note in report.notes:
        console.print(Text.assemble(("note: ", "yellow"), note))
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


def _columns(table: Table) -> RichTable:
    """Padded columns: numbers to the right, text to the left and wrapped if necessary."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    columns = RichTable(
        box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold", collapse_padding=True
    )
    for i, column in enumerate(table.columns):
        columns.add_column(
            Text(_heading(column)),
            justify="right" if column.numeric else "left",
            overflow="fold",
            no_wrap=not _can_wrap(table, i),
        )
    for row in table.rows:
        columns.add_row(*(Text(cell.text, style=_style(cell)) for cell in row))
    return columns


def _can_wrap(table: Table, i: int) -> bool:
    """Whether column i can be narrower than its longest text. Numbers and words such as layer paths stay whole."""
    return not table.columns[i].numeric and any(" " in row[i].text for row in table.rows)


def _least_width(table: Table) -> int:
    """The width below which the columns would lose text or break a word."""
    from rich.cells import cell_len

    widths = []
    for i, column in enumerate(table.columns):
        texts = [_heading(column), *(row[i].text for row in table.rows)]
        pieces = [piece for text in texts for piece in (text.split() if _can_wrap(table, i) else text.split("\n"))]
        widths.append(max(map(cell_len, pieces), default=0))
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _heading(column: Column) -> str:
    """The heading of a column; the unit of numbers is on a line of its own."""
    return column.header.replace(" (", "\n(").replace(" [", "\n[") if column.numeric else column.header


def _blocks(table: Table) -> Text:
    """The cells of each row below each other, for a terminal that is too narrow for the columns."""
    from rich.text import Text

    lines = []
    for row in table.rows:
        lines.append(Text(row[0].text, style="bold"))
        for column, cell in zip(table.columns[1:], row[1:], strict=True):
            if cell.text:
                lines.append(Text.assemble(f"  {column.header} ", (cell.text, _style(cell))))
    return Text("\n").join(lines)


def _style(cell: Cell) -> str:
    return "" if cell.good is None else "green" if cell.good else "red"
