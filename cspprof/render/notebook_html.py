"""Tables as an HTML fragment, which a notebook shows for a profile or a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from cspprof.core.printable import printable
from cspprof.report.tables import Table

NO_MATH = "tex2jax_ignore mathjax_ignore"
"""Classes of elements in which Jupyter sets no `$…$` as mathematics."""


def tables_html(tables: Sequence[Table]) -> str:
    """The tables as HTML. Every text is escaped and stays on its line."""
    return "\n".join(map(_table, tables))


def _table(table: Table) -> str:
    head = "".join(f"<th{_align(c.numeric)}>{_text(c.header)}</th>" for c in table.columns)
    body = "".join(
        "<tr>"
        + "".join(f"<td{_align(c.numeric)}>{_text(cell.text)}</td>" for c, cell in zip(table.columns, row, strict=True))
        + "</tr>"
        for row in table.rows
    )
    caption = f"<caption>{_text(table.title)}</caption>" if table.title else ""
    return f'<table class="{NO_MATH}">{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _text(text: str) -> str:
    return escape(printable(text))


def _align(numeric: bool) -> str:
    return f' style="text-align: {"right" if numeric else "left"}"'
