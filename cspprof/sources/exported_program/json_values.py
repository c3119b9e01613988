"""Reading untrusted JSON: size limits before parsing, and typed access to the parsed values."""

from __future__ import annotations

from typing import Any, TypeVar

from cspprof.core import json_text

MAX_VALUES = 4_000_000
"""The number of objects, lists and items that a document may have. A parsed one takes about 100 bytes for each; the
program of a network with 5,000 operations has 500,000."""

T = TypeVar("T")


class MalformedError(Exception):
    """A file that does not follow its format, or uses a part of it that is refused. The message says where.

    The callers add the name of the file. `hint` replaces the usual hint.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def parse_json(text: bytes | str, what: str) -> Any:
    """The parsed document. Raises MalformedError if it is not JSON, too large, too deep, or has a key twice."""
    data = text.encode() if isinstance(text, str) else text
    try:
        return json_text.parse_json(
            data, MAX_VALUES, object_pairs_hook=_object, parse_int=_integer, parse_constant=float, parse_float=float
        )
    except ValueError as error:
        raise MalformedError(f"{what} cannot be read: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise MalformedError(f"a JSON object has the key {shorten(next(k for k in keys if keys.count(k) > 1))} twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > 20:
        raise MalformedError(f"a number has {len(digits):,} digits: no size is that large")
    return int(digits)


def shorten(value: Any) -> str:
    """The value as an error message shows it."""
    text = repr(value[:60] if isinstance(value, (str, list)) else value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def as_kind(value: Any, kind: type[T], where: str) -> T:
    """The value, if it has the type `kind` exactly: a bool is no int. Raises MalformedError."""
    if type(value) is not kind:
        raise MalformedError(f"{where} is {shorten(value)}, not of type {kind.__name__}")
    return value


def field(data: Any, key: str, kind: type[T], where: str) -> T:
    """The value of a key of an object. Raises MalformedError if it is missing or of another type."""
    found = as_kind(data, dict, where)
    if key not in found:
        raise MalformedError(f"{where} has no {key!r}")
    return as_kind(found[key], kind, f"{where}.{key}")


def variant(data: Any, where: str) -> tuple[str, Any]:
    """The tag and the value of a union: an object with one key. Raises MalformedError."""
    found = as_kind(data, dict, where)
    if len(found) != 1:
        raise MalformedError(f"{where} has {len(found)} keys where one says its kind")
    return next(iter(found.items()))
