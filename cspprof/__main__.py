"""The process of a command: `python -m cspprof`, and the console script."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from pathlib import Path

from cspprof.core.import_path import import_path

GC_THRESHOLD = 200_000
"""New objects between two garbage collections. Importing torch makes some hundred thousand objects, and all of them
stay. With Python's default of 700 the collector scans them hundreds of times: a twelfth of the import time."""


def run() -> None:
    """Run the command in `sys.argv` and end the process with its exit code."""
    gc.set_threshold(GC_THRESHOLD, 50, 100)
    files_before = _open_files()
    sys.path[:] = import_path()
    from cspprof.cli import main

    try:
        main()
    except SystemExit as exit_:
        if isinstance(exit_.code, int) and _can_exit_at_once(files_before):
            # Python's normal exit frees every object of torch one by one: a sixth of the time of `import torch`.
            os._exit(exit_.code)
        raise


def _can_exit_at_once(files_before: list[str] | None) -> bool:
    """Run the exit handlers, flush the streams, and return whether nothing else is left to do.

    A model may have left a thread running or a file open, and a debugger or a profiler may wait for the normal exit.
    """
    observed = sys.gettrace() or sys.getprofile() or sys.flags.inspect
    if observed or files_before is None or threading.active_count() > 1:
        return False
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        return False
    return _open_files() == files_before


def _open_files() -> list[str] | None:
    """The numbers of all open files, or None if the system does not list them."""
    try:
        return sorted(path.name for path in Path("/dev/fd").iterdir())
    except OSError:
        return None


if __name__ == "__main__":
    run()
