"""The results of the Python API besides `Profile`: comparisons, charts and reproductions, with notebook display."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspprof.analysis import comparison
from cspprof.papers import reproduction
from cspprof.render import matplotlib_chart
from cspprof.render.notebook_html import tables_html
from cspprof.report import chart_model
from cspprof.report.profile import summary_tables
from cspprof.report.reproduction import figure_record, reproduction_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Comparison(comparison.Comparison):
    """Profiles side by side; changes are relative to the first."""

    def _repr_html_(self) -> str:
        return tables_html(summary_tables(self.profiles))


class Reproduction(reproduction.Reproduction):
    """Published figures, recomputed."""

    @property
    def records(self) -> list[dict[str, Any]]:
        """One dict per figure, with table, row, printed and computed value, rule, status and recipe."""
        return [figure_record(f) for f in self.figures]

    def _repr_html_(self) -> str:
        return tables_html(reproduction_report(self).tables)


class Chart(chart_model.Chart):
    """A chart of `cspprof.plot`. A notebook shows it as a picture."""

    @classmethod
    def of(cls, chart: chart_model.Chart) -> Chart:
        """The same chart as an instance of this class."""
        return cls(**{f.name: getattr(chart, f.name) for f in fields(chart)})

    def figure(self, width: float | str = "column") -> Figure:
        """The chart as a matplotlib figure without a window; `width` is `column`, `page` or a number of inches."""
        return matplotlib_chart.draw_figure(self, width)

    def save(self, path: str | Path, width: float | str = "column") -> Path:
        """Write an image (`.png`, `.svg`, `.pdf`) and, beside it, a `.csv` of its data.

        Raises OutputError for any other suffix, and if the files cannot be written.
        """
        return matplotlib_chart.save_image(self, Path(path), width)

    def _repr_png_(self) -> bytes:
        return matplotlib_chart.image_bytes(self, "png", "page", dpi=120)
