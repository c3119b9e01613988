"""The content of the HTML report and its template.

`page.html` is the structure, `page.css` the style, and `page.js` sorts, filters and folds. All content is readable
without JavaScript.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from cspprof._version import __version__
from cspprof.analysis.comparison import Comparison, format_depths
from cspprof.analysis.graph_matching import ALONE, MatchedGraphs, State
from cspprof.analysis.headline import cio_describes, cio_describes_all, headline
from cspprof.analysis.layer_rows import kind_label
from cspprof.analysis.module_summary import peak_path
from cspprof.analysis.stages import stage_depths
from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.core.units import count, counted, shape
from cspprof.metrics import METRICS
from cspprof.render.page.layer_table import LayerTable, layer_tables
from cspprof.render.page.pair_graph import SIGNS, pair_graph_svg
from cspprof.render.page.stage_graph import NAMES, stage_graph_svg
from cspprof.render.page.svg_chart import chart_svg, legend_entries
from cspprof.report.changes import change_tables, metric_change
from cspprof.report.chart_model import Chart
from cspprof.report.charts import CHARTS, draw
from cspprof.report.metric_labels import conv_share_text, metric_label
from cspprof.report.model_table import largest_layer_table, stages_table
from cspprof.report.notes import cio_notes, model_notes
from cspprof.report.profile import MOST_SIDE_BY_SIDE, cio_metrics, every_metric, with_conv_share
from cspprof.report.tables import Cell, Column, PageSection, Table, text, total


def card_metrics(profiles: Sequence[Record]) -> list[str]:
    """The metrics on the card of a model. CIO is not among them if it does not describe one of the models."""
    if cio_describes_all(profiles):
        return with_conv_share(("macs", "cio_cspnet", "params", "peak_bytes", "moc"), profiles)
    return ["macs", "traffic_bytes", "cio_all", "params", "peak_bytes"]


def change_metrics(profiles: Sequence[Record]) -> tuple[str, str]:
    """The metrics whose changes are listed by stage."""
    return headline(profiles), "macs"


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart on the page: its data, its drawing and its legend."""

    chart: Chart
    svg: Any
    legend: Sequence[tuple[str, str]]


def html_page(
    profiles: Sequence[Record],
    charts: Sequence[Chart] = (),
    section: PageSection | None = None,
    notes: Sequence[str] = (),
) -> str:
    """The HTML report; `charts` stand before the charts of the models, `section` before their metrics, and `notes`
    before the notes on them.

    The same profiles give the same text: it contains no time, path or machine name.
    """
    here = resources.files(__package__)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["safe_svg"] = Markup
    environment.filters["breakable"] = _breakable
    template = environment.from_string((here / "page.html").read_text("utf-8"))
    assets = {name: Markup((here / f"page.{name}").read_text("utf-8")) for name in ("css", "js")}
    return template.render(**assets, **_content(profiles, charts, section, notes)) + "\n"


def _breakable(name: str) -> Markup:
    """A name that a narrow column can break after a colon, a slash, a dot or an underscore."""
    return Markup(re.sub("([:/._])", r"\1<wbr>", str(escape(name))))


def _content(
    profiles: Sequence[Record], charts: Sequence[Chart], section: PageSection | None, own_notes: Sequence[str]
) -> dict[str, Any]:
    """The variables of the template."""
    tables = layer_tables(profiles)
    comparison = Comparison(tuple(profiles)) if len(profiles) > 1 else None
    notes = (
        list(own_notes)
        + [note for p in profiles for note in model_notes(p)]
        + cio_notes(profiles)
        + (comparison.notes if comparison else [])
    )
    model_figures = [_model_figures(i, profiles, tables) for i in range(len(profiles))]
    figures, left_out = _figures(profiles, tables)
    return {
        "title": _title(profiles),
        "models": [
            {"profile": p, "inputs": " + ".join(f"{shape(t.shape)} {t.dtype}" for t in p.inputs),
             "depths": format_depths(stage_depths(p)) or "–", "card": list(_card(p, profiles)), "table": t,
             "figures": f, "left_out": reasons, "graph": stage_graph_svg(p, t.row_id, headline(profiles))}
            for p, t, (f, reasons) in zip(profiles, tables, model_figures, strict=True)
        ],
        "notes": list(dict.fromkeys([*notes, *(t.grouping_note for t in tables if t.grouping_note)])),
        "metric_rows": [_metric_row(name, profiles) for name in every_metric(profiles)],
        "key_metrics": cio_metrics(profiles),
        "headline": NAMES[headline(profiles)],
        "section": section,
        "changes": list(_changes(comparison)) if comparison else [],
        "pair": _pair(profiles, tables) if len(profiles) == 2 else None,
        "many": len(profiles) > MOST_SIDE_BY_SIDE,
        "figures": [*(_figure(c, tables, f"d{i}") for i, c in enumerate(charts)), *figures],
        "left_out": left_out,
        "definitions": [(n, f"{m.title} ({m.unit})", m.definition, m.is_not, m.paper) for n, m in METRICS.items()],
        "command": _command(profiles),
        "version": __version__,
        "tools": sorted({f"{name} {n}" for p in profiles for name, n in p.tool.items() if name != "cspprof"}),
    }  # fmt: skip


def _card(record: Record, profiles: Sequence[Record]) -> Iterator[tuple[str, str, Cell, Cell | None]]:
    """(name, title, value, change from the first model) of the metrics on the card of a model."""
    base = profiles[0]
    for name in card_metrics(profiles):
        value = total(name, METRICS.get(name).total(record))
        place = f" at {peak_path(record)}" if name == "peak_bytes" else ""
        yield (
            name,
            METRICS.get(name).title + place,
            value,
            None if record is base else metric_change(name, base, record),
        )


def _metric_row(name: str, profiles: Sequence[Record]) -> tuple[str, str, list[tuple[Cell, Cell | None]]]:
    base = profiles[0]
    cells = [
        (total(name, METRICS.get(name).total(p)), None if p is base else metric_change(name, base, p)) for p in profiles
    ]
    return name, metric_label(name), cells


def _title(profiles: Sequence[Record]) -> str:
    if len(profiles) > MOST_SIDE_BY_SIDE:
        return f"{profiles[0].label} and {len(profiles) - 1} other models"
    return " · ".join(p.label for p in profiles)


def _changes(comparison: Comparison) -> Iterator[Table]:
    """Where the changes come from; for many models, one row per model instead of tables for each pair."""
    profiles = comparison.profiles
    for name in change_metrics(profiles):
        if len(profiles) <= MOST_SIDE_BY_SIDE:
            yield from change_tables(comparison, name)
            continue
        by_stage = stages_table(comparison, name)
        if by_stage:
            yield by_stage
        yield largest_layer_table(profiles, name)


STATE_WORDS: dict[State, str] = {
    "same": "compute the same",
    "changed": "have a counterpart that differs",
    "removed": "removed",
    "added": "added",
}
MOST_LISTED = 200
"""The longest list of removed or added layers."""


@dataclass(frozen=True, slots=True)
class PairSection:
    """Two networks side by side."""

    summary: str
    """A sentence if all layers match, or none."""
    svg: Any
    counts: Table
    """The numbers of layers that compute the same, changed, or were removed or added."""
    lists: Sequence[tuple[str, Sequence[tuple[str, str, str]], int]]
    """For the removed and the added layers: a heading, the path, kind and row of each, and the number of those that
    are not listed."""


def _pair(profiles: Sequence[Record], tables: Sequence[LayerTable]) -> PairSection:
    graphs = MatchedGraphs(*profiles)
    row_ids = tables[0].row_id, tables[1].row_id
    return PairSection(
        _pair_summary(graphs),
        Markup(pair_graph_svg(graphs, row_ids, headline(profiles))),
        _layer_counts(graphs),
        [_layers_alone(graphs, side, row_ids[side]) for side in (0, 1)],
    )


def _pair_summary(graphs: MatchedGraphs) -> str:
    base, other = (record.label for record in graphs.records)
    if not graphs.matches.matched:
        return f"No layer of {base} has a counterpart in {other}."
    if all(graphs.count(side, "same") == len(graphs.rows[side]) for side in (0, 1)):
        return f"Every layer of {base} computes the same as its counterpart in {other}, and no layer was added."
    return ""


def _layer_counts(graphs: MatchedGraphs) -> Table:
    """The number of layers of both networks in each state."""
    columns = [Column("layers"), *(Column(record.label, numeric=True) for record in graphs.records)]
    rows = []
    for state, words in STATE_WORDS.items():
        counts = [graphs.count(side, state) for side in (0, 1)]
        cells = [text("–") if state == ALONE[1 - side] else Cell(n, count(n)) for side, n in enumerate(counts)]
        rows.append([text(f"{SIGNS[state]} {words}"), *cells])
    rows.append([text("all"), *(Cell(len(listed), count(len(listed))) for listed in graphs.rows)])
    return Table("Layers of both networks", columns, rows)


def _layers_alone(
    graphs: MatchedGraphs, side: int, row_id: Callable[[str], str]
) -> tuple[str, Sequence[tuple[str, str, str]], int]:
    """The layers of one network without a counterpart in the other one."""
    positions = (graphs.matches.removed, graphs.matches.added)[side]
    rows = [graphs.rows[side][position] for position in positions]
    listed = [(row.path, kind_label(row.spec), row_id(row.path)) for row in rows[:MOST_LISTED]]
    heading = f"{counted(len(rows), f'{ALONE[side]} layer')} of {graphs.records[side].label}"
    return heading, listed, len(rows) - len(listed)


def _command(profiles: Sequence[Record]) -> str:
    """The command that makes this page; `--input` only if all models have one and the same input."""
    words = ["cspprof", "report", *(p.source for p in profiles)]
    inputs = {p.inputs for p in profiles}
    if len(inputs) == 1 and len(profiles[0].inputs) == 1:
        words += ["--input", "x".join(map(str, profiles[0].inputs[0].shape))]
    if {p.dtype for p in profiles} != {"float32"}:
        words += ["--dtype", profiles[0].dtype]
    return " ".join(map(shlex.quote, [*words, "-o", "report.html"]))


# -- charts -------------------------------------------------------------------------------------------


def _figures(profiles: Sequence[Record], tables: Sequence[LayerTable]) -> tuple[list[Figure], list[str]]:
    """The charts of all models, split into several if one chart cannot show so many models, and a reason for each chart
    that is left out."""
    drawn: list[Figure] = []
    reasons: list[str] = []
    unseen = [p for p in profiles if not cio_describes(p)]
    if unseen:
        shares = " and ".join(f"{conv_share_text([p])} of the MACs of {p.label}" for p in unseen)
        reasons.append(_reason("fig8", f"CIO sees {shares}; the page shows the traffic of every layer instead"))
    traffic = ("fig7", {"metric": headline(profiles)}) if unseen else ("fig8", {})
    kinds: tuple[tuple[str, dict[str, Any]], ...] = (("fig7", {}), traffic, ("memory", {}), ("roofline", {}))
    for kind, options in kinds:
        most = CHARTS.get(kind).most
        for i in range(0, len(profiles), most):
            shown = list(zip(profiles, tables, strict=True))[i : i + most]
            charts, error = _draw(kind, [p for p, _ in shown], **options)
            if error:  # at least one model has no data
                errors = [_draw(kind, [p], **options)[1] for p, _ in shown]
                reasons += [_reason(kind, error) for error in errors if error]
                shown = [pair for pair, error in zip(shown, errors, strict=True) if not error]
                charts = _draw(kind, [p for p, _ in shown], **options)[0] if shown else []
            drawn += [_figure(c, [t for _, t in shown], f"c{len(drawn)}") for c in charts]
    most = CHARTS.get("stages").most - 1
    of_all: list[tuple[str, Sequence[Record], dict[str, Any]]] = [
        ("stages", [profiles[0], *profiles[i : i + most]], {"metric": metric})
        for metric in change_metrics(profiles) for i in range(1, len(profiles), most)
    ]  # fmt: skip
    if len(profiles) > 2:
        of_all += [("pareto", profiles, {"x": "bflops", "y": y}) for y in (headline(profiles), "top1")]
    for kind, shown_models, options in of_all:
        charts, error = _draw(kind, shown_models, **options)
        drawn += [_figure(c, tables, f"c{len(drawn)}") for c in charts]
        reasons += [_reason(kind, error)] if error else []
    return drawn, list(dict.fromkeys(reasons))


def _model_figures(
    model: int, profiles: Sequence[Record], tables: Sequence[LayerTable]
) -> tuple[list[Figure], list[str]]:
    """The chart of the largest layers of one model; if there are several models, without the panels of all layers."""
    charts, error = _draw("bottleneck", [profiles[model]])
    if len(profiles) > 1:
        charts = [replace(c, panels=c.panels[-1:]) for c in charts]
    drawn = [_figure(c, [tables[model]], f"b{model}") for c in charts]
    return drawn, [_reason("bottleneck", error)] if error else []


def _reason(kind: str, message: str) -> str:
    """Why a chart is not on the page."""
    return f"The chart {kind} is left out: {message}."


def _draw(kind: str, profiles: Sequence[Record], **options: Any) -> tuple[list[Chart], str]:
    """The chart; or none, and the reason, if it has no data for these models."""
    try:
        return [draw(kind, profiles, **options)], ""
    except CspprofError as error:
        return [], error.message


ONE_MODEL_PER_PANEL = ("fig7", "fig8", "memory", "roofline")
"""The charts whose panel i shows the layers of model i; `bottleneck` shows one model in all panels."""


def model_of_panel(kind: str, panel: int) -> int | None:
    """The model whose layers a panel shows; None if its marks are not layers."""
    return panel if kind in ONE_MODEL_PER_PANEL else 0 if kind == "bottleneck" else None


def _figure(chart: Chart, tables: Sequence[LayerTable], chart_id: str) -> Figure:
    def row_id(panel: int, path: str) -> str:
        """Only of the row of this very layer: a tooltip shows the cells of the row beside the value of the mark."""
        model = model_of_panel(chart.kind, panel)
        return tables[model].row_ids.get(path, "") if model is not None and model < len(tables) else ""

    return Figure(chart, Markup(chart_svg(chart, row_id, chart_id)), legend_entries(chart))
