"""What a reader has to know about the numbers of one model."""

from __future__ import annotations

from cspprof.record import Profile
from cspprof.rows import rows

STANDING = {
    "reading": "our best reconstruction of a network whose definition is not public.",
    "construction": "ours, after a published recipe; the authors' own is not public, or does not exist.",
}
"""What a network's status means."""


def remarks(profile: Profile) -> list[str]:
    """In words, the model's name before each; nothing where nothing is remarkable."""
    notes = [f"{profile.label}: {STANDING[profile.status]}"] if profile.status in STANDING else []
    notes += profile.notes
    if not profile.complete:
        notes.append(incomplete(profile))
    unread = profile.params - sum(r.params for r in rows(profile))
    if unread:
        notes.append(
            f"{profile.label}: {unread:,} of its {profile.params:,} parameters are never read by this forward."
        )
    return notes


def incomplete(profile: Profile) -> str:
    """Which operations have no rule."""
    unknown = ", ".join(f"{name} ({n})" for name, n in profile.uncounted.items())
    return f"{profile.label} is incomplete: no rule for {unknown}. Totals leave them out; --strict makes this an error."
