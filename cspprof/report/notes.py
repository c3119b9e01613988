"""Notes on the metrics of one model: reconstruction, missing rules, what CIO sees, unused parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cspprof.analysis.headline import cio_describes, known_conv_share
from cspprof.analysis.layer_rows import layer_rows
from cspprof.analysis.module_summary import peak_path
from cspprof.core.record import Record
from cspprof.core.units import share
from cspprof.metrics.unknown_ops import unknown_convolutions

STATUS_MEANINGS = {
    "reading": "our best reconstruction of a network whose definition is not public.",
    "construction": "our own network after a published recipe; the authors' network is not public or does not exist.",
}


def model_notes(record: Record) -> list[str]:
    """The notes on one model, each with the name of the model."""
    notes = [f"{record.label}: {STATUS_MEANINGS[record.status]}"] if record.status in STATUS_MEANINGS else []
    notes += record.notes
    if not record.complete:
        notes.append(incomplete_note(record))
    if possible := {op: n for op, n in unknown_convolutions(record).items() if op not in record.uncounted}:
        notes.append(
            f"{record.label}: {_counts(possible)} may be convolutions: a formula gives their FLOPs and not their kind. "
            "CIO marked ≥ excludes them."
        )
    unread = record.params - sum(r.params for r in layer_rows(record))
    if unread:
        notes.append(f"{record.label}: {unread:,} of its {record.params:,} parameters are never read by this forward.")
    return notes


def incomplete_note(record: Record) -> str:
    """The operations of a record that have no rule, with their counts."""
    return (
        f"{record.label} is incomplete: no rule for {_counts(record.uncounted)}. Totals marked ≥ exclude them; "
        "--strict makes this an error."
    )


def cio_notes(records: Iterable[Record]) -> list[str]:
    """A note for each network that CIO does not describe, for reports that show CIO."""
    return [
        f"CIO sees {share(known_conv_share(p) or 0)} of the MACs of {p.label}, those of convolutions. It says little "
        "about this network: read traffic_bytes, or cio_all, which also count linear layers and attention."
        for p in records
        if not cio_describes(p)
    ]


def peak_notes(records: Sequence[Record]) -> list[str]:
    """Where the memory of each model is largest, for tables of several models."""
    places = dict.fromkeys(f"{p.label} at {peak_path(p)}" for p in records if peak_path(p))
    return [f"Peak memory: {', '.join(places)}."] if places else []


def _counts(operations: Mapping[str, int]) -> str:
    """`mylib.scan (12), mylib.thing (1)`."""
    return ", ".join(f"{name} ({n})" for name, n in operations.items())
