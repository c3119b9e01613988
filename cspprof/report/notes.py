"""Notes on the metrics of one model: reconstruction, missing rules, unused parameters."""

from __future__ import annotations

from cspprof.analysis.layer_rows import layer_rows
from cspprof.core.record import Record

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
    unread = record.params - sum(r.params for r in layer_rows(record))
    if unread:
        notes.append(f"{record.label}: {unread:,} of its {record.params:,} parameters are never read by this forward.")
    return notes


def incomplete_note(record: Record) -> str:
    """The operations of a record that have no rule, with their counts."""
    unknown = ", ".join(f"{name} ({n})" for name, n in record.uncounted.items())
    return f"{record.label} is incomplete: no rule for {unknown}. Totals exclude them; --strict makes this an error."
