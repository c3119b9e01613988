"""Where an answer goes: a terminal, a pipe or a file; and the progress bar of long work."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from cspprof.core.errors import OutputError
from cspprof.core.files import check_writable, write_atomically
from cspprof.render import RENDERERS, Canvas, asked_by, render
from cspprof.report.tables import Report

NOTED = ("rich", "markdown", "latex")
"""Formats that say the notes themselves; with any other they go to standard error."""
T = TypeVar("T")


class Outlet:
    """The chosen format and place, checked before any work is done."""

    def __init__(self, format_name: str | None, path: Path | None) -> None:
        self.path = path
        self.format = format_name or (asked_by(path) if path else None) or "rich"
        chosen = RENDERERS.get(self.format)
        chosen.check(self.format)
        if path is not None:
            check_writable(path)
        elif chosen.binary and sys.stdout is not None and sys.stdout.isatty():
            raise OutputError(f"{self.format} is no text for a terminal", "Write to a file: -o FILE")

    def emit(self, report: Report) -> None:
        """Write the answer; notes that the format has no place for go to standard error."""
        if self.path is None and self.format not in NOTED:
            for note in report.notes:
                print(f"note: {note}", file=sys.stderr)
        write(render(self.format, report, terminal_canvas() if self.path is None else None), self.path)


def write(data: bytes, path: Path | None) -> None:
    """To a file, whole or not at all, or to standard output. Raises OutputError."""
    if path is not None:
        write_atomically(path, data)
        return
    if sys.stdout is None:
        raise OutputError("standard output is closed", "Write to a file: -o FILE")
    try:
        write_out(data)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer goes nowhere
        if not isinstance(error, BrokenPipeError):  # else the reader has gone: `cspprof … | head`
            raise OutputError(
                f"cannot write to standard output: {error.strerror}", "Write to a file: -o FILE"
            ) from None


def write_out(data: bytes) -> None:
    """To standard output: as bytes where that takes any."""
    if hasattr(sys.stdout, "buffer"):
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
    else:
        sys.stdout.write(data.decode())
    sys.stdout.flush()


def terminal_canvas() -> Canvas:
    """Colour and width of standard output; a pipe gets neither, unless FORCE_COLOR or COLUMNS ask for them."""
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() and int(columns) > 0 else None
    if sys.stdout is None or not sys.stdout.isatty():
        return Canvas(width, bool(os.environ.get("FORCE_COLOR")))
    colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Canvas(width or os.get_terminal_size(sys.stdout.fileno()).columns, colour)


def tracked(items: Sequence[T]) -> Iterable[T]:
    """The items, with a progress bar on standard error where that is a terminal and there is something to wait for."""
    if len(items) < 2 or not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, "Tracing", console=Console(stderr=True), transient=True)
