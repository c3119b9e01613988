"""Processes that begin with their imports done: forks of one that imported torch, say, and has done nothing else.

A new interpreter takes seconds for torch alone. Such a fork has an environment, a folder, a standard input and outputs
of its own. Seeds of hashes and of random numbers it shares with the others; what depends on those, what a process
imports, and how it starts, has to be tried in a new one.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, NoReturn


class Warm:
    """Where forks come from: `imports` is what they have behind them."""

    def __init__(self, imports: str) -> None:
        root = str(Path(__file__).resolve().parent.parent)
        self._process = subprocess.Popen(
            [sys.executable, __file__, imports], cwd=root, env=os.environ | {"PYTHONPATH": root},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def code(self, code: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """As `python -c code`."""
        return self._run({"code": code}, **more)

    def module(self, name: str, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """As `python -m name arguments`."""
        return self._run({"module": name, "arguments": arguments}, **more)

    def _run(
        self, asked: dict[str, Any], cwd: Path | None = None, env: dict[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / name for name in ("in", "out", "err")]
            files[0].write_text(stdin)
            asked |= {"cwd": str(cwd or Path.cwd()), "env": dict(env or os.environ), "files": list(map(str, files))}
            print(json.dumps(asked), file=self._process.stdin, flush=True)
            code = int(self._process.stdout.readline())
            return subprocess.CompletedProcess(asked, code, files[1].read_text(), files[2].read_text())

    def close(self) -> None:
        """After the last fork."""
        self._process.communicate()


def _serve(imports: str) -> None:
    exec(imports, {})
    gc.freeze()  # else each fork's collector goes through, and copies, what all of them share
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _become(json.loads(line))
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


def _become(asked: dict[str, Any]) -> NoReturn:
    status = 1
    try:
        for number, name in enumerate(asked["files"]):  # behind the streams that Python has; nothing waits in those
            opened = os.open(name, os.O_WRONLY | os.O_CREAT if number else os.O_RDONLY)
            os.dup2(opened, number)
            os.close(opened)
        os.environ.clear()
        os.environ.update(asked["env"])
        os.chdir(asked["cwd"])
        more = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p not in sys.path]
        sys.path[:1] = ["" if "code" in asked else asked["cwd"], *more]
        if "code" in asked:
            sys.argv = ["-c"]
            exec(compile(asked["code"], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = ["-m", *asked["arguments"]]
            runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        if not isinstance(leaving.code, int | None):
            sys.stderr.write(f"{leaving.code}\n")
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve(sys.argv[1])
