"""`check --against`: the code of another revision is measured in a process and a tree of its own, which are removed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ONE_CONV, Result, git
from preloaded import run_module

from cspprof.core.errors import CspprofError
from cspprof.gate import revision as gate_revision
from cspprof.gate.config import load
from cspprof.gate.revision import commit, file_at, measured_revision, toplevel, worktree

pytestmark = pytest.mark.slow

Run = Callable[..., Result]

RULE = '[[rules]]\nid = "r"\nmax_increase = "0%"\n'


def cio(width: int) -> int:
    return 64 * (3 + width)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two revisions of a package in a folder `src` beside its configuration, deep in a repository; then an edit."""
    folder = tmp_path / "packages" / "one"
    (folder / "src" / "mine").mkdir(parents=True)
    git(tmp_path, "init", "--quiet")
    (folder / "cspprof.toml").write_text('[models.net]\ntarget = "src/mine/net.py:Net"\n\n' + RULE)
    for width in (4, 6):
        (folder / "src/mine/width.py").write_text(f"WIDTH = {width}\n")
        (folder / "src/mine/net.py").write_text(ONE_CONV.format(imports="from .width import WIDTH\n", width="WIDTH"))
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "--quiet", "-m", f"width {width}")
    (folder / "src/mine/width.py").write_text("WIDTH = 9\n")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return tmp_path


@pytest.fixture
def _preloaded_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the worker in a process that has imported torch already. Slow tests start it as users do."""

    def run_worker(request: dict[str, Any]) -> dict[str, Any]:
        done = run_module("cspprof.gate.revision_worker", stdin=json.dumps(request))
        assert done.returncode == 0, done.stderr
        response: dict[str, Any] = json.loads(done.stdout)
        return response

    monkeypatch.setattr(gate_revision, "_run_worker", run_worker)


def left_behind(repository: Path) -> list[str]:
    """The working trees of the repository besides the main one."""
    listed = git(repository, "worktree", "list", "--porcelain")
    return [line for line in listed.splitlines() if line.startswith("worktree ")][1:]


@pytest.mark.slow
@pytest.mark.usefixtures("_preloaded_worker")
def test_a_ratchet_does_not_apply_to_a_revision(run: Run, repository: Path) -> None:
    """A pull request that makes the model cheaper passes: there is nothing to record."""
    config = repository / "packages/one/cspprof.toml"
    config.write_text(config.read_text() + "ratchet = true\n")
    (repository / "packages/one/src/mine/width.py").write_text("WIDTH = 2\n")
    assert run("check", "--against", "HEAD").code == 0


@pytest.mark.slow
@pytest.mark.usefixtures("_preloaded_worker")
def test_a_model_with_another_input_than_in_the_revision_is_not_compared(
    run: Run, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    net = repository / "packages/one/src/mine/net.py"
    net.write_text(net.read_text().replace("(1, 3, 8, 8)", "(1, 3, 9, 9)"))
    got = run("check", "--against", "HEAD")
    assert got.code == 2
    assert "HEAD has net with input 1x3x8x8:float32, but it is 1x3x9x9:float32 now" in got.out
    assert "Compare with a later revision, or with the baseline." in got.out
    assert "--update-baseline" not in got.out


@pytest.mark.slow
@pytest.mark.usefixtures("_preloaded_worker")
@pytest.mark.parametrize(("revision", "width"), [("HEAD", 6), ("HEAD~1", 4)])
def test_the_code_of_the_revision_is_measured(run: Run, repository: Path, revision: str, width: int) -> None:
    before = git(repository, "status", "--porcelain")
    got = run("check", "--against", revision, "--format", "json")
    assert got.code == 1
    finding = json.loads(got.out)["findings"][0]
    assert (finding["value"], finding["base"], finding["base_name"]) == (cio(9), cio(width), revision)
    assert finding["causes"][0]["form_before"] == f"conv2d 1x3x8x8 -> 1x{width}x8x8, kernel 1x1"
    assert left_behind(repository) == []
    assert git(repository, "status", "--porcelain") == before


@pytest.mark.usefixtures("_preloaded_worker")
def test_a_model_that_the_revision_lacks_does_not_affect_others(run: Run, repository: Path) -> None:
    (Path.cwd() / "new.py").write_text(ONE_CONV.format(imports="", width=2))
    Path("cspprof.toml").write_text(Path("cspprof.toml").read_text() + '\n[models.new]\ntarget = "new.py:Net"\n')
    got = run("check", "--against", "HEAD", "--format", "json")
    assert got.code == 1
    net, new = json.loads(got.out)["findings"]
    assert (net["model"], net["status"]) == ("net", "fails")
    assert (new["model"], new["status"]) == ("new", "unknown")
    assert new["message"] == "HEAD cannot be measured: there is no file new.py"


@pytest.mark.usefixtures("_preloaded_worker")
def test_output_of_a_model_does_not_mix_with_the_response(run: Run, repository: Path) -> None:
    net = Path("src/mine/net.py")
    net.write_text('print("{hello}")\n' + net.read_text())
    git(repository, "commit", "--quiet", "-am", "prints")
    assert run("check", "--against", "HEAD", "--format", "concise").out.endswith("\n1 hold\n")


@pytest.mark.slow
def test_a_model_that_ends_the_worker_is_an_error(run: Run, repository: Path) -> None:
    net = Path("src/mine/net.py")
    ours = net.read_text()
    net.write_text("import os\nos._exit(3)\n")
    git(repository, "commit", "--quiet", "-am", "exits")
    net.write_text(ours)
    got = run("check", "--against", "HEAD")
    assert got.code == 2
    assert "measuring the other revision failed: its process ended with exit code 3" in got.err
    assert "Check it out and run cspprof check there." in got.err
    assert left_behind(repository) == []


@pytest.mark.slow
def test_a_package_installed_by_path_is_imported_from_the_revision(repository: Path) -> None:
    """As in an editable install, for which a `.pth` file adds the folder to the import path."""
    Path("cspprof.toml").write_text('[models.net]\ntarget = "mine.net:Net"\n\n' + RULE)
    paths = os.pathsep.join([str(Path("src").resolve()), os.environ.get("PYTHONPATH", "")])
    done = _shell("check", "--against", "HEAD~1", "--format", "json", PYTHONPATH=paths)
    finding = json.loads(done.stdout)["findings"][0]
    assert (finding["value"], finding["base"]) == (cio(9), cio(4))


@pytest.mark.slow
def test_code_imported_from_the_working_copy_is_refused(repository: Path) -> None:
    """As in an editable install with an import finder, which always imports the working copy."""
    Path("cspprof.toml").write_text('[models.net]\ntarget = "mine.net:Net"\n\n' + RULE)
    site = repository.parent / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        f"""
import importlib.machinery, importlib.util, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "mine":
            place = {str(Path("src/mine").resolve())!r}
            spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [place]
            return spec
sys.meta_path.insert(0, Finder)
"""
    )
    done = _shell("check", "--against", "HEAD", "--format", "json",
                  PYTHONPATH=os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))  # fmt: skip
    assert done.returncode == 2
    finding = json.loads(done.stdout)["findings"][0]
    assert "was imported from the working copy, not from that revision" in finding["message"]
    assert "pip install -e ." in finding["hint"]


def _shell(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cspprof", *arguments], env=os.environ | environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_check_removes_the_working_tree(repository: Path, tmp_path: Path, number: int, code: int) -> None:
    net = Path("src/mine/net.py")
    flag = tmp_path / "flag"
    net.write_text(f"import pathlib, time\npathlib.Path({str(flag)!r}).touch()\ntime.sleep(120)\n" + net.read_text())
    git(repository, "commit", "--quiet", "-am", "sleeps")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "cspprof", "check", "--against", "HEAD"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(temporary)}, start_new_session=True, text=True,
    )  # fmt: skip
    until = time.monotonic() + 120
    while not flag.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    assert len(left_behind(repository)) == 1
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err
    assert left_behind(repository) == []
    assert list(temporary.iterdir()) == []


def test_git_queries_and_their_errors(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    here = Path.cwd()
    assert toplevel(here) == repository
    assert commit(here, "HEAD") == git(repository, "rev-parse", "HEAD").strip()
    assert file_at(here / "src/mine/width.py", "HEAD~1") == b"WIDTH = 4\n"
    assert file_at(here / "cspprof.json", "HEAD") is None
    for revision in ("v1", "--help", "HEAD~7", ""):
        with pytest.raises(CspprofError, match="there is no revision"):
            commit(here, revision)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with pytest.raises(CspprofError, match="is not in a git repository"):
        toplevel(elsewhere)


def test_the_working_tree_is_removed_after_an_error(repository: Path) -> None:
    seen: list[Path] = []

    def interrupted() -> None:
        with worktree(Path.cwd(), "HEAD~1") as folder:
            seen.append(folder)
            assert (folder / "src/mine/width.py").read_text() == "WIDTH = 4\n"
            assert folder.name == "one"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert not seen[0].exists()
    assert left_behind(repository) == []


@pytest.mark.usefixtures("_preloaded_worker")
def test_measure_revision_in_python(repository: Path) -> None:
    with measured_revision(load(Path("cspprof.toml")), "HEAD~1") as reference:
        assert reference.models["net"].total("cio_cspnet") == cio(4)
        assert reference.checkout is not None
        assert (reference.checkout.folder / "src/mine/width.py").read_text() == "WIDTH = 4\n"
    assert left_behind(repository) == []
