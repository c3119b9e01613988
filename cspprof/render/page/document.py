"""The report put together.

What it shows is worked out here and in `layers`, `stage_graph` and `svg`; `page.html` says where it stands, `page.css`
how it looks, `page.js` what can be sorted, filtered and folded. Without JavaScript everything is there to be read.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from cspprof._version import __version__
from cspprof.analysis.comparison import Comparison, Delta, format_depths
from cspprof.analysis.stages import stage_depths
from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.core.units import shape
from cspprof.metrics import HIGHER_IS_BETTER, METRICS, value_of
from cspprof.render.page import stage_graph, svg
from cspprof.render.page.layers import LayerTable, definitions, layer_tables
from cspprof.report.chart_model import Chart
from cspprof.report.charts import CHARTS, draw
from cspprof.report.notes import remarks
from cspprof.report.profile import CIO, label, where_from
from cspprof.report.tables import Cell, Table, change, quantity

CARD = ("macs", "cio_cspnet", "params", "peak_bytes", "moc")
CHANGES = ("cio_cspnet", "macs")
"""Numbers whose change is told stage by stage."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart as the page shows it."""

    chart: Chart
    svg: Any
    legend: Sequence[tuple[str, str]]


def page(profiles: Sequence[Record]) -> str:
    """The whole document. The same profiles give the same text: no time, no path, no name of a machine."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    here = resources.files(__package__)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["safe_svg"] = Markup
    template = environment.from_string((here / "page.html").read_text("utf-8"))
    assets = {name: Markup((here / f"page.{name}").read_text("utf-8")) for name in ("css", "js")}
    return template.render(**assets, **content(profiles)) + "\n"


def content(profiles: Sequence[Record]) -> dict[str, Any]:
    """What the template shows."""
    tables = layer_tables(profiles)
    comparison = Comparison(tuple(profiles)) if len(profiles) > 1 else None
    notes = [note for p in profiles for note in remarks(p)] + (comparison.notes if comparison else [])
    own = [_models_figures(i, profiles, tables) for i in range(len(profiles))]
    return {
        "title": " · ".join(p.label for p in profiles),
        "models": [
            {"profile": p, "inputs": " + ".join(f"{shape(t.shape)} {t.dtype}" for t in p.inputs),
             "depths": format_depths(stage_depths(p)) or "–", "card": list(_card(p, profiles[0])), "table": t, "figures": f,
             "graph": stage_graph.drawing(p, t.anchor)}
            for p, t, f in zip(profiles, tables, own, strict=True)
        ],
        "notes": list(dict.fromkeys([*notes, *(t.rolled_up for t in tables if t.rolled_up)])),
        "numbers": [_compared(name, profiles) for name, _ in METRICS.items()],
        "key_numbers": CIO,
        "changes": list(_changes(comparison)) if comparison else [],
        "figures": list(_figures(profiles, tables)),
        "definitions": definitions(),
        "command": _command(profiles),
        "version": __version__,
        "tools": sorted({f"{name} {n}" for p in profiles for name, n in p.tool.items() if name != "cspprof"}),
    }  # fmt: skip


def _card(record: Record, base: Record) -> Iterator[tuple[str, str, Cell, Cell | None]]:
    """(name, label, value, change from the first model) of the numbers that a summary shows."""
    for name in CARD:
        value = quantity(name, value_of(record, name))
        yield name, METRICS.get(name).title, value, None if record is base else _change(name, base, record)


def _compared(name: str, profiles: Sequence[Record]) -> tuple[str, str, list[tuple[Cell, Cell | None]]]:
    base = profiles[0]
    cells = [(quantity(name, value_of(p, name)), None if p is base else _change(name, base, p)) for p in profiles]
    return name, label(name), cells


def _change(name: str, base: Record, record: Record) -> Cell:
    delta = Delta(base.model, record.model, name, value_of(base, name), value_of(record, name))
    return change(delta.relative, name not in HIGHER_IS_BETTER)


def _changes(comparison: Comparison) -> Iterator[Table]:
    for name in CHANGES:
        yield from where_from(comparison, name)


def _command(profiles: Sequence[Record]) -> str:
    """What makes the page again. An input is named where all models have one and the same."""
    words = ["cspprof", "report", *(p.source for p in profiles)]
    inputs = {p.inputs for p in profiles}
    if len(inputs) == 1 and len(profiles[0].inputs) == 1:
        words += ["--input", "x".join(map(str, profiles[0].inputs[0].shape))]
    if {p.dtype for p in profiles} not in ({"float32"}, {"int64"}):
        words += ["--dtype", profiles[0].dtype]
    return " ".join(map(shlex.quote, [*words, "-o", "report.html"]))


# -- charts -------------------------------------------------------------------------------------------


def _figures(profiles: Sequence[Record], tables: Sequence[LayerTable]) -> Iterator[Figure]:
    """What can be drawn of all the models: in groups where one chart cannot hold so many."""
    for kind in ("fig7", "fig8", "memory", "roofline"):
        most = CHARTS.get(kind).most
        for i in range(0, len(profiles), most):
            for chart in _drawn(kind, profiles[i : i + most]):
                yield _figure(chart, tables[i : i + most])
    most = CHARTS.get("stages").most - 1
    for metric in CHANGES:
        for i in range(1, len(profiles), most):
            for chart in _drawn("stages", [profiles[0], *profiles[i : i + most]], metric=metric):
                yield _figure(chart, tables)
    if len(profiles) > 2:
        for y in ("cio_cspnet", "top1"):
            for chart in _drawn("pareto", profiles, x="bflops", y=y):
                yield _figure(chart, tables)


def _models_figures(model: int, profiles: Sequence[Record], tables: Sequence[LayerTable]) -> list[Figure]:
    """The charts that are of one model: its largest layers, and beside others nothing that stands above already."""
    drawn = _drawn("bottleneck", [profiles[model]])
    alone = len(profiles) == 1
    return [_figure(c if alone else replace(c, panels=c.panels[-1:]), [tables[model]]) for c in drawn]


def _drawn(kind: str, profiles: Sequence[Record], **options: Any) -> Iterator[Chart]:
    """The chart, or nothing where there is nothing to draw of these models."""
    try:
        yield draw(kind, profiles, **options)
    except CspprofError:
        return


def _figure(chart: Chart, tables: Sequence[LayerTable]) -> Figure:
    from markupsafe import Markup

    def anchor(panel: int, series: int, path: str) -> str:
        owner = OWNERS.get(chart.kind, _nobody)(panel, series)
        table = tables[owner] if owner < len(tables) else None
        return table.anchor(path) if table and path in table.anchors else ""

    return Figure(chart, Markup(svg.drawing(chart, anchor)), svg.legend(chart))


def _nobody(panel: int, series: int) -> int:
    return sys.maxsize


OWNERS: dict[str, Callable[[int, int], int]] = {
    "fig7": lambda panel, series: panel,
    "fig8": lambda panel, series: panel,
    "memory": lambda panel, series: panel,
    "roofline": lambda panel, series: panel,
    "bottleneck": lambda panel, series: 0,
}
"""The model that a mark is of, as its place among those of the chart; marks of other charts are of no layer."""
