"""The page that puts other counters beside cspprof: it is what its generator writes from the committed results."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from conftest import CHECKOUT


@pytest.fixture
def comparison(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("timm", reason="most of the networks come from timm")
    monkeypatch.syspath_prepend(CHECKOUT / "docs")
    yield import_module("comparison")
    del sys.modules["comparison"]


@pytest.mark.slow
def test_the_page_is_current(comparison: Any) -> None:
    assert comparison.main(["--check"]) == 0, "run: python docs/comparison.py"


def test_the_results_of_cspprof_are_those_of_the_benchmark(comparison: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(CHECKOUT / "benchmarks")
    counters = comparison.measured()["rounds"][0]["counters"]
    run = import_module("run")
    del sys.modules["run"]
    assert {model: results["cspprof"]["macs"] for model, results in counters.items()} == run.MACS
    assert set(comparison.RULES) < set(run.PEERS)
