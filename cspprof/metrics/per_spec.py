"""What depends on a spec alone is worked out once, however many calls and profiles have it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from cspprof.record import OpSpec

T = TypeVar("T")
LIMIT = 20_000
"""Specs that a function remembers its answer for."""


def per_spec(function: Callable[[OpSpec], T]) -> Callable[[OpSpec], T]:
    """The same function of a spec, which remembers its answers by the spec's id."""
    known: dict[int, tuple[OpSpec, T]] = {}  # the spec is kept beside the answer, so that its id stays its own

    def answer(spec: OpSpec) -> T:
        found = known.get(id(spec))
        if found is None:
            if len(known) >= LIMIT:
                known.clear()
            found = known[id(spec)] = (spec, function(spec))
        return found[1]

    return answer
