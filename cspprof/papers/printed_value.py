"""`PrintedValue`: a published number with its digits and unit, and whether a computed value agrees with it.

All values are fractions, so no floating-point error changes a digit.
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
"""For each printed unit: the units of metrics that it can print, and the factor to convert them. `number` is the unit
of arithmetic."""
_PATTERN = re.compile(r"(?:up to )?(?P<sign>[−+]?)(?P<digits>\d+(?:\.(?P<places>\d+))?) (?P<unit>\S+)")


@dataclass(frozen=True, slots=True)
class PrintedValue:
    """`22.19 M`: a value, the number of its decimal places, and its unit."""

    text: str
    value: Fraction
    places: int
    unit: str

    def agreement(self, computed: Fraction) -> Agreement | None:
        """*exact* if `computed`, in the printed unit, rounds to the printed digits (halves away from zero); else
        *truncated* if cutting it off gives the printed digits."""
        if rounded(computed, self.places) == self.value:
            return "exact"
        return "truncated" if truncated(computed, self.places) == self.value else None

    def difference(self, computed: Fraction) -> Fraction:
        """`computed` minus the printed value: for percentages in points, else as a fraction of the printed value."""
        return computed - self.value if self.unit == "%" else computed / self.value - 1


def parse_printed(text: str) -> PrintedValue:
    """`"−13 %"` -> −13, no decimal places, percent. Raises CspprofError unless it is a number with a known unit."""
    match = _PATTERN.fullmatch(text)
    if not match or match["unit"] not in UNITS:
        raise CspprofError(
            f"cannot parse the printed number {text!r}",
            f"Write digits and a unit: 22.19 M, −13 %. Units: {', '.join(UNITS)}",
        )
    value = Fraction(match["digits"]) * (-1 if match["sign"] == "−" else 1)
    return PrintedValue(text, value, len(match["places"] or ""), match["unit"])


def rounded(x: Fraction, places: int) -> Fraction:
    """`x` rounded to `places` decimal places, halves away from zero."""
    return _signed(x, (abs(x) * 10**places + Fraction(1, 2)) // 1, places)


def truncated(x: Fraction, places: int) -> Fraction:
    """`x` cut off after `places` decimal places."""
    return _signed(x, abs(x) * 10**places // 1, places)


def decimal(x: Fraction, places: int) -> str:
    """`x` rounded to `places` decimal places, as text: 34.411, −13.75."""
    steps = rounded(x, places) * 10**places
    return f"{Decimal(int(steps)).scaleb(-places):,.{places}f}".replace("-", "−")


def _signed(x: Fraction, steps: int, places: int) -> Fraction:
    return Fraction(steps if x >= 0 else -steps, 10**places)
