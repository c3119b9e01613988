"""Processes that answer documents: their responses, their ends, and what they do not do to each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from cspprof.core.child_process import ChildProcess, ProcessEndedError

ANSWERS = """\
import json, os, sys, time
from cspprof.core.child_process import response_stream

out = response_stream()
for line in sys.stdin:
    what, value = json.loads(line)
    print("noise on standard output")
    if what == "sleep":
        time.sleep(value)
    if what == "leave":
        print("the last words", file=sys.stderr, flush=True)
        os._exit(value)
    print(json.dumps([what, value, os.environ.get("COLOR"), os.getcwd()]), file=out, flush=True)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that this process, and so its child processes, can import."""
    (tmp_path / "answers.py").write_text(ANSWERS)
    monkeypatch.syspath_prepend(tmp_path)
    return "answers"


def test_a_process_answers_one_document_after_another(module: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "json.py").write_text("raise SystemExit('imported from the current folder')")
    with ChildProcess(module, folder, COLOR="red") as process:
        long = "é" * 100_000  # longer than the buffer of a pipe
        assert process.response(["say", 1]) == ["say", 1, "red", str(folder)]
        assert process.response(["say", long])[1] == long
        assert process.is_running
    assert not process.is_running


def test_a_process_that_ends_says_how_and_one_that_is_late_can_be_killed(module: str) -> None:
    with ChildProcess(module) as process:
        with pytest.raises(ProcessEndedError, match=r"^its process ended with exit code 3: the last words$"):
            process.response(["leave", 3])
        with pytest.raises(ProcessEndedError, match="exit code 3"):  # also later
            process.response(["say", 1])
    with ChildProcess(module) as process:
        with pytest.raises(TimeoutError):
            process.response(["sleep", 60], seconds=0.5)
        process.kill()
        with pytest.raises(ProcessEndedError, match=r"^its process ended with signal SIGKILL$") as raised:
            process.response(["say", 1])
        assert raised.value.signal_name == "SIGKILL"
