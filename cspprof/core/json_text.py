"""JSON and gzip from files that somebody else may have written: parsed within limits of memory and depth."""

from __future__ import annotations

import json
import zlib
from typing import Any

MAX_VALUES = 10_000_000
"""The number of values that a document may have. A saved profile of 100,000 calls has a million."""

MAX_UNPACKED = 256 << 20
"""The bytes to which a compressed document may unpack."""


def parse_json(data: bytes, max_values: int = MAX_VALUES, **hooks: Any) -> Any:
    """The parsed document. `hooks` are those of `json.loads`. Raises ValueError, also beyond the limits."""
    if sum(map(data.count, (b",", b"[", b"{"))) > max_values:
        raise ValueError(f"it has more than {max_values:,} values")
    try:
        return json.loads(data, **hooks)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def gunzip(data: bytes, limit: int = MAX_UNPACKED) -> bytes:
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
