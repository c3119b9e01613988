"""Tables of the layers of a model, and of groups of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple, TypeVar

from cspprof.analysis.layer_rows import (
    PER_CALL,
    LayerRow,
    RowGroup,
    group_by_module,
    group_rows,
    kind_label,
    layer_rows,
)
from cspprof.core.errors import UnknownNameError
from cspprof.core.record import Record
from cspprof.core.registry import suggestion
from cspprof.metrics import METRICS, Amount, Sum
from cspprof.metrics.names import resolve_metric
from cspprof.report.metric_labels import SHORT_METRICS, at_least_field, metric_label, model_fields, title_of
from cspprof.report.receptive_field import FIELD_COLUMNS, field_cells, field_columns
from cspprof.report.tables import (
    Cell,
    Column,
    Table,
    integer,
    part,
    quantity,
    shapes,
    share,
    sort_key,
    text,
)

T = TypeVar("T")

PLACE_COLUMNS = ("layer", "kind", "stage", "in", "out")
"""The columns of a layer table that are no metrics."""
BY_IMPORTANCE = ("share", "kind", "out", "metrics", "operations", "in", "stage")
"""The order in which the columns behind the main ones get a place. A terminal that is too narrow leaves out the last
ones."""


class Breakdown(NamedTuple):
    """How to list a model below its totals: every layer, modules down to a depth, or groups by kind or stage."""

    layers: bool = False
    depth: int | None = None
    by: str | None = None
    sort: str | None = None
    top: int | None = None
    ascending: bool = False
    columns: tuple[str, ...] = ()
    """The names of the columns, in order; empty for the default ones."""

    @property
    def requested(self) -> bool:
        return self.layers or self.depth is not None or self.by is not None

    @property
    def heading(self) -> str:
        """The name of the first column."""
        if self.depth is not None or self.by is not None:
            return self.by or "module"
        return "layer"

    @property
    def field_columns(self) -> tuple[str, ...]:
        """The names of the columns of receptive fields, which only single layers have."""
        return tuple(FIELD_COLUMNS) if self.heading == "layer" else ()

    @property
    def place_columns(self) -> tuple[str, ...]:
        """The names of the columns that are no metrics."""
        return PLACE_COLUMNS if self.heading == "layer" else (self.heading, "operations", "share")


def split_columns(names: str, how: Breakdown, convention: str | None = None) -> tuple[str, ...]:
    """The columns that `--columns a,b` names, each once and in order. The first column of the table is always there.

    Raises UnknownNameError.
    """
    chosen = [how.heading]
    for name in (n.strip() for n in names.split(",")):
        if name in how.field_columns or (name == "rf" and how.field_columns):
            chosen += how.field_columns if name == "rf" else [name]
            continue
        metric = "peak_bytes" if name == "live_bytes" else resolve_metric(name, convention)
        if name not in how.place_columns and not (metric in METRICS and is_layer_metric(metric)):
            fields = ("rf", *how.field_columns) if how.field_columns else ()
            known = [
                *how.place_columns,
                *fields,
                "macs",
                "cio",
                "live_bytes",
                *filter(is_layer_metric, METRICS.names()),
            ]
            raise UnknownNameError(
                f"no column named {name!r} in a table of {how.heading}s",
                suggestion(name, known),
            )
        chosen.append(name if name in how.place_columns else metric)
    return tuple(dict.fromkeys(chosen))


def is_layer_metric(metric: str) -> bool:
    """Whether single layers have a value of this metric."""
    return metric in PER_CALL or METRICS.get(metric).of_op is not None


def layer_metric_label(metric: str) -> str:
    """The title of a metric of layers. The peak of a single layer is the memory that is alive while it runs."""
    return "live memory" if metric == "peak_bytes" else metric_label(metric)


def field_name(metric: str) -> str:
    """The name of the field of a metric of layers in a record."""
    return "live_bytes" if metric == "peak_bytes" else metric


# -- the largest layers ----------------------------------------------------------------------------


def largest_layers(record: Record, metric: str, top: int = 5, ascending: bool = False) -> Table:
    """The largest operations of one model, or the smallest ones, with their share of the total and the cumulative
    share. For `peak_bytes`, the operations during which most activation memory is alive, with their share of the
    peak."""
    m = METRICS.get(metric)
    rows = layer_rows(record)
    of_spec = cache(lambda spec: RowGroup("", (LayerRow(0, "", record.specs[spec], "", 0, 0),)).value(metric))
    called = record.calls.spec
    valued = [(r, RowGroup("", (r,)).value(metric) if metric in PER_CALL else of_spec(called[r.index])) for r in rows]
    peak = metric == "peak_bytes"
    adds_up = m.additive or metric == "params"  # other metrics have no shares
    whole = m.total(record).value if peak else sum(v or 0 for _, v in valued) if adds_up else 0
    missed = m.total(record).missed
    ordered = sorted(valued, key=lambda rv: (*sort_key(rv[1], ascending), rv[0].index))[:top]
    lines, cumulative = [], 0.0
    for r, v in ordered:
        cumulative += v or 0
        unknown = int(m.of_op is not None and m.op_value(r.spec) is None)
        lines.append([
            text(r.path), text(kind_label(r.spec)), text(r.stage), shapes(r.spec.reads), shapes(r.spec.writes),
            integer(None) if unknown else quantity(metric, v), share(v or 0, whole or 0, unknown, missed),
            share(cumulative, whole or 0, unknown, missed),
        ])  # fmt: skip
    columns = [
        Column("layer", shortens=True), Column("kind", priority=2), Column("stage", priority=6, shortens=True),
        Column("in", priority=4), Column("out", priority=3), Column(m.title, numeric=True),
        Column("share", True, 1), Column("so far", True, 5),
    ]  # fmt: skip
    if peak:
        columns[5:] = [Column("live memory", numeric=True), Column("of the peak", True, 1)]
        title = f"Operations of {record.label} with the {'least' if ascending else 'most'} live memory"
        return Table(title, columns, [line[:-1] for line in lines])
    size = "Smallest" if ascending else "Largest"
    return Table(f"{size} layers of {record.label} by {title_of(metric, [record])}", columns, lines)


# -- layers and groups -----------------------------------------------------------------------------


def layer_table(
    record: Record, how: Breakdown, metrics: Sequence[str], focus: str, in_records: Sequence[str] = ()
) -> tuple[Table, list[dict[str, Any]]]:
    """One table of layers or groups, and the same rows as records.

    The table has the columns of `how`, or by default these metrics; the records have also those of `in_records`.
    """
    chosen = [c for c in how.columns if c not in (*how.place_columns, *how.field_columns)]
    shown = _layer_metrics([*chosen, *metrics], how, chosen)
    recorded = _layer_metrics([*chosen, *(in_records or metrics)], how, chosen)
    every = list(dict.fromkeys([*recorded, *shown]))
    make = _rows_of_layers if how.heading == "layer" else _rows_of_groups
    table, records = make(record, how, every, focus)
    if how.columns:
        keep = {*model_fields(record), "path", "at_least", *map(field_name, how.columns)}
        records = [{k: v for k, v in r.items() if k in keep} for r in records]
        return _chosen(table, how.columns), records
    recorded_fields = {field_name(m) for m in every} - {field_name(m) for m in recorded}
    records = [{k: v for k, v in r.items() if k not in recorded_fields} for r in records]
    first, last = how.place_columns[0], how.place_columns[-1]
    order = [*PLACE_COLUMNS, *shown] if how.heading == "layer" else [first, how.place_columns[1], *shown, last]
    return _by_importance(_with_columns(table, order), how.sort or focus), records


def _rows_of_layers(
    record: Record, how: Breakdown, metrics: Sequence[str], focus: str
) -> tuple[Table, list[dict[str, Any]]]:
    @cache
    def of_spec(spec: int) -> tuple[dict[str, Any], dict[str, Cell], list[Cell], dict[str, str]]:
        """The values that all calls of a spec have in common: of metrics, their cells, further cells, record fields."""
        s = record.specs[spec]
        alone = RowGroup("", (LayerRow(0, "", s, "", 0, 0),))
        return (
            {m: alone.value(m) for m in metrics}, {m: part(m, alone.amount(m)) for m in metrics},
            [text(kind_label(s)), shapes(s.reads), shapes(s.writes)],
            {"in": " + ".join(map(str, s.reads)), "out": " + ".join(map(str, s.writes))},
        )  # fmt: skip

    called = record.calls.spec
    per_call = [m for m in metrics if m in PER_CALL]
    listed = _sorted_top(
        layer_rows(record), how,
        lambda r, m: RowGroup("", (r,)).value(m) if m in PER_CALL else of_spec(called[r.index])[0][m],
    )  # fmt: skip
    columns = [Column(name, name=name, shortens=name in ("layer", "stage")) for name in PLACE_COLUMNS]
    columns += [Column(layer_metric_label(m), numeric=True, name=m) for m in metrics]
    of_field = [name for name in how.columns if name in how.field_columns]
    columns += field_columns(of_field)
    model = model_fields(record)
    lines, records = [], []
    for r in listed:
        values, cells, (kind, reads, writes), tensors = of_spec(called[r.index])
        if per_call:
            alone = RowGroup("", (r,))
            values = values | {m: alone.value(m) for m in per_call}
            cells = cells | {m: part(m, alone.amount(m)) for m in per_call}
        field = field_cells(record, r.index, of_field) if of_field else {}
        lines.append([text(r.path), kind, text(r.stage), reads, writes, *cells.values(), *field.values()])
        fields = {field_name(m): value for m, value in values.items()}
        fields |= {name: cell.text for name, cell in field.items()}
        records.append({**model, "path": r.path, "kind": r.spec.kind.value, "stage": r.stage, **tensors, **fields})
    return Table(f"Layers of {record.label}", columns, lines), records


def _rows_of_groups(
    record: Record, how: Breakdown, metrics: Sequence[str], focus: str
) -> tuple[Table, list[dict[str, Any]]]:
    groups = group_rows(record, how.by) if how.by else group_by_module(record, how.depth or 0)
    heading = how.heading
    columns = [Column(heading, name=heading, shortens=True), Column("operations", numeric=True, name="operations")]
    columns += [Column(layer_metric_label(m), numeric=True, name=m) for m in metrics]
    columns.append(Column(f"share of {METRICS.get(focus).title}", numeric=True, name="share"))
    whole = METRICS.get(focus).total(record)
    model = model_fields(record)
    lines, records = [], []
    for g in _sorted_top(groups, how, RowGroup.value):
        values = {m: g.value(m) for m in metrics}
        of_focus: Amount = g.amount(focus) or Sum(0)
        cells = [part(m, g.amount(m)) for m in metrics]
        cells.append(share(of_focus.value or 0, whole.value or 0, of_focus.missed, whole.missed))
        lines.append([text(g.name), integer(len(g.rows)), *cells])
        bounds = [m for m in metrics if (a := g.amount(m)) is not None and a.missed and values[m] is not None]
        fields = {field_name(m): value for m, value in values.items()}
        records.append({**model, heading: g.name, "operations": len(g.rows), **fields, **at_least_field(bounds)})
    return Table(f"{record.label} by {heading}", columns, lines), records


def _layer_metrics(metrics: Iterable[str], how: Breakdown, chosen: Sequence[str] = ()) -> list[str]:
    """Those of `metrics` that a layer can have. Scaled copies of another metric are left to the totals, unless they are
    chosen."""
    of_layers = [
        m
        for m in dict.fromkeys(metrics)
        if m in chosen
        or (is_layer_metric(m) and METRICS.get(m).scale == 1 and m not in ("flops", "bottleneck_macs", "conv_share"))
    ]
    return of_layers if how.sort in (None, *of_layers) else [*of_layers, str(how.sort)]


def _sorted_top(items: Sequence[T], how: Breakdown, value: Callable[[T, str], Any]) -> list[T]:
    result = list(items)
    if how.sort is not None:
        metric = how.sort
        result.sort(key=lambda item: sort_key(value(item, metric), how.ascending))
    return result[: how.top] if how.top is not None else result


# -- columns ---------------------------------------------------------------------------------------


def _with_columns(table: Table, names: Sequence[str]) -> Table:
    """The columns with these names, in this order."""
    at = {c.name: i for i, c in enumerate(table.columns)}
    places = [at[name] for name in names]
    return Table(table.title, [table.columns[i] for i in places], [[row[i] for i in places] for row in table.rows])


def _chosen(table: Table, names: Sequence[str]) -> Table:
    """The columns with these names. The first one stays in a narrow terminal, the last one is left out first."""
    result = _with_columns(table, names)
    return result._replace(columns=[replace(c, priority=i) for i, c in enumerate(result.columns)])


def _by_importance(table: Table, main: str) -> Table:
    """The table with priorities of its columns: the first column and the main metric stay in a narrow terminal."""
    metrics = [c.name for c in table.columns if c.numeric and c.name not in (main, "operations", "share")]
    metrics.sort(key=lambda m: m not in SHORT_METRICS)
    order = [n for k in BY_IMPORTANCE for n in (metrics if k == "metrics" else [k])]
    columns = [
        replace(c, priority=0 if i == 0 or c.name == main else order.index(c.name) + 1)
        for i, c in enumerate(table.columns)
    ]
    return table._replace(columns=columns)
