"""Values of metrics that combine: sums add, peaks take the maximum, ratios add numerators and denominators.

An amount also counts the operations that it misses, because their part is unknown. A sum or a peak that misses
something is a lower bound. A ratio that misses something has no value: it can be larger or smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Sum:
    """An exact count. Its value is the count divided by `scale`."""

    n: int
    scale: int = 1
    missed: int = 0
    """The number of calls whose part is unknown."""

    def __add__(self, other: Sum) -> Sum:
        return Sum(self.n + other.n, max(self.scale, other.scale), self.missed + other.missed)

    def __mul__(self, calls: int) -> Sum:
        return Sum(self.n * calls, self.scale, self.missed * calls)

    @property
    def value(self) -> int | float:
        return self.n if self.scale == 1 else self.n / self.scale

    @property
    def exact(self) -> Fraction:
        """The value without rounding."""
        return Fraction(self.n, self.scale)


@dataclass(frozen=True, slots=True)
class Peak:
    """The largest of several counts."""

    n: int
    missed: int = 0

    def __add__(self, other: Peak) -> Peak:
        return Peak(max(self.n, other.n), self.missed + other.missed)

    def __mul__(self, calls: int) -> Peak:
        return Peak(self.n, self.missed * calls)

    @property
    def value(self) -> int:
        return self.n

    @property
    def exact(self) -> Fraction:
        return Fraction(self.n)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A quotient of two sums. Its value is None if the denominator is 0, or if a part is unknown."""

    numerator: int
    denominator: int
    missed: int = 0

    def __add__(self, other: Ratio) -> Ratio:
        return Ratio(self.numerator + other.numerator, self.denominator + other.denominator, self.missed + other.missed)

    def __mul__(self, calls: int) -> Ratio:
        return Ratio(self.numerator * calls, self.denominator * calls, self.missed * calls)

    @property
    def value(self) -> float | None:
        return self.numerator / self.denominator if self.denominator and not self.missed else None

    @property
    def exact(self) -> Fraction | None:
        """The value without rounding; None if the denominator is 0, or if a part is unknown."""
        return Fraction(self.numerator, self.denominator) if self.denominator and not self.missed else None


Amount = Sum | Peak | Ratio
