"""Medians, bootstrap intervals and ratios of time samples: pure functions.

Samples come in rounds: `[[t, t, …], [t, …], …]`, one list of seconds per round. Samples of one round resemble each
other more than samples of different rounds, because the state of the machine changes slowly. The bootstrap therefore
draws rounds first and then samples within each drawn round (Davison and Hinkley, *Bootstrap Methods and their
Application*, 1997, section 3.8).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from statistics import median
from typing import NamedTuple

Rounds = Sequence[Sequence[float]]

REPLICATES = 1000
"""Bootstrap replicates. The ends of a 95 % interval then move by less than a tenth of its width with the seed."""

CONFIDENCE = 0.95
SEED = 0
"""The same samples give the same interval in every run."""

WARM_UP_WINDOW = 3
"""Runs in each of the two windows that the warm-up compares."""

WARM_UP_TOLERANCE = 0.05
"""The largest relative difference of the medians of both windows."""


class Estimate(NamedTuple):
    """A value and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval, relative to the value; 0 for a value of 0."""
        return (self.high - self.low) / 2 / self.value if self.value else 0.0

    @property
    def contains_one(self) -> bool:
        """Whether the interval of a ratio contains 1."""
        return self.low <= 1 <= self.high


def is_warm(times: Sequence[float], window: int = WARM_UP_WINDOW, tolerance: float = WARM_UP_TOLERANCE) -> bool:
    """Whether the medians of the last `window` runs and of the `window` runs before them differ by at most
    `tolerance` of the smaller one."""
    if len(times) < 2 * window:
        return False
    before, last = median(times[-2 * window : -window]), median(times[-window:])
    return abs(before - last) <= tolerance * min(before, last)


def median_of(rounds: Rounds) -> float:
    """The median of all samples. Raises ValueError without samples."""
    samples = list(chain.from_iterable(rounds))
    if not samples:
        raise ValueError("no samples")
    return median(samples)


def least(rounds: Rounds) -> float:
    return min(chain.from_iterable(rounds))


def median_estimate(rounds: Rounds, seed: int = SEED) -> Estimate:
    """The median of all samples with its interval. Raises ValueError without samples."""
    return _estimate((_frozen(rounds),), seed)


def ratio_estimate(base: Rounds, other: Rounds, seed: int = SEED) -> Estimate:
    """The median of `other` divided by that of `base`, with its interval.

    Round i of both was measured at about the same time: a replicate draws the same rounds from both, so that a change
    of the machine from round to round does not widen the interval. Raises ValueError without samples.
    """
    n = min(len(base), len(other))
    return _estimate((_frozen(base[:n]), _frozen(other[:n])), seed)


def _frozen(rounds: Rounds) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, rounds))


@lru_cache(maxsize=4096)  # a table and its notes need each estimate several times
def _estimate(series: tuple[tuple[tuple[float, ...], ...], ...], seed: int) -> Estimate:
    """The median of one series, or the ratio of the medians of two with the same number of rounds, and its bootstrap
    interval."""
    value = _statistic(series)
    draws = random.Random(seed)
    indices = range(len(series[0]))
    replicates = []
    for _ in range(REPLICATES):
        chosen = draws.choices(indices, k=len(indices))
        drawn = [[draws.choices(rounds[i], k=len(rounds[i])) for i in chosen if rounds[i]] for rounds in series]
        replicates.append(_statistic(drawn) if all(drawn) else value)
    replicates.sort()
    tail = round((1 - CONFIDENCE) / 2 * REPLICATES)
    return Estimate(value, replicates[tail], replicates[-1 - tail])


def _statistic(series: Sequence[Rounds]) -> float:
    medians = [median_of(rounds) for rounds in series]
    return medians[-1] / medians[0] if len(medians) == 2 else medians[0]


def least_difference(same: Estimate) -> float:
    """The smallest relative difference that a session may claim: the largest distance from 1 in the interval of the
    ratio of one model to itself, measured as two models (an A/A pair)."""
    return max(abs(same.low - 1), abs(same.high - 1), abs(same.value - 1))


def is_difference(ratio: Estimate, tolerance: float) -> bool:
    """Whether two models differ: the interval of their ratio excludes 1, and the ratio is further from 1 than that of
    the A/A pair."""
    return not ratio.contains_one and abs(ratio.value - 1) > tolerance
