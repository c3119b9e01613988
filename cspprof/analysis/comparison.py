"""Two or more profiles beside each other: what changed, by how much, and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from cspprof.analysis.layer_rows import Group, by_path, by_stage
from cspprof.analysis.stages import depths, tagged
from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.core.units import shape
from cspprof.metrics import METRICS, Number, value_of


class Delta(NamedTuple):
    """One number of one model against the base."""

    base: str
    model: str
    metric: str
    base_value: Number
    value: Number

    @property
    def relative(self) -> float | None:
        """(value - base) / base; None where the base is 0 or a value is missing."""
        if self.base_value is None or self.value is None or self.base_value == 0:
            return None
        return (self.value - self.base_value) / self.base_value


class Contribution(NamedTuple):
    """What one stage or layer adds to a difference; a side that does not have it is None."""

    name: str
    base: int | None
    value: int | None

    @property
    def difference(self) -> int:
        return (self.value or 0) - (self.base or 0)


@dataclass(frozen=True)
class Comparison:
    """The first profile is the base; every other one is set against it."""

    profiles: tuple[Record, ...]

    @property
    def base(self) -> Record:
        return self.profiles[0]

    @property
    def others(self) -> tuple[Record, ...]:
        return self.profiles[1:]

    def deltas(self, metrics: Sequence[str] | None = None) -> list[Delta]:
        """Every other model's change in each of `metrics` (all registered ones by default)."""
        names = METRICS.names() if metrics is None else metrics
        return [
            Delta(self.base.model, p.model, name, value_of(self.base, name), value_of(p, name))
            for p in self.others
            for name in names
        ]

    def by_stage(self, metric: str, other: int = 0) -> list[Contribution]:
        """The difference to `others[other]`, stage by stage; it adds up to the whole difference."""
        tags = all(map(tagged, self.profiles))
        sides = [by_stage(p, tags) for p in (self.base, self.others[other])]
        return _contributions(metric, *sides)

    def by_layer(self, metric: str, other: int = 0) -> list[Contribution]:
        """The difference to `others[other]`, path by path, largest first; layers that did not change left out."""
        found = _contributions(metric, by_path(self.base), by_path(self.others[other]))
        changed = [c for c in found if c.difference]
        return sorted(changed, key=lambda c: (-abs(c.difference), c.name))

    @cached_property
    def notes(self) -> list[str]:
        """What a reader has to know before believing the changes, over all models."""
        return [note for i in range(len(self.others)) for note in self.notes_on(i)]

    def notes_on(self, other: int) -> list[str]:
        """The same for `others[other]`: depths or inputs that differ, and less of one cost for more of another."""
        base, p = self.base, self.others[other]
        notes = []
        ours, theirs = depths(base), depths(p)
        if ours != theirs and ours and theirs:
            notes.append(
                f"{base.label} has stages {dashed(ours)}, {p.label} {dashed(theirs)}: part of the change is depth, "
                "not the refactor itself."
            )
        if p.inputs != base.inputs:
            a, b = (", ".join(f"{shape(t.shape)} {t.dtype}" for t in q.inputs) for q in (base, p))
            notes.append(f"{base.label} was traced on {a}, {p.label} on {b}.")
        macs, cio = (
            Delta(base.model, p.model, m, value_of(base, m), value_of(p, m)).relative or 0
            for m in ("macs", "cio_cspnet")
        )
        if macs * cio < 0:
            less, more = ("compute", "CIO") if macs < 0 else ("CIO", "compute")
            notes.append(f"{p.label} lowers {less} and raises {more}.")
        return notes


def compare(*profiles: Record) -> Comparison:
    """Set profiles side by side; the first is the base. Raises CspprofError for fewer than two."""
    if len(profiles) < 2:
        raise CspprofError("comparing takes at least two models", "For one model: cspprof profile SPEC")
    return Comparison(profiles)


def dashed(numbers: Sequence[int]) -> str:
    return "-".join(map(str, numbers))


def check_explainable(metric: str) -> None:
    """Refuse a number whose change cannot be told stage by stage: it is no count, or does not add up over layers."""
    m = METRICS.get(metric)
    if metric != "params" and not (m.additive and m.scale == 1):
        raise CspprofError(
            f"a change in {metric} cannot be split into layers",
            "Take a count that adds up over them: macs, flops, cio_cspnet, traffic_bytes …",
        )


def _contributions(metric: str, base: list[Group], other: list[Group]) -> list[Contribution]:
    check_explainable(metric)
    ours = {g.name: int(g.value(metric) or 0) for g in base}
    theirs = {g.name: int(g.value(metric) or 0) for g in other}
    names = list(dict.fromkeys([*ours, *theirs]))
    return [Contribution(n, ours.get(n), theirs.get(n)) for n in names]
