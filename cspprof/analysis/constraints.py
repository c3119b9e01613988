"""Constraints on the metrics of a network: `macs<=2 G`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fractions import Fraction
from operator import ge, gt, le, lt

from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.core.units import Quantity, parse_quantity, shortened
from cspprof.metrics import METRICS
from cspprof.metrics.names import check_metric, resolve_metric

MAX_CONSTRAINTS = 1_000
"""Characters of a text with constraints."""
OPERATORS = {"<=": le, ">=": ge, "<": lt, ">": gt}


@dataclass(frozen=True, slots=True)
class Constraint:
    """A limit for a metric of the whole network."""

    metric: str
    operator: str
    limit: Quantity

    def holds(self, record: Record) -> bool:
        """Whether the network meets it. A value that is unknown does not."""
        return self.holds_for(self._value(record))

    def holds_for(self, value: Fraction | float | None) -> bool:
        """Whether a value meets it; None is an unknown value."""
        return value is not None and OPERATORS[self.operator](value, self.limit.value)

    def excess(self, record: Record) -> float:
        """How far the network misses it, relative to the limit: 0 if it holds, infinite if the value is unknown."""
        return self.excess_of(self._value(record))

    def excess_of(self, value: Fraction | float | None) -> float:
        """How far a value misses it, as `excess`."""
        if value is None:
            return float("inf")
        if self.holds_for(value):
            return 0.0
        return float(abs(Fraction(value) - self.limit.value) / (abs(self.limit.value) or 1)) or 1e-12

    def met_by(self, record: Record) -> str:
        """The constraint with the limit that this network just meets; the constraint itself if it holds."""
        value = self._value(record)
        if self.holds(record) or value is None:
            return str(self)
        number = str(value.numerator) if value.denominator == 1 else _rounded(value, up=self.operator.startswith("<"))
        return f"{self.metric}{self.operator[0]}={number}"

    def _value(self, record: Record) -> Fraction | None:
        amount = METRICS.get(self.metric).total(record)
        return None if amount.missed else amount.exact

    def __str__(self) -> str:
        return f"{self.metric}{self.operator}{self.limit.text}"


def _rounded(value: Fraction, up: bool) -> str:
    """A value with three decimals, rounded to the side on which the constraint holds."""
    thousandths = value * 1000
    return f"{(-(-thousandths // 1) if up else thousandths // 1) / 1000:.3f}"


def parse_constraints(texts: Iterable[str], others: Collection[str] = ()) -> list[Constraint]:
    """The constraints in the texts; `and` separates several in one text. Raises CspprofError as `parse_constraint`.

    >>> [str(c) for c in parse_constraints(["macs<=2 G and params<3M"])]
    ['macs<=2 G', 'params<3M']
    """
    return [parse_constraint(part, others) for text in texts for part in _split_at_and(text)]


def _split_at_and(text: str) -> list[str]:
    return re.split(r"\s+and\s+", text) if len(text) <= MAX_CONSTRAINTS else [text]


def parse_constraint(text: str, others: Collection[str] = ()) -> Constraint:
    """Read `macs<=2 G`. `others` are names of further numbers, without a unit, besides metrics.

    Raises CspprofError for another form, an unknown metric, and a limit in another unit.
    """
    match = re.fullmatch(r"\s*([\w()]+)\s*(<=|>=|<|>)\s*(.+)", text) if len(text) <= MAX_CONSTRAINTS else None
    if match is None:
        raise CspprofError(
            f"cannot read the constraint {shortened(text, 80)!r}", 'Write for example: --where "macs<=2 G"'
        )
    name, limit = match[1], parse_quantity(match[3])
    if name in others:
        return Constraint(name, match[2], limit)
    metric = resolve_metric(check_metric(name))
    unit = METRICS.get(metric).unit
    if limit.unit and limit.unit != unit and not (limit.relative and unit == "fraction"):
        example = {"bytes": "200 MB", "fraction": "50%"}.get(unit, "24 M")
        raise CspprofError(
            f"the constraint {text!r} is in {limit.unit}, but {metric} is in {unit}",
            f'Write a number of {unit}: --where "{metric}{match[2]}{example}"',
        )
    return Constraint(metric, match[2], limit)
