"""What an index crops, read off the bytecode of who takes it: torch does nothing for a `:100` of what is no larger, and
tells nobody."""

from __future__ import annotations

from types import CodeType
from typing import Any, NamedTuple

from cspprof.trace.flow import UNKNOWN, UNREAD, Known, Reading, Several, Slice
from cspprof.trace.steps import place_of

LIMIT = 10_000


class Crops(NamedTuple):
    """Which dimensions an index takes up to a stop, which may lie beyond their end."""

    dims: tuple[int, ...] | None
    """None: any may be."""
    numbers: int = 0
    """How many parts are numbers."""
    unknown: int = 0
    """How many are in variables, and may be slices."""


NOTHING, ANYTHING = Crops(()), Crops(None)
_FOUND: dict[tuple[CodeType, int], Crops] = {}


def crops(code: CodeType, last: int, names: dict[str, Any]) -> Crops:
    """Of the index that code takes when it is at `last` (a frame's `f_lasti`), `NOTHING` where it takes none; `names`
    are its globals."""
    found = _FOUND.get((code, last))
    if found is None:
        if len(_FOUND) >= LIMIT:
            _FOUND.clear()
        found = _FOUND[code, last] = _crops(code, last, names)
    return found


def _crops(code: CodeType, last: int, names: dict[str, Any]) -> Crops:
    try:
        reading = Reading(code, place_of(code, last), names)
        reading.resizes()
    except UNREAD:
        return ANYTHING
    if reading.index is None:
        return NOTHING
    parts = reading.index.parts if isinstance(reading.index, Several) else (reading.index,)
    ellipsis = [i for i, part in enumerate(parts) if isinstance(part, Known) and part.value is Ellipsis]
    others = [i for i, part in enumerate(parts) if not isinstance(part, Slice) and i not in ellipsis]
    found = [i for i, part in enumerate(parts) if isinstance(part, Slice) and _may_cover(part)]
    if found and others and (ellipsis or others[0] < found[-1]):
        return ANYTHING  # numbers, masks and new dimensions move those that follow
    dims = tuple([i - len(parts) if ellipsis and i > ellipsis[0] else i for i in found])
    numbers = sum(isinstance(part, Known) and isinstance(part.value, int) for part in parts)
    return Crops(dims, numbers, parts.count(UNKNOWN))


def _may_cover(part: Slice) -> bool:
    stop = part.ends[1]
    return not (isinstance(stop, Known) and (stop.value is None or (isinstance(stop.value, int) and stop.value < 0)))
