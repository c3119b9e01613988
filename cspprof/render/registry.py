"""The registry of output formats: a renderer is a function from a `Report` to text or bytes."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from cspprof.core.errors import OutputError
from cspprof.core.registry import Registry
from cspprof.report.tables import Report


class Canvas(NamedTuple):
    """The width of the output in characters, None if unlimited, and whether it supports color."""

    width: int | None = None
    color: bool = False


Renderer = Callable[[Report, Canvas], str | bytes]


class Format(NamedTuple):
    """A registered format. `extra` is the library that it needs and the extra of cspprof that installs it."""

    render: Renderer
    binary: bool = False
    extra: tuple[str, str] | None = None

    def check(self, name: str) -> None:
        """Raise OutputError if the library that the format needs is not installed."""
        if self.extra is not None and find_spec(self.extra[0]) is None:
            library, extra = self.extra
            raise OutputError(f"{name} needs the library {library}", f"Install it: pip install 'cspprof[{extra}]'")


RENDERERS: Registry[Format] = Registry("format")
_FORMAT_BY_SUFFIX: dict[str, str] = {}


def renderer(
    name: str, *suffixes: str, binary: bool = False, extra: tuple[str, str] | None = None
) -> Callable[[Renderer], Renderer]:
    """Register the decorated function as the format `name`, and as the format of files with these suffixes."""

    def register(function: Renderer) -> Renderer:
        _FORMAT_BY_SUFFIX.update(dict.fromkeys(suffixes, name))
        RENDERERS.add(name, Format(function, binary, extra))
        return function

    return register


def format_of(path: Path) -> str | None:
    """The format with the longest suffix that matches the file name; None if no suffix matches."""
    suffixes = [s for s in _FORMAT_BY_SUFFIX if path.name.lower().endswith(s)]
    return _FORMAT_BY_SUFFIX[max(suffixes, key=len)] if suffixes else None


def render(name: str, report: Report, canvas: Canvas | None = None) -> bytes:
    """`report` in the format `name`; text is UTF-8 and ends in a newline."""
    content = RENDERERS.get(name).render(report, canvas or Canvas())
    return content if isinstance(content, bytes) else content.encode(errors="backslashreplace")
