"""Formatting and parsing of quantities. Numbers stay exact until they are formatted here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from cspprof.core.errors import CspprofError

MINUS = "\N{MINUS SIGN}"


def count(n: int) -> str:
    """All digits: 34,411,496."""
    return f"{n:,}".replace("-", MINUS)


def counted(n: int, noun: str) -> str:
    """A number and its noun: 1 operation, 12,001 operations."""
    return f"{count(n)} {noun}" if n == 1 else f"{count(n)} {noun}s"


def short_count(n: int) -> str:
    """Three significant digits and a decimal prefix: 25.6 M, 4.09 G, 999."""
    for power, prefix in ((4, "T"), (3, "G"), (2, "M"), (1, "k")):
        scaled = n / 1000**power
        if abs(scaled) >= 0.9995:
            return f"{_digits(scaled)} {prefix}".replace("-", MINUS)
    return count(n)


def nbytes(n: int) -> str:
    """Binary prefixes: 9.19 MiB."""
    for limit, prefix in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(n) >= limit:
            return f"{_digits(n / limit)} {prefix}".replace("-", MINUS)
    return f"{n} B".replace("-", MINUS)


def decimal(x: float) -> str:
    """Three decimals, or three significant digits of a small number: 10.110, 0.000123."""
    text = f"{x:,.3f}" if abs(x) >= 0.1 or x == 0 else f"{x:.3g}"
    return MINUS + text[1:] if text.startswith("-") else text


def significant(x: float, digits: int = 3) -> str:
    """`digits` significant digits; large numbers without an exponent: 1.05, 34.4, 0.0123, 12,345."""
    text = f"{x:,.{digits}g}" if abs(x) < 10**digits else f"{x:,.0f}"
    return text.replace("-", MINUS)


def change(relative: float | None) -> str:
    """A signed percentage: −5.1 %, +0.04 %, 0 %. A change that would round to 0 % or 100 % gets more digits.

    `relative` is the change divided by the base, None if the base is 0.
    """
    if relative is None:
        return "from 0"
    if relative == 0:
        return "0 %"
    size = abs(relative) * 100
    for places in (1, 2, 3, 4):
        if round(size, places) > 0 and (round(size, places) != 100 or size == 100):
            break
    else:
        if size < 1:
            return ("+" if relative > 0 else MINUS) + "<0.0001 %"
    return f"{'+' if relative > 0 else MINUS}{size:.{places}f} %"


def points(difference: float) -> str:
    """The difference of two percentages in percentage points: −1.2 points."""
    if difference == 0:
        return "0 points"
    size = f"{abs(difference) * 100:.1f}"
    return f"{'+' if difference > 0 else MINUS}{'<0.1' if size == '0.0' else size} points"


def share(fraction: float) -> str:
    """A fraction as a percentage: 12.3 %."""
    return f"{fraction * 100:.1f} %".replace("-", MINUS)


def shortened(text: str, longest: int) -> str:
    """`text` in at most `longest` characters, with an ellipsis in the middle: backbone.…conv2.conv."""
    return text if len(text) <= longest else f"{text[: longest // 3]}…{text[-(longest - longest // 3 - 1) :]}"


def shape(dims: tuple[int, ...] | list[int]) -> str:
    return "×".join(map(str, dims)) or "scalar"


def signed_terms(parts: Mapping[str, int]) -> str:
    """The terms of a sum by name, the largest first: + 22,227,968 batch norm − 1,000 bias."""
    terms = sorted(parts.items(), key=lambda part: -abs(part[1]))
    return " ".join(f"{'+' if n > 0 else MINUS} {count(abs(n))} {name}" for name, n in terms if n)


def _digits(x: float) -> str:
    size = abs(x)
    return f"{x:.0f}" if size >= 99.95 else f"{x:.1f}" if size >= 9.995 else f"{x:.2f}"


# -- parsing ------------------------------------------------------------------------------------------

PREFIXES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_WORDS = "B|iB|bytes|MACs/element|MACs|FLOPs|BFLOPs|elements|values|ops|%"
_QUANTITY = re.compile(
    r"(?P<sign>[+\-\u2212]?)(?P<number>[0-9][0-9_]*(?:,[0-9]{3})*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?)\s*"
    rf"(?P<prefix>[kKMGTP]?)\s?(?P<unit>{_WORDS})?"
)


MAX_QUANTITY = 80
"""Characters of a quantity. An exponent has at most two digits: larger ones would take time and memory."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact number and its unit. `5%` has the value 1/20."""

    value: Fraction
    unit: str = ""
    """Empty, `%`, `bytes`, or the unit of a metric: `MACs`, `elements` …"""
    prefixed: bool = False
    """Whether the text has a prefix: k, M, G …"""
    text: str = ""

    @property
    def relative(self) -> bool:
        return self.unit == "%"


def parse_quantity(quantity: str | int | float) -> Quantity:
    """The exact value of `"24 M"`, `"4.09 G"`, `"200 MB"`, `"1.5 MiB"`, `"+2%"` or `24_000_000`.

    k, M, G, T and P are powers of 1000; KiB, MiB … powers of 1024. Raises CspprofError for other text.

    >>> parse_quantity("4.09 G").value
    Fraction(4090000000, 1)
    """
    too_large = isinstance(quantity, int) and abs(quantity) >= 10**MAX_QUANTITY  # str() of a very large number fails
    text = f"10^{MAX_QUANTITY}…" if too_large else str(quantity).strip()
    match = _QUANTITY.fullmatch(text) if len(text) <= MAX_QUANTITY else None
    if match is None or isinstance(quantity, bool):
        raise CspprofError(
            f"cannot read the quantity {shortened(text, MAX_QUANTITY)!r}",
            "Write for example: 24 M, 4.09 G, 200 MB, 1.5 MiB, 2%, or every digit",
        )
    prefix, unit = match["prefix"], match["unit"] or ""
    if unit == "iB" and not prefix:
        raise CspprofError(f"cannot read the quantity {text!r}", "Write for example: 200 MB or 190 MiB")
    scale = 1024 ** ("KMGTP".index(prefix.upper()) + 1) if unit == "iB" else PREFIXES[prefix]
    value = Fraction(match["number"].replace(",", "").replace("_", "")) * scale
    if unit == "%":
        if prefix:
            raise CspprofError(f"cannot read the quantity {text!r}", "Write a percentage without k, M or G: 2%")
        value /= 100
    value = -value if match["sign"] in ("-", MINUS) else value
    return Quantity(value, "bytes" if unit in ("B", "iB") else unit, bool(prefix), text)


# -- two numbers with enough digits to differ ------------------------------------------------


def distinct_texts(a: Fraction, b: Fraction, unit: str) -> tuple[str, str]:
    """Both numbers in `unit`, with enough digits that different numbers have different texts.

    >>> distinct_texts(Fraction(20004, 100000), Fraction(1, 5), "fraction")
    ('20.004 %', '20.000 %')
    """
    for format_number in _formats(unit):
        texts = format_number(a), format_number(b)
        if a == b or texts[0] != texts[1]:
            return texts
    return str(a), str(b)


def _formats(unit: str) -> list[Callable[[Fraction], str]]:
    """Functions that format a number in `unit`, with more and more digits."""
    if unit == "bytes":
        return [
            lambda x: nbytes(int(x)) if x.denominator == 1 else f"{fixed(x, 1)} B",
            lambda x: f"{_count_or_fixed(x)} B",
        ]
    if unit == "fraction":
        return [partial(percent, places=n) for n in range(1, 20)]
    return [_count_or_fixed, *(partial(fixed, places=n) for n in range(4, 20))]


def percent(x: Fraction, places: int) -> str:
    return f"{fixed(x * 100, places)} %"


def _count_or_fixed(x: Fraction) -> str:
    return count(x.numerator) if x.denominator == 1 else fixed(x, 3)


def fixed(x: Fraction, places: int) -> str:
    """Rounded exactly to `places` decimals: 12,345.679."""
    scaled = round(abs(x) * 10**places)
    whole, part = divmod(scaled, 10**places)
    sign = MINUS if x < 0 and scaled else ""
    return f"{sign}{whole:,}" + (f".{part:0{places}d}" if places else "")
