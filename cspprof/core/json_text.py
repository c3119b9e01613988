"""JSON and gzip from files that somebody else may have written: parsed within limits of size, memory and depth."""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from math import isinf
from typing import Any, NoReturn

MAX_BYTES = 64 << 20
"""The bytes of a document, also of one that was compressed. A saved profile of 100,000 calls has 8 MB."""

MAX_VALUES = 4_000_000
"""The number of values that a document may have. A saved profile of 100,000 calls has a million."""

HALVES = re.compile("[\ud800-\udfff]")

_HALF_OF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")
"""The escape of a half of a surrogate pair. A half alone is no character, and no output can contain it."""


def parse_json(data: bytes, max_values: int = MAX_VALUES, **hooks: Any) -> Any:
    """The parsed document. `hooks` are those of `json.loads`.

    Raises ValueError if it is no JSON in UTF-8, exceeds the limits, has a key twice in one object, or has a number that
    is not finite.
    """
    if sum(map(data.count, (b",", b"[", b"{"))) > max_values:
        raise ValueError(f"it has more than {max_values:,} values")
    text = data.decode("utf-8-sig")
    own: dict[str, Any] = {
        "object_pairs_hook": _object, "parse_constant": _not_finite, "parse_float": _finite_float,
    }  # fmt: skip
    try:
        document = json.loads(text, **(own | hooks))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if _HALF_OF_PAIR.search(text):
        try:
            json.dumps(document, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError:
            raise ValueError("a text contains half of a surrogate pair") from None
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"an object has the key {twice[:60]!r} twice")
    return found


def _not_finite(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite_float(digits: str) -> float:
    number = float(digits)
    if isinf(number):
        raise ValueError(f"the number {digits[:40]} is too large")
    return number


def gunzip(data: bytes, limit: int = MAX_BYTES) -> bytes:
    """The content of gzipped data. Raises ValueError, also if it has more than `limit` bytes."""
    content = bytearray()
    while data:
        unpacker = zlib.decompressobj(wbits=31)
        try:
            content += unpacker.decompress(data, limit + 1 - len(content))
        except zlib.error as error:
            raise ValueError(str(error)) from None
        if len(content) > limit:
            raise ValueError(f"it unpacks to more than {limit:,} bytes")
        if not unpacker.eof:
            raise ValueError("it is incomplete")
        data = unpacker.unused_data
    return bytes(content)


def json_bytes(text: str) -> bytes:
    """JSON as UTF-8. Halves of surrogate pairs, as in a file name that is not UTF-8, become text such as `\\udcff`."""
    return HALVES.sub(lambda match: f"\\\\u{ord(match[0]):04x}", text).encode()
