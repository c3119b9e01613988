"""The page that puts other counters beside cspprof: it is what its generator writes from the committed results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def comparison(script: Callable[[str], Any]) -> Any:
    pytest.importorskip("timm", reason="most of the networks come from timm")
    return script("docs/comparison")


@pytest.mark.slow
def test_the_page_is_current(comparison: Any) -> None:
    assert comparison.main(["--check"]) == 0, "run: python docs/comparison.py"


def test_the_results_of_cspprof_are_those_of_the_benchmark(comparison: Any, script: Callable[[str], Any]) -> None:
    run, counters = script("benchmarks/run"), comparison.results()
    assert {model: results["cspprof"]["macs"] for model, results in counters.items()} == run.MACS
    assert set(comparison.RULES) < set(run.PEERS)
