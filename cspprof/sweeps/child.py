"""The process in which candidates are traced, and its handle: a candidate that hangs, takes too much memory or ends the
process harms no other one.

It runs in a `ChildProcess`: it reads candidates from standard input and writes their rows.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import os
import sys
import threading
import time
import weakref
from typing import Any, NamedTuple

from cspprof.core.child_process import ChildProcess, ProcessEndedError, response_stream
from cspprof.core.errors import CspprofError
from cspprof.sweeps.candidate import Row, failed_row, trace_candidate
from cspprof.sweeps.space import Candidate

if sys.platform == "linux":
    import resource


class Limits(NamedTuple):
    """The limits of one candidate."""

    seconds: float = 300
    memory: int | None = None
    """Bytes of the process, with the libraries that it has imported; None for no limit. Kept only on Linux."""


START_SECONDS = 300
"""The longest time in which a new process must be ready: it imports torch, on a slow disk from scratch."""
GC_THRESHOLD = 100_000
"""New objects between two garbage collections: about those of two candidates. Python's default of 700 collects hundreds
of times while a model is built and traced."""
BACKSTOP = 1.5
"""The process ends itself after so many times its time limit: its parent, which watches the time, may be gone."""


class ChildDiedError(Exception):
    """The process has ended, or was ended because its time was over; the message says which."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


class Child:
    """A process that traces one candidate after another. It starts when it is first used, and again after an end."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._process: ChildProcess | None = None
        self.stopped = False
        """Whether `stop` has ended it for good."""

    def run(self, candidate: Candidate, versions: str) -> Row:
        """The row of the candidate. If the process ends, the candidate is tried once more, alone in a new process: the
        memory of the machine may have been short because of others."""
        started = time.perf_counter()
        died: ChildDiedError | None = None
        for _ in range(2):
            try:
                return self._row(candidate, versions)
            except ChildDiedError as error:
                died = error
                if died.status == "timeout" or self.stopped:
                    break
        assert died is not None
        return failed_row(candidate, versions, died.status, str(died), time.perf_counter() - started)

    def _row(self, candidate: Candidate, versions: str) -> Row:
        """The row of the candidate. Raises ChildDiedError."""
        if self._process is None or not self._process.is_running:  # it can end while it waits
            self.close()
            self._process = ChildProcess("cspprof.sweeps.child", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
            self._response(self.limits, START_SECONDS)
        return row_from_json(self._response([candidate, versions], self.limits.seconds))

    def _response(self, document: Any, seconds: float) -> Any:
        """The response of the process, which is ended if there is none. Raises ChildDiedError."""
        assert self._process is not None
        try:
            return self._process.response(document, seconds)
        except TimeoutError:
            self.close()
            raise ChildDiedError("timeout", f"it took longer than {seconds:g} s (--timeout)") from None
        except ProcessEndedError as error:
            self.close()
            why = ": the system may have run out of memory" if error.signal_name == "SIGKILL" else ""
            raise ChildDiedError("crashed", f"{error}{why}") from None

    def stop(self) -> None:
        """End the process for good, from another thread than that which waits for its answer."""
        self.stopped = True
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.close()
            self._process = None


def row_from_json(fields: list[Any]) -> Row:
    """A row as `main` writes it."""
    row = Row(*fields)
    return row._replace(key=bytes.fromhex(fields[0]), at_least=tuple(row.at_least))


def candidate_from_json(fields: list[Any]) -> Candidate:
    """A candidate as JSON holds it, in which tuples are lists."""
    candidate = Candidate(*fields)
    return candidate._replace(
        size=tuple(candidate.size) if candidate.size else None,  # type: ignore[arg-type]
        inputs=tuple(candidate.inputs),
        conversion=tuple((name, value) for name, value in candidate.conversion),
        axes=tuple((name, value) for name, value in candidate.axes),
    )


def main() -> None:
    """Trace the candidates of standard input, until it is closed. The limits come first; the response says that torch
    is imported."""
    out = response_stream()
    limits = Limits(*json.loads(sys.stdin.readline()))
    import torch

    torch.set_num_threads(1)
    gc.freeze()  # what torch made stays: a collection need not look at it again
    gc.set_threshold(GC_THRESHOLD)
    _limit_memory(limits.memory)
    print(json.dumps("ready"), file=out, flush=True)
    parent = os.getppid()
    for line in sys.stdin:
        candidate, versions = json.loads(line)
        faulthandler.dump_traceback_later(limits.seconds * BACKSTOP, exit=True)
        row = trace_candidate(candidate_from_json(candidate), versions)
        faulthandler.cancel_dump_traceback_later()
        if os.getppid() != parent:
            return
        print(json.dumps([row.key.hex(), *row[1:]]), file=out, flush=True)


def _limit_memory(memory: int | None) -> None:
    """Let an allocation fail that would take the process above the limit, where the system can do that."""
    if memory is not None and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


_of_thread = threading.local()
_all: weakref.WeakSet[Child] = weakref.WeakSet()


def run_candidates(candidates: list[Candidate], versions: str, limits: Limits) -> list[Row]:
    """The rows of the candidates, traced one after another in the process that belongs to the calling thread.

    Executors call it: in the threads of this process, or in those of a Dask worker.
    """
    child = getattr(_of_thread, "child", None)
    if child is None or child.stopped or child.limits != limits:
        if child is not None:
            child.close()
        child = _of_thread.child = Child(limits)
        _all.add(child)
    return [child.run(candidate, versions) for candidate in candidates]


def stop_children() -> None:
    """End the processes of all threads. A thread that waits for one returns soon, with a row that says so."""
    for child in list(_all):
        child.stop()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, CspprofError):
        main()
