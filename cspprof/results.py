"""What the Python API returns besides `Profile`: comparisons, charts and reproductions that a notebook can show."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspprof.analysis import comparison
from cspprof.papers import reproduction
from cspprof.render import figure
from cspprof.render.html import fragment
from cspprof.report import chart_model
from cspprof.report.profile import overview
from cspprof.report.reproduction import figure_record, reproduction_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Comparison(comparison.Comparison):
    """Profiles side by side. The first is the base of every change."""

    def _repr_html_(self) -> str:
        return fragment(overview(self.profiles))


class Reproduction(reproduction.Reproduction):
    """The figures of some published tables, computed again."""

    @property
    def records(self) -> list[dict[str, Any]]:
        """One dict per figure: table, row, printed, computed, rule, status and how it was computed."""
        return [figure_record(f) for f in self.figures]

    def _repr_html_(self) -> str:
        return fragment(reproduction_report(self).tables)


class Chart(chart_model.Chart):
    """What `cspprof.plot` returns. A notebook shows it as a picture."""

    @classmethod
    def of(cls, chart: chart_model.Chart) -> Chart:
        """The same chart with the calls of this class."""
        return cls(**{f.name: getattr(chart, f.name) for f in fields(chart)})

    def figure(self, width: float | str = "column") -> Figure:
        """The chart as a matplotlib figure without a window. `width` is in inches, or `column`, or `page`."""
        return figure.draw(self, width)

    def save(self, path: str | Path, width: float | str = "column") -> Path:
        """Write a picture (`.png`, `.svg`, `.pdf`) and, beside it, a `.csv` of the data that it shows.

        Raises OutputError for any other ending, and if the files cannot be written.
        """
        return figure.save(self, Path(path), width)

    def _repr_png_(self) -> bytes:
        return figure.image(self, "png", "page", dpi=120)
