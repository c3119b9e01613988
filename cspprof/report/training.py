"""The report of `profile --training`: compute and memory of a training step, and modules to checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cspprof.analysis.checkpointing import Candidate, checkpoint_candidates
from cspprof.analysis.layer_rows import layer_rows
from cspprof.core.errors import CspprofError
from cspprof.core.record import Kind, Record
from cspprof.core.units import counted
from cspprof.metrics import METRICS, Amount, lower_bounds
from cspprof.metrics.training import (
    backward_calls,
    gradients_known,
    kept_tensors,
    overwritten_saves,
    unknown_saves,
)
from cspprof.metrics.training_memory import DEFAULT_OPTIMIZER, TrainingMemory, optimizer_named, training_memory
from cspprof.report.metric_labels import at_least_field, model_fields
from cspprof.report.notes import model_notes
from cspprof.report.tables import Cell, Column, PageSection, Report, Table, integer, quantity, share, text, total

MOST_CANDIDATES = 10
TRAINING_METRICS = ("train_macs", "saved_bytes", "train_peak_bytes")


def check_trainable(record: Record) -> None:
    """Raise CspprofError if the record does not say which tensors require a gradient, or if no output depends on a
    parameter that does."""
    if not gradients_known(record):
        raise CspprofError(
            f"{record.label} does not say which of its tensors require a gradient, so a training step is unknown: the "
            "profile is older than cspprof 0.3, or the source is no PyTorch module",
            "Profile the PyTorch model itself, for example: cspprof profile resnext50 --training",
        )
    if not any(backward_calls(record)):
        frozen = sum(layer.frozen for layer in record.layers)
        why = "all its parameters are frozen" if frozen and frozen == record.params else (
            "no output depends on a parameter that requires a gradient"
        )  # fmt: skip
        raise CspprofError(
            f"{record.label} cannot be differentiated: {why}",
            "Look for requires_grad=False, detach(), and outputs of integers. Without --training, cspprof profile "
            "prints the other numbers.",
        )


def training_report(
    profiles: Sequence[Record], optimizer: str = DEFAULT_OPTIMIZER, top: int | None = None, layers: bool = False
) -> Report:
    """The training step of each model, the modules to checkpoint and, with `layers`, every operation."""
    optimizer_named(optimizer)
    for record in profiles:
        check_trainable(record)
    tables = [_summary_table(profiles, optimizer)]
    for record in profiles:
        if candidates := checkpoint_candidates(record)[: top or MOST_CANDIDATES]:
            tables.append(_checkpoint_table(record, candidates))
        if layers:
            tables.append(_layer_table(record, top))
    notes = [note for p in profiles for note in [*model_notes(p), *_training_notes(p)]]
    document = {"schema": "cspprof.training/1", "models": [_model(p, optimizer) for p in profiles]}
    records = [row for p in profiles for row in _records(p)] if layers else [_totals(p, optimizer) for p in profiles]
    section = PageSection("A training step", tables)
    return Report(tables, records, document, tuple(dict.fromkeys(notes)), profiles, section=section)


# -- tables -----------------------------------------------------------------------------------------


def _summary_table(profiles: Sequence[Record], optimizer: str) -> Table:
    columns = [Column(""), *(Column(p.label, numeric=True, shortens=True) for p in profiles)]
    memories = [training_memory(p, optimizer) for p in profiles]
    totals = (
        ("MACs of the forward pass", "macs"),
        ("MACs of the training step", "train_macs"),
        ("saved activations", "saved_bytes"),
    )
    parts = (
        ("weights and buffers", [m.weights for m in memories]),
        ("gradients of parameters", [m.gradients for m in memories]),
        (f"state of the optimizer ({optimizer})", [m.optimizer for m in memories]),
        ("memory of the input", [m.inputs for m in memories]),
    )
    rows: list[list[Cell]] = [
        [text("input"), *(text(" + ".join(map(str, p.inputs))) for p in profiles)],
        *([text(title), *(_total(p, name) for p in profiles)] for title, name in totals),
        *([text(title), *(quantity("saved_bytes", n) for n in values)] for title, values in parts),
        [text("peak memory"), *(_peak(p, m) for p, m in zip(profiles, memories, strict=True))],
        [text("  at"), *(text(place_of_peak(p, m)) for p, m in zip(profiles, memories, strict=True))],
    ]
    return Table("Training step", columns, rows)


def _total(record: Record, name: str) -> Cell:
    return total(name, METRICS.get(name).total(record))


def _peak(record: Record, memory: TrainingMemory) -> Cell:
    cell = quantity("saved_bytes", memory.peak.total)
    return cell._replace(text=f"≥ {cell.text}") if unknown_saves(record) else cell


def place_of_peak(record: Record, memory: TrainingMemory) -> str:
    """`backward of layer1.0.conv1`."""
    if memory.peak.phase == "optimizer":
        return "step of the optimizer"
    return f"{memory.peak.phase} of {paths_of_calls(record)[memory.peak.call]}"


def paths_of_calls(record: Record) -> list[str]:
    """The path of each call, as in the table of layers; for a view that of its module."""
    paths = [record.layers[layer].path or record.model for layer in record.calls.layer]
    for row in layer_rows(record):
        paths[row.index] = row.path
    return paths


def _checkpoint_table(record: Record, candidates: Sequence[Candidate]) -> Table:
    columns = [
        Column("module", shortens=True), Column("class", priority=2, shortens=True), Column("saves", True),
        Column("of saved activations", True, 3), Column("computes again [MACs]", True, 1),
        Column("of the training step", True, 4),
    ]  # fmt: skip
    saved, step = (METRICS.get(name).total(record) for name in ("saved_bytes", "train_macs"))
    rows = [
        [text(c.path), text(c.class_name), quantity("saved_bytes", c.saved), _share(c.saved, saved),
         quantity("macs", c.macs), _share(c.macs, step)]
        for c in candidates
    ]  # fmt: skip
    return Table(f"Modules of {record.label} to checkpoint", columns, rows)


def _share(part: int, whole: Amount) -> Cell:
    """The share of a part; of a lower bound at most that."""
    return share(part, int(whole.value or 0), missed_in_whole=whole.missed)


def _layer_table(record: Record, top: int | None) -> Table:
    columns = [Column("layer", shortens=True), Column("forward [MACs]", True, 1), Column("backward [MACs]", True),
               Column("saved", True)]  # fmt: skip
    rows = sorted(_records(record), key=lambda r: -(r["saved_bytes"] or 0)) if top else _records(record)
    cells = [
        [text(r["layer"]), *(integer(r[n]) if r[n] is not None else Cell(None, "?") for n in ("macs", "backward_macs")),
         quantity("saved_bytes", r["saved_bytes"]) if r["saved_bytes"] is not None else Cell(None, "?")]
        for r in rows[:top]
    ]  # fmt: skip
    return Table(f"Layers of {record.label}", columns, cells)


def _training_notes(record: Record) -> list[str]:
    notes = []
    if frozen := sum(layer.frozen for layer in record.layers):
        notes.append(f"{record.label}: {frozen:,} of its {record.params:,} parameters are frozen.")
    if unknown := unknown_saves(record):
        listed = ", ".join(f"{name} ({n})" for name, n in unknown.items())
        notes.append(f"{record.label}: it is unknown what autograd keeps for {listed}. Memory marked ≥ excludes it.")
    if overwritten := overwritten_saves(record):
        paths = paths_of_calls(record)
        keeps, writes = overwritten[0]
        operation = record.specs[record.calls.spec[writes]].name
        more = f", and {counted(len(overwritten) - 1, 'further case')}" if overwritten[1:] else ""
        notes.append(
            f"{record.label}: torch refuses the backward pass: {operation} at {paths[writes]} overwrites in place what "
            f"autograd keeps for {paths[keeps]}{more}. Use the operation that is not in place."
        )
    return notes


# -- JSON and CSV -----------------------------------------------------------------------------------


def _totals(record: Record, optimizer: str) -> dict[str, Any]:
    memory = training_memory(record, optimizer)
    peak = memory.peak
    by_role = {role: sum(k.nbytes for k in kept_tensors(record) if k.role == role) for role in ("parameter", "input")}
    return {
        **model_fields(record),
        "input": " + ".join(map(str, record.inputs)),
        "optimizer": optimizer,
        "macs": METRICS.get("macs").total(record).value,
        "train_macs": METRICS.get("train_macs").total(record).value,
        "saved_bytes": METRICS.get("saved_bytes").total(record).value,
        "saved_parameter_bytes": by_role["parameter"],
        "saved_input_bytes": by_role["input"],
        "weight_bytes": memory.weights,
        "input_bytes": memory.inputs,
        "gradient_bytes": memory.gradients,
        "optimizer_bytes": memory.optimizer,
        "train_peak_bytes": peak.total,
        "peak_path": place_of_peak(record, memory),
        **at_least_field(lower_bounds(record, TRAINING_METRICS)),
    }


def _model(record: Record, optimizer: str) -> dict[str, Any]:
    peak = training_memory(record, optimizer).peak
    return {
        **_totals(record, optimizer),
        "source": record.source,
        "peak": {"phase": peak.phase, "fixed": peak.fixed, "gradients": peak.gradients, "saved": peak.saved,
                 "other": peak.other},
        "checkpoints": [
            {"module": c.path, "class": c.class_name, "saves": c.saved, "macs": c.macs}
            for c in checkpoint_candidates(record)
        ],
        "layers": [{k: v for k, v in row.items() if k not in ("model", "status")} for row in _records(record)],
        "notes": [*model_notes(record), *_training_notes(record)],
    }  # fmt: skip


def _records(record: Record) -> list[dict[str, Any]]:
    """One row per operation: the MACs of both passes, and the bytes that autograd keeps first for it."""
    masks = backward_calls(record)
    kept: dict[int, int] = {}
    for tensor in kept_tensors(record):
        if tensor.role == "activation":
            kept[tensor.call] = kept.get(tensor.call, 0) + tensor.nbytes
    rows = []
    for row in layer_rows(record):
        spec, mask = row.spec, masks[row.index]
        if spec.kind is Kind.VIEW:
            continue
        backward = spec.backward
        unknown = bool(mask) and (backward is None or backward.saves is None)
        rows.append({
            **model_fields(record), "layer": row.path, "stage": row.stage, "macs": spec.macs,
            "backward_macs": 0 if not mask else None if backward is None else backward.macs_for(mask),
            "saved_bytes": None if unknown else kept.get(row.index, 0),
        })  # fmt: skip
    return rows
