"""Profiles and comparisons as reports: pure functions, no printing. See `tables` for what they are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar

from cspprof.analysis.comparison import Comparison, Delta, format_depths
from cspprof.analysis.layer_rows import (
    LayerRow,
    RowGroup,
    group_by_module,
    group_rows,
    kind_label,
    layer_records,
    layer_rows,
    values_by_spec,
)
from cspprof.analysis.stages import stage_depths
from cspprof.core.record import OpSpec, Record
from cspprof.metrics import HIGHER_IS_BETTER, METRICS, value_of
from cspprof.metrics.conventions import convention_named
from cspprof.report.notes import remarks
from cspprof.report.tables import (
    Cell,
    Column,
    Report,
    Table,
    change,
    difference,
    integer,
    quantity,
    shapes,
    share,
    text,
)

T = TypeVar("T")

CIO = ("params", "conv_weights", "macs", "bflops", "cio_hardnet", "cio_cspnet", "moc", "peak_bytes")
FLOPS = ("macs", "flops", "bflops", "bflops_cspnet", "bflops_darknet", "params", "conv_weights", "bottleneck_macs",
         "bottleneck_share", "balance")  # fmt: skip
COMPUTE_UNITS = ("MACs", "FLOPs", "BFLOPs")
ABREAST = 2
"""Models that stand beside the base in one table."""


def model_document(record: Record) -> dict[str, Any]:
    """A model's part of the JSON contract `cspprof.cio/1`."""
    total = partial(value_of, record)
    return {
        "model": record.model,
        "status": record.status,
        "source": record.source,
        "inputs": [list(t.shape) for t in record.inputs],
        "dtype": record.dtype,
        "depths": stage_depths(record),
        **{m: total(m) for m in ("macs", "flops", "params", "conv_weights")},
        **{m: total(m) for m in ("bflops", "bflops_cspnet", "bflops_darknet")},
        "cio": {"hardnet": total("cio_hardnet"), "cspnet": total("cio_cspnet")},
        "moc": total("moc"),
        "peak_bytes": total("peak_bytes"),
        "metrics": {m: total(m) for m in METRICS.names()},
        "complete": record.complete,
        "uncounted": record.uncounted,
        "notes": remarks(record),
        "layers": layer_records(record),
    }


def delta_document(delta: Delta) -> dict[str, Any]:
    return {
        "base": delta.base,
        "model": delta.model,
        "metric": delta.metric,
        "base_value": delta.base_value,
        "value": delta.value,
        "relative": delta.relative,
    }


def document(schema: str, profiles: Sequence[Record], convention: str | None = None) -> dict[str, Any]:
    comparison = Comparison(tuple(profiles))
    models = [model_document(p) for p in profiles]
    if convention is not None:
        c = convention_named(convention)
        for p, model in zip(profiles, models, strict=True):
            model["convention"] = {
                "name": c.name, "tool": c.tool, "counts": c.counts, "per_mac": c.per_mac, "total": value_of(p, c.name),
            }  # fmt: skip
    for i, model in enumerate(models[1:]):
        model["notes"] += comparison.notes_on(i)
    return {"schema": schema, "models": models, "deltas": [delta_document(d) for d in comparison.deltas()]}


# -- whole models ---------------------------------------------------------------------------------


def overview(profiles: Sequence[Record], metrics: Sequence[str] = CIO) -> list[Table]:
    """Models side by side with the change from the first one; a few at a time where there are many."""
    base, *others = profiles
    groups = [others[i : i + ABREAST] for i in range(0, len(others), ABREAST)] or [[]]
    return [_side_by_side([base, *group], metrics) for group in groups]


def _described(record: Record) -> list[tuple[str, Cell]]:
    depth = stage_depths(record)
    rows = [("input", text(" + ".join(str(t) for t in record.inputs)))]
    if record.dtype != "float32":
        rows.append(("dtype", text(record.dtype)))
    rows.append(("depth per stage", Cell(depth, format_depths(depth) or "–")))
    return rows


def label(metric: str) -> str:
    """A number's title with its unit, where the title does not say it."""
    m = METRICS.get(metric)
    unit = "" if m.unit in ("bytes", "fraction", "values") or m.unit.lower() in m.title.lower() else f" [{m.unit}]"
    return m.title + unit


def _side_by_side(profiles: Sequence[Record], metrics: Sequence[str]) -> Table:
    base, *others = profiles
    columns = [Column(""), Column(base.label, numeric=True)]
    for p in others:
        columns += [Column(p.label, numeric=True), Column("change", numeric=True)]
    lines: list[list[Cell]] = []
    described = [_described(p) for p in profiles]
    for i, (name, first) in enumerate(described[0]):
        line = [text(name), first]
        for d in described[1:]:
            cell = d[i][1] if i < len(d) else text("–")
            line += [cell, text("" if cell.text == first.text else "differs")]
        lines.append(line)
    for m in metrics:
        value = value_of(base, m)
        line = [text(label(m)), _total(base, m)]
        for p in others:
            delta = Delta(base.model, p.model, m, value, value_of(p, m))
            line += [_total(p, m), change(delta.relative, m not in HIGHER_IS_BETTER)]
        lines.append(line)
    return Table("", columns, lines)


def _total(record: Record, metric: str) -> Cell:
    """A total; one that leaves out unknown operations is marked as a lower bound."""
    value, printed = value_of(record, metric), METRICS.get(metric).printed
    shown = printed(record) if printed is not None else None
    cell = Cell(value, quantity(metric, value if shown is None else shown).text)
    partial = not record.complete and METRICS.get(metric).unit in COMPUTE_UNITS
    return Cell(cell.value, f"≥ {cell.text}") if partial else cell


def where_from(comparison: Comparison, metric: str, layers: int = 5) -> list[Table]:
    """Where each difference in `metric` comes from: by stage, and the layers that changed most."""
    tables = []
    title = METRICS.get(metric).title
    for i, p in enumerate(comparison.others):
        parts = comparison.by_stage(metric, i)
        whole = sum(c.difference for c in parts)
        columns = [Column("stage"), *(Column(h, numeric=True) for h in (comparison.base.label, p.label, "difference"))]
        lines = [[text(c.name), _side(c.base), _side(c.value), difference(c.difference)] for c in parts]
        lines.append([text("total"), *(integer(sum(v or 0 for v in side)) for side in (
            [c.base for c in parts], [c.value for c in parts])), difference(whole)])  # fmt: skip
        tables.append(Table(f"Where the change in {title} comes from", columns, lines))
        changed = comparison.by_layer(metric, i)[:layers]
        if changed:
            columns = [Column("layer"), *columns[1:]]
            lines = [[text(c.name), _side(c.base), _side(c.value), difference(c.difference)] for c in changed]
            tables.append(Table("Layers that changed most", columns, lines))
    return tables


def _side(value: int | None) -> Cell:
    return Cell(None, "–") if value is None else integer(value)


def largest(record: Record, metric: str, top: int = 5) -> Table:
    """The largest operations of one model, with their share and the share of all up to there."""
    m = METRICS.get(metric)
    values = values_by_spec(record, metric)
    valued = [(r, values[record.calls.spec[r.index]] or 0) for r in layer_rows(record)]
    total = sum(v for _, v in valued) if m.additive else 0  # else there is nothing to have a share of
    ordered = sorted(valued, key=lambda rv: (-rv[1], rv[0].index))[:top]
    columns = [
        Column("layer"), Column("sort"), Column("stage"), Column("in"), Column("out"),
        Column(m.title, numeric=True), Column("share", numeric=True), Column("so far", numeric=True),
    ]  # fmt: skip
    lines, so_far = [], 0.0
    for r, v in ordered:
        so_far += v
        lines.append([
            text(r.path), text(kind_label(r.spec)), text(r.stage), shapes(r.spec.reads), shapes(r.spec.writes),
            quantity(metric, v), share(v, total), share(so_far, total),
        ])  # fmt: skip
    return Table(f"Largest layers of {record.label} by {m.title}", columns, lines)


# -- layers and groups ----------------------------------------------------------------------------


class Breakdown(NamedTuple):
    """How to list a model below its totals: every layer, modules to a depth, or groups of a kind."""

    layers: bool = False
    depth: int | None = None
    by: str | None = None
    sort: str | None = None
    top: int | None = None

    @property
    def wanted(self) -> bool:
        return self.layers or self.depth is not None or self.by is not None


def breakdown(record: Record, how: Breakdown, metrics: Sequence[str], focus: str) -> tuple[Table, list[dict[str, Any]]]:
    """One table of layers or groups, and the same as records."""
    if how.depth is not None or how.by is not None:
        groups = group_rows(record, how.by) if how.by else group_by_module(record, how.depth or 0)
        return _groups(record, groups, how, metrics, focus)
    chosen = _of_layers(metrics, how)

    @cache
    def told(spec: int) -> tuple[dict[str, Any], dict[str, Cell], list[Cell], dict[str, str]]:
        """What all calls of a spec have in common: values and cells of the numbers, further cells and fields."""
        s = record.specs[spec]
        alone = RowGroup("", (LayerRow(0, "", s, "", 0),))
        values = {m: alone.value(m) for m in chosen}
        return (
            values, {m: _known(s, m, v) for m, v in values.items()},
            [text(kind_label(s)), shapes(s.reads), shapes(s.writes)],
            {"in": " + ".join(map(str, s.reads)), "out": " + ".join(map(str, s.writes))},
        )  # fmt: skip

    called = record.calls.spec
    listed = _ordered(layer_rows(record), how, lambda r, m: r.params if m == "params" else told(called[r.index])[0][m])
    columns = [Column("layer"), Column("sort"), Column("stage"), Column("in"), Column("out")]
    columns += [Column(label(m), numeric=True) for m in chosen]
    who = named(record)
    lines, records = [], []
    for r in listed:
        values, cells, (sort, reads, writes), sides = told(called[r.index])
        if "params" in values:
            values, cells = {**values, "params": r.params}, {**cells, "params": integer(r.params)}
        lines.append([text(r.path), sort, text(r.stage), reads, writes, *cells.values()])
        records.append({**who, "path": r.path, "kind": r.spec.kind.value, "stage": r.stage, **sides, **values})
    return Table(f"Layers of {record.label}", columns, lines), records


def _of_layers(metrics: Sequence[str], how: Breakdown) -> list[str]:
    """The numbers that a layer can have, of those a command shows; derived scales of a number are left to totals."""
    wanted = [m for m in metrics if m == "params" or METRICS.get(m).of_op is not None]
    wanted = [m for m in wanted if METRICS.get(m).scale == 1 and m not in ("flops", "bottleneck_macs")]
    return wanted if how.sort in (None, *wanted) else [*wanted, str(how.sort)]


def _known(spec: OpSpec, metric: str, value: Any) -> Cell:
    return Cell(None, "?") if spec.macs is None and metric in ("macs", "flops") else quantity(metric, value)


def _groups(
    record: Record, groups: list[RowGroup], how: Breakdown, metrics: Sequence[str], focus: str
) -> tuple[Table, list[dict[str, Any]]]:
    chosen = _of_layers(metrics, how)
    heading = how.by or "module"
    columns = [Column(heading), Column("operations", numeric=True)]
    columns += [Column(label(m), numeric=True) for m in chosen]
    columns.append(Column(f"share of {METRICS.get(focus).title}", numeric=True))
    whole = value_of(record, focus) or 0
    who = named(record)
    lines, records = [], []
    for g in _ordered(groups, how, RowGroup.value):
        values = {m: g.value(m) for m in chosen}
        part = values[focus] if focus in values else g.value(focus)
        cells = [quantity(m, v) for m, v in values.items()]
        lines.append([text(g.name), integer(len(g.rows)), *cells, share(part or 0, whole)])
        records.append({**who, heading: g.name, "operations": len(g.rows), **values})
    return Table(f"{record.label} by {heading}", columns, lines), records


def _ordered(items: Sequence[T], how: Breakdown, value: Callable[[T, str], Any]) -> list[T]:
    found = list(items)
    if how.sort is not None:
        found.sort(key=lambda item: -(value(item, str(how.sort)) or 0))
    return found[: how.top] if how.top is not None else found


# -- answers to commands ----------------------------------------------------------------------------


def in_sense(convention: str, metrics: Sequence[str], focus: str) -> tuple[list[str], str]:
    """`metrics` with the convention's one number in the place of those that count compute, and `focus` likewise,
    where the convention can tell layers apart."""
    compute = [m for m in metrics if METRICS.get(m).unit in (*COMPUTE_UNITS, "fraction")]  # a fraction is one of MACs
    at = metrics.index(compute[0]) if compute else len(metrics)
    shown = [m for m in metrics if m not in compute]
    shown.insert(at, convention)
    c = convention_named(convention)
    return shown, convention if focus in compute and c.of_op is not None and c.scale == 1 else focus


def analysis(
    command: str, profiles: Sequence[Record], metrics: Sequence[str], focus: str, how: Breakdown,
    convention: str | None = None,
) -> Report:  # fmt: skip
    """The answer to `profile`, `cio`, `flops` and `compare`: totals, changes, where they come from, layers if asked.
    With a convention, compute is counted in that tool's sense."""
    notes = [note for p in profiles for note in remarks(p)]
    if convention is not None:
        metrics, focus = in_sense(convention, metrics, focus)
        c = convention_named(convention)
        notes.append(f"{c.title} are those of {c.tool}, {c.unit}: cspprof explain {c.name}")
    tables = overview(profiles, metrics)
    records = [_record(p, metrics) for p in profiles]
    if len(profiles) > 1:
        comparison = Comparison(tuple(profiles))
        tables += where_from(comparison, focus)
        notes += comparison.notes
    if not how.wanted:
        tables += [largest(p, focus) for p in profiles]
    else:
        records = []
        for p in profiles:
            table, part = breakdown(p, how, metrics, focus)
            tables.append(table)
            records += part
    answer = partial(document, f"cspprof.{command}/1", profiles, convention)
    return Report(tables, records, answer, tuple(dict.fromkeys(notes)), profiles, focus)


def named(record: Record) -> dict[str, Any]:
    """Which model a record is of."""
    return {"model": record.model, "status": record.status}


def _record(record: Record, metrics: Sequence[str]) -> dict[str, Any]:
    return {
        **named(record),
        "input": " + ".join(map(str, record.inputs)),
        "dtype": record.dtype,
        "depths": format_depths(stage_depths(record)),
        **{m: value_of(record, m) for m in metrics},
        "complete": record.complete,
    }
