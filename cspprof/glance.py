"""A profile as far as totals need it: of a saved one the first line is read, and the rest if somebody asks for more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial

from cspprof.head import believed
from cspprof.metrics import METRICS, Amount
from cspprof.record import Profile, TensorSpec
from cspprof.saving import from_bytes
from cspprof.structure import structure


@dataclass(frozen=True, slots=True)
class Glance:
    """What a check of totals asks of a profile."""

    model: str
    inputs: tuple[TensorSpec, ...]
    tool: Mapping[str, str]
    uncounted: Mapping[str, int]
    total: Callable[[str], Amount]
    """Of a registered number."""
    structure: Callable[[], str]
    profile: Callable[[], Profile]
    """The whole. Raises ProfileError where that cannot be read."""


def whole(profile: Profile) -> Glance:
    """At a profile that is there."""
    return Glance(
        profile.model, profile.inputs, profile.tool, profile.uncounted,
        lambda name: METRICS.get(name).total(profile), partial(structure, profile), lambda: profile,
    )  # fmt: skip


def glance_at(data: bytes, name: str) -> Glance | None:
    """At the content of a file, which `name` is; None where its first line tells nothing that can be believed."""
    head = believed(data)
    if head is None:
        return None
    profile = cache(partial(from_bytes, data, name))

    def total(metric: str) -> Amount:
        known = head.totals.get(metric)
        return METRICS.get(metric).total(profile()) if known is None else known

    return Glance(head.model, head.inputs, head.tool, head.uncounted, total, lambda: head.structure, profile)
