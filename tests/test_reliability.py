"""The page of what was tried: it is what its generator writes from the committed results, and these are as required."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from conftest import CHECKOUT


@pytest.fixture
def reliability(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(CHECKOUT / "docs")
    yield import_module("reliability")
    del sys.modules["reliability"]


def test_the_page_is_current(reliability: Any) -> None:
    assert reliability.main(["--check"]) == 0, "run: python docs/reliability.py"


def test_every_format_scenario_and_part_of_the_benchmarks_is_on_the_page(
    reliability: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(CHECKOUT / "benchmarks")
    for module, table, names in (
        ("fuzz_formats", "FORMATS", reliability.FORMATS),
        ("kills", "SCENARIOS", reliability.SCENARIOS),
        ("mutants", "PARTS", reliability.PARTS),
    ):
        assert list(getattr(import_module(module), table)) == list(names)
        del sys.modules[module]
    assert all(f"| {name} |" in reliability.fuzz_table() for name in reliability.FORMATS.values())
    assert all(f"| {name} |" in reliability.kills_table() for name in reliability.SCENARIOS.values())


def test_two_hundred_kills_left_nothing_torn_or_lost(reliability: Any) -> None:
    scenarios = [found for d in reliability.documents("kills") for found in d["scenarios"]]
    assert sum(found["kills"] for found in scenarios) >= 200
    assert not any(found["faults"] for found in scenarios)
