"""Quantities as people read them. Nothing here changes a number; integers are exact up to this point."""

from __future__ import annotations

from collections.abc import Mapping

MINUS = "\N{MINUS SIGN}"


def count(n: int) -> str:
    """Every digit: 34,411,496."""
    return f"{n:,}".replace("-", MINUS)


def nbytes(n: int) -> str:
    """Binary prefixes: 9.19 MiB."""
    for limit, prefix in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(n) >= limit:
            return f"{_digits(n / limit)} {prefix}".replace("-", MINUS)
    return f"{n} B".replace("-", MINUS)


def decimal(x: float) -> str:
    """Enough digits to compare with a printed table: 10.110, 0.000123."""
    text = f"{x:,.3f}" if abs(x) >= 0.1 or x == 0 else f"{x:.3g}"
    return MINUS + text[1:] if text.startswith("-") else text


def significant(x: float, digits: int = 3) -> str:
    """So many digits, without an exponent where people would not write one: 1.05, 34.4, 0.0123."""
    text = f"{x:,.{digits}g}" if abs(x) < 10**digits else f"{x:,.0f}"
    return text.replace("-", MINUS)


def change(relative: float | None) -> str:
    """A signed percentage: −5.1 %, +0.04 %, 0 %. What rounds to none or to all gets more digits until it does not."""
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


def share(fraction: float) -> str:
    """A part of a whole: 12.3 %."""
    return f"{fraction * 100:.1f} %".replace("-", MINUS)


def shape(dims: tuple[int, ...] | list[int]) -> str:
    return "×".join(map(str, dims)) or "scalar"


def signed(parts: Mapping[str, int]) -> str:
    """A sum's terms by name, the largest first: + 22,227,968 batch norm − 1,000 bias."""
    terms = sorted(parts.items(), key=lambda part: -abs(part[1]))
    return " ".join(f"{'+' if n > 0 else MINUS} {count(abs(n))} {name}" for name, n in terms if n)


def _digits(x: float) -> str:
    size = abs(x)
    return f"{x:.0f}" if size >= 99.95 else f"{x:.1f}" if size >= 9.995 else f"{x:.2f}"
