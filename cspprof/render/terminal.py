"""Tables for a terminal, laid out by rich where columns have to give way. In a pipe: the same text without colour, at a
width of its own."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from cspprof.render import Canvas, renderer
from cspprof.render.aligned import aligned, head
from cspprof.report.tables import Cell, Report, Table

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from rich.text import Text

PIPED_WIDTH = 10_000
"""Wide enough that nothing wraps: what a pipe gets does not depend on the terminal it was started from."""


@renderer("rich", ".txt")
def rich_text(report: Report, canvas: Canvas) -> str:
    found = aligned(report, canvas.width or PIPED_WIDTH, canvas.colour)
    return laid_out(report, canvas) if found is None else found


def laid_out(report: Report, canvas: Canvas) -> str:
    """Any report, in any width."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.text import Text

    from cspprof.render.bars import chart_text

    out = io.StringIO()
    console = Console(
        file=out,
        width=canvas.width or PIPED_WIDTH,
        force_terminal=canvas.colour,
        no_color=not canvas.colour,
        color_system="standard" if canvas.colour else None,
        highlight=False,
        legacy_windows=False,
    )
    for i, table in enumerate(report.tables):
        if i:
            console.print()
        if table.title:
            console.print(Text(table.title, style="bold"))
        made = _table(table)
        fits = Measurement.get(console, console.options.update(max_width=PIPED_WIDTH), made).minimum <= console.width
        console.print(made if fits else _stacked(table))
    for i, chart in enumerate(report.charts):
        if i or report.tables:
            console.print()
        console.print(chart_text(chart, console.width))
    if report.notes:
        console.print()
    for note in report.notes:
        console.print(Text.assemble(("note: ", "yellow"), note))
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


def _table(table: Table) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    made = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold", collapse_padding=True)
    for column in table.columns:
        made.add_column(
            Text(head(column)), justify="right" if column.numeric else "left", overflow="fold", no_wrap=column.numeric
        )
    for row in table.rows:
        made.add_row(*(Text(cell.text, style=_style(cell)) for cell in row))
    return made


def _stacked(table: Table) -> Text:
    """For a terminal too narrow for the columns: a row's cells below each other. No digit is cut."""
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
