"""One panel of a chart on matplotlib axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from cspprof.core.units import shortened
from cspprof.report.chart_model import Line, Mark, Panel, Series, Tone

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Okabe and Ito 2008: told apart by people who do not see red and green."""
MEANING = {"muted": "#8C8C8C", "strong": "#333333", "less": "#0072B2", "more": "#D55E00"}
MARKERS = "osD^vP"
SHADE, GREY = "#F1F1F1", "#555555"
SMALL = 5.5
LETTER = 0.052
"""Inches that a letter of a panel's title takes."""
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
CROWDED = 100
"""Bars beyond which they touch each other, and are drawn with an edge that keeps a lone one visible."""


def colour(tone: Tone) -> str:
    return PALETTE[tone % len(PALETTE)] if isinstance(tone, int) else MEANING[tone]


def ink(tone: Tone) -> str:
    """The tone as a text of it can be read on white: two thirds of its light."""
    from matplotlib.colors import to_hex, to_rgb

    red, green, blue = to_rgb(colour(tone))
    return to_hex((red * 0.65, green * 0.65, blue * 0.65))


def draw_panel(axes: Axes, panel: Panel, before: Panel | None, wide: float, labelled: bool) -> None:
    """Everything but the texts that have to find a place, which `settle` does when sizes are known. What the panel
    before says already, names of stages and of series, is not said again."""
    from matplotlib.transforms import ScaledTranslation

    stages_told = before is not None and before.spans == panel.spans
    pad = 9 if panel.spans and not stages_told else 3
    names = [s.name for s in panel.series] if _has_legend(panel, before) else []
    legend = sum(len(name) + 3 for name in names) if _above(panel) else 0
    axes.set_title(shortened(panel.title, int((wide - 0.5) / LETTER - legend)), pad=pad)
    _scales(axes, panel, labelled, wide)
    _stages(axes, panel, wide, named=not stages_told)
    largest = max((m.size for s in panel.series for m in s.marks), default=1)
    for series in panel.series:
        {"bars": _bars, "steps": _steps, "line": _line, "points": _points}[series.form](axes, panel, series, largest)
    for line in panel.lines:
        across = axes.axhline if (line.axis == "y") != panel.lying else axes.axvline
        divisor = panel.y.divisor if line.axis == "y" else panel.x.divisor
        across(line.value / divisor, color=colour(line.tone), linewidth=0.7, linestyle=(0, (4, 2)), zorder=3)
    if names:
        if _above(panel):
            lifted = axes.transAxes + ScaledTranslation(0, pad / 72, axes.figure.dpi_scale_trans)
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), bbox_transform=lifted, ncols=len(names))
        else:
            axes.legend(loc="best")


def _has_legend(panel: Panel, before: Panel | None) -> bool:
    """Whether names of series have to be told, and the panel before does not tell the same ones."""
    names = [s.name for s in panel.series]
    return panel.legend and len(names) > 1 and (before is None or [s.name for s in before.series] != names)


def _above(panel: Panel) -> bool:
    """Whether the legend stands beside the title: bars leave it no room among them."""
    return all(s.form == "bars" for s in panel.series)


def _scales(axes: Axes, panel: Panel, labelled: bool, wide: float) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    x, y = (panel.y, panel.x) if panel.lying else (panel.x, panel.y)
    axes.set_xscale("log" if x.log else "linear")
    axes.set_yscale("log" if y.log else "linear")
    axes.set_xlim(x.low / x.divisor, x.high / x.divisor)
    axes.set_ylim(y.low / y.divisor, y.high / y.divisor)
    for axis, scale in ((axes.xaxis, x), (axes.yaxis, y)):
        if scale.log:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if scale.high / scale.low < 300 else (1,)))
            axis.set_major_formatter(lambda v, _: f"{v:,.15g}")
            axis.set_minor_formatter(NullFormatter())
        if scale.whole:
            axis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
        if scale.ticks:
            longest = int((wide - 1.9) / 0.047) if panel.lying else 40
            axis.set_ticks([v for v, _ in scale.ticks], [shortened(t, longest) for _, t in scale.ticks])
            axis.set_tick_params(length=0)
    if panel.lying:
        axes.invert_yaxis()
    axes.set_ylabel("" if panel.lying else panel.y.label)
    if labelled:
        axes.set_xlabel(x.label)
    else:
        axes.tick_params(labelbottom=False)


def _stages(axes: Axes, panel: Panel, wide: float, named: bool) -> None:
    """Every other stage shaded, and their names above where they fit."""
    for i, span in enumerate(panel.spans):
        if i % 2:
            axes.axvspan(span.start, span.end, color=SHADE, linewidth=0, zorder=0)
        part = (min(span.end, panel.x.high) - span.start) / (panel.x.high - panel.x.low)
        if named and part * (wide - 0.5) > 0.05 * len(span.text):
            axes.text((span.start + span.end) / 2, 1.01, span.text, transform=axes.get_xaxis_transform(), ha="center",
                      va="bottom", fontsize=SMALL, color=GREY)  # fmt: skip


def _bars(axes: Axes, panel: Panel, series: Series, largest: float) -> None:
    crowded = len(series.marks) > CROWDED
    d = panel.y.divisor
    at, size, base = ([f(m) for m in series.marks] for f in (_x, lambda m: m.y / d, lambda m: m.base / d))
    thick = [m.width * (1 if crowded else 0.84) for m in series.marks]
    looks: dict[str, Any] = {"color": colour(series.tone), "label": series.name, "zorder": 2}
    looks |= {"edgecolor": colour(series.tone), "linewidth": 0.3} if crowded else {"linewidth": 0}
    if panel.lying:
        axes.barh(at, size, height=thick, left=base, **looks)
    else:
        axes.bar(at, size, width=thick, bottom=base, **looks)
    for m in series.marks:
        end, text = (m.base + m.y) / d, shortened(m.text, 60)
        if not text:
            continue
        up = 1 if m.y >= 0 else -1
        if panel.lying:
            axes.annotate(text, (end, m.x), (2 * up, 0), textcoords="offset points", va="center", fontsize=SMALL,
                          ha="left" if up > 0 else "right")  # fmt: skip
        else:
            axes.annotate(text, (m.x, end), (0, 1.5 * up), textcoords="offset points", ha="center", fontsize=SMALL,
                          va="bottom" if up > 0 else "top")  # fmt: skip


def _x(mark: Mark) -> float:
    return mark.x


def _steps(axes: Axes, panel: Panel, series: Series, largest: float) -> None:
    """From the left edge of the first to the right edge of the last, each value over its own place."""
    marks = series.marks
    edges = [m.x - 0.5 for m in marks] + [marks[-1].x + 0.5]
    values = [m.y / panel.y.divisor for m in marks]
    axes.stairs(values, edges, fill=True, color=colour(series.tone), alpha=0.25, linewidth=0, zorder=2)
    axes.stairs(values, edges, color=colour(series.tone), linewidth=0.8, zorder=2.5, label=series.name, baseline=None)


def _line(axes: Axes, panel: Panel, series: Series, largest: float) -> None:
    xs, ys = _places(panel, series.marks)
    muted = series.tone == "muted"
    axes.plot(xs, ys, color=colour(series.tone), label=series.name, linewidth=0.8 if muted else 1.2, zorder=2,
              linestyle=":" if muted else "-")  # fmt: skip


def _points(axes: Axes, panel: Panel, series: Series, largest: float) -> None:
    xs, ys = _places(panel, series.marks)
    areas = [5 + 45 * m.size / largest for m in series.marks] if panel.sizes else [14] * len(xs)
    tone = colour(series.tone)
    marker = MARKERS[series.tone % len(MARKERS)] if isinstance(series.tone, int) else "o"
    looks = {"alpha": 0.6, "marker": "o"} if panel.sizes else {"alpha": 1, "marker": marker}
    edge = {"facecolors": "none", "edgecolors": tone, "linewidths": 0.8}
    face = {"facecolors": tone, "edgecolors": "white", "linewidths": 0.3}
    axes.scatter(xs, ys, areas, label=series.name, zorder=3, **looks, **(edge if series.hollow else face))  # type: ignore[arg-type]


def _places(panel: Panel, marks: Sequence[Mark]) -> tuple[list[float], list[float]]:
    return [m.x / panel.x.divisor for m in marks], [m.y / panel.y.divisor for m in marks]


def settle(figure: Figure, rows: Iterable[Axes], panels: Sequence[Panel]) -> None:
    """Texts on lines and beside points, where they cover least; sizes have to be known for that."""
    figure.draw_without_rendering()
    for axes, panel in zip(rows, panels, strict=True):
        for line in panel.lines:
            if line.text:
                _on_line(axes, panel, line)
        _beside_points(axes, panel)


def _on_line(axes: Axes, panel: Panel, line: Line) -> None:
    """What is written on a line: at the foot of an upright one, on its emptier side; over a level one, clear of others
    and over the third of the panel that holds least, or under it where there is no room."""
    looks: dict[str, Any] = {"textcoords": "offset points", "fontsize": SMALL, "zorder": 5, "color": ink(line.tone)}
    if line.axis == "x":
        x = line.value / panel.x.divisor
        at = axes.transAxes.inverted().transform(axes.transData.transform((x, panel.y.low / panel.y.divisor)))[0]
        left = at > 0.5
        looks |= {"xycoords": axes.get_xaxis_transform(), "ha": "right" if left else "left", "va": "bottom"}
        axes.annotate(line.text, (x, 0.03), (-2 if left else 2, 0), **looks)
        return
    rows = line.text.count("\n") + 1
    inch = (panel.y.high - panel.y.low) / (axes.get_window_extent().height / axes.figure.dpi)
    tall = rows * SMALL * 1.25 / 72 * inch
    foot = line.value
    for other in sorted(k.value for k in panel.lines if k.axis == "y" and k.value > line.value):
        foot = other if other < foot + tall else foot
    above = foot + tall <= panel.y.high
    span = panel.x.high - panel.x.low

    def most(third: int) -> float:
        low, high = (panel.x.low + span * (third + k) / 3 for k in (0, 1))
        return max((m.base + m.y for s in panel.series for m in s.marks if low <= m.x <= high), default=0)

    ha, x = (("left", 0.01), ("center", 0.5), ("right", 0.99))[min((2, 0, 1), key=most)]
    looks |= {"xycoords": axes.get_yaxis_transform(), "ha": ha, "va": "bottom" if above else "top"}
    place = (x, (foot if above else line.value) / panel.y.divisor)
    axes.annotate(line.text, place, (0, 1.5 if above else -2), **looks)


def _beside_points(axes: Axes, panel: Panel) -> None:
    """Names of points, each where it covers least around its point; one that has to stand off gets a leader."""
    marks = [m for s in panel.series if s.form == "points" for m in s.marks]
    named = sorted((m for m in marks if m.text), key=lambda m: (-m.y, m.x))
    if not named:
        return
    from matplotlib.transforms import Bbox

    pixels = axes.figure.dpi / 72
    at = {id(m): axes.transData.transform((m.x / panel.x.divisor, m.y / panel.y.divisor)) for m in marks}
    reach = 3 * pixels
    legend = axes.get_legend()
    taken = [legend.get_window_extent()] if legend else []
    frame = axes.get_window_extent()
    for m in named:
        x, y = at[id(m)]
        text = axes.annotate(m.text, (m.x / panel.x.divisor, m.y / panel.y.divisor), (0, 0),
                             textcoords="offset points", fontsize=SMALL, zorder=4)  # fmt: skip
        size = text.get_window_extent()
        others = [Bbox([p - reach * 1.5, p + reach * 1.5]) for key, p in at.items() if key != id(m)]
        best, cost, area = None, float("inf"), size.height * reach * 0.6
        for far in (1, 2.5, 4.5, 7):
            for dx, dy in DIRECTIONS:
                left = x + (reach * far if dx > 0 else -reach * far - size.width if dx < 0 else -size.width / 2)
                low = y + (reach * far if dy > 0 else -reach * far - size.height if dy < 0 else -size.height / 2)
                box = Bbox.from_bounds(left, low, size.width, size.height)
                covered = _covered(box, taken + others) + 3 * _outside(box, frame) + (far - 1) * area
                if covered < cost:
                    best, cost, off = box, covered, far
        assert best is not None
        taken.append(best.padded(0.6 * pixels))
        text.set_position(((best.x0 - x) / pixels, (best.y0 - y) / pixels))
        if off > 1:
            _leader(axes, (x, y), best)


def _leader(axes: Axes, point: tuple[float, float], box: Bbox) -> None:
    """A thin line from a point to the nearest edge of its name."""
    nearest = (min(max(point[0], box.x0), box.x1), min(max(point[1], box.y0), box.y1))
    ends = axes.transData.inverted().transform([point, nearest])
    axes.plot(ends[:, 0], ends[:, 1], color=GREY, linewidth=0.35, zorder=2.5)


def _covered(box: Bbox, taken: Sequence[Bbox]) -> float:
    """The area of a box that is taken already."""
    widths = (min(box.x1, t.x1) - max(box.x0, t.x0) for t in taken)
    heights = (min(box.y1, t.y1) - max(box.y0, t.y0) for t in taken)
    return float(sum(max(0, w) * max(0, h) for w, h in zip(widths, heights, strict=True)))


def _outside(box: Bbox, frame: Bbox) -> float:
    """The area of a box beyond the frame's sides."""
    wide = max(0, box.x1 - frame.x1) + max(0, frame.x0 - box.x0)
    tall = max(0, box.y1 - frame.y1) + max(0, frame.y0 - box.y0)
    return float(wide * box.height + tall * box.width)
