"""The line of each key in a TOML document, for error messages and annotations.

`tomllib` reports no positions. Each statement of a document is valid TOML by itself, so `tomllib` also finds its keys.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

from cspprof.core.toml_text import statements

Key = tuple[str | int, ...]
"""The names, and the positions in arrays, that lead to a value."""


def key_lines(text: str) -> dict[Key, int]:
    """The line, counted from 1, on which the statement of each key begins. Tables of an array have their index."""
    lines: dict[Key, int] = {}
    arrays: dict[Key, int] = {}
    table: Key = ()
    for number, statement, content in _statements(text):
        if statement.lstrip().startswith("["):
            names, is_array = _header(content)
            table = (*_with_indices(names[:-1], arrays), names[-1])
            if is_array:
                arrays[table] = arrays.get(table, -1) + 1
            if table in arrays:
                table += (arrays[table],)
            _set_first(lines, table, number)
        else:
            for path in _paths(content):
                _set_first(lines, table + path, number)
    return lines


def nearest_line(lines: dict[Key, int], path: Key) -> int | None:
    """The line of `path`, or of the nearest table around it."""
    for n in range(len(path), 0, -1):
        if path[:n] in lines:
            return lines[path[:n]]
    return None


def _statements(text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Each statement of a valid document: its first line, its text and its parsed content."""
    for number, statement in statements(text):
        if content := tomllib.loads(statement):
            yield number, statement, content


def _header(content: dict[str, Any]) -> tuple[list[str], bool]:
    """The names in a `[table]` or `[[array]]` header, and whether it is an array."""
    names: list[str] = []
    value: Any = content
    while isinstance(value, dict) and value:
        name, value = next(iter(value.items()))
        names.append(name)
    return names, isinstance(value, list)


def _with_indices(names: list[str], arrays: dict[Key, int]) -> Key:
    """The names with the current index behind each name of an array of tables."""
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


def _set_first(lines: dict[Key, int], path: Key, number: int) -> None:
    for n in range(1, len(path) + 1):
        lines.setdefault(path[:n], number)
