"""The registry of output formats: a renderer is a function from a `Report` to text or bytes."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from cspprof.core.errors import OutputError, pip_install
from cspprof.core.files import is_device
from cspprof.core.printable import without_controls
from cspprof.core.registry import Registry
from cspprof.report.tables import Report


class Canvas(NamedTuple):
    """The width of the output in characters, None if unlimited, and whether it supports color."""

    width: int | None = None
    color: bool = False


Renderer = Callable[[Report, Canvas], str | bytes]
IsOwn = Callable[[bytes], bool]
"""Whether a file that starts with these bytes may be an earlier output of the format, which a new one can replace."""


class Format(NamedTuple):
    """A registered format. `extra` is the library that it needs and the extra of cspprof that installs it."""

    render: Renderer
    is_own: IsOwn
    suffixes: tuple[str, ...] = ()
    binary: bool = False
    extra: tuple[str, str] | None = None

    def check(self, name: str) -> None:
        """Raise OutputError if the library that the format needs is not installed."""
        if self.extra is not None and find_spec(self.extra[0]) is None:
            library, extra = self.extra
            raise OutputError(f"{name} needs the library {library}", f"Install it: {pip_install(extra)}")


RENDERERS: Registry[Format] = Registry("format")
_FORMAT_BY_SUFFIX: dict[str, str] = {}
IMAGE_SUFFIXES = (".png", ".svg", ".pdf")
"""Endings of charts that are drawn as images."""


def renderer(
    name: str, *suffixes: str, is_own: IsOwn, binary: bool = False, extra: tuple[str, str] | None = None
) -> Callable[[Renderer], Renderer]:
    """Register the decorated function as the format `name`, and as the format of files with these suffixes.

    Names in a report come from files and modules: they stay on their lines and do not control a terminal. `is_own` says
    whether an existing file is an output of the format: no other file is ever replaced.
    """

    def register(function: Renderer) -> Renderer:
        def render_printable(report: Report, canvas: Canvas) -> str | bytes:
            content = function(report.printable(), canvas)
            return content if isinstance(content, bytes) or canvas.color else without_controls(content)

        _FORMAT_BY_SUFFIX.update(dict.fromkeys(suffixes, name))
        RENDERERS.add(name, Format(render_printable, is_own, suffixes, binary, extra))
        return wraps(function)(render_printable)

    return register


def format_of(path: Path) -> str | None:
    """The format with the longest suffix that matches the file name; None if no suffix matches."""
    suffixes = [s for s in _FORMAT_BY_SUFFIX if path.name.lower().endswith(s)]
    return _FORMAT_BY_SUFFIX[max(suffixes, key=len)] if suffixes else None


def format_for(path: Path, requested: str | None = None) -> str:
    """The format in which to write `path`: the requested one, else that of the ending.

    Raises OutputError for an ending without a format, and for the ending of another format than the requested one. A
    device or a pipe takes any format.
    """
    if is_device(path):
        return requested or "rich"
    by_ending, ending = format_of(path), path.suffix.lower()
    all_endings = ", ".join(sorted(_FORMAT_BY_SUFFIX))
    if path.name.lower().endswith((".profile.json", ".profile.json.gz")):
        raise OutputError(
            f"{path.name} is the name of a saved profile", f"Write it with: cspprof profile SPEC --save {path}"
        )
    if path.name.lower().endswith(".measured.json"):
        raise OutputError(
            f"{path.name} is the name of a measurement", f"Write it with: cspprof measure SPEC --save {path}"
        )
    if ending in IMAGE_SUFFIXES:
        raise OutputError(
            f"{path.name} is the name of an image, and this command writes none",
            f"Charts: cspprof plot KIND SPEC… -o {path.name}. Endings of other files: {all_endings}",
        )
    if requested is not None:
        own = RENDERERS.get(requested).suffixes
        if (by_ending not in (None, requested) and not any(s.endswith(ending) for s in own)) or ending == ".py":
            raise OutputError(
                f"{path.name} does not have the ending of the format {requested}",
                f"Write: -o {path.with_suffix(own[0])}" if own else "Name another file.",
            )
        return requested
    if by_ending is None:
        name_format = "" if path.exists() or ending == ".py" else f"; or name the format: --format csv -o {path}"
        raise OutputError(
            f"no format has the ending of {path.name}", f"Use one of these endings: {all_endings}{name_format}"
        )
    return by_ending


def render(name: str, report: Report, canvas: Canvas | None = None) -> bytes:
    """`report` in the format `name`; text is UTF-8 and ends in a newline. Names in it stay on their lines."""
    content = RENDERERS.get(name).render(report, canvas or Canvas())
    return content if isinstance(content, bytes) else content.encode(errors="backslashreplace")
