"""The import path of a command and of the processes that it starts."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def import_path() -> list[str]:
    """`sys.path` with the current folder last. `python -m` and `python -c` put it first, where a file in it such as
    `pydantic.py` hides a library. In a checkout of cspprof it stays: the folder contains the program itself."""
    try:
        here = str(Path.cwd())
    except OSError:  # it was removed
        return list(sys.path)
    others = [entry for entry in sys.path if entry not in ("", os.curdir, here)]
    if len(others) == len(sys.path) or here == str(Path(__file__).parents[2]):
        return list(sys.path)
    return [*others, here]
