"""What the figures should be, and what they were in each round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from itertools import pairwise
from math import exp, isnan, log, nan
from typing import Any, NamedTuple, TypedDict


class Round(TypedDict, total=False):
    """What one round measured."""

    counting: dict[str, dict[str, Any]]
    """By model and tool: `first` and `again` in seconds, and `macs`."""
    building: dict[str, dict[str, float]]
    commands: dict[str, float]
    memory: dict[str, dict[str, float]]
    growth: dict[str, list[dict[str, float]]]
    """Of each generated network, in the order of their sizes."""
    replay: dict[str, dict[str, float]]


class Goal(NamedTuple):
    """A figure of a round, and the most that it may be, or the least."""

    name: str
    asked: float
    figure: Callable[[Round], float]
    least: bool = False

    def held(self, figure: float) -> bool:
        return figure >= self.asked if self.least else figure <= self.asked


def mean(ratios: Iterable[float]) -> float:
    """Geometric."""
    logs = list(map(log, ratios))
    return exp(sum(logs) / len(logs)) if logs else nan


def medians(measured: list[Any]) -> Any:
    """One nest like those given, with the median of each figure over those that have it."""
    if isinstance(measured[0], dict):
        names = dict.fromkeys(name for one in measured for name in one)
        return {name: medians([one[name] for one in measured if name in one]) for name in names}
    if isinstance(measured[0], list):
        return [medians(list(items)) for items in zip(*measured, strict=True)]
    return statistics.median(measured)


def to_bare(of: str) -> Callable[[Round], float]:
    return lambda found: mean(one["cspprof"][of] / one["bare"][of] for one in found["counting"].values())


def times(peer: str) -> Callable[[Round], list[float]]:
    """How many times longer the first call of a peer takes, model by model."""
    return lambda found: [
        one[peer]["first"] / one["cspprof"]["first"] for one in found["counting"].values() if peer in one
    ]


def to_import(command: str) -> Callable[[Round], float]:
    return lambda found: found["commands"][command] / found["commands"]["import torch"]


def largest(key: str) -> Callable[[Round], float]:
    """Of the largest generated networks, the worst."""
    return lambda found: max(sizes[-1][key] for sizes in found["growth"].values())


def doublings(found: Round) -> list[float]:
    """What twice the operations cost, in times."""
    return [
        (large["trace"] / small["trace"]) ** (log(2) / log(large["operations"] / small["operations"]))
        for sizes in found["growth"].values()
        for small, large in pairwise(sizes)
    ]


def replays(found: Round) -> list[float]:
    return [one["trace"] / one["replay"] for one in found["replay"].values()]


def peer_goals(peer: str, all_models: float, each: float = 5) -> list[Goal]:
    return [
        Goal(f"{peer} / first, geometric mean", all_models, lambda found: mean(times(peer)(found)), least=True),
        Goal(
            f"{peer} / first, on the slowest network",
            each,
            lambda found: min(times(peer)(found), default=nan),
            least=True,
        ),
    ]


COUNTING = [
    Goal("first trace / bare forward, geometric mean", 0.10, to_bare("first")),
    Goal("repeated trace / bare forward, geometric mean", 0.06, to_bare("again")),
    *peer_goals("FlopCounterMode", 12),
    *peer_goals("fvcore", 30),
]
OTHERS = [
    Goal(
        "building / construction on meta", 0.25,
        lambda found: mean(one["cspprof"] / one["torch"] for one in found["building"].values()),
    ),
    Goal("cold command / import torch", 1.12, to_import("cspprof cio resnext50 csp_resnext50, nothing cached")),
    Goal("remembered command / import torch", 0.10, to_import("the same again, remembered")),
    Goal("--help / import torch", 0.10, to_import("cspprof --help")),
    Goal(
        "peak memory above the imports, MB, worst", 40,
        lambda found: max(one["megabytes"] for one in found["memory"].values()),
    ),
    Goal("twice the operations, times the trace, worst", 2.2, lambda found: max(doublings(found))),
    Goal("all totals of 100,000 operations, s, worst", 0.5, largest("totals")),
    Goal("saving them, s, worst", 0.6, largest("save")),
    Goal("saving them with totals not known yet, s, worst", 0.6, largest("save alone")),
    Goal("saved, MB, worst", 4, largest("megabytes")),
    Goal("loading them, s, worst", 1, largest("load")),
    Goal("trace / replay at another size, worst", 50, lambda found: min(replays(found), default=nan), least=True),
]  # fmt: skip


def goals(rounds: list[Round]) -> None:
    """The table: each goal that something was measured for, what is asked, and the figure of each round."""
    known = COUNTING + (OTHERS if "growth" in rounds[0] else [])
    print("\nGoals, round by round")
    for goal in known:
        figures = [goal.figure(found) for found in rounds]
        if any(map(isnan, figures)):
            continue
        held = sum(map(goal.held, figures))
        asked = f"{'≥' if goal.least else '≤'} {goal.asked:g}"
        verdict = "held" if held == len(rounds) else f"held {held} of {len(rounds)}"
        print(goal.name.ljust(52) + asked.rjust(10) + "".join(f"{f:.3g}".rjust(10) for f in figures) + f"   {verdict}")
