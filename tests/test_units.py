"""How numbers are written and read: the exact texts, at the limits between one unit and the next."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cspprof.core import units
from cspprof.core.errors import CspprofError
from cspprof.core.units import distinct_texts, parse_quantity

TEXTS: list[tuple[Callable[..., str], list[tuple[Any, str]]]] = [
    (units.count, [(0, "0"), (34_411_496, "34,411,496"), (-1_000, "−1,000")]),
    (units.short_count, [
        (0, "0"), (999, "999"), (1_000, "1.00 k"), (9_994, "9.99 k"), (9_996, "10.0 k"), (99_949, "99.9 k"),
        (99_951, "100 k"), (999_499, "999 k"), (999_500, "1.00 M"), (25_557_032, "25.6 M"), (4_089_184_256, "4.09 G"),
        (999_500_000, "1.00 G"), (2 * 10**12, "2.00 T"), (-25_557_032, "−25.6 M"),
    ]),
    (units.nbytes, [
        (0, "0 B"), (1_023, "1023 B"), (1_024, "1.00 KiB"), (2**20 - 1, "1024 KiB"), (2**20, "1.00 MiB"),
        (9_640_000, "9.19 MiB"), (2**30, "1.00 GiB"), (3 * 2**40, "3.00 TiB"), (-2_048, "−2.00 KiB"), (-5, "−5 B"),
    ]),
    (units.decimal, [
        (0, "0.000"), (10.11, "10.110"), (0.1, "0.100"), (0.09996, "0.1"), (0.000123, "0.000123"),
        (-1234.5, "−1,234.500"),
    ]),
    (units.significant, [
        (1.0512, "1.05"), (34.44, "34.4"), (999.4, "999"), (1000, "1,000"), (12_345.6, "12,346"), (-0.01234, "−0.0123"),
    ]),
    (units.change, [
        (None, "from 0"), (0, "0 %"), (-0.0514, "−5.1 %"), (0.0004, "+0.04 %"), (0.000004, "+0.0004 %"),
        (0.0000004, "+<0.0001 %"), (-0.0000004, "−<0.0001 %"), (1, "+100.0 %"), (-1, "−100.0 %"),
        (-0.99996, "−99.996 %"), (-0.9999999, "−100.0000 %"), (2.5, "+250.0 %"),
    ]),
    (units.points, [
        (0, "0 points"), (0.012, "+1.2 points"), (-0.012, "−1.2 points"), (0.0004, "+<0.1 points"),
        (-0.0004, "−<0.1 points"), (0.0006, "+0.1 points"),
    ]),
    (units.share, [(0.1234, "12.3 %"), (0, "0.0 %"), (-0.5, "−50.0 %")]),
    (units.shape, [((1, 3, 224, 224), "1×3×224×224"), ((), "scalar"), ([7], "7")]),
    (units.signed_terms, [
        ({}, ""), ({"bias": -1_000, "batch norm": 22_227_968, "none": 0}, "+ 22,227,968 batch norm − 1,000 bias"),
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("write", "cases"), TEXTS, ids=lambda value: getattr(value, "__name__", ""))
def test_texts_of_numbers(write: Callable[..., str], cases: list[tuple[Any, str]]) -> None:
    assert [(value, write(value)) for value, _ in cases] == cases


def test_a_number_with_its_noun() -> None:
    assert [units.counted(n, "operation") for n in (0, 1, 2, 12_001)] == [
        "0 operations", "1 operation", "2 operations", "12,001 operations",
    ]  # fmt: skip
    assert units.significant(1234.5678, 6) == "1,234.57"


def test_a_long_text_keeps_its_begin_and_its_end() -> None:
    assert units.shortened("backbone.stage1", 15) == "backbone.stage1"
    assert units.shortened("backbone.stage1.conv2", 15) == "backb…ge1.conv2"


# -- parsing ------------------------------------------------------------------------------------------

QUANTITIES = [
    ("24 M", 24 * 10**6, "", True), ("4.09 G", 4_090_000_000, "", True), ("24k", 24_000, "", True),
    ("24 K", 24_000, "", True), ("1 T", 10**12, "", True), ("1 P", 10**15, "", True),
    ("200 MB", 2 * 10**8, "bytes", True),
    ("1.5 MiB", 3 * 2**19, "bytes", True), ("1 KiB", 2**10, "bytes", True), ("1 GiB", 2**30, "bytes", True),
    ("1 TiB", 2**40, "bytes", True), ("1 PiB", 2**50, "bytes", True), ("8 B", 8, "bytes", False),
    ("2%", Fraction(1, 50), "%", False), ("+2 %", Fraction(1, 50), "%", False),
    ("-0.5%", Fraction(-1, 200), "%", False),
    ("−7", -7, "", False), ("24,000,000", 24 * 10**6, "", False), ("24_000", 24_000, "", False),
    ("1e3", 1_000, "", False), ("2.5e-2", Fraction(1, 40), "", False), ("7 MACs", 7, "MACs", False),
    ("3 GMACs", 3 * 10**9, "MACs", True), (24_000_000, 24 * 10**6, "", False), (0.5, Fraction(1, 2), "", False),
    (10**80 - 1, 10**80 - 1, "", False),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value", "unit", "prefixed"), QUANTITIES, ids=lambda value: str(value)[:20])
def test_quantities_are_exact(text: Any, value: Any, unit: str, prefixed: bool) -> None:
    found = parse_quantity(text)
    assert (found.value, found.unit, found.prefixed, found.text) == (value, unit, prefixed, str(text))
    assert found.relative == (unit == "%")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "M",
        "24 X",
        "1 iB",
        "12,34",
        "1..2",
        "2 k%",
        "1e999",
        "nan",
        "--1",
        "1" * 81,
        10**80,
        -(10**80),
        True,
        "0x10",
    ],
    ids=lambda value: str(value)[:20],
)
def test_other_quantities_are_refused(text: Any) -> None:
    with pytest.raises(CspprofError, match="cannot read the quantity") as refused:
        parse_quantity(text)
    assert refused.value.hint
    assert len(refused.value.message) < 120


@given(st.integers(-(10**15), 10**15))
def test_every_count_is_read_as_it_is_written(n: int) -> None:
    assert parse_quantity(units.count(n)).value == n


# -- two numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "unit", "texts"),
    [
        (5, 5, "MACs", ("5", "5")),
        (1000, 999, "MACs", ("1,000", "999")),
        (Fraction(1, 3), Fraction(2, 3), "", ("0.333", "0.667")),
        (Fraction(10001, 10000), Fraction(10002, 10000), "", ("1.0001", "1.0002")),
        (Fraction(1, 10**19), Fraction(2, 10**19), "", ("0.0000000000000000001", "0.0000000000000000002")),
        (Fraction(1, 10**30), Fraction(2, 10**30), "", (f"1/{10**30}", f"1/{5 * 10**29}")),
        (2**20, 2**21, "bytes", ("1.00 MiB", "2.00 MiB")),
        (2**20, 2**20 + 1, "bytes", ("1,048,576 B", "1,048,577 B")),
        (Fraction(1, 2), 2, "bytes", ("0.5 B", "2 B")),
        (Fraction(1, 2), Fraction(1, 4), "fraction", ("50.0 %", "25.0 %")),
        (Fraction(20004, 100000), Fraction(1, 5), "fraction", ("20.004 %", "20.000 %")),
        (Fraction(1, 10**21), 0, "fraction", ("0.0000000000000000001 %", "0.0000000000000000000 %")),
    ],
)
def test_different_numbers_have_different_texts(a: Any, b: Any, unit: str, texts: tuple[str, str]) -> None:
    assert distinct_texts(Fraction(a), Fraction(b), unit) == texts


def test_rounding_is_exact() -> None:
    assert [units.fixed(Fraction(x), 2) for x in ("12345.6789", "0.005", "0.015", "-0.001", "-0.5", "-1.5")] == [
        "12,345.68", "0.00", "0.02", "0.00", "−0.50", "−1.50",
    ]  # fmt: skip
    assert units.fixed(Fraction(5, 2), 0) == "2"
    assert units.percent(Fraction(1, 8), 1) == "12.5 %"
