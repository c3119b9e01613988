"""Types of the values in documents that somebody else may have written, and their validation with msgspec.

msgspec and not pydantic: it converts a million integers in 20 ms, and a command that reads a saved profile imports it
in 10 ms instead of 40 ms. The gate's configuration, which reports all its mistakes with their lines, uses pydantic.

    class Point(msgspec.Struct):
        x: Count
        y: Count

    validated({"x": 1, "y": -1}, Point)  # ValueError: y: expected `int` >= 0
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from msgspec import Meta, ValidationError, convert

LARGEST, SMALLEST = 2**63 - 1, -(2**63)
"""The limits of integers: libraries for tables and arrays have integers of 64 bits."""
LONGEST_NAME = 10_000
LONGEST_TEXT = 100_000
"""Characters of a name and of a text."""
MAX_GLOB = 200
"""Characters of a glob: Python searches the rest of it for the end of each `[`."""

T = TypeVar("T")

Integer = Annotated[int, Meta(ge=SMALLEST, le=LARGEST)]
Count = Annotated[int, Meta(ge=0, le=LARGEST)]
Positive = Annotated[int, Meta(ge=1, le=LARGEST)]
Seconds = Annotated[float, Meta(ge=0, le=1e12)]
"""A time. The upper limit excludes infinity."""
Share = Annotated[float, Meta(ge=0, le=1e12)]
Name = Annotated[str, Meta(max_length=LONGEST_NAME)]
Text = Annotated[str, Meta(max_length=LONGEST_TEXT)]


def validated(value: object, kind: type[T], place: str = "") -> T:
    """The value as a `kind`: a `msgspec.Struct`, a dataclass, a NamedTuple or a type of typing.

    Nothing is coerced: `1.0` and `true` are no integers. Raises ValueError, whose text begins with the place of the
    first wrong value: `layers.depth[3]: expected …`. `place` is that of the value itself.
    """
    try:
        return convert(value, kind)
    except ValidationError as error:
        message, _, inside = str(error).partition(" - at ")
        where = place + _readable(inside)
        raise ValueError(f"{where.lstrip('.')}: {message[:1].lower()}{message[1:]}".removeprefix(": ")) from None


def _readable(place: str) -> str:
    """`.layers.depth[3]` of `` `$.layers.depth[3]` ``; ` (a key)` after the place of a key."""
    is_key = place.startswith("`key` in ")
    path = place.removeprefix("`key` in ").strip("`").removeprefix("$")
    return f"{path} (a key)" if is_key else path
