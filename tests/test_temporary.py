"""Temporary folders: private, and removed at the end of the block, of the process, or by the next process."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cspprof.core.files import replacing
from cspprof.core.temporary import YOUNG, temporary_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no locks on folders")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of /tmp."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def age(path: Path) -> None:
    long_ago = path.lstat().st_mtime - 2 * YOUNG
    os.utime(path, (long_ago, long_ago), follow_symlinks=False)


def test_a_temporary_folder_is_private_and_exists_until_its_block_ends(folder: Path) -> None:
    with temporary_folder("x") as made:
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
        (made / "deep").mkdir()
        (made / "deep" / "file").touch()
        assert list(folder.iterdir()) == [made]
    assert list(folder.iterdir()) == []


HOLDS = "import time\nfrom cspprof.core.temporary import process_folder\nprint(process_folder('x'), flush=True)\n"


def test_the_folder_of_a_killed_process_is_removed_by_the_next_one_and_that_of_a_living_process_stays(
    folder: Path,
) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", HOLDS + "time.sleep(60)"], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    killed, living = (Path((p.stdout or sys.stdin).readline().strip()) for p in processes)
    young, link, other = folder / "cspprof-run-young", folder / "cspprof-run-link", folder / "cspprof-study-x"
    young.mkdir()
    other.mkdir()
    link.symlink_to(other)
    try:
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        for path in (killed, living, other, link):
            age(path)
        with temporary_folder("y"):
            assert not killed.exists()
            assert {p.name for p in (living, young, link, other)} <= {p.name for p in folder.iterdir()}
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_the_folder_of_a_process_goes_when_the_process_ends(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", HOLDS], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(str(folder))
    assert list(folder.iterdir()) == []


def test_a_file_is_private_until_it_is_complete(folder: Path) -> None:
    path = folder / "x.json"
    with replacing(path) as file:
        file.write(b"{}")
        (partial,) = folder.iterdir()
        assert stat.S_IMODE(partial.stat().st_mode) == 0o600
    assert (list(folder.iterdir()), path.read_bytes()) == ([path], b"{}")
