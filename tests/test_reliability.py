"""The page of what was tried: it is what its generator writes from the committed results, and these are as required."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def reliability(script: Callable[[str], Any]) -> Any:
    return script("docs/reliability")


def test_the_page_is_current(reliability: Any) -> None:
    assert reliability.main(["--check"]) == 0, "run: python docs/reliability.py"


def test_every_format_scenario_and_part_of_the_benchmarks_is_on_the_page(
    reliability: Any, script: Callable[[str], Any]
) -> None:
    assert list(script("benchmarks/fuzz_formats").FORMATS) == list(reliability.FORMATS)
    assert list(script("benchmarks/kills").SCENARIOS) == list(reliability.SCENARIOS)
    assert set(script("benchmarks/mutants").PARTS) == set(reliability.PARTS)
    assert all(f"| {name} |" in reliability.fuzz_table() for name in reliability.FORMATS.values())
    assert all(f"| {name} |" in reliability.kills_table() for name in reliability.SCENARIOS.values())


def test_two_hundred_kills_left_nothing_torn_or_lost(reliability: Any) -> None:
    scenarios = [found for d in reliability.documents("kills") for found in d["scenarios"]]
    assert sum(found["kills"] for found in scenarios) >= 200
    assert not any(found["faults"] for found in scenarios)
