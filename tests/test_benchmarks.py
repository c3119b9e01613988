"""How the benchmark summarizes its measurements. No test asserts a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def benchmark(script: Callable[[str], Any]) -> Any:
    return script("benchmarks/run")


def counters(fvcore: float | None) -> dict[str, Any]:
    tools = {"cspprof": {"first": 0.1, "again": 0.05, "macs": 10}, "bare": {"first": 1.0, "again": 1.0, "macs": 0}}
    return tools | ({} if fvcore is None else {"fvcore": {"first": fvcore, "macs": 11}})


def test_medians_are_taken_over_the_rounds_that_have_a_figure(benchmark: Any) -> None:
    rounds = [{"a": {"x": 1.0}, "b": [1, 5]}, {"a": {"x": 3.0, "y": 7.0}, "b": [2, 4]}, {"a": {"x": 2.0}, "b": [9, 0]}]
    assert benchmark.medians(rounds) == {"a": {"x": 2.0, "y": 7.0}, "b": [2, 4]}


def test_a_counter_that_fails_on_a_model_shows_a_dash(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    results = {"resnext50": counters(2.0), "other": counters(None)}
    results["resnext50"]["fvcore"]["macs"] = benchmark.MACS["resnext50"] * 1.01
    benchmark.print_counters(results, ("fvcore",))
    lines = {line[:52].strip(): line[52:].split() for line in capsys.readouterr().out.splitlines()}
    assert lines["resnext50"] == ["0.1000", "0.100", "0.0500", "0.050", "20.0×", "(+1.0%)"]
    assert lines["other"][-1] == "–"
    assert lines["geometric mean"] == ["0.100", "0.050", "20.0×"]
