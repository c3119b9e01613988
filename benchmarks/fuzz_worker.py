"""The process in which `fuzz.py` reads inputs: one request per line, and the outcome of each as a line."""

from __future__ import annotations

import base64
import faulthandler
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from fuzz_formats import FORMATS, Format, argument_text

from cspprof.core.child_process import response_stream
from cspprof.core.errors import CspprofError

SECONDS = 5.0
"""The processor time that an input may take."""
MEMORY = 1 << 30
"""Bytes by which the process may grow."""
LONGEST_MESSAGE = 5_000
"""Characters of a message: a longer one repeats the input."""
NAMES_FILE = ("cfg", "onnx", "pt2", "profile", "measured", "baseline", "config", "audit")
"""Formats whose errors must name the file."""


def outcome(name: str, data: bytes, folder: Path) -> dict[str, Any]:
    """`value`, `refused` with the message, or `finding` with its kind and place."""
    kind = FORMATS[name]
    place = f"input{kind.ending}"
    try:
        kind.read(_argument(kind, data, folder / place))
    except CspprofError as error:
        fault = _fault(error, place if name in NAMES_FILE else "")
        if fault:
            return {"outcome": "finding", "kind": fault, "place": _place(error), "text": str(error)[:LONGEST_MESSAGE]}
        return {"outcome": "refused", "text": str(error)}
    except BaseException as error:
        text = "".join(traceback.format_exception(error))
        return {"outcome": "finding", "kind": type(error).__name__, "place": _place(error), "text": text[-4_000:]}
    return {"outcome": "value"}


def _argument(kind: Format, data: bytes, path: Path) -> Any:
    if not kind.ending:
        return argument_text(data)
    path.unlink(missing_ok=True)  # to write a new file takes microseconds, to replace a content milliseconds on ext4
    path.write_bytes(data)
    return path


def _fault(error: CspprofError, place: str) -> str:
    """The fault of an error message, as a phrase; empty if the message names the problem, its place and what to do."""
    if place not in error.message:
        return "message without the file"
    if not error.message.strip() or not error.hint:
        return "error without message or hint"
    if len(str(error)) > LONGEST_MESSAGE:
        return "message too long"
    return ""


def _place(error: BaseException) -> str:
    """The innermost line of cspprof in the traceback of an error: findings at the same place are one."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "cspprof" in Path(f.filename).parts]
    if not frames:
        return ""
    parts = Path(frames[-1].filename).parts
    inner = parts[len(parts) - 1 - parts[::-1].index("cspprof") :]
    return f"{'/'.join(inner)}:{frames[-1].lineno}"


def _limit_memory() -> None:
    """Let an allocation fail that would make the process grow by more than `MEMORY`."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)


def main() -> None:
    """Read inputs until standard input is closed. A timer ends the process if one takes too long, also in C code."""
    out = response_stream()
    faulthandler.enable(sys.stderr)
    name, seeds = json.loads(sys.stdin.readline())
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # relative SPECs find no files
        for seed in seeds:  # imports what a reader needs
            outcome(name, base64.b64decode(seed), Path(folder))
        _limit_memory()
        print(json.dumps("ready"), file=out, flush=True)
        for line in sys.stdin:
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            started = time.process_time()
            result = outcome(name, base64.b64decode(json.loads(line)), Path(folder))
            signal.setitimer(signal.ITIMER_PROF, 0)
            result["seconds"] = time.process_time() - started
            print(json.dumps(result), file=out, flush=True)


if __name__ == "__main__":
    main()
