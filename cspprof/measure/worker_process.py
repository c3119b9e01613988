"""A process of `worker`, seen from the command: requests go in, responses come out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from cspprof.measure.engines.network import EngineError
from cspprof.measure.worker import MEMORY_HINT, OUT_OF_MEMORY

KILLED = -9
"""The exit code after SIGKILL, which Linux sends if memory runs out. The name of the signal is not known on Windows."""


class Checkout(NamedTuple):
    """The code of a project in one version: the current folder of its processes, and their import path."""

    folder: Path
    path: list[str]


class WorkerProcess:
    """A new process. Ctrl-C does not reach it: the command stops it after it has kept what was measured."""

    def __init__(self, checkout: Checkout | None = None) -> None:
        """It imports the models of `checkout`, by default those of this process, and always the cspprof of this one."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cspprof.measure.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=checkout.folder if checkout else None,
            env=environment,
            start_new_session=True,
        )
        if checkout:
            self.request("import_from", path=checkout.path)

    def request(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The response to a request. Raises EngineError if it failed or ended the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise self._ended()
        response: dict[str, Any] = json.loads(line)
        if "failed" in response:
            raise EngineError(response["failed"], response["hint"])
        return response

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def _ended(self) -> EngineError:
        """The error for a process that ended in the middle of a request."""
        code = self._process.wait()
        if code == KILLED:
            return EngineError(f"{OUT_OF_MEMORY}: the system ended its process (SIGKILL)", MEMORY_HINT)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        reason = f": {lines[-1]}" if lines else ""
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return EngineError(f"its process ended with {how}{reason}")

    def close(self) -> None:
        """End the process now."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with suppress(OSError):  # flushing to a closed pipe
                    stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
