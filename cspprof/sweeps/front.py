"""The best candidates of a journal: those that meet the constraints and that no other one dominates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cspprof.analysis.constraints import Constraint
from cspprof.analysis.pareto import pareto_optimal
from cspprof.core.errors import UnknownNameError
from cspprof.metrics import METRICS
from cspprof.metrics.names import resolve_metric
from cspprof.papers.accuracy import ACCURACIES
from cspprof.sweeps.candidate import Row

Rows = Callable[[], Iterator[Row]]
"""Reads the rows from the start: there may be too many to hold them all in memory."""

MOST_POINTS = 3000
"""Dominated points that a chart shows."""
PIECE = 20_000
"""Rows that are held in memory at once."""


class Objective(NamedTuple):
    """A number that is to be as small or as large as possible."""

    name: str
    maximized: bool

    def __str__(self) -> str:
        return f"{'largest' if self.maximized else 'least'} {self.name}"


class Goal(NamedTuple):
    """Which candidates are the best."""

    objectives: Sequence[Objective] = (Objective("macs", False), Objective("cio_cspnet", False))
    constraints: Sequence[Constraint] = ()
    metrics: Sequence[str] = ()
    """Further numbers that tables show."""


def goal_of(
    minimize: Sequence[str], maximize: Sequence[str], constraints: Sequence[Constraint], metrics: Sequence[str] = ()
) -> Goal:
    """The goal with these registered names; the least MACs and CIO without any."""
    objectives = [*(Objective(name, False) for name in minimize), *(Objective(name, True) for name in maximize)]
    return Goal(tuple(objectives) or Goal().objectives, tuple(constraints), tuple(metrics))


class Point(NamedTuple):
    """A dominated candidate, as a chart shows it."""

    label: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Front:
    """The Pareto-optimal rows of a sweep, and what became of the others."""

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    optimal: tuple[Row, ...]
    """By the first objective."""
    dominated: tuple[Point, ...]
    """At most `MOST_POINTS` of them, evenly chosen."""
    count: int
    """All rows."""
    unmet: int
    """Rows that do not meet the constraints."""
    unknown: int
    """Rows in which an objective is unknown, or only a lower bound."""
    failures: Counter[tuple[str, str]]
    """How often each status and error occurred."""
    nearest: Row | None
    """If no row meets the constraints, the one that misses them least."""
    axes: tuple[str, ...]
    """The names of the axes of all rows, in the order of their first row."""
    repeated: int
    """Rows of a candidate that has another row, of other versions or inputs."""


def number_name(text: str) -> str:
    """The registered name of a metric or a published accuracy. Raises UnknownNameError."""
    if text in ACCURACIES:
        return text
    name = resolve_metric(text)
    try:
        METRICS.get(name)
    except UnknownNameError as error:
        raise UnknownNameError(error.message, METRICS.suggest(text)) from None
    return name


def front(rows: Rows, objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> Front:
    """The Pareto-optimal rows. A row with an unknown objective takes no part.

    Reads the rows once. Memory holds the front, a piece of the rows, and the dominated rows that a chart shows.
    """
    failures: Counter[tuple[str, str]] = Counter()
    axes: dict[str, None] = {}
    count = unmet = unknown = repeated = 0
    before: tuple[object, ...] = ()
    nearest: tuple[float, Row] | None = None
    optimal: list[Row] = []
    piece: list[Row] = []
    sample = _EvenSample(MOST_POINTS)
    for row in rows():
        count += 1
        place = row.position, row.spec, row.axes
        repeated += place == before
        before = place
        axes.update(dict.fromkeys(row.axes))
        if row.status != "ok":
            failures[row.status, row.error] += 1
            continue
        excess = sum(c.excess_of(known_value(row, c.metric)) for c in constraints)
        if excess > 0:
            unmet += 1
            if nearest is None or excess < nearest[0]:
                nearest = excess, row
        elif any(known_value(row, o.name) is None for o in objectives):
            unknown += 1
        else:
            sample.add(row)
            piece.append(row)
            if len(piece) == PIECE:
                optimal, piece = _optimal_rows(optimal + piece, objectives), []
    optimal = _optimal_rows(optimal + piece, objectives)
    best = {row.key for row in optimal}
    dominated = [
        Point(label(row), tuple(row.values[o.name] for o in objectives)) for row in sample.rows if row.key not in best
    ]
    first = objectives[0]
    optimal.sort(key=lambda row: (row.values[first.name] * (-1 if first.maximized else 1), row.position))
    missed_least = nearest[1] if nearest and not optimal else None
    return Front(tuple(objectives), tuple(constraints), tuple(optimal), tuple(dominated), count, unmet, unknown,
                 failures, missed_least, tuple(axes), repeated)  # fmt: skip


def _optimal_rows(rows: list[Row], objectives: Sequence[Objective]) -> list[Row]:
    points = [[row.values[o.name] for o in objectives] for row in rows]
    return [rows[i] for i in pareto_optimal(points, [o.maximized for o in objectives])]


class _EvenSample:
    """Every n-th of the rows that are added, where n is a power of two; at most `most` of them."""

    def __init__(self, most: int) -> None:
        self.rows: list[Row] = []
        self._most = most
        self._step = 1
        self._added = 0

    def add(self, row: Row) -> None:
        if self._added % self._step == 0:
            if len(self.rows) == self._most:
                self.rows = self.rows[::2]
                self._step *= 2
            if self._added % self._step == 0:
                self.rows.append(row)
        self._added += 1


def known_value(row: Row, name: str) -> int | float | None:
    """The value of a number; None if it is unknown or a lower bound."""
    return None if name in row.at_least else row.values.get(name)


def label(row: Row) -> str:
    """The SPEC, with the axes that are no part of it: `csp_peleenet,gamma=0.25 size=192`."""
    extra = [f"{name}={axis_text(value)}" for name, value in row.axes.items() if f"{name}=" not in row.spec]
    return " ".join([row.spec, *extra])


def axis_text(value: object) -> str:
    """`(192, 256)` -> `192x256`; other values as they are."""
    return "x".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def axes_of(rows: Iterable[Row]) -> list[str]:
    """The names of all axes, in the order of their first row."""
    return list(dict.fromkeys(name for row in rows for name in row.axes))
