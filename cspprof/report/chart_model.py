"""What every drawing takes: panels of series of marks. Values are exact here; whoever draws divides and rounds them.

A `Chart` says everything that a picture shows, and its `records` are that and nothing else. Nothing here draws:
see `render.figure` for pictures and `render.bars` for a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cspprof.core import units

if TYPE_CHECKING:
    import pandas

Number = int | float
Form = Literal["bars", "steps", "line", "points"]
Tone = int | Literal["muted", "strong", "less", "more"]
"""The place in a qualitative palette, or what a mark means."""


@dataclass(frozen=True, slots=True)
class Axis:
    """What is counted along a side of a panel. Equal axes of several panels are one scale, to be compared along."""

    name: str
    """As a field of the records: `macs`."""
    title: str
    unit: str = ""
    """Of the numbers at the ticks: values are divided by `divisor` there, and only there."""
    divisor: Number = 1
    low: Number = 0
    high: Number = 1
    log: bool = False
    whole: bool = False
    """Whether between whole numbers there is nothing to read."""
    ticks: tuple[tuple[Number, str], ...] = ()
    """Where the ticks have names instead of numbers."""

    @property
    def label(self) -> str:
        unit = self.unit.removesuffix(self.title).strip()
        return f"{self.title} [{unit}]" if unit else self.title

    def text(self, value: Number) -> str:
        """A value as it reads beside this axis, with its unit: `1.05 M elements`."""
        scaled = value / self.divisor
        digits = (
            units.significant(scaled, 4) if self.divisor != 1 or isinstance(value, float) else units.count(int(value))
        )
        return f"{digits} {self.unit}".strip()


@dataclass(frozen=True, slots=True)
class Mark:
    """One datum at (x, y). A bar stands on `base` and is `width` wide, a point's area is as `size` to the others'."""

    x: Number
    y: Number
    label: str = ""
    """What it is of: a layer's path, a stage, a model."""
    base: Number = 0
    width: float = 1
    size: Number = 1
    stage: str = ""
    detail: str = ""
    """More about it, for whoever points at it: `conv 3×3, 1×64×56×56 -> 1×128×56×56`."""
    text: str = ""
    """Written next to it."""


@dataclass(frozen=True, slots=True)
class Series:
    """Marks of one form and meaning; a name is an entry of the legend."""

    name: str
    form: Form
    marks: tuple[Mark, ...]
    tone: Tone = 0
    hollow: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line across the panel at `value` of an axis, with what is written on it."""

    value: Number
    text: str
    axis: Literal["x", "y"] = "y"
    tone: Tone = "muted"
    name: str = "line"


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the x axis with a name: a stage."""

    start: Number
    end: Number
    text: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One system of axes. Where it is `lying`, x runs down the side and bars grow to the right."""

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    lines: tuple[Line, ...] = ()
    spans: tuple[Span, ...] = ()
    lying: bool = False
    height: float = 1
    """Relative to the other panels."""
    name: str = ""
    """As a field of the records; the title unless given."""
    legend: bool = True
    """Whether the names of its series have to be told."""
    sizes: str = ""
    """What the area of points is, as a field of the records; empty where all are equal."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture before it is drawn: what `cspprof.plot` returns. Panels stand below each other."""

    kind: str
    title: str
    panels: tuple[Panel, ...]
    caption: str = ""
    """What a reader has to know to read it: what is counted, and how."""
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def records(self) -> list[dict[str, Any]]:
        """Exactly what is shown, a row for every mark and line, values undivided."""
        return [record for panel in self.panels for record in _records(panel)]

    def to_pandas(self) -> pandas.DataFrame:
        """The records as a table."""
        import pandas

        return pandas.DataFrame(self.records)

    def __repr__(self) -> str:
        panels = ", ".join(p.name or p.title for p in self.panels)
        return f"<Chart {self.kind}: {self.title} ({panels})>"


def _records(panel: Panel) -> Iterator[dict[str, Any]]:
    name = panel.name or panel.title
    for series in panel.series:
        for mark in series.marks:
            record: dict[str, Any] = {"panel": name, "series": series.name, "label": mark.label, "stage": mark.stage}
            record |= {panel.x.name: mark.x, panel.y.name: mark.y}
            if mark.base:
                record["base"] = mark.base
            if panel.sizes and series.form == "points":
                record[panel.sizes] = mark.size
            yield record | {"text": mark.text, "detail": mark.detail}
    for line in panel.lines:
        axis = panel.x if line.axis == "x" else panel.y
        yield {"panel": name, "series": line.name, axis.name: line.value, "text": line.text}
