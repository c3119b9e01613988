"""The best candidates of a journal: those that meet the constraints and that no other one dominates."""

from __future__ import annotations

from array import array
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
    """The Pareto-optimal rows. A row with an unknown objective takes no part."""
    values = array("d")
    places = array("q")
    failures: Counter[tuple[str, str]] = Counter()
    count = unmet = unknown = 0
    nearest: tuple[float, Row] | None = None
    for place, row in enumerate(rows()):
        count += 1
        if row.status != "ok":
            failures[row.status, row.error] += 1
            continue
        excess = sum(c.excess_of(known_value(row, c.metric)) for c in constraints)
        if excess > 0:
            unmet += 1
            if nearest is None or excess < nearest[0]:
                nearest = excess, row
            continue
        known = [known_value(row, o.name) for o in objectives]
        if None in known:
            unknown += 1
            continue
        values.extend(v for v in known if v is not None)
        places.append(place)
    width = len(objectives)
    points = [values[i : i + width] for i in range(0, len(values), width)]
    chosen = pareto_optimal(points, [o.maximized for o in objectives])
    best = {places[i] for i in chosen}
    shown = set(places[:: max(1, -(-len(places) // MOST_POINTS))]) - best
    optimal, dominated = [], []
    for place, row in enumerate(rows()):
        if place in best:
            optimal.append(row)
        elif place in shown:
            dominated.append(Point(label(row), tuple(row.values[o.name] for o in objectives)))
    first = objectives[0]
    optimal.sort(key=lambda row: (row.values[first.name] * (-1 if first.maximized else 1), row.position))
    missed_least = nearest[1] if nearest and not points else None
    return Front(tuple(objectives), tuple(constraints), tuple(optimal), tuple(dominated), count, unmet, unknown,
                 failures, missed_least)  # fmt: skip


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
