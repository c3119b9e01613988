"""Where an answer goes: a terminal, a pipe or a file; and the progress bar of long work."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cspprof.errors import CspprofError
from cspprof.files import check_writable, write_atomically
from cspprof.render import RENDERERS, SUFFIXES, Canvas, render
from cspprof.tables import Report


class Outlet:
    """The chosen format and place, checked before any work is done."""

    def __init__(self, format_name: str | None, path: Path | None) -> None:
        if format_name is not None:
            RENDERERS.get(format_name)
        if path is not None:
            check_writable(path)
        self.path = path
        self.format = format_name or (SUFFIXES.get(path.suffix) if path else None) or "rich"

    def emit(self, report: Report) -> None:
        """Write the answer; for every form but JSON the notes are in it already."""
        if self.path is not None:
            write_atomically(self.path, render(self.format, report).encode())
            return
        if self.format in ("json", "csv"):
            for note in report.notes:
                print(f"note: {note}", file=sys.stderr)
        try:
            sys.stdout.write(render(self.format, report, terminal_canvas()))
            sys.stdout.flush()
        except BrokenPipeError:  # the reader has gone: `cspprof … | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def terminal_canvas() -> Canvas:
    """Colour and width of standard output; a pipe gets neither, unless FORCE_COLOR or COLUMNS ask for them."""
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() and int(columns) > 0 else None
    if not sys.stdout.isatty():
        return Canvas(width, bool(os.environ.get("FORCE_COLOR")))
    colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Canvas(width or os.get_terminal_size(sys.stdout.fileno()).columns, colour)


def tracked(items: Sequence[str]) -> Iterator[str] | Iterable[str]:
    """The items, with a progress bar on standard error where that is a terminal and there is something to wait for."""
    if len(items) < 2 or not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, "Tracing", console=Console(stderr=True), transient=True)


def fail(error: CspprofError) -> None:
    """What went wrong and what to type next, on standard error."""
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    label = "\x1b[31merror:\x1b[0m" if colour else "error:"
    print(f"{label} {error.message}", file=sys.stderr)
    if error.hint:
        for line in error.hint.splitlines():
            print(f"  {line}", file=sys.stderr)
