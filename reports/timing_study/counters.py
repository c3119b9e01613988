"""Hardware counters of a running process, by `perf stat`, where the machine has them."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

EVENTS = ("LLC-load-misses", "LLC-store-misses")
"""Lines of the last cache that were not present: reads from memory."""
LINE_BYTES = 64
ATTACH_SECONDS = 0.3
"""The time that `perf` needs to attach to a process."""


def why_unavailable(events: Sequence[str] = EVENTS) -> str:
    """Why this machine cannot count the events; empty if it can."""
    if shutil.which("perf") is None:
        return "`perf` is not installed on the machine that measured"
    names = ",".join(events)
    done = subprocess.run(["perf", "stat", "-x,", "-e", names, "true"], capture_output=True, text=True, check=False)
    if "<not supported>" in done.stderr:
        return (
            f"`perf stat -e {names}` reports *not supported* on the machine that measured; a virtual machine often has "
            "no performance counters"
        )
    if done.returncode or "<not counted>" in done.stderr:
        reason = next(iter(done.stderr.strip().splitlines()), "no reason")
        return f"`perf stat -e {names}` fails on the machine that measured: {reason}"
    return ""


def counted(pid: int, run: Callable[[], object], events: Sequence[str] = EVENTS) -> int:
    """The sum of the events in all threads of a process while `run` works. Raises RuntimeError if `perf` fails."""
    perf = subprocess.Popen(
        ["perf", "stat", "-x,", "-e", ",".join(events), "-p", str(pid)], stderr=subprocess.PIPE, text=True
    )
    time.sleep(ATTACH_SECONDS)
    try:
        run()
    finally:
        perf.send_signal(signal.SIGINT)
        _, text = perf.communicate()
    lines = [line.split(",") for line in text.splitlines() if line.count(",") > 2]
    values = ["0" if line[0] == "<not counted>" else line[0] for line in lines]  # the process did not run
    if len(values) != len(events) or not all(value.isdigit() for value in values):
        raise RuntimeError(f"perf: {text.strip()}")
    return sum(map(int, values))
