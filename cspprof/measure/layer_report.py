"""Tables of a profile per layer: shares of the time, traffic as executed, memory, and why models differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from cspprof.analysis.layer_rows import kind_label
from cspprof.core import units
from cspprof.core.record import Record
from cspprof.measure.executed import ExecutedTraffic, executed_traffic, not_executed_bytes
from cspprof.measure.explain import MEANING, Explanation
from cspprof.measure.layers import (
    LayerProfile,
    added_nodes,
    call_paths,
    call_seconds,
    fused_into,
    node_label,
    not_executed,
)
from cspprof.measure.memory import activation_peaks, allocator_peak
from cspprof.measure.report import TIME_SECTION
from cspprof.measure.result import Measurement
from cspprof.metrics import value_of
from cspprof.metrics.traffic import cio_cspnet
from cspprof.report.tables import Cell, Column, PageSection, Report, Table, share, text

SHOWN = 20
"""Rows of a table of layers; the others are one row together."""


def with_layers(report: Report, measurement: Measurement, explain: bool) -> Report:
    """The report of a measurement with its tables of layers. The rows for CSV are those of the last kind of table."""
    profiles = [p for p in measurement.layer_profiles if not p.failure]
    tables = [*report.tables]
    records: list[dict[str, Any]] = []
    for i, model in enumerate(measurement.models):
        own = [p for p in profiles if p.model == i]
        if own:
            tables.append(_share_table(model.record, own))
            records += [row for p in own for row in node_records(model.record, p)]
    if profiles:
        tables += _traffic_tables(measurement, profiles)
        tables += [_fusion_table(measurement, profiles), *_memory_tables(measurement, profiles)]
    if explain:
        explanations = measurement.explanations()
        tables += [_explanation_table(measurement, e) for e in explanations]
        records = [row for e in explanations for row in explanation_records(measurement, e)]
    notes = [*report.notes, *_notes(measurement, explain)]
    section = PageSection(TIME_SECTION, tables)
    return replace(report, tables=tables, section=section, records=records or report.records, notes=notes)


# -- shares of the time -----------------------------------------------------------------------------


def _share_table(record: Record, profiles: Sequence[LayerProfile]) -> Table:
    """One row for each of the layers with the largest share on any engine, in execution order."""
    columns = [Column("layer", shortens=True), Column("kind", priority=2)]
    columns += [Column(p.label, numeric=True) for p in profiles]
    columns += [Column("MACs", numeric=True, priority=1), Column("CIO", numeric=True, priority=1)]
    seconds = [call_seconds(record, p) for p in profiles]
    largest = {
        call: max(s.get(call, 0.0) / p.total_seconds for s, p in zip(seconds, profiles, strict=True))
        for call in {call for s in seconds for call in s}
    }
    shown = sorted(sorted(largest, key=lambda call: (-largest[call], call))[:SHOWN])
    rows = [_share_row(record, call, profiles, seconds) for call in shown]
    others = len(largest) - len(shown)
    if others:
        rest = [sum(v for call, v in s.items() if call not in shown) for s in seconds]
        rows.append(_total_row(units.counted(others, "other layer"), rest, profiles))
    for name, is_layout in (("layout changes of the engine", True), ("operations without a layer", False)):
        added = [sum(n.seconds for n in added_nodes(p) if n.is_layout is is_layout) for p in profiles]
        if any(added):
            rows.append(_total_row(name, added, profiles))
    between = [p.between_seconds for p in profiles]
    rows.append(_total_row("between operations", between, profiles))
    return Table(f"{record.label}: shares of the time, in a run with a profiler", columns, rows)


def _share_row(
    record: Record, call: int, profiles: Sequence[LayerProfile], seconds: Sequence[dict[int, float]]
) -> list[Cell]:
    spec = record.specs[record.calls.spec[call]]
    paths = call_paths(record)
    row = [text(paths[call]), text(kind_label(spec))]
    for profile, found in zip(profiles, seconds, strict=True):
        main = fused_into(record, profile).get(call)
        if call in found:
            row.append(share(found[call], profile.total_seconds))
        else:
            row.append(Cell(None, "not run" if main is None else f"in {paths[main]}"))
    row.append(share(spec.macs or 0, value_of(record, "macs") or 0))
    row.append(share(cio_cspnet(spec) or 0, value_of(record, "cio_cspnet") or 0))
    return row


def _total_row(name: str, seconds: Sequence[float], profiles: Sequence[LayerProfile]) -> list[Cell]:
    cells = [share(s, p.total_seconds) for s, p in zip(seconds, profiles, strict=True)]
    return [text(name), text(""), *cells, text(""), text("")]


def node_records(record: Record, profile: LayerProfile) -> list[dict[str, Any]]:
    """One row per operation of the engine."""
    return [
        {
            "engine": profile.engine,
            "level": profile.level,
            "model": record.model,
            "node": node.name,
            "operator": node.operator,
            "layers": node_label(record, node) if node.calls or node.belongs_to else "",
            "seconds": node.seconds,
            "share": node.seconds / profile.total_seconds if profile.total_seconds else None,
            "is_layout": node.is_layout,
            "macs": sum(record.specs[record.calls.spec[c]].macs or 0 for c in node.calls),
            "executed_macs": node.macs,
            "activation_bytes": node.activation_bytes,
            "parameter_bytes": node.parameter_bytes,
            "output_bytes": node.output_bytes,
            "allocated_bytes": node.allocated_bytes,
        }
        for node in profile.nodes
    ]


# -- fusion -----------------------------------------------------------------------------------------


def _fusion_table(measurement: Measurement, profiles: Sequence[LayerProfile]) -> Table:
    columns = (
        Column("engine"), Column("model", shortens=True), Column("operations that ran", numeric=True),
        Column("run inside another operation"), Column("folded into weights or removed"),
        Column("layout changes", numeric=True), Column("without a layer", numeric=True, priority=1),
    )  # fmt: skip
    rows = []
    for profile in profiles:
        record = measurement.models[profile.model].record
        layouts = sum(n.is_layout for n in profile.nodes)
        without = sum(not n.is_layout for n in added_nodes(profile))
        rows.append([
            text(profile.label), text(record.label), Cell(len(profile.nodes), units.count(len(profile.nodes))),
            text(_kinds(record, fused_into(record, profile))), text(_kinds(record, not_executed(record, profile))),
            Cell(layouts, units.count(layouts)), Cell(without, units.count(without)),
        ])  # fmt: skip
    return Table("What the engines fused", columns, rows)


def _kinds(record: Record, calls: Iterable[int]) -> str:
    """`20 norm, 16 activation`, the most frequent first."""
    kinds = Counter(record.specs[record.calls.spec[call]].kind.value.replace("_", " ") for call in calls)
    return ", ".join(f"{n} {kind}" for kind, n in kinds.most_common()) or "none"


# -- traffic as executed ----------------------------------------------------------------------------


def _traffic_tables(measurement: Measurement, profiles: Sequence[LayerProfile]) -> list[Table]:
    tables = []
    for profile in profiles:
        record = measurement.models[profile.model].record
        rows = executed_traffic(record, profile)
        if rows:
            tables.append(_traffic_table(record, profile, rows))
    return tables


def _traffic_table(record: Record, profile: LayerProfile, rows: Sequence[ExecutedTraffic]) -> Table:
    """The operations that move most, in execution order, and the totals."""
    columns = (
        Column("layers", shortens=True), Column("operation", priority=1), Column("CIO", numeric=True),
        Column("CIO as executed", numeric=True), Column("activations", numeric=True),
        Column("as executed", numeric=True), Column("saved", numeric=True),
    )  # fmt: skip
    largest = sorted(range(len(rows)), key=lambda i: (-max(rows[i].executed_bytes, rows[i].nbytes), i))[:SHOWN]
    cells = [_traffic_row(rows[i]) for i in sorted(largest)]
    others = [row for i, row in enumerate(rows) if i not in largest]
    if others:
        cells.append(_traffic_row(_sum_of(units.counted(len(others), "other operation"), others)))
    skipped = not_executed(record, profile)
    if skipped:
        name = f"folded into weights or removed: {_kinds(record, skipped)}"
        cio = sum(cio_cspnet(record.specs[record.calls.spec[call]]) or 0 for call in skipped)
        extra = ExecutedTraffic(name, "", cio, 0, not_executed_bytes(record, skipped), 0, 0, False)
        cells.append(_traffic_row(extra))
        rows = [*rows, extra]
    cells.append(_traffic_row(_sum_of("total", rows)))
    return Table(f"{record.label}: traffic of activations, {profile.label}", columns, cells)


def _sum_of(name: str, rows: Sequence[ExecutedTraffic]) -> ExecutedTraffic:
    return ExecutedTraffic(
        name, "", sum(r.cio for r in rows), sum(r.executed_cio for r in rows), sum(r.nbytes for r in rows),
        sum(r.executed_bytes for r in rows), sum(r.fused for r in rows), False,
    )  # fmt: skip


def _traffic_row(row: ExecutedTraffic) -> list[Cell]:
    return [
        text(row.name),
        text(row.operator),
        Cell(row.cio, units.count(row.cio)),
        Cell(row.executed_cio, units.count(row.executed_cio)),
        Cell(row.nbytes, units.nbytes(row.nbytes)),
        Cell(row.executed_bytes, units.nbytes(row.executed_bytes)),
        Cell(row.saved_bytes, units.nbytes(row.saved_bytes), row.saved_bytes > 0 if row.saved_bytes else None),
    ]


# -- memory -----------------------------------------------------------------------------------------


def _memory_tables(measurement: Measurement, profiles: Sequence[LayerProfile]) -> list[Table]:
    columns = (
        Column("engine"), Column("model", shortens=True), Column("freed after the last use", numeric=True),
        Column("held as argument of a module", numeric=True), Column("by local variables, at most", numeric=True),
        Column("peak of the allocator", numeric=True), Column("with workspace", numeric=True),
    )  # fmt: skip
    rows = []
    for profile in profiles:
        allocated = allocator_peak(profile)
        if allocated is None:
            continue
        record = measurement.models[profile.model].record
        peaks = activation_peaks(record)
        held = peaks[1:] if profile.engine.startswith("torch") else (None, None)
        rows.append([
            text(profile.label), text(record.label), *map(_bytes_cell, (peaks.last_use, *held, allocated)),
            _bytes_cell(profile.peak_bytes if profile.peak_without_workspace is not None else None),
        ])  # fmt: skip
    return (
        [Table("Peak of activations without the input: three rules, and the allocator", columns, rows)] if rows else []
    )


def _bytes_cell(n: int | None) -> Cell:
    return Cell(n, "–" if n is None else units.nbytes(n))


# -- explanation ------------------------------------------------------------------------------------


def verdict(measurement: Measurement, explanation: Explanation) -> str:
    """One sentence: how much longer one model takes, and the parts of the difference, the largest first."""
    base, other = (measurement.models[i].record.label for i in (explanation.base, explanation.other))
    timing = measurement.timing(explanation.engine, explanation.other)
    row = measurement.row(timing) if timing is not None else {}
    relative = units.change(explanation.difference / explanation.base_seconds)
    sentence = f"{explanation.engine}: {other} takes {_ms(explanation.difference)} ms ({relative}) relative to {base}"
    if not row.get("differs"):
        sentence += ", which is no difference that this machine can show"
    parts = sorted(explanation.parts, key=lambda part: -abs(part.seconds))
    return f"{sentence}: " + ", ".join(f"{part.name} {_ms(part.seconds)}" for part in parts if _ms(part.seconds) != "0")


def _ms(seconds: float) -> str:
    """Signed milliseconds; less than a nanosecond is 0."""
    if abs(seconds) < 1e-9:
        return "0"
    shown = units.significant(abs(seconds) * 1e3, 3)
    return f"{units.MINUS if seconds < 0 else '+'}{shown}"


def _explanation_table(measurement: Measurement, explanation: Explanation) -> Table:
    columns = (
        Column("part"), Column("ms", numeric=True), Column("of the difference", numeric=True),
        Column("layers (ms)", shortens=True), Column("meaning", priority=1),
    )  # fmt: skip
    rows = [
        [
            text(part.name),
            Cell(part.seconds * 1e3, _ms(part.seconds), part.seconds < 0 if part.seconds else None),
            share(part.seconds, explanation.difference),
            text(", ".join(f"{name} {_ms(value)}" for name, value in part.layers)),
            text(MEANING[part.name]),
        ]
        for part in explanation.parts
    ]
    total = Cell(explanation.difference * 1e3, _ms(explanation.difference))
    rows.append([text("difference"), total, share(1, 1), text(""), text("")])
    return Table(verdict(measurement, explanation), columns, rows)


def explanation_records(measurement: Measurement, explanation: Explanation) -> list[dict[str, Any]]:
    """One row per part."""
    return [
        {
            "engine": explanation.engine,
            "base": measurement.models[explanation.base].name,
            "model": measurement.models[explanation.other].name,
            "part": part.name,
            "ms": part.seconds * 1e3,
            "share": part.seconds / explanation.difference if explanation.difference else None,
            "layers": " ".join(name for name, _ in part.layers),
        }
        for part in explanation.parts
    ]


# -- notes ------------------------------------------------------------------------------------------


def _notes(measurement: Measurement, explain: bool) -> list[str]:
    found = []
    for profile in measurement.layer_profiles:
        if profile.failure:
            label = f"{profile.engine}, {measurement.models[profile.model].record.label}"
            found.append(f"{label}: no profile per layer: {profile.failure}.")
    if any(not p.failure for p in measurement.layer_profiles):
        found.append(
            "the profile per layer is from runs apart from the timed ones. A profiler takes time: compare shares."
        )
    for e in measurement.explanations() if explain else ():
        rates = e.rates
        label = f"{e.engine}, {measurement.models[e.other].record.label}"
        found.append(
            f"{label}: fitted rates: {_rate(rates.compute, 'G MACs/s')}, {_rate(rates.traffic, 'GB/s')}, "
            f"{rates.small * 1e6:.1f} µs per operation; R² {rates.determination:.2f} over the operations."
        )
        if not e.knows_padding:
            found.append(
                f"{e.engine} does not report padded channels: their time is in compute, traffic or not explained."
            )
    return list(dict.fromkeys(found))


def _rate(seconds: float, unit: str) -> str:
    return f"no {unit}" if not seconds else f"{units.significant(1e-9 / seconds, 3)} {unit}"
