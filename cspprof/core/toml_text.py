"""TOML from files that somebody else may have written: parsed within limits of size and depth, in linear time."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cspprof.core.files import read_limited

MAX_BYTES = 1 << 20
"""The size of a file. A configuration with 1,000 rules has 100 kB."""
MAX_DEPTH = 16
"""The levels of arrays and inline tables, and the names in a dotted key."""

_TOKEN = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*+(?:"{3,5}|\Z)'  # strings; one that is not closed goes on to the end
    r"|'''(?:[^']|'(?!''))*+(?:'{3,5}|\Z)"
    r'|"(?:[^"\\\n]|\\.)*+"'
    r"|'[^'\n]*+'"
    r"|#[^\n]*+"  # comments
    r"|[\[\]{}.,=\n]",
    re.DOTALL,
)


def read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a file and the document. Raises OSError, and ValueError if it is no TOML or exceeds the limits."""
    text = read_limited(path, MAX_BYTES).decode("utf-8-sig").replace("\r\n", "\n")
    for _ in statements(text):  # checks the limits, which tomllib does not have
        pass
    return text, tomllib.loads(text)


def statements(text: str) -> Iterator[tuple[int, str]]:
    """The first line and the text of each statement: `[table]`, or `key = value`, which can span several lines.

    Raises ValueError if one is nested too deeply.
    """
    begin, line, first, depth, names = 0, 1, 1, 0, 1
    for token in _TOKEN.finditer(text):
        mark = token[0]
        line += mark.count("\n")
        if mark == ".":
            names += 1
        elif mark in ("[", "]", "{", "}", ",", "=", "\n"):
            names = 1
            depth += (mark in "[{") - (mark in "]}")
        if depth > MAX_DEPTH or names > MAX_DEPTH:
            raise ValueError(f"line {line}: more than {MAX_DEPTH} levels of arrays, tables or names")
        if mark == "\n" and depth <= 0:
            yield first, text[begin : token.end()]
            begin, first, depth = token.end(), line, 0
    yield first, text[begin:]
