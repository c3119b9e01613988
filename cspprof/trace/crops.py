"""What an index crops, read off the bytecode of who takes it: torch does nothing for a `:100` of what is no larger, and
tells nobody."""

from __future__ import annotations

from collections.abc import Sequence
from types import CodeType
from typing import Any, NamedTuple

from cspprof.trace.flow import UNKNOWN, UNREAD, Known, Several, Slice, Stack
from cspprof.trace.steps import expression, place_of

LIMIT = 10_000


class Crops(NamedTuple):
    """Which dimensions an index takes up to a stop, which may lie beyond their end."""

    dims: tuple[int, ...] | None
    """None: any may be."""
    numbers: int = 0
    """How many parts are numbers."""
    unknown: int = 0
    """How many are in variables, and may be slices."""

    def beside(self, what: str, dim: int, rank: int) -> Sequence[int]:
        """Of a map of this rank, the dimensions cropped besides what one operation of the index does (`what`
        on `dim`).
        """
        if not self.unknown and (self.dims == (dim,) if what == "aten.slice" else self.dims == ()):
            return range(rank) if self is NOTHING and what == "aten.alias" else ()  # `operator.getitem`, perhaps
        dims = range(rank) if self.dims is None else [d % rank for d in self.dims]
        explained = not self.numbers if what == "aten.select" else what == "aten.slice" and dim not in dims
        dims = range(rank) if self.unknown > explained else dims
        return [d for d in dims if d != dim] if what == "aten.slice" else dims


NOTHING, ANYTHING = Crops(()), Crops(None)
_FOUND: dict[tuple[int, int], tuple[Crops, CodeType]] = {}
"""By address of the code, which is held: its hash is worked out anew each time."""


def crops(code: CodeType, last: int, names: dict[str, Any]) -> Crops:
    """Of the index that code takes when it is at `last` (a frame's `f_lasti`), `NOTHING` where it takes none; `names`
    are its globals."""
    known = _FOUND.get((id(code), last))
    if known is None:
        if len(_FOUND) >= LIMIT:
            _FOUND.clear()
        found = _crops(code, last, names)
        known = _FOUND[id(code), last] = found, code
    return known[0]


def _crops(code: CodeType, last: int, names: dict[str, Any]) -> Crops:
    try:
        place = place_of(code, last)
        reading = Stack(place, names)
        reading.read(expression(code, place))
    except UNREAD:
        return ANYTHING
    if reading.index is None:  # a function, such as `unsqueeze`
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
