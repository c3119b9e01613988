"""What a reader has to know about the numbers of one model."""

from __future__ import annotations

from cspprof.record import CONVOLUTIONS, Kind, Profile
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
    if weights := unregistered(profile):
        notes.append(
            f"{profile.label}: its convolutions and linear layers read {weights:,} weights that it does not register: "
            "they are none of its parameters. Layers in a plain list? nn.ModuleList registers them."
        )
    return notes


def incomplete(profile: Profile) -> str:
    """Which operations have no rule."""
    unknown = ", ".join(f"{name} ({n})" for name, n in profile.uncounted.items())
    return f"{profile.label} is incomplete: no rule for {unknown}. Totals leave them out; --strict makes this an error."


def unregistered(profile: Profile) -> int:
    """Elements of weights, biases among them, that convolutions and linear layers of a module read and that are neither
    its parameters nor its buffers nor made in its forward. A graph of ONNX registers nothing."""
    others = {s.id: s.spec.numel for s in profile.storages if s.role == "constant"}
    if not others or "torch" not in profile.tool:
        return 0
    learned = [s.kind in CONVOLUTIONS or s.kind is Kind.LINEAR for s in profile.specs]
    read: set[int] = set()
    for index, at in zip(profile.calls.spec, profile.offsets, strict=True):
        if learned[index]:
            spec = profile.specs[index]
            start = at + len(spec.reads)
            read.update(profile.calls.storage[start : start + len(spec.weights)])
    return sum(others[storage] for storage in read & others.keys())
