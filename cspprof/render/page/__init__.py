"""The report: one HTML file that asks for nothing else, for people who open it in a browser."""

from __future__ import annotations

from pathlib import Path

from cspprof.core.errors import OutputError
from cspprof.render import Canvas, renderer
from cspprof.report.tables import Report

GENERATOR = b'<meta name=generator content="cspprof '


@renderer("html", ".html", ".htm")
def as_html(report: Report, canvas: Canvas) -> str:
    """Raises OutputError for an answer about no model."""
    if not report.profiles:
        raise OutputError("html shows models; this answer is about none", "cspprof report SPEC… -o report.html")
    from cspprof.render.page.document import page  # with every chart, which other formats do without

    return page(report.profiles)


def is_page(path: Path) -> bool:
    """Whether the file is a report, by what its head says made it."""
    with path.open("rb") as file:
        return GENERATOR in file.read(2000)
