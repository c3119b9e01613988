"""The HTML report: one file that needs no network and no other file."""

from __future__ import annotations

from cspprof.core.errors import OutputError
from cspprof.render.registry import Canvas, renderer
from cspprof.report.charts import CHARTS
from cspprof.report.tables import Report

GENERATOR = b'<meta name=generator content="cspprof '


@renderer("html", ".html", ".htm", is_own=lambda head: GENERATOR in head)
def as_html(report: Report, canvas: Canvas) -> str:
    """Raises OutputError for a report about no model."""
    if not report.profiles:
        raise OutputError(
            "html shows models; this report is about none", "Write for example: cspprof report SPEC… -o report.html"
        )
    from cspprof.render.page.document import html_page  # imports jinja2

    charts = [c for c in report.charts if c.kind not in CHARTS]
    return html_page(report.profiles, charts, report.section, report.notes if report.section else ())
