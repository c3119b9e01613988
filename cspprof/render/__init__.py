"""One file per output format. A renderer takes a `Report` and returns text; it changes nothing that it shows.

To add a format, write a function `(Report, Canvas) -> str`, decorate it with `renderer`, and import its file below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cspprof.registry import Registry
from cspprof.tables import Report


@dataclass(frozen=True, slots=True)
class Canvas:
    """Where a rendering goes: its width in characters, and whether it takes colour."""

    width: int | None = None
    colour: bool = False


Renderer = Callable[[Report, Canvas], str]
RENDERERS: Registry[Renderer] = Registry("format")
SUFFIXES: dict[str, str] = {}


def renderer(name: str, *suffixes: str) -> Callable[[Renderer], Renderer]:
    """Register a format, and the file name endings that ask for it."""

    def register(function: Renderer) -> Renderer:
        SUFFIXES.update(dict.fromkeys(suffixes, name))
        return RENDERERS.add(name, function)

    return register


def render(name: str, report: Report, canvas: Canvas | None = None) -> str:
    """`report` as text in the format `name`, ending in a newline."""
    return RENDERERS.get(name)(report, canvas or Canvas())


from cspprof.render import data, markdown, terminal  # noqa: E402, F401 - register themselves
