"""The process of a command ends at once where nobody can tell, and as any other where somebody could."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHECKOUT

NET = """
{more}
import os, sys
from torch import nn

class Freed:
    def __del__(self, write=os.write):
        write(1, b"freed")

sys.freed = Freed()  # which the interpreter empties last; a module may outlive it in a cycle

def net():
    return nn.Conv2d(3, 1, 1)
"""


def run(folder: Path, *command: str, more: str = "") -> subprocess.CompletedProcess[str]:
    """A command on a model whose file does `more`, and tells when its objects are freed."""
    (folder / "net.py").write_text(NET.format(more=more))
    return subprocess.run(
        [sys.executable, *command, "--no-cache", "flops", "net.py:net", "--format", "csv"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="where the system does not list open files, nobody could tell")
def test_what_nobody_waits_for_is_not_freed(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "cspprof")
    assert len(done.stdout.splitlines()) == 2  # the answer, whole
    assert "freed" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    ["file = open('left.txt', 'w')\nfile.write('written')",
     "import atexit, pathlib\natexit.register(pathlib.Path('left.txt').write_text, 'written')",
     "import pathlib, threading, time\ndef late():\n    time.sleep(2)\n"
     "    pathlib.Path('left.txt').write_text('written')\nthreading.Thread(target=late).start()"],
)  # fmt: skip
def test_what_a_model_left_to_do_is_done(more: str, tmp_path: Path) -> None:
    """A file that it did not close, a function for the end, a thread that goes on."""
    run(tmp_path, "-m", "cspprof", more=more)
    assert (tmp_path / "left.txt").read_text() == "written"


@pytest.mark.slow
def test_a_profiler_gets_to_its_end(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "cProfile", "-o", "times", "-m", "cspprof")
    assert "freed" in done.stdout
    assert (tmp_path / "times").stat().st_size > 0
