"""The result of a sweep: the front and the rows of a journal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from cspprof.core.errors import CspprofError
from cspprof.core.files import write_atomically
from cspprof.render import render
from cspprof.render.notebook_html import tables_html
from cspprof.report.tables import Report
from cspprof.results import Chart
from cspprof.sweeps.candidate import Row
from cspprof.sweeps.explorer import explorer_page
from cspprof.sweeps.export import export_rows, number_columns
from cspprof.sweeps.front import Front, Goal, front
from cspprof.sweeps.journal import open_journal
from cspprof.sweeps.report import front_chart, front_report

if TYPE_CHECKING:
    import pandas

IMAGES = (".png", ".svg", ".pdf")


class Sweep:
    """The rows of a journal, and the Pareto front of those that meet the constraints."""

    def __init__(
        self, journal: Path, goal: Goal, traced: set[bytes], notes: Sequence[str] = (), versions: str | None = None
    ) -> None:
        self.journal = journal
        """The file of the rows."""
        self.traced = traced
        """The keys of the rows that were made in this run; the others were remembered."""
        self.notes = tuple(notes)
        """Remarks on this run: a search that ended early, a tracker that failed."""
        self._versions = versions
        self._goal = goal
        self.front: Front = front(self.rows, goal.objectives, goal.constraints)

    def rows(self) -> Iterator[Row]:
        """All rows, by their position in the space, read one after another.

        Of a candidate that has rows of several versions of the code, only those of the versions of this run.
        """
        book = open_journal(self.journal)
        try:
            for _, same in groupby(book.rows(), key=lambda row: (row.position, row.spec, row.axes)):
                rows = list(same)
                yield from [row for row in rows if row.versions == self._versions] or rows
        finally:
            book.close()

    def report(self) -> Report:
        """The table and the chart of the front."""
        return front_report(self.front, self._goal.metrics, len(self.traced), self.notes)

    def plot(self) -> Chart:
        """The candidates in the first two objectives. Raises CspprofError without two objectives or a candidate."""
        chart = front_chart(self.front)
        if chart is None:
            raise CspprofError(
                "there is no figure of this front", "It needs two objectives, and a candidate that meets the "
                "constraints: --minimize macs --minimize cio",
            )  # fmt: skip
        return Chart.of(chart)

    def to_pandas(self) -> pandas.DataFrame:
        """One row per candidate, with its axes, all metrics, and the reason if it has no numbers."""
        import pandas

        rows = list(self.rows())
        return pandas.DataFrame(number_columns(rows, self.front.axes) | {"error": [row.error for row in rows]})

    def save(self, path: str | Path) -> Path:
        """Write all rows to `.csv` or `.parquet`, the figure to `.png`, `.svg` or `.pdf`, or a page to
        `.html` in which the candidates are explored. Raises OutputError."""
        path = Path(path)
        if path.suffix in IMAGES:
            return self.plot().save(path, "page")
        if path.suffix == ".html":
            write_atomically(path, explorer_page(self.rows, self.front, len(self.traced)).encode())
            return path
        export_rows(self.rows, self.front.axes, self.traced, path)
        return path

    def __repr__(self) -> str:
        return f"<Sweep of {self.front.count:,} candidates: {len(self.front.optimal)} are Pareto-optimal>"

    def __str__(self) -> str:
        return render("rich", self.report()).decode().rstrip("\n")

    def _repr_html_(self) -> str:
        return tables_html(self.report().tables)
