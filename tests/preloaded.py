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
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["torch", "cspprof.cli", "cspprof.trace", "cspprof.gate.checking"])


def run_module(
    name: str, *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """`python -m NAME ARGUMENTS…` in such a process."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / stream for stream in ("stdin", "stdout", "stderr")]
        files[0].write_text(stdin)
        target = (name, arguments, str(cwd or Path.cwd()), dict(env or os.environ), list(map(str, files)))
        process = PROCESSES.Process(target=_run_module, args=target)
        process.start()
        process.join()
        code = process.exitcode
        assert code is not None
        return subprocess.CompletedProcess([name, *arguments], code, files[1].read_text(), files[2].read_text())


def _run_module(name: str, arguments: Sequence[str], cwd: str, env: Mapping[str, str], files: Sequence[str]) -> None:
    for number, file in enumerate(files):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT if number else os.O_RDONLY)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode, closefd=False) for n, mode in enumerate("rww"))
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
