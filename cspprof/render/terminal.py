"""Tables and charts for a terminal, laid out by rich. A pipe gets the same text without color,
and without wrapping unless COLUMNS is set."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cspprof.core.printable import without_log_commands
from cspprof.render.fit_table import can_wrap, fit, heading, least_width
from cspprof.render.registry import Canvas, renderer
from cspprof.render.terminal_chart import chart_lines
from cspprof.report.tables import Cell, Report, Table

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from rich.text import Text

PIPED_WIDTH = 10_000
"""Wide enough that nothing wraps, so that piped text does not depend on the width of the terminal."""


@renderer("rich", ".txt", is_own=lambda head: any(mark.encode() in head for mark in "─│█"))
def rich_text(report: Report, canvas: Canvas) -> str:
    """Tables, charts and notes. A table that is wider than the canvas has shorter names and fewer columns, which a note
    lists. If that is not enough, it is printed as one block of lines per row."""
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
    missing: dict[str, None] = {}
    choice = False
    for i, table in enumerate(report.tables):
        if i:
            console.print()
        if table.title:
            console.print(Text(table.title, style="bold"))
        narrow, left_out = (table, []) if canvas.width is None else fit(table, canvas.width)
        if canvas.width is not None and least_width(narrow) > canvas.width:
            console.print(_blocks(table))
            continue
        console.print(_columns(narrow))
        missing.update(dict.fromkeys(left_out))
        choice |= bool(left_out) and any(c.name for c in table.columns)
    for i, chart in enumerate(report.charts):
        if i or report.tables:
            console.print()
        lines = chart_lines(chart, console.width)
        console.print(Text("\n").join(Text.assemble(*line) for line in lines))
    notes = [*report.notes, *([_missing_note(list(missing), canvas.width, choice)] if missing else []), *report.hints]
    if notes:
        console.print()
    for note in notes:
        console.print(Text.assemble(("note: ", "yellow"), note))
    return without_log_commands("".join(line.rstrip() + "\n" for line in out.getvalue().splitlines()))


def _missing_note(columns: Sequence[str], width: int | None, choice: bool) -> str:
    """The columns that a table has no place for, and how to see them."""
    how = "--columns NAME,NAME chooses columns, -o FILE.csv" if choice else "-o FILE.csv"
    return f"{width} characters leave no place for: {', '.join(columns)}. {how} or a wider terminal shows all."


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
            Text(heading(table, i)),
            justify="right" if column.numeric else "left",
            overflow="fold",
            no_wrap=not can_wrap(table, i),
        )
    for row in table.rows:
        columns.add_row(*(Text(cell.text, style=_style(cell)) for cell in row))
    return columns


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
