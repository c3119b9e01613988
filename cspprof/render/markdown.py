"""Markdown tables, for pull requests and READMEs."""

from __future__ import annotations

from cspprof.render.registry import Canvas, renderer
from cspprof.report.tables import Report, Table


@renderer("markdown", ".md", is_own=lambda head: head.startswith((b"| ", b"**", b"- ")) and b"| ---" in head)
def as_markdown(report: Report, canvas: Canvas) -> str:
    report = report.paper or report
    parts = [_table(t) for t in report.tables_or_chart_data]
    if report.notes:
        parts.append("\n".join(f"- {_escape(note)}" for note in report.notes))
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    lines = [f"**{_escape(table.title)}**\n"] if table.title else []
    lines.append(_row([c.header for c in table.columns]))
    lines.append("|" + "|".join(" ---: " if c.numeric else " --- " for c in table.columns) + "|")
    lines += [_row([cell.text for cell in row]) for row in table.rows]
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(_escape(c) for c in cells) + " |"


def _escape(text: str) -> str:
    for character in "\\|*_`<>[]":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())
