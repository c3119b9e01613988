"""Places for the names of points in a chart, in pixels of any drawing: names cover as little as possible."""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot
from typing import NamedTuple

DIRECTIONS = (
    (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1),
    (1, 0.5), (1, -0.5), (-1, 0.5), (-1, -0.5), (0.5, 1), (-0.5, 1), (0.5, -1), (-0.5, -1),
)  # fmt: skip
DISTANCES = (1, 2.5, 4.5, 7)
"""The distances of a name from its point that are tried, in units of `reach`."""

ROUNDS = 3
"""How often each name is placed; after the first round, around the names of all other points."""

Point = tuple[float, float]


class Box(NamedTuple):
    """A rectangle with its sides parallel to the axes."""

    x0: float
    y0: float
    x1: float
    y1: float

    def padded(self, by: float) -> Box:
        return Box(self.x0 - by, self.y0 - by, self.x1 + by, self.y1 + by)

    def common_area(self, other: Box) -> float:
        width, height = min(self.x1, other.x1) - max(self.x0, other.x0), min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(width, 0) * max(height, 0)

    def area_outside(self, frame: Box) -> float:
        width = max(0, self.x1 - frame.x1) + max(0, frame.x0 - self.x0)
        height = max(0, self.y1 - frame.y1) + max(0, frame.y0 - self.y0)
        return width * (self.y1 - self.y0) + height * (self.x1 - self.x0)

    def nearest(self, point: Point) -> Point:
        """The point of the box that is nearest to `point`."""
        return min(max(point[0], self.x0), self.x1), min(max(point[1], self.y0), self.y1)

    def length_inside(self, start: Point, end: Point) -> float:
        """The length of the part of a straight line that lies in the box (Liang and Barsky 1984)."""
        enter, leave = 0.0, 1.0
        for a, b, low, high in ((start[0], end[0], self.x0, self.x1), (start[1], end[1], self.y0, self.y1)):
            if a == b:
                if not low <= a <= high:
                    return 0.0
                continue
            first, last = sorted(((low - a) / (b - a), (high - a) / (b - a)))
            enter, leave = max(enter, first), min(leave, last)
        return max(leave - enter, 0.0) * hypot(end[0] - start[0], end[1] - start[1])


class Label(NamedTuple):
    """The name of a point: where the point is, and the width and height of the name."""

    point: Point
    width: float
    height: float


def place_labels(
    labels: Sequence[Label],
    points: Sequence[Point],
    lines: Sequence[tuple[Point, Point]],
    taken: Sequence[Box],
    frame: Box,
    reach: float,
) -> list[tuple[Box, bool]]:
    """A box for each name, in the order of `labels`, and whether it is so far from its point that it needs a leader.

    A name keeps clear of other names, of all `points`, of straight `lines`, of the boxes `taken`, and of the outside of
    the `frame`. `reach` is the distance of a name from its point.
    """
    placed: list[tuple[Box, float]] = []
    for number in range(ROUNDS * len(labels)):
        i = number % len(labels)
        label = labels[i]
        others = [(labels[j].point, box, distance) for j, (box, distance) in enumerate(placed) if j != i]
        names = [box.padded(reach * 0.2) for _, box, _ in others]
        marks = [Box(x, y, x, y).padded(reach * 1.5) for x, y in points if (x, y) != label.point]
        leaders = [(point, box.nearest(point)) for point, box, distance in others if distance > 1]
        candidates = [(_beside(label, dx, dy, reach * d), d) for d in DISTANCES for dx, dy in DIRECTIONS]
        costs = [
            _cost(box, distance, label, [*taken, *names], marks, [*lines, *leaders], frame, reach)
            for box, distance in candidates
        ]
        placed[i : i + 1] = [candidates[costs.index(min(costs))]]
    return [(box, distance > 1) for box, distance in placed]


def _cost(
    box: Box,
    distance: float,
    label: Label,
    texts: Sequence[Box],
    marks: Sequence[Box],
    lines: Sequence[tuple[Point, Point]],
    frame: Box,
    reach: float,
) -> float:
    """The area that a name in this box covers and crosses, plus a price for the distance from its point."""
    covered = sum(map(box.common_area, texts)) + 3 * sum(map(box.common_area, marks))
    crossed = sum(box.padded(reach * 0.3).length_inside(*line) for line in lines)
    touched = 3 * reach if crossed else 0
    if distance > 1:  # the leader line
        leader = label.point, box.nearest(label.point)
        crossed += sum(b.length_inside(*leader) for b in (*texts, *marks))
    far = (distance - 1) * label.height * reach * 0.6
    return covered + (crossed * 0.5 + touched) * label.height + 3 * box.area_outside(frame) + far


def _beside(label: Label, dx: float, dy: float, offset: float) -> Box:
    """The box of a name in a direction from its point: (1, 0) is right of it, (0.5, 1) above and right."""
    (x, y), width, height = label
    left = x + dx * offset - width * (1 - dx) / 2
    low = y + dy * offset - height * (1 - dy) / 2
    return Box(left, low, left + width, low + height)
