"""Charts as SVG for the HTML report, with a tooltip for every mark."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from itertools import pairwise
from math import ceil, floor, log10, sqrt

from cspprof.core.units import shortened
from cspprof.render.label_placement import Box, Label, place_labels
from cspprof.report.chart_model import Axis, Chart, Mark, Panel, ReferenceLine, Series, Span

WIDTH, NARROW_WIDTH, PANEL_HEIGHT = 1000, 380, 150
"""The width of the drawing, of the drawing for a phone, and the height of a panel of height 1, in SVG units."""
LEFT, RIGHT, CHARACTER, WIDE_CHARACTER, TITLE_CHARACTER = 70, 14, 6.4, 7.2, 8
CROWDED_POINTS = 400
"""More points than this are drawn small."""
LARGEST_RADIUS = 13
ARROW = 11
"""The length of the arrow below a point that is an upper bound."""
REACH, LINE_HEIGHT = 8, 14
"""The distance of a name from its point, and the height of a line of text."""

RowId = Callable[[int, str], str]
"""From the index of a panel and the label of a mark to the id of a table row; empty if there is none."""


class Scale:
    """A function from the values of an axis to the coordinates between two ends."""

    def __init__(self, axis: Axis, start: float, end: float) -> None:
        self.axis, self.start, self.end = axis, start, end
        self.low, self.high = self._transform(axis.low), self._transform(axis.high)

    def _transform(self, value: float) -> float:
        return log10(value) if self.axis.log else value

    def __call__(self, value: float) -> float:
        fraction = (self._transform(value) - self.low) / ((self.high - self.low) or 1)
        return self.start + fraction * (self.end - self.start)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """Coordinates and texts of the ticks: the labels of the axis, powers of ten, or round numbers."""
        if self.axis.tick_labels:
            return [(self(v), text) for v, text in self.axis.tick_labels]
        if self.axis.log:
            powers = [10.0**e for e in range(ceil(self.low), floor(self.high) + 1)]
            return [(self(v), _tick(v)) for v in powers]
        low, high = (v / self.axis.divisor for v in (self.low, self.high))
        step = _round_step((high - low) / most)
        step = max(step, 1) if self.axis.integer else step
        values = [i * step for i in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]
        return [(self(v * self.axis.divisor), _tick(v)) for v in values]


def chart_svg(chart: Chart, row_id: RowId, chart_id: str = "c0") -> str:
    """The chart as an `<svg>` element, and as a second one, of class `narrow`, for a phone.

    A mark links to the table row of its layer. The second element shows the bars of the first one, compressed: a chart
    of thousands of layers would double the page otherwise. The script of the page copies the tooltips.
    """
    return "".join(_drawing(chart, row_id, chart_id, width) for width in (WIDTH, NARROW_WIDTH))


def _drawing(chart: Chart, row_id: RowId, chart_id: str, width: int) -> str:
    parts: list[str] = []
    top = 0.0
    for i, panel in enumerate(chart.panels):
        last = i + 1 == len(chart.panels) or chart.panels[i + 1].x != panel.x
        content, height = PanelSvg(panel, i, row_id, last, f"{chart_id}-{i}", width).content()
        parts.append(f'<g transform="translate(0 {_n(top)})">{content}</g>')
        top += height
    css_class = "chart" if width == WIDTH else '"chart narrow"'
    return (
        f'<svg viewBox="0 0 {width} {_n(top)}" role="group" aria-label="{escape(chart.title)}" class={css_class}>'
        f"{''.join(parts)}</svg>"
    )


def legend_entries(chart: Chart) -> list[tuple[str, str]]:
    """(name, CSS class) of every kind of mark, if there are several; marks that look alike share one entry."""
    names: dict[str, str] = {}
    for series in (s for panel in chart.panels for s in panel.series if s.name):
        names.setdefault(_css_class(series), series.name)
    return [(name, css_class) for css_class, name in names.items()] if len(set(names.values())) > 1 else []


def _css_class(series: Series) -> str:
    return f"{series.style} c{series.color}{' hollow' if series.hollow else ''}"


class PanelSvg:
    """One panel in its own coordinates."""

    def __init__(self, panel: Panel, index: int, row_id: RowId, last: bool, panel_id: str, width: int) -> None:
        narrow = width < WIDTH
        self.wide = PanelSvg(panel, index, row_id, last, panel_id, WIDTH) if narrow else None
        self.panel_id = panel_id
        if narrow and panel.x.tick_labels and not panel.horizontal:  # names and texts of bars fit below each other only
            panel = panel._replace(horizontal=True, height=0.1 + 0.12 * len(panel.x.tick_labels))
        self.panel, self.index, self.row_id, self.last, self.width = panel, index, row_id, last, width
        longest = max((len(text) for _, text in panel.x.tick_labels), default=0) if panel.horizontal else 0
        self.left = max(LEFT, min(longest * WIDE_CHARACTER + 12, width / 2.2))
        upright = panel.x if panel.horizontal else panel.y
        self.axis_label_in_title = len(upright.label) * CHARACTER > PANEL_HEIGHT * panel.height
        """Whether the label of the vertical axis is too long for the axis and follows the title."""
        self.texts_above = [line.text for line in panel.lines if narrow and line.axis == "y" and "\n" in line.text]
        """The long texts of lines, which would cover the marks of a narrow panel."""
        rows_above = sum(text.count("\n") + 1 for text in self.texts_above)
        self.top = (22 if panel.title or self.axis_label_in_title else 6) + (15 if panel.spans else 0)
        self.top += LINE_HEIGHT * rows_above
        self.bottom = self.top + PANEL_HEIGHT * panel.height
        across, up = (panel.y, panel.x) if panel.horizontal else (panel.x, panel.y)
        texts = (len(m.text) for s in panel.series for m in s.marks)
        text_length = max(texts, default=0) if panel.horizontal else 0
        self.right = width - RIGHT - text_length * CHARACTER
        self.across = Scale(across, self.left, self.right)
        self.up = Scale(up, self.top, self.bottom) if panel.horizontal else Scale(up, self.bottom, self.top)

    def content(self) -> tuple[str, float]:
        """The SVG elements of the panel, and their height."""
        panel = self.panel
        label = f"<tspan class=dim dx=12>{escape(self.up.axis.label)}</tspan>" if self.axis_label_in_title else ""
        title = escape(shortened(panel.title, int(self.width / TITLE_CHARACTER)))
        parts = [f"<text class=title x=0 y=14>{title}{label}</text>"] if title or label else []
        above = [row for text in self.texts_above for row in text.split("\n")]
        parts += [f"<text x=0 y={28 + LINE_HEIGHT * i}>{escape(row)}</text>" for i, row in enumerate(above)]
        parts += [self._span(i, span) for i, span in enumerate(panel.spans)]
        parts += [self._axes()]
        parts += [self._series(i, series) for i, series in enumerate(panel.series)]
        parts += [self._line(line) for line in panel.lines]
        parts += [self._names()]
        below = 0 if not self.last else 38 if self.across.axis.label else 24
        return "".join(parts), self.bottom + below + 10

    def _span(self, i: int, span: Span) -> str:
        a, b = self.across(span.start), self.across(span.end)
        shade = f"<rect class=shade x={_n(a)} y={self.top} width={_n(b - a)} height={_n(self.bottom - self.top)} />"
        fits = len(span.text) * CHARACTER + 6 < b - a
        name = f"<text class=dim x={_n((a + b) / 2)} y={self.top - 4} text-anchor=middle>{escape(span.text)}</text>"
        return (shade if i % 2 else "") + (name if fits else "")

    def _axes(self) -> str:
        up, parts = self.up, []
        for y, text in up.ticks(4):
            if not self.panel.horizontal:
                parts.append(f'<path class=grid d="M{_n(self.left)} {_n(y)}H{_n(self.right)}"/>')
            short = shortened(text, int((self.left - 14) / CHARACTER + 0.01)) if up.axis.tick_labels else text
            parts.append(f"<text x={_n(self.left - 6)} y={_n(y + 4)} text-anchor=end>{escape(short)}</text>")
        if up.axis.label and not self.axis_label_in_title:
            middle = (self.top + self.bottom) / 2
            parts.append(f'<text class=dim transform="translate(12 {_n(middle)}) rotate(-90)" text-anchor=middle>'
                         f"{escape(up.axis.label)}</text>")  # fmt: skip
        parts.append(f'<path class=axis d="M{_n(self.left)} {_n(self.bottom)}H{_n(self.right)}"/>')
        if self.last:
            length = self.right - self.left
            ticks = self.across.ticks(max(min(int(length / 50), 8), 1))
            most = int(length / max(len(ticks), 1) / CHARACTER)
            for x, text in ticks:
                short = shortened(text, max(most, 3)) if self.across.axis.tick_labels else text
                parts.append(f"<text x={_n(x)} y={_n(self.bottom + 15)} text-anchor=middle>{escape(short)}</text>")
            middle = (self.left + self.right) / 2
            parts.append(f"<text class=dim x={_n(middle)} y={_n(self.bottom + 32)} text-anchor=middle>"
                         f"{escape(self.across.axis.label)}</text>")  # fmt: skip
        return "".join(parts)

    # -- marks -----------------------------------------------------------------------------------------

    def _series(self, i: int, series: Series) -> str:
        """One path with a subpath per mark, and the tooltips of the marks in an attribute.

        The script of the page makes a link of each subpath, so that a page of many models stays small.
        """
        path_id = f"{self.panel_id}-{i}"
        if series.style == "line":
            points = "L".join(f"{_n(self.across(m.x))} {_n(self.up(m.y))}" for m in series.marks)
            return f'<path class="line c{series.color}" d="M{points}"/>'
        if self.wide is not None and series.style != "points" and self.panel.horizontal == self.wide.panel.horizontal:
            copy = (
                f'<g class="{_css_class(series)}" data-copy transform="{self._from(self.wide)}"><use href=#{path_id} />'
            )
            return f"{copy}</g>{self._texts(series)}"
        point_or_bound = self._bound if series.upper_bounds else self._point
        subpath = {"points": point_or_bound, "steps": self._step, "bars": self._bar}[series.style]
        path = "".join(subpath(mark) for mark in series.marks)
        if self.wide is not None:
            return f'<g class="{_css_class(series)}" data-copy><path d="{path}"/></g>{self._texts(series)}'
        tooltips = "\n".join(" ".join(self._tooltip(series, mark).split()) for mark in series.marks)
        unit = escape(self.panel.y.unit)
        return (
            f'<g class="{_css_class(series)}" data-unit="{unit}" data-marks="{escape(tooltips)}">'
            f'<path d="{path}" id={path_id} /></g>'
            f"{self._texts(series)}"
        )

    def _from(self, wide: PanelSvg) -> str:
        """The transformation from the coordinates of the wide panel to those of this one."""
        x = (self.right - self.left) / (wide.right - wide.left)
        return f"translate({_n(self.left - x * wide.left)} {_n(self.top - wide.top)}) scale({x:.4f} 1)"

    def _texts(self, series: Series) -> str:
        """The texts at the ends of bars."""
        return "" if series.style == "points" else "".join(self._annotation(m) for m in series.marks if m.text)

    def _tooltip(self, series: Series, mark: Mark) -> str:
        """`r0-12 0.524`: the id of the table row, which has the details, and the value in the unit of the series.

        A mark without a row has `-`, its label, its value and its details.
        """
        value = ("≤ " if series.upper_bounds else "") + self.panel.y.format(mark.y)
        row = self.row_id(self.index, mark.label)
        return (
            f"{row} {value.removesuffix(self.panel.y.unit).strip()}"
            if row
            else " ".join(filter(None, ("-", mark.label, value, mark.detail)))
        )

    def _radius(self, mark: Mark) -> float:
        largest = max(m.size for s in self.panel.series if s.style == "points" for m in s.marks) or 1
        if self.panel.size_name:
            return max(sqrt(mark.size / largest) * LARGEST_RADIUS, 1.5)
        return 5 if sum(len(s.marks) for s in self.panel.series) <= CROWDED_POINTS else 1.5

    def _point(self, mark: Mark) -> str:
        r = self._radius(mark)
        x, bottom = self._position(mark)[0], self._position(mark)[1] + r
        return f"M{_n(x)} {_n(bottom)}a{_n(r)} {_n(r)} 0 11.01 0"  # one arc from the bottom around to the bottom

    def _bound(self, mark: Mark) -> str:
        """A point with an arrow downwards, in one subpath."""
        return f"{self._point(mark)}v{ARROW}m-3.5-4l3.5 4 3.5-4"

    def _step(self, mark: Mark) -> str:
        a, b = (self.across(mark.x + side * mark.width / 2) for side in (-1, 1))
        height = _n(self.bottom - self.up(mark.y))
        return f"M{_n(a)} {_n(self.bottom)}v-{height}h{_n(b - a)}v{height}"

    def _bar_edges(self, mark: Mark) -> tuple[float, float, float, float]:
        """The two sides of a bar, its start and its end."""
        of, along = (self.up, self.across) if self.panel.horizontal else (self.across, self.up)
        a, b = of(mark.x - mark.width / 2), of(mark.x + mark.width / 2)
        gap = min((b - a) * 0.12, 3)
        return a + gap / 2, max(b - gap / 2, a + gap / 2 + 0.5), along(mark.base), along(mark.base + mark.y)

    def _bar(self, mark: Mark) -> str:
        a, b, start, end = self._bar_edges(mark)
        if self.panel.horizontal:
            return f"M{_n(start)} {_n(a)}H{_n(end)}V{_n(b)}H{_n(start)}"
        return f"M{_n(a)} {_n(start)}V{_n(end)}h{_n(b - a)}V{_n(start)}"

    def _annotation(self, mark: Mark) -> str:
        """The text at the end of a bar."""
        a, b, start, end = self._bar_edges(mark)
        if self.panel.horizontal:
            x, y, anchor = max(start, end) + 5, (a + b) / 2 + 4, ""
        else:
            x, y, anchor = (a + b) / 2, min(start, end) - 4, " text-anchor=middle"
        return f"<text x={_n(x)} y={_n(y)}{anchor}>{escape(mark.text)}</text>"

    def _names(self) -> str:
        """The names of points, where they cover least; a distant name gets a leader line."""
        points = [m for s in self.panel.series if s.style == "points" for m in s.marks]
        named = sorted((m for m in points if m.text), key=lambda m: (-m.y, m.x))
        labels = [Label(self._position(m), len(m.text) * CHARACTER, LINE_HEIGHT) for m in named]
        lines = [
            (self._position(a), self._position(b))
            for s in self.panel.series if s.style == "line" for a, b in pairwise(s.marks)
        ]  # fmt: skip
        frame = Box(self.left, self.top, self.right, self.bottom)
        boxes = place_labels(labels, [self._position(m) for m in points], lines, [], frame, REACH)
        parts = []
        for mark, label, (box, far) in zip(named, labels, boxes, strict=True):
            if far:
                (x, y), (end_x, end_y) = label.point, box.nearest(label.point)
                parts.append(f'<path class=leader d="M{_n(x)} {_n(y)}L{_n(end_x)} {_n(end_y)}"/>')
            x, y = (box.x0 + box.x1) / 2, box.y1 - 3.5
            parts.append(f"<text x={_n(x)} y={_n(y)} text-anchor=middle>{escape(mark.text)}</text>")
        return "".join(parts)

    def _position(self, mark: Mark) -> tuple[float, float]:
        return self.across(mark.x), self.up(mark.y)

    def _line(self, line: ReferenceLine) -> str:
        css_class = f'"rule c{line.color}"'
        vertical = (line.axis == "x") != self.panel.horizontal
        if vertical:
            x = _n(self.across(line.value))
            foot = self.bottom - 8 - LINE_HEIGHT * line.text.count("\n")
            left = float(x) > (self.left + self.right) / 2
            text = _text_lines(line.text, float(x) + (-4 if left else 4), foot, "end" if left else "start")
            return f'<path class={css_class} d="M{x} {_n(self.top)}V{_n(self.bottom)}"/>{text}'
        y = self.up(line.value)
        in_one_line = line.text.replace("\n", ", ")
        if line.text in self.texts_above:
            in_one_line = ""
        content = in_one_line if len(in_one_line) * CHARACTER <= self.width - LEFT - RIGHT else line.text
        above = y - 5 - 14 * content.count("\n")
        text = _text_lines(content, self.width - RIGHT - 4, above if above > self.top + 8 else y + 14, "end")
        return f'<path class={css_class} d="M{_n(self.left)} {_n(y)}H{_n(self.right)}"/>{text}'


def _text_lines(text: str, x: float, y: float, anchor: str) -> str:
    if not text:
        return ""
    rows = "".join(
        f"<tspan x={_n(x)} dy={14 if i else 0}>{escape(row)}</tspan>" for i, row in enumerate(text.split("\n"))
    )
    return f"<text class=annotation y={_n(y)} text-anchor={anchor}>{rows}</text>"


def _round_step(least: float) -> float:
    """The smallest 1, 2 or 5 times a power of ten that is not below `least`."""
    power = 10.0 ** floor(log10(least)) if least > 0 else 1.0
    return next((m * power for m in (1, 2, 5, 10) if m * power >= least * 0.999), 10 * power)


def _tick(value: float) -> str:
    return f"{value:,.10g}".replace("-", "−") if abs(value) >= 1e-4 or value == 0 else f"{value:.0e}"


def _n(x: float) -> str:
    """A coordinate with one decimal place at most."""
    return f"{x:.1f}".removesuffix(".0")
