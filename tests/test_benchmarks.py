"""What the benchmark makes of its measurements; it asserts no time, and neither do tests."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    for name in ("goals", "tables"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield import_module("goals"), import_module("tables")
    for name in ("goals", "tables"):
        del sys.modules[name]


def counted(first: float, again: float, bare: float, fvcore: float | None) -> dict[str, Any]:
    tools = {"cspprof": {"first": first, "again": again, "macs": 10}, "bare": {"first": bare, "again": bare, "macs": 0}}
    return tools | ({} if fvcore is None else {"fvcore": {"first": fvcore, "macs": 11}})


def test_a_doubling_is_what_twice_the_operations_cost(benchmark: Any) -> None:
    goals, _ = benchmark
    sizes = [{"operations": n, "trace": t} for n, t in ((100, 1), (400, 16), (800, 40))]
    assert goals.doublings({"growth": {"chain": sizes}}) == pytest.approx([4, 2.5])


def test_medians_are_those_of_the_rounds_that_have_a_figure(benchmark: Any) -> None:
    goals, _ = benchmark
    rounds = [{"a": {"x": 1.0}, "b": [1, 5]}, {"a": {"x": 3.0, "y": 7.0}, "b": [2, 4]}, {"a": {"x": 2.0}, "b": [9, 0]}]
    assert goals.medians(rounds) == {"a": {"x": 2.0, "y": 7.0}, "b": [2, 4]}


def test_a_goal_is_held_when_it_is_held_in_every_round(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    goals, _ = benchmark
    rounds = [{"counting": {"m": counted(first, 0.05, 1.0, 4.0)}} for first in (0.08, 0.2, 0.09)]
    goals.goals(rounds)
    lines = {line[:52].strip(): " ".join(line[52:].split()) for line in capsys.readouterr().out.splitlines()}
    assert lines["first trace / bare forward, geometric mean"] == "≤ 0.1 0.08 0.2 0.09 held 2 of 3"
    assert lines["repeated trace / bare forward, geometric mean"] == "≤ 0.06 0.05 0.05 0.05 held"
    assert lines["fvcore / first, geometric mean"] == "≥ 30 50 20 44.4 held 2 of 3"
    assert not any("FlopCounterMode" in name or "building" in name for name in lines), "what nobody ran has no goals"


def test_a_counter_that_failed_has_no_figure(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _, tables = benchmark
    rounds = [{"counting": {"resnext50": counted(0.1, 0.05, 1.0, 2.0), "other": counted(0.1, 0.05, 1.0, None)}}]
    rounds[0]["counting"]["resnext50"]["fvcore"]["macs"] = tables.MACS["resnext50"] * 1.01
    tables.tables(rounds, ("fvcore",))
    lines = {line[:52].strip(): line[52:].split() for line in capsys.readouterr().out.splitlines()}
    assert lines["resnext50"][-2:] == ["20.0×", "(+1.0%)"]
    assert lines["other"][-1] == "–"
    assert lines["geometric mean"][-1] == "20.0×"
