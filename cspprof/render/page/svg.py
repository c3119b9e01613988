"""Charts as SVG: the same panels, series and marks that the figures draw, with a title on every mark."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from math import ceil, floor, log10, sqrt

from cspprof.report.chart_model import Axis, Chart, Line, Mark, Number, Panel, Series, Span

WIDTH, UNIT = 1000, 150
"""Of the drawing, and the height of a panel of height 1."""
LEFT, RIGHT, LETTER = 70, 14, 6.4
LARGEST = 13
"""Radius of the largest point."""

Anchor = Callable[[int, int, str], str]
"""From a panel, a place among its series and a mark's label to the id of the row that the mark is of, or nothing."""


class Scale:
    """From a value of an axis to a place between two ends."""

    def __init__(self, axis: Axis, start: float, end: float) -> None:
        self.axis, self.start, self.end = axis, start, end
        self.low, self.high = self._of(axis.low), self._of(axis.high)

    def _of(self, value: Number) -> float:
        return log10(value) if self.axis.log else value

    def __call__(self, value: Number) -> float:
        return self.start + (self._of(value) - self.low) / ((self.high - self.low) or 1) * (self.end - self.start)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """Places and texts: the axis's own names, powers of ten, or round numbers."""
        if self.axis.ticks:
            return [(self(v), text) for v, text in self.axis.ticks]
        if self.axis.log:
            powers = [10.0**e for e in range(ceil(self.low), floor(self.high) + 1)]
            return [(self(v), _short(v)) for v in powers]
        low, high = (v / self.axis.divisor for v in (self.low, self.high))
        step = _round_step((high - low) / most)
        step = max(step, 1) if self.axis.whole else step
        values = [i * step for i in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]
        return [(self(v * self.axis.divisor), _short(v)) for v in values]


def drawing(chart: Chart, anchor: Anchor) -> str:
    """The chart as one `<svg>` element; its marks link to rows where `anchor` knows one."""
    parts: list[str] = []
    top = 0.0
    for i, panel in enumerate(chart.panels):
        last = i + 1 == len(chart.panels) or chart.panels[i + 1].x != panel.x
        body, height = Drawn(panel, i, anchor, last).body()
        parts.append(f'<g transform="translate(0 {_n(top)})">{body}</g>')
        top += height
    return (
        f'<svg viewBox="0 0 {WIDTH} {_n(top)}" role="group" aria-label="{escape(chart.title)}" class=chart>'
        f"{''.join(parts)}</svg>"
    )


class Drawn:
    """One panel in its own coordinates."""

    def __init__(self, panel: Panel, index: int, anchor: Anchor, last: bool) -> None:
        self.panel, self.index, self.anchor, self.last = panel, index, anchor, last
        named = max((len(text) for _, text in panel.x.ticks), default=0) if panel.lying else 0
        self.left = max(LEFT, min(named * LETTER + 14, WIDTH / 2.2))
        upright = panel.x if panel.lying else panel.y
        self.named = len(upright.label) * LETTER > UNIT * panel.height
        """Whether the name of the upright axis has no room beside it, and stands behind the title instead."""
        self.top = (22 if panel.title or self.named else 6) + (15 if panel.spans else 0)
        self.bottom = self.top + UNIT * panel.height
        across, up = (panel.y, panel.x) if panel.lying else (panel.x, panel.y)
        told = max((len(m.text) for s in panel.series for m in s.marks), default=0) if panel.lying else 0
        self.right = WIDTH - RIGHT - told * LETTER
        self.across = Scale(across, self.left, self.right)
        self.up = Scale(up, self.top, self.bottom) if panel.lying else Scale(up, self.bottom, self.top)

    def body(self) -> tuple[str, float]:
        """The elements, and the height that they take."""
        panel = self.panel
        named = f"<tspan class=dim dx=12>{escape(self.up.axis.label)}</tspan>" if self.named else ""
        parts = [f"<text class=title x=0 y=14>{escape(panel.title)}{named}</text>"] if panel.title or named else []
        parts += [self._span(i, span) for i, span in enumerate(panel.spans)]
        parts += [self._axes()]
        parts += [self._series(i, series) for i, series in enumerate(panel.series)]
        parts += [self._line(line) for line in panel.lines]
        below = 0 if not self.last else 38 if self._bottom_axis().label else 24
        return "".join(parts), self.bottom + below + 10

    def _bottom_axis(self) -> Axis:
        return self.across.axis

    def _span(self, i: int, span: Span) -> str:
        a, b = self.across(span.start), self.across(span.end)
        shade = f"<rect class=shade x={_n(a)} y={self.top} width={_n(b - a)} height={_n(self.bottom - self.top)} />"
        fits = len(span.text) * LETTER < b - a
        name = f"<text class=dim x={_n((a + b) / 2)} y={self.top - 4} text-anchor=middle>{escape(span.text)}</text>"
        return (shade if i % 2 else "") + (name if fits else "")

    def _axes(self) -> str:
        up, parts = self.up, []
        for place, text in up.ticks(4):
            if not self.panel.lying:
                parts.append(f'<path class=grid d="M{_n(self.left)} {_n(place)}H{_n(self.right)}"/>')
            parts.append(f"<text x={_n(self.left - 6)} y={_n(place + 4)} text-anchor=end>{escape(text)}</text>")
        if up.axis.label and not self.named:
            middle = (self.top + self.bottom) / 2
            parts.append(f'<text class=dim transform="translate(12 {_n(middle)}) rotate(-90)" text-anchor=middle>'
                         f"{escape(up.axis.label)}</text>")  # fmt: skip
        parts.append(f'<path class=axis d="M{_n(self.left)} {_n(self.bottom)}H{_n(self.right)}"/>')
        if self.last:
            ticks = self.across.ticks(8)
            room = (self.right - self.left) / max(len(ticks), 1) / LETTER
            for place, text in ticks:
                shown = text if len(text) <= room else text[: max(int(room) - 1, 1)] + "…"
                parts.append(f"<text x={_n(place)} y={_n(self.bottom + 15)} text-anchor=middle>{escape(shown)}</text>")
            middle = (self.left + self.right) / 2
            parts.append(f"<text class=dim x={_n(middle)} y={_n(self.bottom + 32)} text-anchor=middle>"
                         f"{escape(self._bottom_axis().label)}</text>")  # fmt: skip
        return "".join(parts)

    # -- marks -----------------------------------------------------------------------------------------

    def _series(self, index: int, series: Series) -> str:
        """One path with a part for each mark, and what each is in an attribute beside it: the page's script makes
        them links and tells their values, and a page of many models stays small."""
        if series.form == "line":
            points = "L".join(f"{_n(self.across(m.x))} {_n(self.up(m.y))}" for m in series.marks)
            return f'<path class="line t{series.tone}" d="M{points}"/>'
        outline = {"points": self._point, "steps": self._step, "bars": self._bar}[series.form]
        parts = "".join(outline(mark) for mark in series.marks)
        told = "\n".join(" ".join(self._told(index, mark).split()) for mark in series.marks)
        texts = "".join(self._beside(series, mark) for mark in series.marks if mark.text)
        hollow = " hollow" if series.hollow else ""
        kind = f'"{series.form} t{series.tone}{hollow}"'
        unit = escape(self.panel.y.unit)
        return f'<g class={kind} data-unit="{unit}" data-marks="{escape(told)}"><path d="{parts}"/></g>{texts}'

    def _told(self, index: int, mark: Mark) -> str:
        """`r0-12 0.524` of a mark with a row, which says the rest, in the series' unit; else all there is to say."""
        value = self.panel.y.text(mark.y)
        row = self.anchor(self.index, index, mark.label)
        return (
            f"{row} {value.removesuffix(self.panel.y.unit).strip()}"
            if row
            else " ".join(filter(None, ("-", mark.label, value, mark.detail)))
        )

    def _radius(self, mark: Mark) -> float:
        largest = max(m.size for s in self.panel.series if s.form == "points" for m in s.marks) or 1
        return max(sqrt(mark.size / largest) * LARGEST, 1.5) if self.panel.sizes else 5

    def _point(self, mark: Mark) -> str:
        r = _n(self._radius(mark))
        left = _n(self.across(mark.x) - float(r))
        return f"M{left} {_n(self.up(mark.y))}a{r} {r} 0 1 0 {_n(2 * float(r))} 0a{r} {r} 0 1 0 -{_n(2 * float(r))} 0"

    def _step(self, mark: Mark) -> str:
        a, b = (self.across(mark.x + side * mark.width / 2) for side in (-1, 1))
        up = _n(self.bottom - self.up(mark.y))
        return f"M{_n(a)} {_n(self.bottom)}v-{up}h{_n(b - a)}v{up}"

    def _ends(self, mark: Mark) -> tuple[float, float, float, float]:
        """Of a bar: its two sides, and where it starts and ends."""
        of, along = (self.up, self.across) if self.panel.lying else (self.across, self.up)
        a, b = of(mark.x - mark.width / 2), of(mark.x + mark.width / 2)
        gap = min((b - a) * 0.12, 3)
        return a + gap / 2, max(b - gap / 2, a + gap / 2 + 0.5), along(mark.base), along(mark.base + mark.y)

    def _bar(self, mark: Mark) -> str:
        a, b, start, end = self._ends(mark)
        if self.panel.lying:
            return f"M{_n(start)} {_n(a)}H{_n(end)}V{_n(b)}H{_n(start)}"
        return f"M{_n(a)} {_n(start)}V{_n(end)}h{_n(b - a)}V{_n(start)}"

    def _beside(self, series: Series, mark: Mark) -> str:
        """What is written at a mark."""
        if series.form == "points":
            x, y, anchor = self.across(mark.x) + self._radius(mark) + 3, self.up(mark.y) + 4, "start"
        else:
            a, b, start, end = self._ends(mark)
            if self.panel.lying:
                x, y, anchor = max(start, end) + 5, (a + b) / 2 + 4, "start"
            else:
                x, y, anchor = (a + b) / 2, min(start, end) - 4, "middle"
        return f"<text x={_n(x)} y={_n(y)} text-anchor={anchor}>{escape(mark.text)}</text>"

    def _line(self, line: Line) -> str:
        tone = f"t{line.tone}"
        across = (line.axis == "x") != self.panel.lying
        if across:
            x = _n(self.across(line.value))
            foot = self.bottom - 8 - 14 * line.text.count("\n")
            text = _lines(line.text, float(x) + 4, foot, "start")
            return f'<path class="rule {tone}" d="M{x} {_n(self.top)}V{_n(self.bottom)}"/>{text}'
        y = self.up(line.value)
        told = line.text.replace("\n", ", ")
        if len(told) * LETTER > WIDTH - LEFT - RIGHT:
            told = line.text
        above = y - 5 - 14 * told.count("\n")
        text = _lines(told, WIDTH - RIGHT - 4, above if above > self.top + 8 else y + 14, "end")
        return f'<path class="rule {tone}" d="M{_n(self.left)} {_n(y)}H{_n(self.right)}"/>{text}'


def legend(chart: Chart) -> list[tuple[str, str]]:
    """(name, class) of every kind of mark, where there is more than one; the first name of those that look alike."""
    found: dict[str, str] = {}
    for series in (s for panel in chart.panels for s in panel.series if s.name):
        found.setdefault(f"{series.form} t{series.tone}{' hollow' if series.hollow else ''}", series.name)
    return [(name, kind) for kind, name in found.items()] if len(set(found.values())) > 1 else []


def _lines(text: str, x: float, y: float, anchor: str) -> str:
    if not text:
        return ""
    rows = "".join(
        f"<tspan x={_n(x)} dy={14 if i else 0}>{escape(row)}</tspan>" for i, row in enumerate(text.split("\n"))
    )
    return f"<text class=told y={_n(y)} text-anchor={anchor}>{rows}</text>"


def _round_step(rough: float) -> float:
    """The 1, 2 or 5 times a power of ten that is not below `rough`."""
    power = 10.0 ** floor(log10(rough)) if rough > 0 else 1.0
    return next((m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999), 10 * power)


def _short(value: float) -> str:
    return f"{value:,.10g}".replace("-", "−") if abs(value) >= 1e-4 or value == 0 else f"{value:.0e}"


def _n(x: float) -> str:
    """A coordinate in as few characters as a tenth of a pixel takes."""
    text = f"{x:.1f}"
    return text.removesuffix(".0")
