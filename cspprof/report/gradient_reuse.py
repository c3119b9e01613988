"""The report of `gradients`: the gradients that update the layers of each stage, and those used most often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cspprof.analysis.layer_rows import layer_rows
from cspprof.core.record import Record
from cspprof.core.units import count
from cspprof.csp.cross_stage_splits import Bypass
from cspprof.csp.gradient_reuse import GradientReuse, StageReuse, gradient_reuse
from cspprof.report.metric_labels import model_fields
from cspprof.report.notes import model_notes
from cspprof.report.tables import Cell, Column, Report, Table, integer, text

MOST_DIGITS = 7
"""Larger numbers of paths are written as a power of two or with an exponent."""


def gradients_report(profiles: Sequence[Record], top: int = 10, layers: bool = False) -> Report:
    """The stages of each model, its cross stage splits, its most used gradients and, with `layers`, every layer."""
    found = [gradient_reuse(p) for p in profiles]
    tables = []
    for reuse in found:
        tables.append(_stage_table(reuse))
        if any(b.split != "whole" for b in reuse.bypasses):
            tables.append(_split_table(reuse))
        if top and any(g.reused for g in reuse.gradients):
            tables.append(_gradient_table(reuse, top))
        if layers:
            tables.append(_layer_table(reuse))
    notes = [note for p in profiles for note in [*model_notes(p), *_frozen_note(p)]]
    document = {"schema": "cspprof.gradients/1", "models": [_model(r) for r in found]}
    return Report(tables, [record for r in found for record in _records(r)], document, notes, profiles)


# -- tables -----------------------------------------------------------------------------------------


def _stage_table(reuse: GradientReuse) -> Table:
    columns = [Column("stage", shortens=True), Column("layers", True, 2), Column("gradients", True),
               Column("uses", True), Column("used again", True), Column("most", True, 3), Column("paths", True, 4),
               Column("shared", True), Column("fusion", priority=1)]  # fmt: skip
    rows = [_stage_row(stage, stage.stage) for stage in reuse.stages]
    rows.append(_stage_row(reuse.total, "total"))
    return Table(f"Gradients of {reuse.record.label}", columns, rows)


def _stage_row(stage: StageReuse, name: str) -> list[Cell]:
    numbers = [integer(n) for n in (stage.layers, stage.gradients, stage.uses, stage.reused, stage.most)]
    fusions = list(dict.fromkeys(stage.fusions))
    shown = ", ".join(f"{stage.fusions.count(f)} × {f}" if len(stage.fusions) > 1 else f for f in fusions)
    return [text(name), *numbers, Cell(stage.paths, paths_text(stage.paths)), integer(stage.shared), text(shown or "–")]


def _split_table(reuse: GradientReuse) -> Table:
    columns = [
        Column("stage", priority=3, shortens=True), Column("layers from", shortens=True), Column("split", priority=2),
        Column("fusion"), Column("gradients of the bypass", True, 4), Column("of the layers", True, 5),
        Column("shared", True), Column("shared gradients", priority=1, shortens=True),
    ]  # fmt: skip
    paths = {row.index: row.path for row in layer_rows(reuse.record)}
    rows = [
        [text(b.stage), text(paths[b.first]), text(b.split), text(b.fusion), integer(len(b.bypassed)),
         integer(len(b.processed)), integer(len(b.shared)), text(", ".join(shared_gradients(reuse, b)) or "none")]
        for b in reuse.bypasses if b.split != "whole"
    ]  # fmt: skip
    return Table(f"Cross stage splits of {reuse.record.label}", columns, rows)


def shared_gradients(reuse: GradientReuse, bypass: Bypass) -> list[str]:
    """The gradients of a block that reach both sides, each with the operations that it reaches beside the bypass:
    `stage1.transition.conv × 6`."""
    shared = [n for n, _ in bypass.shared]
    return [f"{reuse.gradients[n].name} × {shared.count(n)}" for n in dict.fromkeys(shared)]


def _gradient_table(reuse: GradientReuse, top: int) -> Table:
    columns = [
        Column("gradient of the input of", shortens=True), Column("stage", priority=2), Column("uses", True),
        Column("from layer", shortens=True, priority=1), Column("to layer", shortens=True, priority=1),
    ]  # fmt: skip
    most = sorted((g for g in reuse.gradients if g.reused), key=lambda g: -g.uses)
    rows = [
        [text(g.name), text(g.stage), integer(g.uses), *(text(reuse.layers[g.layers[i]].path) for i in (0, -1))]
        for g in most[:top]
    ]
    more = f", {len(rows)} of {count(len(most))}" if len(most) > len(rows) else ""
    return Table(f"Gradients of {reuse.record.label} that are used again{more}", columns, rows)


def _layer_table(reuse: GradientReuse) -> Table:
    columns = [Column("layer", shortens=True), Column("stage", priority=2), Column("gradients", True),
               Column("paths", True, 1), Column("computed by", priority=3, shortens=True)]  # fmt: skip
    rows = []
    for layer in reuse.layers:
        names = [reuse.gradients[n].name for n in layer.gradients]
        shown = ", ".join(names) if len(names) <= 2 else f"{names[0]} … {names[-1]}"
        rows.append([text(layer.path), text(layer.stage), integer(len(names)),
                     Cell(layer.paths, paths_text(layer.paths)), Cell(names, shown or "none")])  # fmt: skip
    return Table(f"Layers of {reuse.record.label}", columns, rows)


def paths_text(n: int) -> str:
    """A number of paths: `4,096`, `2^58`, `2^58 + 1` or `2.93e+17`."""
    if n < 10**MOST_DIGITS:
        return count(n)
    for offset, sign in ((0, ""), (1, " + 1")):
        if (n - offset) & (n - offset - 1) == 0:
            return f"2^{(n - offset).bit_length() - 1}{sign}"
    digits = len(str(n)) - 1
    return f"{n // 10 ** (digits - 2) / 100:.2f}e+{digits}"


def _frozen_note(record: Record) -> list[str]:
    frozen = sum(layer.frozen for layer in record.layers)
    if not frozen:
        return []
    parameters = f"{record.label}: {frozen:,} of its {record.params:,} parameters are frozen"
    return [f"{parameters}. Their layers are counted as if gradients updated them."]


# -- JSON and CSV -----------------------------------------------------------------------------------


def stage_fields(stage: StageReuse) -> dict[str, Any]:
    """The numbers of a stage or a model in JSON."""
    return {
        "layers": stage.layers, "gradients": stage.gradients, "uses": stage.uses, "reused": stage.reused,
        "most": stage.most, "paths": stage.paths, "shared": stage.shared, "fusions": list(stage.fusions),
    }  # fmt: skip


def _model(reuse: GradientReuse) -> dict[str, Any]:
    record = reuse.record
    names = [g.name for g in reuse.gradients]
    paths = {row.index: row.path for row in layer_rows(record)}
    return {
        **model_fields(record),
        "source": record.source,
        "inputs": [list(t.shape) for t in record.inputs],
        "total": stage_fields(reuse.total),
        "stages": [{"stage": s.stage, **stage_fields(s)} for s in reuse.stages],
        "layers": [
            {"layer": la.path, "stage": la.stage, "gradients": [names[n] for n in la.gradients], "paths": la.paths}
            for la in reuse.layers
        ],
        "gradients": [
            {"gradient": g.name, "stage": g.stage, "uses": g.uses, "reused": g.reused,
             "layers": [reuse.layers[i].path for i in g.layers]}
            for g in reuse.gradients
        ],
        "bypasses": [
            {"stage": b.stage, "first": paths[b.first], "join": paths[b.join], "split": b.split, "fusion": b.fusion,
             "bypassed": [names[n] for n in sorted(b.bypassed)], "processed": [names[n] for n in sorted(b.processed)],
             "shared": len(b.shared), "shared_gradients": [names[n] for n in dict.fromkeys(n for n, _ in b.shared)]}
            for b in reuse.bypasses
        ],
        "notes": [*model_notes(record), *_frozen_note(record)],
    }  # fmt: skip


def _records(reuse: GradientReuse) -> list[dict[str, Any]]:
    """One row per layer, for CSV and Parquet."""
    return [
        {**model_fields(reuse.record), "layer": layer.path, "stage": layer.stage, "gradients": len(layer.gradients),
         "reused": sum(reuse.gradients[n].layers[0] != i for n in layer.gradients),
         "computed_by": " ".join(reuse.gradients[n].name for n in layer.gradients)}
        for i, layer in enumerate(reuse.layers)
    ]  # fmt: skip
