"""Tables as an HTML fragment, which a notebook shows for a profile or a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from cspprof.report.tables import Table


def tables_html(tables: Sequence[Table]) -> str:
    """The tables as HTML, with every text escaped."""
    return "\n".join(map(_table, tables))


def _table(table: Table) -> str:
    head = "".join(f"<th{_align(c.numeric)}>{escape(c.header)}</th>" for c in table.columns)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{_align(c.numeric)}>{escape(cell.text)}</td>" for c, cell in zip(table.columns, row, strict=True)
        )
        + "</tr>"
        for row in table.rows
    )
    caption = f"<caption>{escape(table.title)}</caption>" if table.title else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _align(numeric: bool) -> str:
    return f' style="text-align: {"right" if numeric else "left"}"'
