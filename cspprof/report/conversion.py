"""The report of `convert`: the network before and after, its stages, and the choice among several conversions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from cspprof.analysis.constraints import Constraint
from cspprof.analysis.layer_rows import values_by_spec
from cspprof.analysis.module_summary import peak_path
from cspprof.core import units
from cspprof.core.record import Record
from cspprof.csp.gradient_reuse import gradient_reuse
from cspprof.metrics import value_of
from cspprof.report.charts.gamma import gamma_chart
from cspprof.report.metric_labels import metric_label
from cspprof.report.profile import summary_tables
from cspprof.report.tables import Cell, Column, Report, Table, change, integer, quantity, text

if TYPE_CHECKING:
    from cspprof.csp.conversion.convert import StageResult

TOTALS = ("params", "macs", "cio_cspnet", "cio_hardnet", "traffic_bytes", "bottleneck_macs", "peak_bytes")
OF_STAGES = ("macs", "cio_cspnet")


class Converted(Protocol):
    """A conversion: the records before and after, and what became of each stage."""

    @property
    def before(self) -> Record: ...
    @property
    def after(self) -> Record: ...
    @property
    def stages(self) -> Sequence[StageResult]: ...


def conversion_report(conversion: Converted) -> Report:
    """The totals before and after, the costs of each converted stage, and the reasons why stages were left."""
    before, after = conversion.before, conversion.after
    converted = [s for s in conversion.stages if s.plan is not None]
    left = [s for s in conversion.stages if s.plan is None]
    tables = []
    if converted:
        totals, *more = summary_tables([before, after], TOTALS)
        tables += [totals._replace(title=headline_of_change(before, after)), *more, _stage_table(conversion, converted)]
    if left:
        rows = [[text(s.name), text(s.reason)] for s in left]
        tables.append(Table("Left as they are", [Column("stage"), Column("reason")], rows))
    notes = [f"peak memory: {_peak(before)} before, {_peak(after)} after"] if converted else []
    notes += [*gamma_notes(converted), *_setting_notes(converted)]
    records = [_stage_record(conversion, s) for s in conversion.stages]
    document = {"schema": "cspprof.convert/1", "model": before.model, "conversions": [conversion_fields(conversion)]}
    return Report(tables, records, document, notes, [before, after] if converted else [before], "cio_cspnet")


def gamma_notes(converted: Sequence[StageResult]) -> list[str]:
    """A note about the stages whose γ differs by a channel or more from the γ of the options."""
    plans = {s.name: s.plan for s in converted if s.plan is not None}
    moved = {n: p for n, p in plans.items() if abs(p.bypass - p.options.gamma * (p.bypass + p.main)) >= 1}
    if not moved:
        return []
    options = next(iter(moved.values())).options
    rule = f"multiples of {options.multiple} and whole groups; --round 1 keeps γ nearer" if options.multiple > 1 else (
        "whole numbers of channels for all groups"
    )  # fmt: skip
    listed = ", ".join(f"{p.gamma:.3g} in {name}" for name, p in list(moved.items())[:4])
    more = f" and {len(moved) - 4} more stages" if len(moved) > 4 else ""
    return [f"γ is {listed}{more} instead of {options.gamma:g}: widths are {rule}"]


def _setting_notes(converted: Sequence[StageResult]) -> list[str]:
    """A note about the attributes that were changed because they are equal to a number of channels."""
    changed = [f"{s.path}.{s.name} = {s.value}" for stage in converted for s in stage.settings]
    if not changed:
        return []
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    listed = f"{', '.join(changed[:3])}{more}"
    return [f"attributes that were equal to a number of channels have the new number: {listed}"]


def headline_of_change(before: Record, after: Record) -> str:
    """`MACs −4.9 %, CIO +1.7 %`; if one of them rises while the other falls, the one that rises is first."""
    parts = []
    for name, metric in (("MACs", "macs"), ("CIO", "cio_cspnet")):
        old, new = value_of(before, metric), value_of(after, metric)
        parts.append(((new or 0) - (old or 0), f"{name} {units.change((new - old) / old if old else None)}"))
    if parts[0][0] < 0 < parts[1][0]:
        return f"CIO rises while MACs fall: {parts[1][1]}, {parts[0][1]}"
    return ", ".join(part for _, part in parts)


def _peak(record: Record) -> str:
    place = peak_path(record)
    return f"{units.nbytes(value_of(record, 'peak_bytes'))}{f' at {place}' if place else ''}"


def _stage_table(conversion: Converted, stages: Sequence[StageResult]) -> Table:
    columns = [Column("stage", shortens=True), Column("blocks", True, 1), Column("width", True, 4),
               Column("bypass", True, 2), Column("processed", True, 3)]  # fmt: skip
    for metric in OF_STAGES:
        columns += [Column(metric_label(metric).partition(" [")[0], numeric=True), Column("after", numeric=True),
                    Column("change", numeric=True)]  # fmt: skip
    columns += [Column("shared gradients", numeric=True, priority=5), Column("after", numeric=True, priority=5)]
    rows = []
    for stage in stages:
        fields = _stage_record(conversion, stage)
        row = [text(stage.name), *(Cell(fields[k], str(fields[k])) for k in ("blocks", "width", "bypass", "processed"))]
        for metric in OF_STAGES:
            old, new = fields[metric], fields[f"{metric}_after"]
            row += [quantity(metric, old), quantity(metric, new), change((new - old) / old if old else None)]
        row += [integer(fields[key]) for key in ("gradients_shared", "gradients_shared_after")]
        rows.append(row)
    return Table("Converted stages", columns, rows)


def _stage_record(conversion: Converted, stage: StageResult) -> dict[str, Any]:
    plan = stage.plan
    fields: dict[str, Any] = {"model": conversion.before.model, "stage": stage.name, "reason": stage.reason}
    if plan is None:
        return {**fields, "blocks": None, "width": None, "bypass": None, "processed": None}
    replaced = [b.path for b in (*plan.stage.blocks, *plan.stage.tail)]
    if plan.replaces_first and plan.stage.first is not None:
        replaced.insert(0, plan.stage.first.path)
    fields |= {"blocks": len(plan.stage.blocks), "width": plan.stage.input[1], "bypass": plan.bypass,
               "processed": plan.main}  # fmt: skip
    for metric in OF_STAGES:
        fields[metric] = value_within(conversion.before, metric, replaced)
        fields[f"{metric}_after"] = value_within(conversion.after, metric, [stage.path])
    reuse = {"": gradient_reuse(conversion.before).within(replaced),
             "_after": gradient_reuse(conversion.after).within([stage.path])}  # fmt: skip
    for end, of_stage in reuse.items():
        fields[f"gradient_uses{end}"] = of_stage.uses
        fields[f"gradients_shared{end}"] = of_stage.shared
    return fields


def value_within(record: Record, metric: str, paths: Sequence[str]) -> int:
    """The sum of a metric over the operations inside modules."""
    values = values_by_spec(record, metric)
    inside = [any(la.path == p or la.path.startswith(f"{p}.") for p in paths) for la in record.layers]
    calls = record.calls
    return sum(values[s] or 0 for s, layer in zip(calls.spec, calls.layer, strict=True) if inside[layer])


def conversion_fields(conversion: Converted) -> dict[str, Any]:
    """A conversion in JSON."""
    before, after = conversion.before, conversion.after
    plans = [s.plan for s in conversion.stages if s.plan is not None]
    options = plans[0].options if plans else None
    return {
        "gamma": options.gamma if options else None,
        "fusion": options.fusion if options else None,
        "split": ("conv" if plans[0].split_by_convolutions else "slice") if plans else None,
        "recipe": options.recipe if options else None,
        "before": {m: value_of(before, m) for m in TOTALS},
        "after": {m: value_of(after, m) for m in TOTALS},
        "stages": [_stage_record(conversion, s) for s in conversion.stages],
    }


# -- several conversions ----------------------------------------------------------------------------


def choice_report(
    conversions: Sequence[Converted], best: Converted, minimized: str, constraints: Sequence[Constraint]
) -> Report:
    """One row for each γ and fusion, and a chart of them; `best` is marked, and its own report follows."""
    constraint = " and ".join(map(str, constraints))
    shown = list(dict.fromkeys([minimized, *TOTALS]))
    before = conversions[0].before
    columns = [Column(""), Column("γ", numeric=True), Column("fusion")]
    for i, m in enumerate(shown):
        columns += [Column(metric_label(m).partition(" [")[0], True, i)]
    rows = [[text(""), text(""), text("plain"), *(quantity(m, value_of(before, m)) for m in shown)]]
    for c in conversions:
        fields = conversion_fields(c)
        mark = "◀ best" if c is best else ""
        gamma = "–" if fields["gamma"] is None else f"{fields['gamma']:g}"
        rows.append([text(mark), Cell(fields["gamma"], gamma), text(fields["fusion"] or "–"),
                     *(quantity(m, value_of(c.after, m)) for m in shown)])  # fmt: skip
    title = f"{before.label}: least {minimized}" + (f" with {constraint}" if constraint else "")
    fields_of_all = [conversion_fields(c) for c in conversions]
    records = [{"model": before.model, "gamma": f["gamma"], "fusion": f["fusion"], "best": c is best, **f["after"]}
               for c, f in zip(conversions, fields_of_all, strict=True)]  # fmt: skip
    document = {"schema": "cspprof.convert/1", "model": before.model, "minimize": minimized, "where": constraint,
                "best": conversions.index(best), "conversions": fields_of_all}  # fmt: skip
    own = conversion_report(best)
    tables = [Table(title, columns, rows), *own.tables]
    points = [(i, f["gamma"], f["fusion"]) for i, f in enumerate(fields_of_all) if f["gamma"] is not None]
    charts = []
    if points:
        place = next((at for at, (i, _, _) in enumerate(points) if conversions[i] is best), None)
        shown_points = [(gamma, fusion, conversions[i].after) for i, gamma, fusion in points]
        charts.append(gamma_chart(before, shown_points, place, minimized, constraints))
    places: dict[str, list[str]] = {}
    for c, f in zip(conversions, fields_of_all, strict=True):
        if f["gamma"] is not None and peak_path(c.after):
            places.setdefault(peak_path(c.after), []).append(f"γ {f['gamma']:g} {f['fusion']}")
    notes = [f"peak memory at {place}: {', '.join(rows_)}" for place, rows_ in places.items()]
    return Report(tables, records, document, [*notes, *own.notes], own.profiles, "cio_cspnet", charts)
