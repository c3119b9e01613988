"""Where each key of a TOML document stands: what errors and annotations point at.

The standard library's parser gives no positions. A document is a row of statements, each valid TOML by itself, so the
parser itself is asked where they end; nothing of TOML's grammar is written again here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

Key = tuple[str | int, ...]
"""The names, and positions in arrays, that lead to a value."""


def key_lines(text: str) -> dict[Key, int]:
    """The line, counted from 1, on which each key's statement begins; tables in an array by their index."""
    lines: dict[Key, int] = {}
    arrays: dict[Key, int] = {}
    table: Key = ()
    for number, statement, content in _statements(text):
        header = statement.lstrip().startswith("[")
        if header:
            names, is_array = _header(content)
            table = _resolved(names[:-1], arrays)
            table += (names[-1],)
            if is_array:
                arrays[table] = arrays.get(table, -1) + 1
                table += (arrays[table],)
            elif table in arrays:
                table += (arrays[table],)
            _note(lines, table, number)
        else:
            for path in _paths(content):
                _note(lines, table + path, number)
    return lines


def nearest(lines: dict[Key, int], path: Key) -> int | None:
    """The line of `path`, or of the nearest table around it."""
    for n in range(len(path), 0, -1):
        if path[:n] in lines:
            return lines[path[:n]]
    return None


def _statements(text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    begin, held = 0, ""
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        begin, held = (begin, held + line) if held else (number, line)
        try:
            content = tomllib.loads(held)
        except tomllib.TOMLDecodeError:
            continue  # a value over several lines
        if content:
            yield begin, held, content
        held = ""


def _header(content: dict[str, Any]) -> tuple[list[str], bool]:
    names: list[str] = []
    at: Any = content
    while isinstance(at, dict) and at:
        name, at = next(iter(at.items()))
        names.append(name)
    return names, isinstance(at, list)


def _resolved(names: list[str], arrays: dict[Key, int]) -> Key:
    path: Key = ()
    for name in names:
        path += (name,)
        if path in arrays:
            path += (arrays[path],)
    return path


def _paths(content: Any) -> Iterator[Key]:
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in entries:
        yield (key,)
        yield from ((key, *rest) for rest in _paths(value))


def _note(lines: dict[Key, int], path: Key, number: int) -> None:
    for n in range(1, len(path) + 1):
        lines.setdefault(path[:n], number)
