"""New Python processes that have already imported torch, which takes a new interpreter several seconds.

Each is a fork of one server process, which `multiprocessing` starts on first use and ends with the tests. A fork has
its own environment, folder and streams. The seeds of hashes and random numbers are those of the server, so a test of
these, of imports, or of the start of a process needs a new interpreter instead.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["torch", "cspprof.cli", "cspprof.trace", "cspprof.gate.checking"])


def run_module(
    name: str, *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """`python -m NAME ARGUMENTS…` in such a process."""
    with started_module(name, *arguments, cwd=cwd, env=env, stdin=stdin) as started:
        code = started.wait()
        return subprocess.CompletedProcess([name, *arguments], code, started.out, started.err)


class Started:
    """A process that runs, and what it has printed so far."""

    def __init__(self, process: Any, stdout: Path, stderr: Path) -> None:
        self.process = process
        self._stdout, self._stderr = stdout, stderr

    @property
    def out(self) -> str:
        return self._stdout.read_text() if self._stdout.exists() else ""

    @property
    def err(self) -> str:
        return self._stderr.read_text() if self._stderr.exists() else ""

    def interrupt(self) -> None:
        """Send it what Ctrl-C sends."""
        os.kill(self.process.pid, signal.SIGINT)

    def wait(self) -> int:
        """Its exit code, when it has ended."""
        self.process.join()
        code = self.process.exitcode
        assert code is not None
        return int(code)


@contextmanager
def started_module(
    name: str, *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, stdin: str = ""
) -> Iterator[Started]:
    """The same while it runs. It is killed if it still runs at the end of the context."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / stream for stream in ("stdin", "stdout", "stderr")]
        files[0].write_text(stdin)
        target = (name, arguments, str(cwd or Path.cwd()), dict(env or os.environ), list(map(str, files)))
        process = PROCESSES.Process(target=_run_module, args=target)
        process.start()
        try:
            yield Started(process, *files[1:])
        finally:
            process.kill()
            process.join()


def _run_module(name: str, arguments: Sequence[str], cwd: str, env: Mapping[str, str], files: Sequence[str]) -> None:
    for number, file in enumerate(files):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT if number else os.O_RDONLY)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode, closefd=False) for n, mode in enumerate("rww"))
    sys.stderr.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # as in every process
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path[:0] = [cwd, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = ["-m", *arguments]
    code = 1
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        if not isinstance(exit_.code, int | None):
            sys.stderr.write(f"{exit_.code}\n")
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if not stream.closed:
                stream.flush()
        os._exit(code)
