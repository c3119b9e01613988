"""Markdown tables, for pull requests and READMEs."""

from __future__ import annotations

import re

from cspprof.render.registry import Canvas, renderer
from cspprof.report.tables import Report, Table

BLOCK_START = re.compile(r"^([0-9]*)([#+).-])")
"""The start of a paragraph that Markdown would take for a heading or a list."""
SYNTAX = re.compile(r"()([\\|*_`<>\[\]&$~])|\b(https?:|ftp:|www)(?=//|\.)")
"""Characters with a meaning in Markdown on GitHub, and what it makes a link of."""
MENTION = re.compile(r"@(?=\w)|#(?=[0-9])")
"""Characters that notify a person or refer to an issue on GitHub. An empty comment behind them prevents this; a
backslash does not."""


@renderer("markdown", ".md", is_own=lambda head: head.startswith((b"| ", b"**", b"- ")) and b"| ---" in head)
def as_markdown(report: Report, canvas: Canvas) -> str:
    report = report.paper or report
    parts = [_table(t) for t in report.tables_or_chart_data]
    if report.notes:
        parts.append("\n".join(f"- {BLOCK_START.sub(_with_backslash, _escape(note))}" for note in report.notes))
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
    """`text` on one line, without a meaning in Markdown."""
    escaped = SYNTAX.sub(lambda m: f"{m[3]}\\" if m[3] else f"\\{m[2]}", " ".join(text.split()))
    return MENTION.sub(r"\g<0><!-- -->", escaped)


def _with_backslash(found: re.Match[str]) -> str:
    return f"{found[1]}\\{found[2]}"
