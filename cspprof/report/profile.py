"""The report of `profile`, `cio`, `flops` and `compare`: totals, changes, where they come from, and layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar

from cspprof.analysis.comparison import Comparison, Contribution, Delta, format_depths
from cspprof.analysis.headline import OF_CONVOLUTIONS, cio_describes_all, needs_conv_share
from cspprof.analysis.layer_rows import (
    LayerRow,
    RowGroup,
    group_by_module,
    group_rows,
    kind_label,
    layer_rows,
    values_by_spec,
)
from cspprof.analysis.stages import stage_depths
from cspprof.core.record import Record
from cspprof.metrics import HIGHER_IS_BETTER, METRICS, NEITHER_IS_BETTER, Amount, Sum, lower_bounds, value_of
from cspprof.metrics.conventions import convention_named
from cspprof.report.command_json import json_document
from cspprof.report.notes import cio_notes, model_notes
from cspprof.report.tables import (
    Cell,
    Column,
    Report,
    Table,
    at_least,
    change_of,
    difference,
    integer,
    part,
    quantity,
    shapes,
    share,
    sort_key,
    text,
    total,
)

T = TypeVar("T")

CIO_METRICS = ("params", "conv_weights", "macs", "bflops", "cio_hardnet", "cio_cspnet", "moc", "peak_bytes")
FLOPS_METRICS = ("macs", "flops", "bflops", "bflops_cspnet", "bflops_darknet", "params", "conv_weights",
                 "bottleneck_macs", "bottleneck_share", "balance")  # fmt: skip
TRAFFIC_METRICS = ("traffic_bytes", "cio_all", *CIO_METRICS)
"""The metrics of networks that CIO does not describe: those of memory traffic that count every operation come first."""
COMPUTE_UNITS = ("MACs", "FLOPs", "BFLOPs")
MODELS_BESIDE_BASE = 2
"""The number of models beside the base in one table; further models follow in further tables."""


class Breakdown(NamedTuple):
    """How to list a model below its totals: every layer, modules down to a depth, or groups by kind or stage."""

    layers: bool = False
    depth: int | None = None
    by: str | None = None
    sort: str | None = None
    top: int | None = None
    ascending: bool = False

    @property
    def requested(self) -> bool:
        return self.layers or self.depth is not None or self.by is not None


def profile_report(
    command: str, profiles: Sequence[Record], metrics: Sequence[str], focus: str, how: Breakdown,
    convention: str | None = None,
) -> Report:  # fmt: skip
    """Totals of every model, changes from the first model and where they come from, and layers or groups.

    With `convention`, compute is counted in the convention of that tool.
    """
    notes = [note for p in profiles for note in model_notes(p)]
    if OF_CONVOLUTIONS & {*metrics, focus}:
        notes += cio_notes(profiles)
    if how.top is not None and how.sort is None:
        how = how._replace(sort=focus)
    if convention is not None:
        metrics, focus = apply_convention(convention, metrics, focus)
        c = convention_named(convention)
        notes.append(f"{c.title} are those of {c.tool}, {c.unit}: cspprof explain {c.name}")
    tables = summary_tables(profiles, metrics)
    records = [_total_record(p, with_conv_share(metrics, profiles)) for p in profiles]
    if len(profiles) > 1:
        comparison = Comparison(tuple(profiles))
        tables += change_tables(comparison, focus)
        notes += comparison.notes
    if not how.requested:
        tables += [largest_layers(p, focus) for p in profiles]
    else:
        records = []
        for p in profiles:
            table, rows = _breakdown(p, how, metrics, focus)
            tables.append(table)
            records += rows
    document = partial(json_document, f"cspprof.{command}/1", profiles, convention, metrics)
    return Report(tables, records, document, tuple(dict.fromkeys(notes)), profiles, focus)


def apply_convention(convention: str, metrics: Sequence[str], focus: str) -> tuple[list[str], str]:
    """`metrics` and `focus` with the metric of the convention in place of all metrics of compute.

    `focus` stays if the convention has no value per layer.
    """
    compute = [m for m in metrics if METRICS.get(m).unit in (*COMPUTE_UNITS, "fraction")]  # fractions are of MACs
    at = metrics.index(compute[0]) if compute else len(metrics)
    result = [m for m in metrics if m not in compute]
    if convention not in result:
        result.insert(at, convention)
    c = convention_named(convention)
    return result, convention if focus in compute and c.of_op is not None and c.scale == 1 else focus


def model_fields(record: Record) -> dict[str, Any]:
    """The fields that say which model a CSV record belongs to."""
    return {"model": record.model, "status": record.status}


def metric_label(metric: str) -> str:
    """The title of a metric, with its unit if the title does not contain it: `CIO (CSPNet) [elements]`."""
    m = METRICS.get(metric)
    unit = "" if m.unit in ("bytes", "fraction", "values") or m.unit.lower() in m.title.lower() else f" [{m.unit}]"
    return m.title + unit


def cio_metrics(profiles: Sequence[Record]) -> tuple[str, ...]:
    """The metrics of `cio`: those of the paper, or of all memory traffic if CIO does not describe a network."""
    return CIO_METRICS if cio_describes_all(profiles) else TRAFFIC_METRICS


def all_metrics(profiles: Sequence[Record]) -> list[str]:
    """Every registered metric; those of all memory traffic first if CIO does not describe a network."""
    first = () if cio_describes_all(profiles) else TRAFFIC_METRICS[:2]
    return list(dict.fromkeys([*first, *METRICS]))


def with_conv_share(metrics: Sequence[str], profiles: Sequence[Record]) -> list[str]:
    """`metrics` with the share of the MACs that CIO sees behind those of convolutions, where it must be shown."""
    cio = [i for i, m in enumerate(metrics) if m in OF_CONVOLUTIONS and m != "moc"]
    if not cio or "conv_share" in metrics or not any(map(needs_conv_share, profiles)):
        return list(metrics)
    return [*metrics[: cio[-1] + 1], "conv_share", *metrics[cio[-1] + 1 :]]


def lower_is_better(metric: str, profiles: Sequence[Record]) -> bool | None:
    """Whether a smaller value is an improvement; None if it says nothing, such as CIO of networks that it does not
    describe."""
    of_convolutions = metric in OF_CONVOLUTIONS or metric == "bflops_darknet"
    if metric in NEITHER_IS_BETTER or (of_convolutions and not cio_describes_all(profiles)):
        return None
    return metric not in HIGHER_IS_BETTER


def metric_change(metric: str, base: Record, other: Record) -> Cell:
    """The relative change of a metric; empty for a metric that only describes a network."""
    if metric in NEITHER_IS_BETTER:
        return text("")
    return change_of(Delta.of(base, other, metric), lower_is_better(metric, [base, other]))


def title_of(metric: str, profiles: Sequence[Record]) -> str:
    """The title of a metric for a heading; for CIO with the share of the MACs that it sees, where that is needed."""
    return METRICS.get(metric).title + cio_remark(metric, profiles)


def cio_remark(metric: str, profiles: Sequence[Record]) -> str:
    """` (sees 2.3 % of the MACs)` for CIO, where it must be said; else empty."""
    if metric not in OF_CONVOLUTIONS or not any(map(needs_conv_share, profiles)):
        return ""
    return f" (sees {conv_share_text(profiles)} of the MACs)"


def conv_share_text(profiles: Sequence[Record]) -> str:
    """The shares of the MACs that CIO sees: `2.3 %`, or `2.3 % and 100.0 %`."""
    amounts = [METRICS.get("conv_share").total(p) for p in profiles]
    texts = ["an unknown part" if a.missed else total("conv_share", a).text for a in amounts]
    return " and ".join(dict.fromkeys(texts))


# -- totals -----------------------------------------------------------------------------------------


def summary_tables(profiles: Sequence[Record], metrics: Sequence[str] | None = None) -> list[Table]:
    """The models side by side with the change from the first model; a few models per table. By default the metrics of
    `cio`."""
    base, *others = profiles
    metrics = with_conv_share(cio_metrics(profiles) if metrics is None else metrics, profiles)
    step = MODELS_BESIDE_BASE
    groups = [others[i : i + step] for i in range(0, len(others), step)] or [[]]
    return [_side_by_side([base, *group], metrics) for group in groups]


def _side_by_side(profiles: Sequence[Record], metrics: Sequence[str]) -> Table:
    base, *others = profiles
    columns = [Column(""), Column(base.label, numeric=True)]
    for p in others:
        columns += [Column(p.label, numeric=True), Column("change", numeric=True)]
    lines: list[list[Cell]] = []
    facts = [_input_and_depth(p) for p in profiles]
    if all(f["dtype"].text == "float32" for f in facts):
        facts = [{name: cell for name, cell in f.items() if name != "dtype"} for f in facts]
    for name, first in facts[0].items():
        line = [text(name), first]
        for cell in (other[name] for other in facts[1:]):
            known = cell.text != "–" and first.text != "–"
            line += [cell, text("differs" if known and cell.text != first.text else "")]
        lines.append(line)
    for m in metrics:
        line = [text(metric_label(m)), _total(base, m)]
        for p in others:
            line += [_total(p, m), metric_change(m, base, p)]
        lines.append(line)
    return Table("", columns, lines)


def _input_and_depth(record: Record) -> dict[str, Cell]:
    depth = stage_depths(record)
    return {
        "input": text(" + ".join(str(t) for t in record.inputs)),
        "dtype": text(record.dtype),
        "depth per stage": Cell(depth, format_depths(depth) or "–"),
    }


def _total(record: Record, metric: str) -> Cell:
    """A total, with the rounding of the tool that prints it."""
    amount, printed = METRICS.get(metric).total(record), METRICS.get(metric).printed
    scaled = printed(record) if printed is not None and amount.value is not None else None
    if scaled is None:
        return total(metric, amount)
    cell = Cell(amount.value, quantity(metric, scaled).text)
    return at_least(cell) if amount.missed else cell


def _total_record(record: Record, metrics: Sequence[str]) -> dict[str, Any]:
    return {
        **model_fields(record),
        "input": " + ".join(map(str, record.inputs)),
        "dtype": record.dtype,
        "depths": format_depths(stage_depths(record)),
        **{m: value_of(record, m) for m in metrics},
        "complete": record.complete,
        **at_least_field(lower_bounds(record, metrics)),
    }


def at_least_field(metrics: Sequence[str]) -> dict[str, str]:
    """The field of a CSV record that names its lower bounds; no field without any."""
    return {"at_least": " ".join(metrics)} if metrics else {}


# -- changes ----------------------------------------------------------------------------------------


def change_tables(comparison: Comparison, metric: str, layers: int = 5) -> list[Table]:
    """Where each difference in `metric` comes from: by stage, and the layers that changed most."""
    tables = []
    for i, p in enumerate(comparison.others):
        pair = [comparison.base, p]
        title, better = title_of(metric, pair), lower_is_better(metric, pair)
        parts = comparison.by_stage(metric, i)
        whole = Contribution(
            "total", sum(c.base or 0 for c in parts), sum(c.value or 0 for c in parts),
            sum(c.base_missed for c in parts), sum(c.missed for c in parts),
        )  # fmt: skip
        columns = [Column("stage"), *(Column(h, numeric=True) for h in (comparison.base.label, p.label, "difference"))]
        lines = [_contribution(metric, c, better) for c in parts]
        lines.append([
            text(whole.name), total(metric, Sum(whole.base or 0, 1, whole.base_missed)),
            total(metric, Sum(whole.value or 0, 1, whole.missed)),
            difference(metric, whole.difference, whole.bound, better),
        ])  # fmt: skip
        tables.append(Table(f"Where the change in {title} comes from", columns, lines))
        changed = comparison.by_layer(metric, i)[:layers]
        if changed:
            columns = [Column("layer"), *columns[1:]]
            lines = [_contribution(metric, c, better) for c in changed]
            tables.append(Table("Layers that changed most", columns, lines))
    return tables


def _contribution(metric: str, c: Contribution, lower_is_better: bool | None) -> list[Cell]:
    """A row of a table of changes: name, both values, and the difference."""
    sides = (None if n is None else Sum(n, 1, missed) for n, missed in ((c.base, c.base_missed), (c.value, c.missed)))
    return [text(c.name), *(part(metric, s) for s in sides), difference(metric, c.difference, c.bound, lower_is_better)]


# -- layers and groups ------------------------------------------------------------------------------


def largest_layers(record: Record, metric: str, top: int = 5, ascending: bool = False) -> Table:
    """The largest operations of one model, or the smallest ones, with their share of the total and the cumulative
    share."""
    m = METRICS.get(metric)
    values = values_by_spec(record, metric)
    of_params = metric == "params"
    valued = [(r, r.params if of_params else values[record.calls.spec[r.index]]) for r in layer_rows(record)]
    whole = sum(v or 0 for _, v in valued) if m.additive or of_params else 0  # other metrics have no shares
    missed = m.total(record).missed
    ordered = sorted(valued, key=lambda rv: (*sort_key(rv[1], ascending), rv[0].index))[:top]
    columns = [
        Column("layer"), Column("kind"), Column("stage"), Column("in"), Column("out"),
        Column(m.title, numeric=True), Column("share", numeric=True), Column("so far", numeric=True),
    ]  # fmt: skip
    lines, cumulative = [], 0.0
    for r, v in ordered:
        cumulative += v or 0
        amount = m.op_value(r.spec)
        unknown = int(m.of_op is not None and amount is None)
        lines.append([
            text(r.path), text(kind_label(r.spec)), text(r.stage), shapes(r.spec.reads), shapes(r.spec.writes),
            integer(None) if unknown else quantity(metric, v), share(v or 0, whole, unknown, missed),
            share(cumulative, whole, unknown, missed),
        ])  # fmt: skip
    size = "Smallest" if ascending else "Largest"
    return Table(f"{size} layers of {record.label} by {title_of(metric, [record])}", columns, lines)


def _breakdown(
    record: Record, how: Breakdown, metrics: Sequence[str], focus: str
) -> tuple[Table, list[dict[str, Any]]]:
    """One table of layers or groups, and the same rows as records."""
    if how.depth is not None or how.by is not None:
        groups = group_rows(record, how.by) if how.by else group_by_module(record, how.depth or 0)
        return _group_table(record, groups, how, metrics, focus)
    chosen = _layer_metrics(metrics, how)

    @cache
    def of_spec(spec: int) -> tuple[dict[str, Any], dict[str, Cell], list[Cell], dict[str, str]]:
        """What all calls of a spec share: metric values, their cells, further cells and record fields."""
        s = record.specs[spec]
        alone = RowGroup("", (LayerRow(0, "", s, "", 0),))
        return (
            {m: alone.value(m) for m in chosen}, {m: part(m, alone.amount(m)) for m in chosen},
            [text(kind_label(s)), shapes(s.reads), shapes(s.writes)],
            {"in": " + ".join(map(str, s.reads)), "out": " + ".join(map(str, s.writes))},
        )  # fmt: skip

    called = record.calls.spec
    listed = _sorted_top(
        layer_rows(record), how, lambda r, m: r.params if m == "params" else of_spec(called[r.index])[0][m]
    )
    columns = [Column("layer"), Column("kind"), Column("stage"), Column("in"), Column("out")]
    columns += [Column(metric_label(m), numeric=True) for m in chosen]
    model = model_fields(record)
    lines, records = [], []
    for r in listed:
        values, cells, (kind, reads, writes), tensors = of_spec(called[r.index])
        if "params" in values:
            values, cells = {**values, "params": r.params}, {**cells, "params": integer(r.params)}
        lines.append([text(r.path), kind, text(r.stage), reads, writes, *cells.values()])
        records.append({**model, "path": r.path, "kind": r.spec.kind.value, "stage": r.stage, **tensors, **values})
    return Table(f"Layers of {record.label}", columns, lines), records


def _layer_metrics(metrics: Sequence[str], how: Breakdown) -> list[str]:
    """The metrics of a command that a layer can have; scaled copies of another metric are left to the totals."""
    of_layers = [m for m in metrics if m == "params" or METRICS.get(m).of_op is not None]
    of_layers = [
        m for m in of_layers if METRICS.get(m).scale == 1 and m not in ("flops", "bottleneck_macs", "conv_share")
    ]
    return of_layers if how.sort in (None, *of_layers) else [*of_layers, str(how.sort)]


def _group_table(
    record: Record, groups: list[RowGroup], how: Breakdown, metrics: Sequence[str], focus: str
) -> tuple[Table, list[dict[str, Any]]]:
    chosen = _layer_metrics(metrics, how)
    heading = how.by or "module"
    columns = [Column(heading), Column("operations", numeric=True)]
    columns += [Column(metric_label(m), numeric=True) for m in chosen]
    columns.append(Column(f"share of {METRICS.get(focus).title}", numeric=True))
    whole = METRICS.get(focus).total(record)
    model = model_fields(record)
    lines, records = [], []
    for g in _sorted_top(groups, how, RowGroup.value):
        values = {m: g.value(m) for m in chosen}
        of_focus: Amount = g.amount(focus) or Sum(0)
        cells = [part(m, g.amount(m)) for m in chosen]
        cells.append(share(of_focus.value or 0, whole.value or 0, of_focus.missed, whole.missed))
        lines.append([text(g.name), integer(len(g.rows)), *cells])
        bounds = [m for m in chosen if (a := g.amount(m)) is not None and a.missed and values[m] is not None]
        records.append({**model, heading: g.name, "operations": len(g.rows), **values, **at_least_field(bounds)})
    return Table(f"{record.label} by {heading}", columns, lines), records


def _sorted_top(items: Sequence[T], how: Breakdown, value: Callable[[T, str], Any]) -> list[T]:
    result = list(items)
    if how.sort is not None:
        metric = how.sort
        result.sort(key=lambda item: sort_key(value(item, metric), how.ascending))
    return result[: how.top] if how.top is not None else result
