"""One panel of a chart on matplotlib axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cspprof.core.units import shortened
from cspprof.render.label_placement import Box, Label, place_labels
from cspprof.report.chart_model import Color, Mark, Panel, ReferenceLine, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.path import Path
    from matplotlib.transforms import Bbox

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""The palette of Okabe and Ito (2008), which color-blind readers can distinguish."""
COLOR_MEANINGS = {"muted": "#8C8C8C", "strong": "#333333", "less": "#0072B2", "more": "#D55E00"}
MARKERS = "osD^vP"
SPAN_COLOR, GREY = "#F1F1F1", "#555555"
SMALL, TICK_SIZE = 5.5, 6
CHARACTER_WIDTH = 0.56
"""The mean width of a character, relative to the size of the text."""
TITLE_CHARACTER_INCHES = 0.052
ARROW_POINTS = 5
"""The length of the arrow below a point that is an upper bound, in points."""
SMALLEST = 4
"""The smallest text, in points, where many names or numbers stand beside each other."""
CROWDED = 100
"""More bars than this touch each other and have an edge, so that a single high bar stays visible."""
CROWDED_POINTS = 400
"""More points than this are drawn small."""


def color_of(color: Color) -> str:
    return PALETTE[color % len(PALETTE)] if isinstance(color, int) else COLOR_MEANINGS[color]


def text_color(color: Color) -> str:
    """A darker shade of a color, readable as text on white."""
    from matplotlib.colors import to_hex, to_rgb

    red, green, blue = to_rgb(color_of(color))
    return to_hex((red * 0.65, green * 0.65, blue * 0.65))


def draw_panel(axes: Axes, panel: Panel, before: Panel | None, width: float, x_label: bool) -> None:
    """Draw everything except annotations, which `place_annotations` adds when the sizes are known.

    Stage names and a legend that equal those of the panel `before` are not repeated.
    """
    from matplotlib.transforms import ScaledTranslation

    repeats_stages = before is not None and before.spans == panel.spans
    pad = 9 if panel.spans and not repeats_stages else 3
    names = [s.name for s in panel.series] if _has_legend(panel, before) else []
    beside_title = all(s.style == "bars" for s in panel.series)  # bars leave no space for a legend among them
    legend_length = sum(len(name) + 3 for name in names) if beside_title else 0
    axes.set_title(shortened(panel.title, int((width - 0.5) / TITLE_CHARACTER_INCHES - legend_length)), pad=pad)
    _draw_axes(axes, panel, x_label, width)
    _draw_spans(axes, panel, width, names=not repeats_stages)
    largest = max((m.size for s in panel.series for m in s.marks), default=1)
    for series in panel.series:
        draw = {"bars": _draw_bars, "steps": _draw_steps, "line": _draw_line, "points": _draw_points}[series.style]
        draw(axes, panel, series, largest)
    for line in panel.lines:
        across = axes.axhline if (line.axis == "y") != panel.horizontal else axes.axvline
        divisor = panel.y.divisor if line.axis == "y" else panel.x.divisor
        across(line.value / divisor, color=color_of(line.color), linewidth=0.7, linestyle=(0, (4, 2)), zorder=3)
    if names and beside_title:
        lifted = axes.transAxes + ScaledTranslation(0, pad / 72, axes.figure.dpi_scale_trans)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), bbox_transform=lifted, ncols=len(names))
    elif names:
        axes.legend(loc="best")


def _has_legend(panel: Panel, before: Panel | None) -> bool:
    names = [s.name for s in panel.series]
    return panel.legend and len(names) > 1 and (before is None or [s.name for s in before.series] != names)


def _draw_axes(axes: Axes, panel: Panel, x_label: bool, width: float) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    x, y = (panel.y, panel.x) if panel.horizontal else (panel.x, panel.y)
    axes.set_xscale("log" if x.log else "linear")
    axes.set_yscale("log" if y.log else "linear")
    axes.set_xlim(x.low / x.divisor, x.high / x.divisor)
    axes.set_ylim(y.low / y.divisor, y.high / y.divisor)
    for axis, model in ((axes.xaxis, x), (axes.yaxis, y)):
        if model.log:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if model.high / model.low < 300 else (1,)))
            axis.set_major_formatter(lambda v, _: f"{v:,.15g}")
            axis.set_minor_formatter(NullFormatter())
        if model.integer:
            axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
        if model.tick_labels:
            longest = int((width - 1.9) / 0.047) if panel.horizontal else 40
            axis.set_ticks([v for v, _ in model.tick_labels], [shortened(t, longest) for _, t in model.tick_labels])
            axis.set_tick_params(length=0)
            if axis is axes.xaxis:
                axis.set_tick_params(labelsize=_text_size([t for _, t in model.tick_labels], width, TICK_SIZE))
    if panel.horizontal:
        axes.invert_yaxis()
    axes.set_ylabel("" if panel.horizontal else panel.y.label)
    if x_label:
        axes.set_xlabel(x.label)
    else:
        axes.tick_params(labelbottom=False)


def _text_size(texts: Sequence[str], width: float, size: float) -> float:
    """A size, in points, in which texts beside each other have a place; at most `size`."""
    longest = max(map(len, texts)) + 1
    fits = (width - 0.55) / len(texts) / longest * 72 / CHARACTER_WIDTH
    return max(min(size, fits), SMALLEST)


def _draw_spans(axes: Axes, panel: Panel, width: float, names: bool) -> None:
    """Shade every other stage, and write the names of stages above the panel where they fit."""
    for i, span in enumerate(panel.spans):
        if i % 2:
            axes.axvspan(span.start, span.end, color=SPAN_COLOR, linewidth=0, zorder=0)
        part = (min(span.end, panel.x.high) - span.start) / (panel.x.high - panel.x.low)
        if names and part * (width - 0.5) > 0.05 * len(span.text):
            axes.text((span.start + span.end) / 2, 1.01, span.text, transform=axes.get_xaxis_transform(), ha="center",
                      va="bottom", fontsize=SMALL, color=GREY)  # fmt: skip


def _legend_name(series: Series) -> str:
    """The name in the legend. Matplotlib leaves out those that start with an underscore."""
    return f" {series.name}" if series.name.startswith("_") else series.name


def _draw_bars(axes: Axes, panel: Panel, series: Series, largest: float) -> None:
    crowded = len(series.marks) > CROWDED
    color, divisor = color_of(series.color), panel.y.divisor
    positions = [m.x for m in series.marks]
    lengths = [m.y / divisor for m in series.marks]
    bases = [m.base / divisor for m in series.marks]
    widths = [m.width * (1 if crowded else 0.84) for m in series.marks]
    style: dict[str, Any] = {"color": color, "label": _legend_name(series), "zorder": 2}
    style |= {"edgecolor": color, "linewidth": 0.3} if crowded else {"linewidth": 0}
    if panel.horizontal:
        axes.barh(positions, lengths, height=widths, left=bases, **style)
    else:
        axes.bar(positions, lengths, width=widths, bottom=bases, **style)
    size = (
        SMALL
        if panel.horizontal
        else _text_size([m.text for m in series.marks], axes.figure.bbox.width / axes.figure.dpi, SMALL)
    )
    for m in series.marks:
        end, text = (m.base + m.y) / divisor, shortened(m.text, 60)
        if not text:
            continue
        up = 1 if m.y >= 0 else -1
        if panel.horizontal:
            axes.annotate(text, (end, m.x), (2 * up, 0), textcoords="offset points", va="center", fontsize=SMALL,
                          ha="left" if up > 0 else "right")  # fmt: skip
        else:
            axes.annotate(text, (m.x, end), (0, 1.5 * up), textcoords="offset points", ha="center", fontsize=size,
                          va="bottom" if up > 0 else "top")  # fmt: skip


def _draw_steps(axes: Axes, panel: Panel, series: Series, largest: float) -> None:
    """A step function with an area below it; each mark is centered in its step."""
    marks, color = series.marks, color_of(series.color)
    edges = [m.x - 0.5 for m in marks] + [marks[-1].x + 0.5]
    values = [m.y / panel.y.divisor for m in marks]
    axes.stairs(values, edges, fill=True, color=color, alpha=0.25, linewidth=0, zorder=2)
    axes.stairs(values, edges, color=color, linewidth=0.8, zorder=2.5, label=_legend_name(series), baseline=None)


def _draw_line(axes: Axes, panel: Panel, series: Series, largest: float) -> None:
    xs, ys = _coordinates(panel, series.marks)
    muted = series.color == "muted"
    style: dict[str, Any] = {"linewidth": 0.8, "linestyle": ":"} if muted else {"linewidth": 1.2, "linestyle": "-"}
    axes.plot(xs, ys, color=color_of(series.color), label=_legend_name(series), zorder=2, **style)


def _draw_points(axes: Axes, panel: Panel, series: Series, largest: float) -> None:
    xs, ys = _coordinates(panel, series.marks)
    crowded = sum(len(s.marks) for s in panel.series) > CROWDED_POINTS
    same = 2.5 if crowded else 14
    areas = [5 + 45 * m.size / largest for m in series.marks] if panel.size_name else [same] * len(xs)
    color = color_of(series.color)
    marker = MARKERS[series.color % len(MARKERS)] if isinstance(series.color, int) else "o"
    style: dict[str, Any] = {"alpha": 0.6, "marker": "o"} if panel.size_name else {"alpha": 1, "marker": marker}
    style |= (
        {"facecolors": "none", "edgecolors": color, "linewidths": 0.8}
        if series.hollow
        else {"facecolors": color, "edgecolors": "white", "linewidths": 0 if crowded else 0.3}
    )
    axes.scatter(xs, ys, areas, label=_legend_name(series), zorder=3, **style)
    if series.upper_bounds:
        sizes = [(a**0.5 + 2 * ARROW_POINTS) ** 2 for a in areas]
        style = {"marker": _down_arrow(), "facecolors": "none", "edgecolors": color, "linewidths": 0.5}
        axes.scatter(xs, ys, sizes, zorder=2.9, **style)


def _down_arrow() -> Path:
    """A marker from the point downwards, the sign of an upper bound."""
    from matplotlib.path import Path

    corners = [(0, 0), (0, -1), (-0.2, -0.75), (0, -1), (0.2, -0.75)]
    return Path(corners, [Path.MOVETO, Path.LINETO, Path.MOVETO, Path.LINETO, Path.LINETO])


def _coordinates(panel: Panel, marks: Sequence[Mark]) -> tuple[list[float], list[float]]:
    return [m.x / panel.x.divisor for m in marks], [m.y / panel.y.divisor for m in marks]


# -- annotations --------------------------------------------------------------------------------------


def place_annotations(figure: Figure, rows: Iterable[Axes], panels: Sequence[Panel]) -> None:
    """Write the annotations of lines and points where they cover least. Needs the sizes of everything else."""
    figure.draw_without_rendering()
    for axes, panel in zip(rows, panels, strict=True):
        for line in panel.lines:
            if line.text:
                _annotate_line(axes, panel, line)
        _annotate_points(axes, panel)


def _annotate_line(axes: Axes, panel: Panel, line: ReferenceLine) -> None:
    """Annotate a vertical line at its foot, on the emptier side, or a horizontal line.

    The text of a horizontal line is above it and clear of other lines, or below it if there is no space, in the third
    of the panel with the lowest marks.
    """
    style: dict[str, Any] = {"textcoords": "offset points", "fontsize": SMALL, "zorder": 5}
    style["color"] = text_color(line.color)
    style["bbox"] = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.4}  # readable where it covers marks
    if line.axis == "x":
        x = line.value / panel.x.divisor
        fraction = axes.transAxes.inverted().transform(axes.transData.transform((x, panel.y.low / panel.y.divisor)))[0]
        left = fraction > 0.5
        style |= {"xycoords": axes.get_xaxis_transform(), "ha": "right" if left else "left", "va": "bottom"}
        axes.annotate(line.text, (x, 0.03), (-2 if left else 2, 0), **style)
        return
    rows = line.text.count("\n") + 1
    value_per_inch = (panel.y.high - panel.y.low) / (axes.get_window_extent().height / axes.figure.dpi)
    text_height = rows * SMALL * 1.25 / 72 * value_per_inch
    foot = line.value
    for other in sorted(k.value for k in panel.lines if k.axis == "y" and k.value > line.value):
        foot = other if other < foot + text_height else foot
    above = foot + text_height <= panel.y.high
    span = panel.x.high - panel.x.low

    def highest(third: int) -> float:
        low, high = (panel.x.low + span * (third + k) / 3 for k in (0, 1))
        return max((m.base + m.y for s in panel.series for m in s.marks if low <= m.x <= high), default=0)

    ha, x = (("left", 0.01), ("center", 0.5), ("right", 0.99))[min((2, 0, 1), key=highest)]
    style |= {"xycoords": axes.get_yaxis_transform(), "ha": ha, "va": "bottom" if above else "top"}
    position = (x, (foot if above else line.value) / panel.y.divisor)
    axes.annotate(line.text, position, (0, 1.5 if above else -2), **style)


def _annotate_points(axes: Axes, panel: Panel) -> None:
    """Write each name where it covers least around its point; a distant name gets a leader line."""
    marks = [m for s in panel.series if s.style == "points" for m in s.marks]
    named = sorted((m for m in marks if m.text), key=lambda m: (-m.y, m.x))
    if not named:
        return
    pixels = axes.figure.dpi / 72

    def position(mark: Mark) -> tuple[float, float]:
        x, y = axes.transData.transform((mark.x / panel.x.divisor, mark.y / panel.y.divisor))
        return float(x), float(y)

    texts = [
        axes.annotate(m.text, (m.x / panel.x.divisor, m.y / panel.y.divisor), (0, 0),
                      textcoords="offset points", fontsize=SMALL, zorder=4)
        for m in named
    ]  # fmt: skip
    sizes = [text.get_window_extent() for text in texts]
    labels = [Label(position(m), float(size.width), float(size.height)) for m, size in zip(named, sizes, strict=True)]
    lines = [(position(a), position(b)) for s in panel.series if s.style == "line" for a, b in pairwise(s.marks)]
    legend = axes.get_legend()
    taken = [_box(legend.get_window_extent())] if legend else []
    boxes = place_labels(labels, [position(m) for m in marks], lines, taken, _box(axes.get_window_extent()), 3 * pixels)
    for text, label, (box, far) in zip(texts, labels, boxes, strict=True):
        text.set_position(((box.x0 - label.point[0]) / pixels, (box.y0 - label.point[1]) / pixels))
        if far:
            _draw_leader(axes, label.point, box)


def _box(extent: Bbox) -> Box:
    return Box(float(extent.x0), float(extent.y0), float(extent.x1), float(extent.y1))


def _draw_leader(axes: Axes, point: tuple[float, float], box: Box) -> None:
    """A thin line from a point to the nearest edge of its name."""
    ends = axes.transData.inverted().transform([point, box.nearest(point)])
    axes.plot(ends[:, 0], ends[:, 1], color=GREY, linewidth=0.35, zorder=2.5)
