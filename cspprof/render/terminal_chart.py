"""Charts as block characters for a terminal, in color if it supports color and with distinct shapes if not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import log10
from string import ascii_letters, digits
from textwrap import wrap

from cspprof.core.units import shortened, significant
from cspprof.report.chart_model import Axis, Chart, Color, Mark, Panel, Series

Segment = tuple[str, str]
"""A piece of a line and its style, in the names of rich."""
Line = list[Segment]

PALETTE = ("blue", "yellow", "green", "magenta", "cyan", "red")
COLOR_MEANINGS = {"muted": "bright_black", "strong": "bold", "less": "blue", "more": "red"}
FILLS = "█▒▓░"
"""The fill characters of the series of a panel."""
LEFT_EIGHTHS = " ▏▎▍▌▋▊▉█"
LOWER_EIGHTHS = " ▁▂▃▄▅▆▇█"
BAR_HEIGHT = 8
"""The height of a panel of vertical bars, in lines."""
PLOT_HEIGHT = 16
MARKERS, HOLLOW_MARKERS = "●■◆▲▼+", "○□◇△▽×"
OTHER_MARKERS = {"muted": "○", "strong": "◉"}
"""The markers of points in a color with a meaning."""
LETTERS = ascii_letters + digits
MOST_WIDTH = 100
LEAST_WIDTH = 40


def chart_lines(chart: Chart, width: int) -> list[Line]:
    """The chart in lines of at most `width` characters."""
    width = max(min(width, MOST_WIDTH), LEAST_WIDTH)
    lines: list[Line] = [[(chart.title, "bold")]]
    for panel in chart.panels:
        if panel.title:
            lines += [[], [(panel.title, "")]]
        lines += _panel(panel, width)
    if chart.caption:
        lines += [[], *([(line, "bright_black")] for line in wrap(chart.caption, width))]
    return lines


def _panel(panel: Panel, width: int) -> Iterator[Line]:
    styles = {s.style for s in panel.series}
    if panel.x.tick_labels and styles == {"bars"}:
        yield from _horizontal_bars(panel, width)
    elif styles <= {"bars", "steps"}:
        yield from _vertical_bars(panel, width)
    else:
        yield from _scatter_plot(panel, width)
    for line in panel.lines:
        if line.text:
            yield [(" ".join(line.text.split("\n")), _style(line.color))]


def _style(color: Color) -> str:
    return PALETTE[color % len(PALETTE)] if isinstance(color, int) else COLOR_MEANINGS[color]


def _tick(axis: Axis, value: float) -> str:
    return significant(value / axis.divisor)


def _axis_titles(panel: Panel) -> Line:
    return [(f"up: {panel.y.label}, across: {panel.x.label}", "bright_black")]


# -- horizontal bars ----------------------------------------------------------------------------------


def _horizontal_bars(panel: Panel, width: int) -> Iterator[Line]:
    """One line per bar: its name, the bar, and its annotation or value."""
    bars = sorted(((m, s.color) for s in panel.series for m in s.marks), key=lambda b: b[0].x)
    names = dict(panel.x.tick_labels)
    texts = [m.text or panel.y.format(m.y) for m, _ in bars]
    text_width = max(map(len, texts)) + 2
    name_width = min(max(len(names.get(m.x, m.label)) for m, _ in bars), width // 2, width - text_width - 6)
    bar_width = width - name_width - text_width
    low = min(0, *(v for m, _ in bars for v in (m.base, m.base + m.y)))
    high = max(0, *(v for m, _ in bars for v in (m.base, m.base + m.y)))
    for (m, color), text in zip(bars, texts, strict=True):
        name = shortened(names.get(m.x, m.label), name_width)
        start, end = sorted(((m.base - low) / (high - low or 1), (m.base + m.y - low) / (high - low or 1)))
        yield [(f"{name:<{name_width}} ", ""), (_bar(start, end, bar_width), _style(color)), (f" {text}", "")]


def _bar(start: float, end: float, width: int) -> str:
    """A bar between two fractions of the width, whose end has a resolution of an eighth of a character."""
    first, last = round(start * width), end * width
    whole = int(last)
    rest = LEFT_EIGHTHS[int((last - whole) * 8)] if whole >= first else ""
    bar = " " * first + "█" * max(whole - first, 0) + rest.strip()
    if end > start and not bar.strip():
        bar += "▏"  # a small bar remains visible
    return f"{bar[:width]:<{width}}"


# -- vertical bars ------------------------------------------------------------------------------------

Stack = list[tuple[float, str, str]]
"""The parts of a stacked bar from bottom to top, or bars one behind the other from the lowest to the highest: upper
end as a fraction of the axis, fill, style."""


def _vertical_bars(panel: Panel, width: int) -> Iterator[Line]:
    """Columns of blocks. If there are more bars than columns, a column shows the highest of its bars."""
    labels = [_tick(panel.y, panel.y.high * f) for f in (1, 0.5)]
    label_width = max(map(len, labels)) + 1
    stacks = _stacks(panel, width - label_width)
    for row in reversed(range(BAR_HEIGHT)):
        label = (
            labels[0] if row == BAR_HEIGHT - 1 else labels[1] if row == BAR_HEIGHT // 2 - 1 else "0" if row == 0 else ""
        )
        yield [(f"{label:>{label_width - 1}}│", ""), *(_block(stack, row) for stack in stacks)]
    yield [(" " * (label_width - 1) + "└" + "─" * len(stacks), "")]
    if panel.spans:
        yield [(" " * label_width + _stage_names(panel, len(stacks)), "bright_black")]
    yield _axis_titles(panel)
    if len(panel.series) > 1:
        names = [(f"{FILLS[i % len(FILLS)]} {s.name}", _style(s.color)) for i, s in enumerate(panel.series)]
        yield [names[0], *(segment for name in names[1:] for segment in (("  ", ""), name))]


def _stacks(panel: Panel, width: int) -> list[Stack]:
    count = int(panel.x.high - panel.x.low)
    bar_width = max(min(width // max(count, 1), 3), 1)
    columns = min(count * bar_width, width)
    marks_at: dict[int, dict[float, list[tuple[Mark, int, Series]]]] = {}
    for i, s in enumerate(panel.series):
        for m in s.marks:
            first = int((m.x - 0.5 - panel.x.low) / count * columns)
            last = max(int((m.x + 0.5 - panel.x.low) / count * columns), first + 1)
            for c in range(first, min(last, columns)):
                marks_at.setdefault(c, {}).setdefault(m.x, []).append((m, i, s))
    stacks: list[Stack] = []
    for c in range(columns):
        bars = marks_at.get(c, {}).values()
        highest = max(bars, key=lambda bar: max(m.base + m.y for m, _, _ in bar), default=[])
        stacks.append([
            ((m.base + m.y) / panel.y.high, FILLS[i % len(FILLS)], _style(s.color))
            for m, i, s in sorted(highest, key=lambda b: (b[0].base + b[0].y, b[0].base, -b[1]))
        ])  # fmt: skip
    return stacks


def _block(stack: Stack, row: int) -> Segment:
    """The character of a stack in a row, counted from the bottom: the fill at its middle, or an end in eighths."""
    top = stack[-1][0] * BAR_HEIGHT if stack else 0
    if top <= row:
        return (" ", "") if row or not stack or not top else (LOWER_EIGHTHS[1], stack[-1][2])
    for height, fill, style in stack:
        if height * BAR_HEIGHT >= min(row + 0.5, top):
            part = LOWER_EIGHTHS[max(min(int((top - row) * 8), 8), 1)]
            return (part if part != "█" and height * BAR_HEIGHT >= top else fill), style
    return stack[-1][1], stack[-1][2]


def _stage_names(panel: Panel, columns: int) -> str:
    """The names of the stages below their first columns, where they fit."""
    line = [" "] * columns
    scale = columns / (panel.x.high - panel.x.low)
    for span in panel.spans:
        start, end = (int((v - panel.x.low) * scale) for v in (span.start, span.end))
        if len(span.text) + 1 <= end - start:
            line[start : start + len(span.text) + 1] = f"╵{span.text}"
        elif start < columns:
            line[start] = "╵"
    return "".join(line).rstrip()


# -- points and lines ---------------------------------------------------------------------------------


def _marker(series: Series) -> str:
    if series.upper_bounds:
        return "▼"
    if isinstance(series.color, int):
        markers = HOLLOW_MARKERS if series.hollow else MARKERS
        return markers[series.color % len(markers)]
    return OTHER_MARKERS.get(series.color, "○")


def _scatter_plot(panel: Panel, width: int) -> Iterator[Line]:
    """A grid of characters. Annotated points are letters, and a list below the grid says what they mean."""
    labels = _tick(panel.y, panel.y.high), _tick(panel.y, panel.y.low)
    label_width = max(map(len, labels)) + 1
    columns = width - label_width
    grid = [[(" ", "")] * columns for _ in range(PLOT_HEIGHT)]
    legend: list[tuple[str, Mark, str]] = []
    for s in sorted(panel.series, key=lambda s: s.style == "points"):
        style = _style(s.color)
        if s.style == "line":
            for x, y in _line_cells(panel, s.marks, columns):
                grid[y][x] = ("·", style)
            continue
        marker = _marker(s)
        meaning = f", {s.name}" if s.name and sum(other.style == "points" for other in panel.series) > 1 else ""
        for m in s.marks:
            letter = LETTERS[len(legend) % len(LETTERS)] if m.text else marker
            grid[_cell(panel.y, m.y, PLOT_HEIGHT)][_cell(panel.x, m.x, columns)] = (letter, style)
            if m.text:
                legend.append((letter, m._replace(text=m.text + meaning), style))
        if s.name and not any(m.text for m in s.marks):
            legend.append((marker, Mark(0, 0, text=s.name + (" (upper bounds)" if s.upper_bounds else "")), style))
    for row in reversed(range(PLOT_HEIGHT)):
        label = labels[0] if row == PLOT_HEIGHT - 1 else labels[1] if row == 0 else ""
        yield [(f"{label:>{label_width - 1}}│", ""), *grid[row]]
    low, high = _tick(panel.x, panel.x.low), _tick(panel.x, panel.x.high)
    yield [(" " * (label_width - 1) + "└" + "─" * columns, "")]
    yield [(" " * label_width + f"{low}{high:>{columns - len(low)}}", "")]
    yield _axis_titles(panel)
    for letter, m, style in legend:
        values = f" ({panel.x.format(m.x)}, {panel.y.format(m.y)})" if m.label else ""
        yield [(letter, style), (f" {m.text}{values}", "")]


def _cell(axis: Axis, value: float, cells: int) -> int:
    """The cell of a value on an axis."""
    low, high = (log10(axis.low), log10(axis.high)) if axis.log else (axis.low, axis.high)
    scaled = log10(value) if axis.log else value
    return min(max(int((scaled - low) / (high - low) * cells), 0), cells - 1)


def _line_cells(panel: Panel, marks: Sequence[Mark], columns: int) -> Iterator[tuple[int, int]]:
    """The cells of straight lines from mark to mark."""
    ends = [(_cell(panel.x, m.x, columns), _cell(panel.y, m.y, PLOT_HEIGHT)) for m in marks]
    for (x0, y0), (x1, y1) in pairwise(ends):
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for i in range(steps + 1):
            yield round(x0 + (x1 - x0) * i / steps), round(y0 + (y1 - y0) * i / steps)
