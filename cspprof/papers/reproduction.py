"""Published cost figures computed again, and how each came out.

A figure's status follows from its printed digits, the exact computed value and the standing of the network that gave
it. Nothing in the data file can say that a figure comes out, and a reason why it does not is shown only where it indeed
does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import cached_property

from cspprof.papers.figures import Beside, Figure, Published
from cspprof.papers.recipes import Profiles, Subject


class Status(StrEnum):
    """How a figure came out."""

    EXACT = "exact to the printed digit"
    TRUNCATED = "truncated in print"
    READING = "reading"
    """The network is our reconstruction or construction, so agreement would prove nothing."""
    KNOWN = "known not to reproduce"
    UNDEFINED = "no public definition"
    UNEXPLAINED = "does not reproduce"
    """And nobody has said why."""


MUST = {"exact": Status.EXACT, "truncated": Status.TRUNCATED}


@dataclass(frozen=True, slots=True)
class Finding:
    """A figure, the value computed for it in the printed unit, and what follows."""

    table: Published
    figure: Figure
    computed: Fraction | None
    reading: bool

    @property
    def status(self) -> Status:
        if self.computed is None:
            return Status.UNDEFINED
        if self.reading:
            return Status.READING
        agreement = self.figure.printed.agreement(self.computed)
        if agreement is not None:
            return MUST[agreement]
        return Status.KNOWN if self.figure.because else Status.UNEXPLAINED

    @property
    def distance(self) -> Fraction | None:
        """Of the computed value from the printed one: a fraction of it; of percentages the difference, in points."""
        return None if self.computed is None else self.figure.printed.distance(self.computed)

    @property
    def broken(self) -> bool:
        """Whether it does not come out as it has to, or does not come out and nobody says why."""
        must = self.figure.must
        return self.status is Status.UNEXPLAINED or (must is not None and self.status is not MUST[must])

    @property
    def contradicted(self) -> bool:
        """Whether it is said not to come out, and does."""
        return bool(self.figure.because) and self.status in MUST.values()


@dataclass(frozen=True)
class Reproduction:
    """The figures of some tables, computed again."""

    findings: tuple[Finding, ...]
    beside: tuple[tuple[Published, Beside, Fraction], ...]
    """What belongs beside a table's figures, with its value in its own unit."""

    @cached_property
    def counts(self) -> dict[Status, int]:
        """Figures by status, in the order of `Status`."""
        found = Counter(f.status for f in self.findings)
        return {status: found[status] for status in Status if found[status]}

    @property
    def broken(self) -> list[Finding]:
        return [f for f in self.findings if f.broken]


def subjects(tables: Sequence[Published]) -> list[Subject]:
    """What has to be traced for `tables`, each once."""
    return list(dict.fromkeys(s for table in tables for s in table.subjects))


def reproduced(tables: Sequence[Published], profiles: Profiles) -> Reproduction:
    """Every figure of `tables`, from the profiles of their subjects. Raises IncompleteError where a network has an
    operation without a rule."""
    findings = [_finding(table, figure, profiles) for table in tables for figure in table.figures]
    beside = [(table, b, b.recipe.value(b.unit, profiles)) for table in tables for b in table.beside]
    return Reproduction(tuple(findings), tuple(beside))


def _finding(table: Published, figure: Figure, profiles: Profiles) -> Finding:
    if figure.recipe is None:
        return Finding(table, figure, None, reading=False)
    reading = any(profiles[subject].status for subject in figure.recipe.subjects)
    return Finding(table, figure, figure.recipe.value(figure.printed.unit, profiles), reading)
