"""Tables with one row per model: for the complexity table of a paper, and for more models than fit side by side."""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.analysis.comparison import Comparison, format_depths, merged_names
from cspprof.analysis.layer_rows import group_by_stage
from cspprof.analysis.stages import has_stage_tags, stage_depths
from cspprof.core import units
from cspprof.core.record import Record
from cspprof.metrics import METRICS, Amount
from cspprof.report.changes import metric_change
from cspprof.report.layer_tables import largest_layers
from cspprof.report.metric_labels import metric_label, title_of
from cspprof.report.tables import Cell, Column, Table, at_least, part, quantity, text, total

MOST_STAGES = 10
"""A table of stages has at most this number of columns. Models with more have no stages in common."""


def complexity_table(profiles: Sequence[Record], metrics: Sequence[str]) -> Table:
    """The table of a paper: one column per metric, short units (25.6 M, 4.09 G, 12.5 MiB), a caption and a label.
    Below two models, the relative change."""
    inputs = _inputs(profiles)
    same_input = len(set(inputs)) == 1
    columns = [Column("model", shortens=True), *([] if same_input else [Column("input")])]
    columns += [Column(metric_label(m), numeric=True) for m in metrics]
    rows = [
        [text(p.label), *([] if same_input else [text(shape)]), *(_short_total(p, m) for m in metrics)]
        for p, shape in zip(profiles, inputs, strict=True)
    ]
    if len(profiles) == 2:
        changes = [metric_change(m, *profiles) for m in metrics]
        rows.append([text("change"), *([] if same_input else [text("")]), *changes])
    return Table(_caption(profiles, inputs[0] if same_input else ""), columns, rows, "tab:complexity")


def models_table(profiles: Sequence[Record], metrics: Sequence[str]) -> Table:
    """Totals in short units, each with its change from the first model.

    A narrow terminal leaves out first depths and inputs, then all changes, then the last metrics.
    """
    base, inputs = profiles[0], _inputs(profiles)
    depths = [format_depths(stage_depths(p)) for p in profiles]
    last = len(metrics) + 1
    columns, cells = [Column("model", shortens=True)], [[text(p.label) for p in profiles]]
    if len(set(inputs)) > 1:
        columns.append(Column("input", priority=last + 1))
        cells.append(list(map(text, inputs)))
    if len(set(depths)) > 1:
        columns.append(Column("depth per stage", priority=last + 2))
        cells.append([text(d or "–") for d in depths])
    for i, m in enumerate(metrics):
        columns += [Column(metric_label(m), numeric=True, priority=i), Column("change", numeric=True, priority=last)]
        cells.append([_short_total(p, m) for p in profiles])
        cells.append([text("") if p is base else metric_change(m, base, p) for p in profiles])
    title = f"{len(profiles)} models; changes are relative to {base.label}"
    return _without_empty_columns(Table(title, columns, list(zip(*cells, strict=True))))


def stages_table(comparison: Comparison, metric: str) -> Table | None:
    """The part of each stage in a metric that adds up; None if the models have too many different stages."""
    use_tags = all(map(has_stage_tags, comparison.profiles))
    groups = [{g.name: g.amount(metric) for g in group_by_stage(p, use_tags)} for p in comparison.profiles]
    names = merged_names([[*of_model] for of_model in groups])
    if len(names) > MOST_STAGES:
        return None
    columns = [Column("model", shortens=True)]
    columns += [Column(name, numeric=True, priority=i, shortens=True) for i, name in enumerate(names, 1)]
    rows = [
        [text(p.label), *(_short(metric, of_model.get(name)) for name in names), _short_total(p, metric)]
        for p, of_model in zip(comparison.profiles, groups, strict=True)
    ]
    title = f"{title_of(metric, comparison.profiles)} by stage"
    return Table(title, [*columns, Column("total", numeric=True)], rows)


def largest_layer_table(profiles: Sequence[Record], metric: str) -> Table:
    """The largest layer of each model by a metric, and its share."""
    tables = [largest_layers(p, metric, top=1) for p in profiles]
    columns = [Column("model", shortens=True), *(c for c in tables[0].columns if c.header != "so far")]
    rows = [[text(p.label), *row][: len(columns)] for p, t in zip(profiles, tables, strict=True) for row in t.rows]
    title = f"Largest layer of each model by {title_of(metric, profiles)}"
    if metric == "peak_bytes":
        title = "Operation of each model with the most live memory"
    return Table(title, columns, rows)


def exact_total(record: Record, metric: str) -> Cell:
    """A total with all digits, or with the rounding of the tool that prints it."""
    amount, printed = METRICS.get(metric).total(record), METRICS.get(metric).printed
    scaled = printed(record) if printed is not None and amount.value is not None else None
    if scaled is None:
        return total(metric, amount)
    cell = Cell(amount.value, quantity(metric, scaled).text)
    return at_least(cell) if amount.missed else cell


def _short_total(record: Record, metric: str) -> Cell:
    """The total of a metric with three significant digits; ratios and bytes as in other tables."""
    return _shortened(metric, METRICS.get(metric).total(record), exact_total(record, metric))


def _short(metric: str, amount: Amount | None) -> Cell:
    cell = part(metric, amount)
    return cell if amount is None else _shortened(metric, amount, cell)


def _shortened(metric: str, amount: Amount, cell: Cell) -> Cell:
    if not isinstance(amount.value, int) or METRICS.get(metric).unit == "bytes":
        return cell
    return cell._replace(text=cell.text.replace(units.count(amount.value), units.short_count(amount.value)))


def _inputs(profiles: Sequence[Record]) -> list[str]:
    return [" + ".join(map(str, p.inputs)) for p in profiles]


def _without_empty_columns(table: Table) -> Table:
    """The table without columns that have no text in any row: a metric that only describes a network has no change."""
    kept = [i for i in range(len(table.columns)) if any(row[i].text for row in table.rows)]
    return Table(table.title, [table.columns[i] for i in kept], [[row[i] for i in kept] for row in table.rows])


def _caption(profiles: Sequence[Record], shape: str) -> str:
    dtypes = list(dict.fromkeys(p.dtype for p in profiles))
    caption = f"Complexity of {len(profiles)} models" + (f" for an input of {shape}" if shape else "")
    return caption + (f", {' and '.join(dtypes)}" if dtypes != ["float32"] else "")
