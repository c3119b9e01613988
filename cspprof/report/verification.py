"""The report of `verify`: the totals of each tool, and the layers where tools differ, with the reason."""

from __future__ import annotations

from collections import Counter
from typing import Any

from cspprof.analysis.verification import ToolCount, ToolResult, Verification, VerifiedLayer
from cspprof.core.units import count, shape, signed_terms
from cspprof.metrics import value_of
from cspprof.report.catalog import macs_term
from cspprof.report.notes import incomplete_note
from cspprof.report.tables import Cell, Column, Report, Table, integer, text

NOT_EXPLAINED = "not explained"
FIRST_LAYERS = 3
"""The number of layers that the row of a reason names."""


def verification_report(v: Verification, every_layer: bool) -> Report:
    """The MACs of every tool, the reasons why tools differ, and the layers without a reason; with `every_layer`, all
    layers."""
    explained = [layer for layer in v.layers if layer.explained and not layer.agrees]
    tables = [_totals(v)]
    if every_layer:
        tables += [_layer_table(v, v.layers, "Layers")] if v.layers else []
    else:
        tables += [_reason_table(v, explained)] if explained else []
        tables += [_layer_table(v, v.unexplained, "Layers that are not explained")] if v.unexplained else []
    return Report(tables, [_record(layer) for layer in v.layers], _document(v), _notes(v))


def _notes(v: Verification) -> list[str]:
    agreeing = sum(layer.agrees for layer in v.layers)
    differing, open_ = len(v.layers) - agreeing, len(v.unexplained)
    notes = [*v.record.notes]
    notes += [incomplete_note(v.record)] if not v.record.complete else []
    notes += [f"{o.tool} has no result: {o.failure}" for o in v.results if o.counts is None]
    notes.append(f"{agreeing} of {len(v.layers)} layers agree exactly.")
    if differing:
        parts = [f"{differing - open_} differ by rule"] if differing > open_ else []
        if open_:
            parts.append(f"{open_} differ{'s' * (open_ == 1)} and {'is' if open_ == 1 else 'are'} {NOT_EXPLAINED}")
        notes.append(f"{', '.join(parts)}. What a tool counts: cspprof explain NAME")
    return notes


def _totals(v: Verification) -> Table:
    columns = [Column("counter"), Column("version"), Column("counts"), Column("result", numeric=True), Column("equals")]
    p = v.record
    ours = integer(value_of(p, "macs"))
    lines = [[
        text("cspprof"), text(p.tool.get("cspprof", "")), text("MACs"),
        ours if p.complete else Cell(ours.value, f"≥ {ours.text}"), text("MACs"),
    ]]  # fmt: skip
    for o in v.results:
        formula = "–" if o.counts is None else f"{macs_term(o.convention)} {signed_terms(_parts(v, o))}".rstrip()
        result = Cell(None, "–") if o.counts is None else integer(sum(o.counts.values()))
        lines.append([text(o.tool), text(o.version), text(o.convention.counts), result, text(formula)])
    inputs = ", ".join(shape(t.shape) for t in p.inputs)
    return Table(f"{p.label} at {inputs}", columns, lines)


def _parts(v: Verification, o: ToolResult) -> Counter[str]:
    """What the tool counts besides MACs, by name; unexplained differences have a name of their own."""
    parts: Counter[str] = Counter()
    for f in (f for layer in v.layers for f in layer.tool_counts if f.tool == o.tool):
        parts.update(
            f.deviations if f.explained and not f.agrees else {} if f.agrees else {NOT_EXPLAINED: f.difference}
        )
    return parts


def _reason_table(v: Verification, layers: list[VerifiedLayer]) -> Table:
    """One row per reason: how many layers have it, the sums of their counts, and the first of them."""
    groups: dict[tuple[tuple[str, tuple[str, ...]], ...], list[VerifiedLayer]] = {}
    for layer in layers:
        reason = tuple((f.tool, tuple(f.deviations)) for f in layer.tool_counts if not f.agrees)
        groups.setdefault(reason, []).append(layer)
    columns = [Column("reason"), Column("layers", numeric=True), Column("difference from MACs"), Column("first layers")]
    lines = []
    for reason, group in sorted(groups.items(), key=lambda item: -len(item[1])):
        names = "; ".join(f"{tool}: {', '.join(parts)}" for tool, parts in reason)
        sums = "; ".join(f"{tool} {signed_terms(_summed(tool, group))}" for tool, _ in reason)
        first = ", ".join(layer.path or v.record.label for layer in group[:FIRST_LAYERS])
        more = f" and {len(group) - FIRST_LAYERS} more" if len(group) > FIRST_LAYERS else ""
        lines.append([text(names), integer(len(group)), text(sums), text(first + more)])
    return Table("Why layers differ", columns, lines)


def _summed(tool: str, layers: list[VerifiedLayer]) -> Counter[str]:
    """The counts of a tool besides MACs in all these layers, by name."""
    parts: Counter[str] = Counter()
    for layer in layers:
        for f in layer.tool_counts:
            if f.tool == tool and not f.agrees:
                parts.update(f.deviations)
    return parts


def _layer_table(v: Verification, layers: list[VerifiedLayer], title: str) -> Table:
    results = [o for o in v.results if o.counts is not None]
    columns = [Column("layer", shortens=True), Column("MACs", numeric=True)]
    columns += [Column(o.tool + (f" ÷ {o.convention.per_mac}" if o.convention.per_mac > 1 else ""), numeric=True)
                for o in results]  # fmt: skip
    columns.append(Column("reason"))
    lines = [
        [text(layer.path or v.record.label), integer(layer.macs), *(_per_mac(f) for f in layer.tool_counts),
         text("; ".join(filter(None, (f"{f.tool} {_reason(f)}" for f in layer.tool_counts if not f.agrees))))]
        for layer in layers
    ]  # fmt: skip
    return Table(title, columns, lines)


def _per_mac(f: ToolCount) -> Cell:
    whole, rest = divmod(f.count, f.per_mac)
    return Cell(f.count / f.per_mac if rest else whole, count(whole) + ".5" * bool(rest))


def _reason(f: ToolCount) -> str:
    """The reason of a difference in the tool's unit, or that no rule explains it."""
    if f.explained:
        return signed_terms(f.deviations)
    rule = "has no value" if f.predicted is None else f"gives {count(f.predicted)}"
    return f"{signed_terms({NOT_EXPLAINED: f.difference})} (its rule {rule})"


def _record(layer: VerifiedLayer) -> dict[str, Any]:
    row: dict[str, Any] = {"path": layer.path, "class": layer.class_name, "macs": layer.macs}
    for f in layer.tool_counts:
        row |= {f.tool: f.count, f"{f.tool}_rule": f.predicted, f"{f.tool}_why": "" if f.agrees else _reason(f)}
    return row | {"agrees": layer.agrees, "explained": layer.explained}


def _document(v: Verification) -> dict[str, Any]:
    p = v.record
    return {
        "schema": "cspprof.verify/1",
        "model": p.model,
        "status": p.status,
        "source": p.source,
        "inputs": [list(t.shape) for t in p.inputs],
        "dtype": p.dtype,
        "macs": value_of(p, "macs"),
        "complete": p.complete,
        "uncounted": p.uncounted,
        "explained": not v.unexplained,
        "tools": [
            {"name": o.tool, "tool": o.convention.tool, "version": o.version, "per_mac": o.convention.per_mac,
             "total": None if o.counts is None else sum(o.counts.values()), "failure": o.failure}
            for o in v.results
        ],
        "layers": [
            {"path": layer.path, "class": layer.class_name, "macs": layer.macs, "agrees": layer.agrees,
             "explained": layer.explained, "findings": [
                {"tool": f.tool, "count": f.count, "rule": f.predicted, "difference": f.difference,
                 "explained": f.explained, "beside": {} if f.agrees or not f.explained else dict(f.deviations)}
                for f in layer.tool_counts]}
            for layer in v.layers
        ],
        "notes": _notes(v),
    }  # fmt: skip
