"""The proposals of all advisers, each checked by applying it and tracing the network again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.csp.advice.network_widths import WidthChange
from cspprof.csp.advice.proposal import ADVISERS, LEAST_GAIN, Adviser, Change, Proposal, gain, number

Apply = Callable[[Change], Record]
"""Applies a change to a copy of the model and traces it. Raises CspprofError."""
MOST_TRIES = 6
"""The largest number of proposals of one adviser that are applied."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A proposal with its effect on the network."""

    adviser: str
    proposal: Proposal
    before: Fraction
    after: Fraction
    gain: float
    """The part of the network's number that the change improves, by which suggestions are ranked."""
    record: Record | None
    """The trace of the changed network; None if the numbers are computed from shapes."""
    reason: str = ""
    """Why the change was not applied; empty if it was."""

    def worse(self, before: Record) -> dict[str, float]:
        """The metrics that a traced change makes worse, each with its relative change."""
        changes = {}
        for metric in () if self.record is None else ("macs", "cio_cspnet", "params", "peak_bytes"):
            old, new = number(before, metric), None if self.record is None else number(self.record, metric)
            if old and new is not None and new > old and metric != self.proposal.metric:
                changes[metric] = float((new - old) / old)
        return changes

    @property
    def traced(self) -> bool:
        """Whether the numbers are those of two traces."""
        return self.record is not None


def suggestions(record: Record, apply: Apply | None, metric: str | None = None) -> list[Suggestion]:
    """The proposals that improve a number of the network, those with the largest gain first.

    With `apply`, each change that a module can take is applied, and its numbers are measured in the two records; a
    change that turns out to improve nothing is left out. With `metric`, the suggestions are ranked by this metric, and
    those that do not improve it are left out.
    """
    found = [s for _, entry in ADVISERS.items() for s in _checked(record, entry, apply)]
    if metric is not None:
        found = [s for s in (_by_metric(record, s, metric) for s in found) if s is not None]
    return sorted(found, key=lambda s: -s.gain)


def _checked(record: Record, adviser: Adviser, apply: Apply | None) -> Iterator[Suggestion]:
    kept = 0
    for proposal in list(adviser.propose(record))[:MOST_TRIES]:
        suggestion = _check(record, adviser.name, proposal, apply)
        if suggestion is not None and suggestion.gain >= LEAST_GAIN:
            yield suggestion
            kept += 1
        if kept == adviser.most:
            return


def _check(record: Record, adviser: str, proposal: Proposal, apply: Apply | None) -> Suggestion | None:
    """The suggestion for a proposal; None if its change is impossible or makes another number worse."""
    metric, change, after, reason = proposal.metric, proposal.change, None, ""
    if change is None:
        reason = "only the code of the forward can do this"
    elif apply is None:
        reason = "the source contains no module"
    else:
        try:
            after = apply(change)
        except CspprofError as error:
            if not isinstance(change, WidthChange):
                return None
            reason = error.message
    before = number(record, metric)
    value = number(after, metric) if after is not None else Fraction(proposal.computed or 0)
    if before is None or value is None:
        return None
    if after is not None and any(gain(record, m, number(record, m), number(after, m)) < 0 for m in proposal.limits):
        return None
    return Suggestion(adviser, proposal, before, value, gain(record, metric, before, value), after, reason)


def _by_metric(record: Record, s: Suggestion, metric: str) -> Suggestion | None:
    """The same suggestion with the values of another metric; None if it does not improve it."""
    if s.proposal.metric == metric:
        return s
    before, after = number(record, metric), None if s.record is None else number(s.record, metric)
    better = gain(record, metric, before, after)
    if before is None or after is None or better < LEAST_GAIN:
        return None
    proposal = replace(s.proposal, metric=metric)
    return replace(s, proposal=proposal, before=before, after=after, gain=better)
