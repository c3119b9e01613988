"""What a reader has to know about the numbers of one model."""

from __future__ import annotations

from cspprof.analysis.layer_rows import layer_rows
from cspprof.core.record import Record

STANDING = {
    "reading": "our best reconstruction of a network whose definition is not public.",
    "construction": "ours, after a published recipe; the authors' own is not public, or does not exist.",
}
"""What a network's status means."""


def remarks(record: Record) -> list[str]:
    """In words, the model's name before each; nothing where nothing is remarkable."""
    notes = [f"{record.label}: {STANDING[record.status]}"] if record.status in STANDING else []
    notes += record.notes
    if not record.complete:
        notes.append(incomplete(record))
    unread = record.params - sum(r.params for r in layer_rows(record))
    if unread:
        notes.append(f"{record.label}: {unread:,} of its {record.params:,} parameters are never read by this forward.")
    return notes


def incomplete(record: Record) -> str:
    """Which operations have no rule."""
    unknown = ", ".join(f"{name} ({n})" for name, n in record.uncounted.items())
    return f"{record.label} is incomplete: no rule for {unknown}. Totals leave them out; --strict makes this an error."
