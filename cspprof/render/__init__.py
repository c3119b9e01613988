"""One file per output format. A renderer takes a `Report` and returns text or bytes; it changes nothing that it shows.

To add a format, write a function `(Report, Canvas) -> str`, decorate it with `renderer`, and import its file below.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from cspprof.core.errors import OutputError
from cspprof.core.registry import Registry
from cspprof.report.tables import Report


class Canvas(NamedTuple):
    """Where a rendering goes: its width in characters, and whether it takes colour."""

    width: int | None = None
    colour: bool = False


Renderer = Callable[[Report, Canvas], str | bytes]


class Format(NamedTuple):
    """A registered format. A binary one is no text for a terminal; `extra` names the library and extra it takes."""

    render: Renderer
    binary: bool = False
    extra: tuple[str, str] | None = None

    def check(self, name: str) -> None:
        """Raise OutputError where the library that it takes is not there."""
        if self.extra is not None and find_spec(self.extra[0]) is None:
            library, extra = self.extra
            raise OutputError(f"{name} takes the library {library}", f"Install it: pip install 'cspprof[{extra}]'")


RENDERERS: Registry[Format] = Registry("format")
SUFFIXES: dict[str, str] = {}


def renderer(
    name: str, *suffixes: str, binary: bool = False, extra: tuple[str, str] | None = None
) -> Callable[[Renderer], Renderer]:
    """Register a format, and the file name endings that ask for it."""

    def register(function: Renderer) -> Renderer:
        SUFFIXES.update(dict.fromkeys(suffixes, name))
        RENDERERS.add(name, Format(function, binary, extra))
        return function

    return register


def asked_by(path: Path) -> str | None:
    """The format that a file's name asks for, by its longest ending that is known."""
    endings = [s for s in SUFFIXES if path.name.lower().endswith(s)]
    return SUFFIXES[max(endings, key=len)] if endings else None


def render(name: str, report: Report, canvas: Canvas | None = None) -> bytes:
    """`report` in the format `name`; text is UTF-8 and ends in a newline."""
    made = RENDERERS.get(name).render(report, canvas or Canvas())
    return made if isinstance(made, bytes) else made.encode(errors="backslashreplace")


from cspprof.render import data, latex, markdown, model_explorer, netron, page, parquet, terminal  # noqa: E402, F401 - register themselves
