"""Where the result of a command goes: a terminal, a pipe or a file. And the progress bar of long commands."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from cspprof.core.errors import CspprofError, OutputError
from cspprof.core.files import check_replaceable, check_writable, is_device, write_atomically
from cspprof.core.printable import log_lines
from cspprof.render import RENDERERS, Canvas, format_for, render
from cspprof.report.tables import Report

FORMATS_WITH_NOTES = ("rich", "markdown", "latex")
"""Formats that contain the notes of a report. For the other formats the notes go to standard error."""
T = TypeVar("T")


class ReportWriter:
    """A format and a destination, checked before the models are traced."""

    def __init__(self, format_name: str | None, path: Path | None) -> None:
        """`format_name` defaults to the format of the file name; without a file, to `rich`. Raises OutputError if the
        format cannot be written to that file, or if the file exists and is no output of that format."""
        self.path = path
        if format_name is not None:
            RENDERERS.get(format_name)
        if path is not None:
            check_writable(path)
            format_name = format_for(path, format_name)
        self.format = format_name or "rich"
        chosen = RENDERERS.get(self.format)
        chosen.check(self.format)
        if path is not None:
            check_replaceable(path, chosen.is_own, "a report" if self.format == "html" else "an output")
        elif chosen.binary and sys.stdout is not None and sys.stdout.isatty():
            raise OutputError(f"a terminal cannot show the format {self.format}", "Write to a file: -o FILE")

    def write(self, report: Report) -> bool:
        """Render the report and write it; see `write_bytes`. Raises OutputError."""
        if self.path is None and self.format not in FORMATS_WITH_NOTES:
            print_notes(report.notes)
        return write_bytes(render(self.format, report, terminal_canvas() if self.path is None else None), self.path)


def write_bytes(data: bytes, path: Path | None) -> bool:
    """Write a whole file or nothing, and name the file on standard error; without a path, write to standard output.

    Return False if the reader of standard output has closed the pipe. Raises OutputError.
    """
    if path is not None:
        written = writing(path)
        write_atomically(path, data)
        print_written(written)
        return True
    if sys.stdout is None:
        raise OutputError("standard output is closed", "Write to a file: -o FILE")
    try:
        if hasattr(sys.stdout, "buffer"):
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
        else:
            sys.stdout.write(data.decode())
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # discard the buffer, or exiting fails again
        if not isinstance(error, BrokenPipeError):  # a reader that closed the pipe (`cspprof … | head`) is no error
            raise OutputError(
                f"cannot write to standard output: {error.strerror}", "Write to a file: -o FILE"
            ) from None
        return False
    return True


def check_save(path: Path, suffix: str, what: str, is_own: Callable[[bytes], bool]) -> None:
    """Raise CspprofError if `what`, as in `a measurement`, cannot be saved at `path`. The name must end in `suffix`."""
    if not path.name.endswith(suffix):
        stem = path.name.removesuffix(".json") or "x"
        raise CspprofError(
            f"the name of {what} ends in {suffix}, unlike {path.name}",
            f"Write: --save {shlex.quote(str(path.with_name(stem + suffix)))}",
        )
    check_writable(path)
    check_replaceable(path, is_own, what, "--save FILE")


def writing(*paths: Path) -> str:
    """`wrote x.png and x.csv`, or `replaced …` if the first file exists; empty if it is a device. Called before the
    files are written."""
    if is_device(paths[0]):
        return ""
    return f"{'replaced' if paths[0].exists() else 'wrote'} {' and '.join(map(str, paths))}"


def print_notes(notes: Iterable[str]) -> None:
    """Print notes on standard error, for a format that does not contain them."""
    for note in notes:
        print(log_lines(f"note: {note}"), file=sys.stderr)


def print_written(message: str) -> None:
    """Print the message of `writing` on standard error, so that standard output stays a result."""
    if message:
        print(log_lines(message), file=sys.stderr)


def terminal_canvas() -> Canvas:
    """Color and width of standard output. A pipe gets neither, unless FORCE_COLOR or COLUMNS is set. NO_COLOR is
    stronger than FORCE_COLOR."""
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() and int(columns) > 0 else None
    if sys.stdout is None or not sys.stdout.isatty():
        return Canvas(width, bool(os.environ.get("FORCE_COLOR")) and not os.environ.get("NO_COLOR"))
    color = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Canvas(width or os.get_terminal_size(sys.stdout.fileno()).columns, color)


def with_progress_bar(items: Sequence[T]) -> Iterable[T]:
    """The items. If there are several and standard error is a terminal, it shows a progress bar."""
    if len(items) < 2 or not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, "Tracing", console=Console(stderr=True), transient=True)
