"""A figure as it stands in print: its digits, its unit, and what a computed value has to be to agree with it.

Fractions throughout: no float decides about a digit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from cspprof.core.errors import CspprofError

Agreement = Literal["exact", "truncated"]

UNITS: dict[str, dict[str, Fraction]] = {
    "M": {"values": Fraction(1, 10**6), "elements": Fraction(1, 10**6), "number": Fraction(1, 10**6)},
    "B": {"MACs": Fraction(1, 10**9), "1 per MAC": Fraction(1, 10**9), "number": Fraction(1, 10**9)},
    "BFLOPs": {"BFLOPs": Fraction(1), "MACs": Fraction(2, 10**9), "number": Fraction(1, 10**9)},
    "%": {"fraction": Fraction(100), "number": Fraction(100)},
}
"""What a printed unit can be a number of, and what such a number is multiplied with. A bare *number* is arithmetic."""
_FORM = re.compile(r"(?:up to )?(?P<sign>[−+]?)(?P<digits>\d+(?:\.(?P<places>\d+))?) (?P<unit>\S+)")


@dataclass(frozen=True, slots=True)
class Printed:
    """`22.19 M`: a value, and how many of its decimal places are known."""

    text: str
    value: Fraction
    places: int
    unit: str

    def agreement(self, computed: Fraction) -> Agreement | None:
        """Whether `computed`, in the printed unit, rounds to the printed digits (halves away from zero), or is them
        with the rest cut off."""
        if rounded(computed, self.places) == self.value:
            return "exact"
        return "truncated" if truncated(computed, self.places) == self.value else None

    def distance(self, computed: Fraction) -> Fraction:
        """How far `computed` lies from the printed value: as a fraction of it, but for percentages in points."""
        return computed - self.value if self.unit == "%" else computed / self.value - 1


def parse(text: str) -> Printed:
    """`"−13 %"` -> −13, no decimal places, per cent. Raises CspprofError for what is no number with a unit."""
    found = _FORM.fullmatch(text)
    if not found or found["unit"] not in UNITS:
        raise CspprofError(
            f"cannot read the printed figure {text!r}",
            f"Write digits and a unit: 22.19 M, −13 %. Units: {', '.join(UNITS)}",
        )
    value = Fraction(found["digits"]) * (-1 if found["sign"] == "−" else 1)
    return Printed(text, value, len(found["places"] or ""), found["unit"])


def rounded(x: Fraction, places: int) -> Fraction:
    """`x` to so many decimal places, halves away from zero."""
    return _signed(x, (abs(x) * 10**places + Fraction(1, 2)) // 1, places)


def truncated(x: Fraction, places: int) -> Fraction:
    """`x` with the decimal places after these cut off."""
    return _signed(x, abs(x) * 10**places // 1, places)


def decimal(x: Fraction, places: int) -> str:
    """`x` to so many decimal places, as text: 34.411, −13.75."""
    steps = rounded(x, places) * 10**places
    return f"{Decimal(int(steps)).scaleb(-places):,.{places}f}".replace("-", "−")


def _signed(x: Fraction, steps: int, places: int) -> Fraction:
    return Fraction(steps if x >= 0 else -steps, 10**places)
