"""Values of metrics that combine: sums add, peaks take the maximum, ratios add numerators and denominators."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Sum:
    """An exact count. Its value is the count divided by `scale`."""

    n: int
    scale: int = 1

    def __add__(self, other: Sum) -> Sum:
        return Sum(self.n + other.n, max(self.scale, other.scale))

    def __mul__(self, calls: int) -> Sum:
        return Sum(self.n * calls, self.scale)

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

    def __add__(self, other: Peak) -> Peak:
        return Peak(max(self.n, other.n))

    def __mul__(self, calls: int) -> Peak:
        return self

    @property
    def value(self) -> int:
        return self.n

    @property
    def exact(self) -> Fraction:
        return Fraction(self.n)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A quotient of two sums. Its value is None if the denominator is 0."""

    numerator: int
    denominator: int

    def __add__(self, other: Ratio) -> Ratio:
        return Ratio(self.numerator + other.numerator, self.denominator + other.denominator)

    def __mul__(self, calls: int) -> Ratio:
        return Ratio(self.numerator * calls, self.denominator * calls)

    @property
    def value(self) -> float | None:
        return self.numerator / self.denominator if self.denominator else None

    @property
    def exact(self) -> Fraction | None:
        """The value without rounding; None if the denominator is 0."""
        return Fraction(self.numerator, self.denominator) if self.denominator else None


Amount = Sum | Peak | Ratio
