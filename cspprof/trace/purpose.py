"""What a size is asked for, read off the bytecode of who asks: a resize to it, and nothing else."""

from __future__ import annotations

from types import CodeType
from typing import Any, NamedTuple

from cspprof.trace.flow import RESIZES, UNREAD, Reading, Resize
from cspprof.trace.steps import place_of

LIMIT = 10_000
NAMES, IDS = frozenset({"interpolate", "upsample"}), frozenset(map(id, RESIZES))
"""Of what resizes."""


class Purpose(NamedTuple):
    """What a size is asked for."""

    place: int
    """Of the instruction that asks."""
    resizes: tuple[Resize, ...]
    """All that get the answer; none where something else may get it too."""


OTHER = Purpose(-1, ())
_FOUND: dict[tuple[int, int], tuple[Purpose, CodeType]] = {}
"""By address of the code, which is held: its hash is worked out anew each time."""


def purpose(code: CodeType, last: int, names: dict[str, Any]) -> Purpose:
    """What the size is for that code asks for when it is at `last` (a frame's `f_lasti`); `names` are its globals."""
    known = _FOUND.get((id(code), last))
    if known is None:
        if len(_FOUND) >= LIMIT:
            _FOUND.clear()
        found = _purpose(code, last, names) if _mentions_a_resize(code, names) else OTHER
        known = _FOUND[id(code), last] = found, code
    return known[0]


def _mentions_a_resize(code: CodeType, names: dict[str, Any]) -> bool:
    """Spares the reading of most code."""
    mentioned = code.co_names
    return not (NAMES.isdisjoint(mentioned) and IDS.isdisjoint(map(id, map(names.get, mentioned))))


def _purpose(code: CodeType, last: int, names: dict[str, Any]) -> Purpose:
    try:
        place = place_of(code, last)
        return Purpose(place, Reading(code, place, names).resizes())
    except UNREAD:
        return OTHER
