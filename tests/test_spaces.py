"""The page of design spaces follows from its candidates, and these have the costs of a new trace."""

from __future__ import annotations

from typing import Any

import pytest
import spaces
from conftest import CHECKOUT

import cspprof

SPACES = pytest.mark.parametrize("space", spaces.SPACES, ids=lambda space: str(space.name))


def test_the_page_follows_from_the_candidates() -> None:
    assert (CHECKOUT / "reports" / "spaces.md").read_text(encoding="utf-8") == spaces.page()


@SPACES
def test_every_candidate_is_there_once(space: Any) -> None:
    rows = spaces.rows_of(space)
    assert len({(row["model"], row["input"]) for row in rows}) == len(rows)
    if space.axes:
        assert len(rows) == 5 * 3 * 5 * 3
        assert all(row["status"] == "ok" for row in rows)


@SPACES
def test_no_candidate_of_the_front_is_dominated(space: Any) -> None:
    """Compared pair by pair, without the code of the front."""
    front = [(int(row["macs"]), int(row[space.traffic])) for row in spaces.front(space, spaces.rows_of(space))]
    every = [
        (int(row["macs"]), int(row[space.traffic]))
        for row in spaces.rows_of(space)
        if row["macs"] and int(row["macs"]) <= (space.most_macs or 10**15)
    ]
    for macs, traffic in every:
        dominated = any(m >= macs and t <= traffic and (m, t) != (macs, traffic) for m, t in every)
        assert dominated == ((macs, traffic) not in front)


@pytest.mark.slow
@SPACES
def test_candidates_have_the_costs_of_a_new_trace(space: Any) -> None:
    """Every hundredth candidate."""
    if space.name == "timm":
        pytest.importorskip("timm")
    for row in [row for row in spaces.rows_of(space) if row["status"] == "ok"][:: 100 if space.axes else 300]:
        shape = tuple(map(int, row["input"].partition(":")[0].split("x")))
        profile = cspprof.profile(row["model"], shape)
        assert {name: profile.total(name) for name in spaces.TOTALS} == {name: int(row[name]) for name in spaces.TOTALS}
