"""Which positions of the input each position of a map reads, along one axis: an interval for each position.

The pattern of a map repeats: a convolution with stride 2 reads the interval of the position before, 2 further on; of a
map that was upsampled by 2, every second position does. So intervals are stored for one period and continue beyond the
borders of the map, where padding is.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import gcd, lcm
from typing import NamedTuple

LONGEST_PERIOD = 4096
"""A longer pattern is stored for the positions of the map only."""

MOST_POSITIONS = 1 << 20
"""The positions of a map that are followed one by one. A file can have maps of any size."""

Span = tuple[int, int]
"""The first and the last position."""


class UnfollowedError(Exception):
    """The positions that an operation reads are unknown, or too irregular or too many to follow."""


def positions(count: int) -> range:
    """The numbers of `count` positions. Raises UnfollowedError if they are too many."""
    if count > MOST_POSITIONS:
        raise UnfollowedError
    return range(count)


class Intervals(NamedTuple):
    """The interval of each position i: `spans[i]` for the positions of one period, then the same `shift` further on."""

    spans: tuple[Span | None, ...]
    """None: the position reads nothing, as some outputs of a transposed convolution."""
    shift: int | None
    """How far the interval moves in one period; None if the spans are those of all positions of the map."""

    def at(self, position: int) -> Span | None:
        """The interval of a position; None if it reads nothing."""
        period = len(self.spans)
        if self.shift is None:
            return self.spans[position] if 0 <= position < period else None
        turn, phase = divmod(position, period)
        span = self.spans[phase]
        return None if span is None else (span[0] + turn * self.shift, span[1] + turn * self.shift)

    def over(self, first: int, last: int) -> Span | None:
        """The smallest interval that contains those of the positions `first` to `last`."""
        period = len(self.spans)
        if self.shift is None or last - first < 2 * period:
            return hull([self.at(first + i) for i in positions(last - first + 1)])
        ends = [*range(first, first + period), *range(last - period + 1, last + 1)]  # those between lie between
        return hull([self.at(position) for position in ends])

    @property
    def size(self) -> int:
        """The length of the longest interval; 0 if no position reads anything."""
        return max((high - low + 1 for low, high in filter(None, self.spans)), default=0)

    @property
    def stride(self) -> Fraction | None:
        """The mean distance between the intervals of neighbors; None if it is not the same everywhere."""
        return None if self.shift is None else abs(Fraction(self.shift, len(self.spans)))

    @property
    def first(self) -> Span | None:
        """The interval of position 0, or of the next position that reads anything."""
        return next(filter(None, self.spans), None)


def affine(stride: int, first: int = 0, last: int = 0) -> Intervals:
    """Position i reads from `i·stride + first` to `i·stride + last`."""
    return Intervals(((first, last),), stride)


IDENTITY = affine(1)


def constant(span: Span | None) -> Intervals:
    """Every position reads the same interval."""
    return Intervals((span,), 0)


def periodic(spans: Sequence[Span | None], shift: int) -> Intervals:
    """The intervals with this pattern, with the shortest possible period."""
    period = len(spans)
    for n in range(1, period):
        if period % n or shift * n % period:
            continue
        step = shift * n // period
        if all(_moved(spans[i], step) == spans[i + n] for i in range(period - n)):
            return Intervals(tuple(spans[:n]), step)
    return Intervals(tuple(spans), shift)


def compose(reads: Intervals, of: Intervals, count: int) -> Intervals:
    """The intervals of the input on which `count` positions depend. They read the positions `reads` of a map, and
    the positions of that map depend on the intervals `of`."""
    if reads.shift is not None and of.shift is not None:
        turns = len(of.spans) // gcd(len(of.spans), reads.shift) if reads.shift else 1
        period = turns * len(reads.spans)
        if period <= LONGEST_PERIOD:
            shift = turns * reads.shift * of.shift // len(of.spans)
            return periodic([_through(reads.at(i), of) for i in range(period)], shift)
    return Intervals(tuple(_through(reads.at(i), of) for i in positions(count)), None)


def union(left: Intervals, right: Intervals, count: int) -> Intervals:
    """The smallest intervals that contain both. With different strides, those of the `count` positions of the map."""
    if left == right:
        return left
    period = lcm(len(left.spans), len(right.spans))
    if left.shift is not None and right.shift is not None and period <= LONGEST_PERIOD:
        shift = left.shift * (period // len(left.spans))
        if shift == right.shift * (period // len(right.spans)):
            return periodic([hull([left.at(i), right.at(i)]) for i in range(period)], shift)
    return Intervals(tuple(hull([left.at(i), right.at(i)]) for i in positions(count)), None)


def _through(span: Span | None, of: Intervals) -> Span | None:
    return None if span is None else of.over(*span)


def hull(spans: Sequence[Span | None]) -> Span | None:
    """The smallest interval that contains all of these; None if there is none."""
    known = [span for span in spans if span is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


def _moved(span: Span | None, by: int) -> Span | None:
    return None if span is None else (span[0] + by, span[1] + by)
