"""The results of the Python API besides `Profile`: comparisons, conversions, gradients, charts, reproductions and
audits, with notebook display."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cspprof.analysis import comparison
from cspprof.core.printable import printable
from cspprof.csp import gradient_reuse
from cspprof.csp.advice import Suggestion
from cspprof.papers import audit, reproduction
from cspprof.profiles import Profile
from cspprof.render import matplotlib_chart, render
from cspprof.render.notebook_html import tables_html
from cspprof.report import chart_model
from cspprof.report.advice import advice_report, suggestion_record
from cspprof.report.audit import audit_report, cell_record
from cspprof.report.conversion import conversion_report
from cspprof.report.gradient_reuse import gradients_report
from cspprof.report.profile import summary_tables
from cspprof.report.reproduction import figure_record, reproduction_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

    from cspprof.csp.conversion.convert import StageResult
    from cspprof.csp.conversion.edits import StageEdits


class Comparison(comparison.Comparison):
    """Profiles side by side; changes are relative to the first."""

    def _repr_html_(self) -> str:
        return tables_html(summary_tables(self.profiles))


class Gradients(gradient_reuse.GradientReuse):
    """The gradients of a backward pass, and the layers whose weights they update."""

    def __repr__(self) -> str:
        return printable(
            f"<Gradients of {self.record.label}: {self.total.uses:,} uses of {self.total.gradients:,} gradients>"
        )

    def __str__(self) -> str:
        return render("rich", gradients_report([self.record])).decode().rstrip("\n")

    def _repr_html_(self) -> str:
        return tables_html(gradients_report([self.record]).tables)


class Reproduction(reproduction.Reproduction):
    """Published figures, recomputed."""

    @property
    def records(self) -> list[dict[str, Any]]:
        """One dict per figure, with table, row, printed and computed value, rule, status and recipe."""
        return [figure_record(f) for f in self.figures]

    def _repr_html_(self) -> str:
        return tables_html(reproduction_report(self).tables)


class Audit(audit.Audit):
    """A paper's table, and how each of its numbers was counted."""

    @property
    def records(self) -> list[dict[str, Any]]:
        """One dict per printed number, with network, column, printed and computed value, rule, input and outcome."""
        return [cell_record(row, cell) for row in self.rows for cell in row.cells]

    def __str__(self) -> str:
        return render("rich", audit_report(self)).decode().rstrip("\n")

    def _repr_html_(self) -> str:
        return tables_html(audit_report(self).tables)


class Advice:
    """Suggested changes of a network, the largest gain first. A sequence."""

    def __init__(self, profile: Profile, suggestions: Sequence[Suggestion]) -> None:
        self.profile = profile
        """The network as it is."""
        self.suggestions = tuple(suggestions)

    @property
    def records(self) -> list[dict[str, Any]]:
        """One dict per suggestion, with place, what was found, the change, and the metric before and after."""
        return [suggestion_record(self.profile, rank, s) for rank, s in enumerate(self.suggestions, 1)]

    def __len__(self) -> int:
        return len(self.suggestions)

    def __iter__(self) -> Iterator[Suggestion]:
        return iter(self.suggestions)

    def __repr__(self) -> str:
        return printable(f"<Advice for {self.profile.model}: {len(self)} suggestions>")

    def __str__(self) -> str:
        return render("rich", advice_report(self.profile, self.suggestions)).decode().rstrip("\n")

    def _repr_html_(self) -> str:
        return tables_html(advice_report(self.profile, self.suggestions).tables)


class Conversion:
    """A network before and after its stages became cross stage partial."""

    def __init__(
        self, before: Profile, after: Profile, model: nn.Module, plain: nn.Module, stages: tuple[StageResult, ...],
        edits: tuple[StageEdits, ...], factory: tuple[str, str] | None,
    ) -> None:  # fmt: skip
        self.before = before
        self.after = after
        self.model = model
        """The converted network, a trainable module. Layers that did not change have the weights of the original."""
        self.stages = stages
        """The result for each stage: converted, or left with a reason."""
        self._plain = plain
        self._edits = edits
        self._factory = factory

    @property
    def converted(self) -> list[str]:
        """The names of the stages that were converted."""
        return [stage.name for stage in self.stages if stage.plan is not None]

    def weights(self) -> dict[str, str]:
        """For each entry of the converted network's state dict: the name of the original's entry from which its values
        come, or an empty text if it must be trained."""
        from cspprof.csp.conversion.edits import weight_names

        return weight_names(self._plain, self.model, self._edits)

    def source(self) -> str:
        """A Python module that converts another copy of the network, with `convert(model)`, and with `build()` if the
        plain network came from a SPEC. It does not import cspprof, unless the plain network is one of its zoo."""
        from cspprof.csp.conversion.source_code import source_code

        return source_code(self.before.model, self._plain, self._edits, self._factory)

    def __repr__(self) -> str:
        return printable(f"<Conversion of {self.before.model}: {len(self.converted)} of {len(self.stages)} stages>")

    def __str__(self) -> str:
        return render("rich", conversion_report(self)).decode().rstrip("\n")

    def _repr_html_(self) -> str:
        return tables_html(conversion_report(self).tables)


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
