"""Compute the published figures again and compare them with print.

The status of a figure follows from its printed digits, the exact computed value and the status of the network. The data
file cannot claim that a figure reproduces, and it gives a reason only for a figure that does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import cached_property

from cspprof.papers.published import PublishedFigure, PublishedTable, RelatedNumber
from cspprof.papers.recipes import Network, Records


class Status(StrEnum):
    """How the computed value compares with print."""

    EXACT = "exact to the printed digit"
    TRUNCATED = "truncated in print"
    READING = "reading"
    """The network is a reconstruction or construction of this project, so agreement would prove nothing."""
    KNOWN = "known not to reproduce"
    """It does not agree, and the data file gives the reason."""
    UNDEFINED = "no public definition"
    UNEXPLAINED = "does not reproduce"
    """It does not agree, and the data file gives no reason."""


REPRODUCED = {"exact": Status.EXACT, "truncated": Status.TRUNCATED}


@dataclass(frozen=True, slots=True)
class FigureResult:
    """A published figure and its computed value in the printed unit."""

    table: PublishedTable
    figure: PublishedFigure
    computed: Fraction | None
    reading: bool
    """Whether a network that gives the value is not the authors' own."""

    @property
    def status(self) -> Status:
        if self.computed is None:
            return Status.UNDEFINED
        if self.reading:
            return Status.READING
        agreement = self.figure.printed.agreement(self.computed)
        if agreement is not None:
            return REPRODUCED[agreement]
        return Status.KNOWN if self.figure.reason else Status.UNEXPLAINED

    @property
    def difference(self) -> Fraction | None:
        """Computed minus printed: for percentages in points, else as a fraction of the printed value."""
        return None if self.computed is None else self.figure.printed.difference(self.computed)

    @property
    def broken(self) -> bool:
        """Whether the figure lost its required agreement, or disagrees without a reason."""
        required = self.figure.required
        return self.status is Status.UNEXPLAINED or (required is not None and self.status is not REPRODUCED[required])

    @property
    def contradicts_reason(self) -> bool:
        """Whether the figure reproduces although the data file says why it does not."""
        return bool(self.figure.reason) and self.status in REPRODUCED.values()


@dataclass(frozen=True)
class Reproduction:
    """The results for all figures of some tables."""

    figures: tuple[FigureResult, ...]
    related: tuple[tuple[PublishedTable, RelatedNumber, Fraction], ...]
    """Numbers beside the figures of a table, each with its value in its own unit."""

    @cached_property
    def counts(self) -> dict[Status, int]:
        """The number of figures with each status, in the order of `Status`."""
        counts = Counter(f.status for f in self.figures)
        return {status: counts[status] for status in Status if counts[status]}

    @property
    def broken(self) -> list[FigureResult]:
        return [f for f in self.figures if f.broken]


def networks_of(tables: Sequence[PublishedTable]) -> list[Network]:
    """The networks to trace for `tables`, each once."""
    return list(dict.fromkeys(network for table in tables for network in table.networks))


def reproduce_tables(tables: Sequence[PublishedTable], records: Records) -> Reproduction:
    """The results for every figure of `tables`. `records` holds a trace of each of their networks.

    Raises IncompleteError if a network has operations without a rule.
    """
    figures = [_figure_result(table, figure, records) for table in tables for figure in table.figures]
    related = [(table, r, r.recipe.value(r.unit, records)) for table in tables for r in table.related]
    return Reproduction(tuple(figures), tuple(related))


def _figure_result(table: PublishedTable, figure: PublishedFigure, records: Records) -> FigureResult:
    if figure.recipe is None:
        return FigureResult(table, figure, None, reading=False)
    reading = any(records[network].status for network in figure.recipe.networks)
    return FigureResult(table, figure, figure.recipe.value(figure.printed.unit, records), reading)
