"""The process of a command: `python -m cspprof`, and the console script. It lives for one answer."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from pathlib import Path

RARELY = 200_000
"""Objects made before the collector looks for garbage again. Importing torch makes some hundred thousand, all of which
stay; at Python's own 700 they are gone through hundreds of times, for a twelfth of the time."""


def run() -> None:
    """Run the command that the arguments name, and end the process."""
    gc.set_threshold(RARELY, 50, 100)
    opened = _open_files()
    from cspprof.cli import main

    try:
        main()
    except SystemExit as leaving:
        if isinstance(leaving.code, int) and _may_leave(opened):
            os._exit(leaving.code)
        raise


def _may_leave(opened: list[str] | None) -> bool:
    """Whether nobody would notice that the process ends at once. Python first frees every object one by one, which
    takes a sixth of the time of importing torch; but a model may have left a thread running or a file unclosed, and a
    debugger may be watching: then everything ends as it always does."""
    watched = sys.gettrace() or sys.getprofile() or sys.flags.inspect
    if watched or opened is None or threading.active_count() > 1:
        return False
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        return False
    return _open_files() == opened


def _open_files() -> list[str] | None:
    """Numbers of all open files; None where the system does not say."""
    try:
        return sorted(path.name for path in Path("/dev/fd").iterdir())
    except OSError:
        return None


if __name__ == "__main__":
    run()
