"""Charts as data: panels of series of marks, with exact values that a renderer scales and rounds.

`Chart.records` holds exactly the data that a picture shows. Three renderers draw charts: `render.matplotlib_chart`,
`render.terminal_chart` and `render.page.svg_chart`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cspprof.core import units
from cspprof.core.printable import printable, printable_lines

if TYPE_CHECKING:
    import pandas

SeriesStyle = Literal["bars", "steps", "line", "points"]
Color = int | Literal["muted", "strong", "less", "more"]
"""An index into a qualitative palette, or the meaning of a mark."""


class Axis(NamedTuple):
    """One side of a panel. Panels with equal axes have the same scale and can be compared."""

    name: str
    """The field of the records, such as `macs`."""
    title: str
    unit: str = ""
    """The unit of the numbers at the ticks, which are values divided by `divisor`."""
    divisor: float = 1
    low: float = 0
    high: float = 1
    log: bool = False
    integer: bool = False
    """Whether ticks are at integers only."""
    tick_labels: tuple[tuple[float, str], ...] = ()
    """Positions with names instead of numbers."""

    @property
    def label(self) -> str:
        unit = self.unit.removesuffix(self.title).strip()
        return f"{self.title} [{unit}]" if unit else self.title

    def format(self, value: float) -> str:
        """A value as text in the unit of the axis: `1.05 M elements`."""
        scaled = value / self.divisor
        digits = (
            units.significant(scaled, 4) if self.divisor != 1 or isinstance(value, float) else units.count(int(value))
        )
        return f"{digits} {self.unit}".strip()


class Mark(NamedTuple):
    """One datum at (x, y): a bar from `base` to `base + y`, `width` wide, or a point of area `size`."""

    x: float
    y: float
    label: str = ""
    """The name of the datum: the path of a layer, a stage, a model."""
    base: float = 0
    width: float = 1
    size: float = 1
    stage: str = ""
    detail: str = ""
    """The text of a tooltip: `conv 3×3, 1×64×56×56 -> 1×128×56×56`."""
    text: str = ""
    """The annotation beside the mark."""


class Series(NamedTuple):
    """Marks of one style and meaning. The name is an entry of the legend."""

    name: str
    style: SeriesStyle
    marks: tuple[Mark, ...]
    color: Color = 0
    hollow: bool = False
    upper_bounds: bool = False
    """Whether the y of each point is an upper bound, which is drawn with an arrow downwards."""


class ReferenceLine(NamedTuple):
    """A straight line across the panel at `value` of an axis, with an optional annotation."""

    value: float
    text: str
    axis: Literal["x", "y"] = "y"
    color: Color = "muted"
    name: str = "line"


class Span(NamedTuple):
    """A named interval of the x axis: a stage."""

    start: float
    end: float
    text: str


class Panel(NamedTuple):
    """One pair of axes. In a horizontal panel the x axis runs downwards and bars grow to the right."""

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    lines: tuple[ReferenceLine, ...] = ()
    spans: tuple[Span, ...] = ()
    horizontal: bool = False
    height: float = 1
    """Relative to the other panels."""
    name: str = ""
    """The field `panel` of the records; by default the title."""
    legend: bool = True
    size_name: str = ""
    """The field of the records that is the area of a point; empty if all points have the same area."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart before it is drawn, with its panels from top to bottom."""

    kind: str
    title: str
    panels: tuple[Panel, ...]
    caption: str = ""
    """What is counted, and how."""
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def records(self) -> list[dict[str, Any]]:
        """Exactly the data that the chart shows: one dict per mark and reference line, with undivided values."""
        return [record for panel in self.panels for record in _records(panel)]

    def printable(self) -> Chart:
        """The chart with names that stay on their lines. Names come from files and modules."""
        notes = [printable(note) for note in self.notes]
        title, caption = printable(self.title), printable_lines(self.caption)
        return replace(self, title=title, caption=caption, notes=notes, panels=_printable(self.panels))

    def to_pandas(self) -> pandas.DataFrame:
        """The records as a data frame."""
        import pandas

        return pandas.DataFrame(self.records)

    def __repr__(self) -> str:
        panels = ", ".join(p.name or p.title for p in self.panels)
        return printable(f"<Chart {self.kind}: {self.title} ({panels})>")


def _printable(value: Any) -> Any:
    """The value with every text in it on one line. Only the text of a reference line can have several lines."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, ReferenceLine):
        return value._replace(text=printable_lines(value.text))
    if isinstance(value, tuple):
        parts = map(_printable, value)
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def _records(panel: Panel) -> Iterator[dict[str, Any]]:
    name = panel.name or panel.title
    for series in panel.series:
        for mark in series.marks:
            record: dict[str, Any] = {"panel": name, "series": series.name, "label": mark.label, "stage": mark.stage}
            record |= {panel.x.name: mark.x, panel.y.name: mark.y}
            if mark.base:
                record["base"] = mark.base
            if panel.size_name and series.style == "points":
                record[panel.size_name] = mark.size
            if series.upper_bounds:
                record["bound"] = "upper"
            yield record | {"text": mark.text, "detail": mark.detail}
    for line in panel.lines:
        axis = panel.x if line.axis == "x" else panel.y
        yield {"panel": name, "series": line.name, axis.name: line.value, "text": line.text.replace("\n", ", ")}
