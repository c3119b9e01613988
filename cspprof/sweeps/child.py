"""The process in which candidates are traced, and its handle: a candidate that hangs, takes too much memory or ends the
process harms no other one.

The process reads one JSON document per line from standard input, and writes one per line to what was its standard
output; the prints of a model go to standard error. It ends when its input is closed, so also if its parent is killed.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from typing import IO, Any, NamedTuple

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
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._buffer = b""
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
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        line = json.dumps([candidate, versions]).encode() + b"\n"
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except OSError:  # it has ended since the last candidate, for example after an idle time
            self.close()
            self._start()
            self._process.stdin.write(line)
            self._process.stdin.flush()
        return row_from_json(self._answer(self.limits.seconds))

    def _start(self) -> None:
        """Start the process and wait until it has imported torch. Raises ChildDiedError."""
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 # `close` closes it
        # The process imports what this one does: -P keeps the files of the current folder from hiding its modules.
        path = os.pathsep.join(sys.path)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": path}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cspprof.sweeps.child", json.dumps(self.limits)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, env=environment,
        )  # fmt: skip
        self._buffer = b""
        self._answer(START_SECONDS)

    def _answer(self, seconds: float) -> Any:
        """The next document from the process. Raises ChildDiedError."""
        assert self._process is not None
        assert self._process.stdout is not None
        end = time.monotonic() + seconds
        pipe = self._process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, end - time.monotonic())):
                    self.close()
                    raise ChildDiedError("timeout", f"it took longer than {seconds:g} s (--timeout)")
                received = os.read(pipe, 1 << 16)
                if not received:
                    raise self._death()
                self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def _death(self) -> ChildDiedError:
        """The reason why the process ended."""
        assert self._process is not None
        assert self._stderr is not None
        code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        self.close()
        if code < 0:
            name = signal.Signals(-code).name
            why = ": the system may have run out of memory" if name == "SIGKILL" else ""
            return ChildDiedError("crashed", f"its process was ended by {name}{why}")
        last = f": {lines[-1]}" if lines else ""
        return ChildDiedError("crashed", f"its process ended with code {code}{last}")

    def stop(self) -> None:
        """End the process for good, from another thread than that which waits for its answer."""
        self.stopped = True
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr] # both pipes were requested
            self._process = None
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None


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
    """Trace the candidates of standard input, until it is closed."""
    limits = Limits(*json.loads(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent decides
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import torch

    torch.set_num_threads(1)
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
