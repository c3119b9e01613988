"""Standard output and standard error, for what says little and imports less."""

from __future__ import annotations

import io
import os
import sys

from cspprof.core.errors import CspprofError


def speak_utf8() -> None:
    """Standard output in UTF-8 wherever it goes: × and − are in every table, and a pipe's bytes are always the same."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")


def fail(error: CspprofError) -> None:
    """What went wrong and what to type next, on standard error."""
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    label = "\x1b[31merror:\x1b[0m" if colour else "error:"
    print(f"{label} {error.message}", file=sys.stderr)
    if error.hint:
        for line in error.hint.splitlines():
            print(f"  {line}", file=sys.stderr)
