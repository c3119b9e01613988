"""The process of a command exits at once, unless something is left to do."""

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

sys.freed = Freed()  # the interpreter clears `sys` last; a module can survive in a reference cycle

def net():
    return nn.Conv2d(3, 1, 1)
"""


def run(folder: Path, *command: str, more: str = "") -> subprocess.CompletedProcess[str]:
    """Profile a model whose file runs `more`, and prints `freed` when Python frees its objects at exit."""
    (folder / "net.py").write_text(NET.format(more=more))
    return subprocess.run(
        [sys.executable, *command, "--no-cache", "flops", "net.py:net", "--format", "csv"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="the system does not list open files")
def test_command_exits_without_freeing_objects(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "cspprof")
    assert len(done.stdout.splitlines()) == 2  # the complete output
    assert "freed" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    ["file = open('left.txt', 'w')\nfile.write('written')",
     "import atexit, pathlib\natexit.register(pathlib.Path('left.txt').write_text, 'written')",
     "import pathlib, threading, time\ndef late():\n    time.sleep(2)\n"
     "    pathlib.Path('left.txt').write_text('written')\nthreading.Thread(target=late).start()"],
)  # fmt: skip
def test_work_left_by_a_model_is_completed(more: str, tmp_path: Path) -> None:
    """An open file, an exit handler, a running thread."""
    run(tmp_path, "-m", "cspprof", more=more)
    assert (tmp_path / "left.txt").read_text() == "written"


@pytest.mark.slow
def test_profiler_gets_a_normal_exit(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "cProfile", "-o", "times", "-m", "cspprof")
    assert "freed" in done.stdout
    assert (tmp_path / "times").stat().st_size > 0


@pytest.mark.slow
def test_a_model_that_ends_the_process_leaves_no_report_of_a_check(tmp_path: Path) -> None:
    """The command of docs/security.md fails, although the check has exit code 0."""
    (tmp_path / "net.py").write_text(
        "import os\nfrom torch import nn\n"
        "class Net(nn.Linear):\n"
        "    def __init__(self): super().__init__(4, 4)\n"
        "    def forward(self, x): return super().forward(x) if os.environ.get('HONEST') else os._exit(0)\n"
    )
    (tmp_path / "cspprof.toml").write_text(
        '[models.net]\ntarget = "net.py:Net"\ninput = "1x4"\n[[rules]]\nid = "work"\nmetric = "macs"\nmax = 16\n'
    )
    check = "python -m cspprof check --format junit=cspprof.xml".replace("python", sys.executable)
    document = (CHECKOUT / "docs" / "security.md").read_text()
    line = next(line.strip() for line in document.splitlines() if line.strip().startswith("rm -f cspprof.xml"))
    for honest, code in (("1", 0), ("", 1)):
        done = subprocess.run(
            line.replace("cspprof check --format junit=cspprof.xml", check), shell=True, cwd=tmp_path, check=False,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT), "HONEST": honest}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
