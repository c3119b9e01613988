"""Charts in a terminal: bars of block characters, with colour where there is any and the same shapes without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import log10
from string import ascii_letters, digits

from rich.text import Text

from cspprof.core.units import shortened, significant
from cspprof.report.chart_model import Axis, Chart, Mark, Panel, Series, Tone

COLOURS = ("blue", "yellow", "green", "magenta", "cyan", "red")
MEANING = {"muted": "bright_black", "strong": "bold", "less": "blue", "more": "red"}
FILLS = "█▒▓░"
"""Of a panel's series, to be told apart without colour."""
EIGHTHS = " ▏▎▍▌▋▊▉█"
LOWER = " ▁▂▃▄▅▆▇█"
ROWS = 8
"""Lines of text that a standing panel is high."""
PLOT_ROWS = 16
SIGNS = "●■◆▲▼+"
LETTERS = ascii_letters + digits
WIDEST = 100
"""Characters; wider terminals leave the rest empty."""


def chart_text(chart: Chart, width: int) -> Text:
    """The chart in lines of at most `width` characters."""
    wide = max(min(width, WIDEST), 40)
    parts = [Text(chart.title, style="bold")]
    for panel in chart.panels:
        if panel.title:
            parts += [Text(), Text(panel.title)]
        parts += _panel(panel, wide)
    if chart.caption:
        parts += [Text(), *_wrapped(chart.caption, wide)]
    return Text("\n").join(parts)


def _wrapped(text: str, wide: int) -> list[Text]:
    import textwrap

    return [Text(line, style="bright_black") for line in textwrap.wrap(text, wide)]


def _panel(panel: Panel, wide: int) -> Iterator[Text]:
    forms = {s.form for s in panel.series}
    if panel.x.ticks and forms == {"bars"}:
        yield from _lying(panel, wide)
    elif forms <= {"bars", "steps"}:
        yield from _standing(panel, wide)
    else:
        yield from _scattered(panel, wide)
    for line in panel.lines:
        if line.text:
            yield Text(" ".join(line.text.split("\n")), style=_style(line.tone))


def _style(tone: Tone) -> str:
    return COLOURS[tone % len(COLOURS)] if isinstance(tone, int) else MEANING[tone]


def _number(axis: Axis, value: float) -> str:
    """A value at an axis, which names the unit."""
    return significant(value / axis.divisor)


# -- bars with a name each ----------------------------------------------------------------------------


def _lying(panel: Panel, wide: int) -> Iterator[Text]:
    """A line for each bar: its name, the bar from where it stands, and what is written next to it."""
    bars = sorted(((m, s.tone) for s in panel.series for m in s.marks), key=lambda b: b[0].x)
    names = dict(panel.x.ticks)
    told = [m.text or panel.y.text(m.y) for m, _ in bars]
    beside = max(map(len, told)) + 2
    side = min(max(len(names.get(m.x, m.label)) for m, _ in bars), wide // 2, wide - beside - 6)
    room = wide - side - beside
    low = min(0, *(v for m, _ in bars for v in (m.base, m.base + m.y)))
    high = max(0, *(v for m, _ in bars for v in (m.base, m.base + m.y)))
    for (m, tone), text in zip(bars, told, strict=True):
        name = shortened(names.get(m.x, m.label), side)
        start, end = sorted(((m.base - low) / (high - low or 1), (m.base + m.y - low) / (high - low or 1)))
        yield Text.assemble(f"{name:<{side}} ", (_stretch(start, end, room), _style(tone)), f" {text}")


def _stretch(start: float, end: float, room: int) -> str:
    """A bar from one fraction of the room to another, its end to an eighth of a character."""
    first, last = round(start * room), end * room
    whole = int(last)
    rest = EIGHTHS[int((last - whole) * 8)] if whole >= first else ""
    bar = " " * first + "█" * max(whole - first, 0) + rest.strip()
    if end > start and not bar.strip():
        bar += "▏"  # what is there is seen
    return f"{bar[:room]:<{room}}"


# -- bars over an order -------------------------------------------------------------------------------


def _standing(panel: Panel, wide: int) -> Iterator[Text]:
    """Columns of blocks. Where there are more bars than columns, the highest of a column's bars stands for it."""
    labels = [_number(panel.y, panel.y.high * f) for f in (1, 0.5)]
    side = max(map(len, labels)) + 1
    room = wide - side
    columns = _columns(panel, room)
    for row in reversed(range(ROWS)):
        label = labels[0] if row == ROWS - 1 else labels[1] if row == ROWS // 2 - 1 else "0" if row == 0 else ""
        line = Text(f"{label:>{side - 1}}│")
        for stack in columns:
            line.append(*_cell(stack, row))
        yield line
    yield Text(" " * (side - 1) + "└" + "─" * len(columns))
    if panel.spans:
        yield Text(" " * side + _stage_names(panel, len(columns)), style="bright_black")
    yield Text(f"up: {panel.y.label}, across: {panel.x.label}", style="bright_black")
    if len(panel.series) > 1:
        names = (Text(f"{FILLS[i % len(FILLS)]} {s.name}", style=_style(s.tone)) for i, s in enumerate(panel.series))
        yield Text("  ").join(names)


Column = list[tuple[float, str, str]]
"""From below: up to which height, in fractions of the axis, with which fill and style."""


def _columns(panel: Panel, room: int) -> list[Column]:
    count = int(panel.x.high - panel.x.low)
    wide = max(min(room // max(count, 1), 3), 1)
    columns = min(count * wide, room)
    at: dict[int, dict[float, list[tuple[Mark, int, Series]]]] = {}
    for i, s in enumerate(panel.series):
        for m in s.marks:
            first = int((m.x - 0.5 - panel.x.low) / count * columns)
            last = max(int((m.x + 0.5 - panel.x.low) / count * columns), first + 1)
            for c in range(first, min(last, columns)):
                at.setdefault(c, {}).setdefault(m.x, []).append((m, i, s))
    made: list[Column] = []
    for c in range(columns):
        stacks = at.get(c, {}).values()
        best = max(stacks, key=lambda stack: max(m.base + m.y for m, _, _ in stack), default=[])
        made.append([
            ((m.base + m.y) / panel.y.high, FILLS[i % len(FILLS)], _style(s.tone))
            for m, i, s in sorted(best, key=lambda b: b[0].base)
        ])  # fmt: skip
    return made


def _cell(stack: Column, row: int) -> tuple[str, str]:
    """The character of a column in a line, counted from below: the fill that reaches its middle, an end in eighths."""
    top = stack[-1][0] * ROWS if stack else 0
    if top <= row:
        return (" ", "") if row or not stack or not top else (LOWER[1], stack[-1][2])
    for height, fill, style in stack:
        if height * ROWS >= min(row + 0.5, top):
            part = LOWER[max(min(int((top - row) * 8), 8), 1)]
            return (part if part != "█" and height * ROWS >= top else fill), style
    return stack[-1][1], stack[-1][2]


def _stage_names(panel: Panel, columns: int) -> str:
    """Names of stages under where they begin, those that fit."""
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


def _scattered(panel: Panel, wide: int) -> Iterator[Text]:
    """A field of characters; points with a name are letters that a list below spells out."""
    labels = _number(panel.y, panel.y.high), _number(panel.y, panel.y.low)
    side = max(map(len, labels)) + 1
    room = wide - side
    field = [[(" ", "")] * room for _ in range(PLOT_ROWS)]
    listed: list[tuple[str, Mark, str]] = []
    for s in sorted(panel.series, key=lambda s: s.form == "points"):
        style = _style(s.tone)
        if s.form == "line":
            for x, y in _along(panel, s.marks, room):
                field[y][x] = ("·", style)
            continue
        sign = SIGNS[s.tone % len(SIGNS)] if isinstance(s.tone, int) else "○"
        for m in s.marks:
            letter = LETTERS[len(listed) % len(LETTERS)] if m.text else sign
            field[_place(panel.y, m.y, PLOT_ROWS)][_place(panel.x, m.x, room)] = (letter, style)
            if m.text:
                listed.append((letter, m, style))
        if not any(m.text for m in s.marks):
            listed.append((sign, Mark(0, 0, text=s.name), style))
    for row in reversed(range(PLOT_ROWS)):
        label = labels[0] if row == PLOT_ROWS - 1 else labels[1] if row == 0 else ""
        line = Text(f"{label:>{side - 1}}│")
        for character, style in field[row]:
            line.append(character, style)
        yield line
    ends = _number(panel.x, panel.x.low), _number(panel.x, panel.x.high)
    yield Text(" " * (side - 1) + "└" + "─" * room)
    yield Text(" " * side + f"{ends[0]}{ends[1]:>{room - len(ends[0])}}")
    yield Text(f"up: {panel.y.label}, across: {panel.x.label}", style="bright_black")
    for letter, m, style in listed:
        at = f" ({panel.x.text(m.x)}, {panel.y.text(m.y)})" if m.label else ""
        yield Text.assemble((letter, style), f" {m.text}{at}")


def _place(axis: Axis, value: float, cells: int) -> int:
    """The cell of a value on an axis."""
    low, high = (log10(axis.low), log10(axis.high)) if axis.log else (axis.low, axis.high)
    at = log10(value) if axis.log else value
    return min(max(int((at - low) / (high - low) * cells), 0), cells - 1)


def _along(panel: Panel, marks: Sequence[Mark], room: int) -> Iterator[tuple[int, int]]:
    """The cells of straight lines from mark to mark."""
    ends = [(_place(panel.x, m.x, room), _place(panel.y, m.y, PLOT_ROWS)) for m in marks]
    for (x0, y0), (x1, y1) in pairwise(ends):
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for i in range(steps + 1):
            yield round(x0 + (x1 - x0) * i / steps), round(y0 + (y1 - y0) * i / steps)
