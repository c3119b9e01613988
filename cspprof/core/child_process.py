"""A process that runs a module of this package and can be killed: it answers each JSON document that it receives with
another one, one per line.

It ends when its input is closed, so also if the process that started it is killed. `response_stream` is for its side.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

from cspprof.core.import_path import import_path


class ProcessEndedError(Exception):
    """The process has ended and sends no response. The message has the signal or the exit code, and the last line that
    the process printed, unless another process killed it."""

    def __init__(self, code: int, last_line: str) -> None:
        self.signal_name = signal.Signals(-code).name if code < 0 else ""
        how = f"signal {self.signal_name}" if self.signal_name else f"exit code {code}"
        why = f": {last_line}" if last_line and self.signal_name != "SIGKILL" else ""
        super().__init__(f"its process ended with {how}{why}")


class ChildProcess:
    """A new process. Ctrl-C does not reach it: the process that started it decides when to end it."""

    def __init__(self, module: str, folder: Path | None = None, **environment: str) -> None:
        """Run `module` in `folder`, by default the current one. It imports what this process does: `-P` keeps the files
        of its folder from hiding modules."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._buffer = b""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, cwd=folder, start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(import_path()), **environment},
        )  # fmt: skip

    def response(self, document: Any, seconds: float | None = None) -> Any:
        """Send a document, and return the next one of the process.

        Raises ProcessEndedError, and TimeoutError after so many seconds.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        end = None if seconds is None else time.monotonic() + seconds
        try:
            self._process.stdin.write(json.dumps(document).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            if end is not None and not _is_readable(pipe, end - time.monotonic()):
                raise TimeoutError
            received = os.read(pipe, 1 << 16)
            if not received:
                raise self._ended()
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process now, also from another thread than that which waits for its response."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process now, and wait until it has ended."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with suppress(OSError):  # flushing to a closed pipe
                    stream.close()

    def _ended(self) -> ProcessEndedError:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return ProcessEndedError(code, lines[-1] if lines else "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _is_readable(pipe: int, seconds: float) -> bool:
    """Whether a pipe has data, or has ended, within so many seconds."""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        return bool(selector.select(max(0.0, seconds)))


def response_stream() -> IO[str]:
    """The stream for responses: what was standard output. From now on, prints of this process go to standard error."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out
