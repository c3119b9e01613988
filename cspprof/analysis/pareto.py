"""The Pareto front of points with any number of objectives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy

CHUNK = 2048
"""Points that are compared with the front at once."""


def pareto_optimal(points: Sequence[Sequence[float]], maximized: Sequence[bool]) -> list[int]:
    """The indices of the points that no other point dominates, in ascending order.

    A point dominates another if it is at least as good in every objective and better in one; so equal points are both
    optimal. `maximized` says for each objective whether a larger value is better. For one and two objectives the time
    is that of sorting; for more it is proportional to the number of points times the size of the front.

    >>> pareto_optimal([(1, 5), (2, 2), (3, 3), (2, 2)], [False, False])
    [0, 1, 3]
    """
    import numpy

    if not points:
        return []
    signs = numpy.where(numpy.array(maximized), -1.0, 1.0)
    values = numpy.asarray(points, dtype=float) * signs
    # In this order no point is dominated by a later one: a dominating point is smaller in the first objective that
    # differs.
    order = numpy.lexsort(values.T[::-1])
    if len(maximized) <= 2:
        return sorted(order[_optimal_in_order(values[order])].tolist())
    front = numpy.empty(0, dtype=int)
    for start in range(0, len(order), CHUNK):
        chunk = order[start : start + CHUNK]
        chunk = chunk[~_dominated(values[chunk], values[front])]
        chunk = chunk[~_dominated(values[chunk], values[chunk])]
        front = numpy.concatenate([front, chunk])
    return sorted(front.tolist())


def _optimal_in_order(ordered: numpy.ndarray) -> numpy.ndarray:
    """For each point, in ascending order of one or two values, whether no other one dominates it."""
    import numpy

    least = numpy.minimum.accumulate(ordered[:, -1])
    starts = numpy.ones(len(ordered), dtype=bool)  # whether a point differs from the one before it
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    improves = starts.copy()
    improves[1:] &= ordered[1:, -1] < least[:-1]
    groups: numpy.ndarray = numpy.cumsum(starts) - 1
    optimal: numpy.ndarray = improves[starts][groups]
    return optimal


def _dominated(points: numpy.ndarray, others: numpy.ndarray) -> numpy.ndarray:
    """For each point, whether one of the others dominates it; smaller is better."""
    import numpy

    dominated = numpy.zeros(len(points), dtype=bool)
    for start in range(0, len(others), CHUNK):
        block = others[start : start + CHUNK, None, :]
        no_worse = (block <= points[None, :, :]).all(axis=2)
        better = (block < points[None, :, :]).any(axis=2)
        dominated |= (no_worse & better).any(axis=0)
    return dominated
