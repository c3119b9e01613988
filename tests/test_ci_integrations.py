"""The GitHub Action, the GitLab job and the pre-commit hook that users paste, each run as its host runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import CHECKOUT, ONE_CONV, git

import cspprof
from cspprof.gate.config import LIMITS

ACTION = CHECKOUT / "action.yml"
GITLAB = CHECKOUT / "templates" / "gitlab-ci.yml"
HOOKS = CHECKOUT / ".pre-commit-hooks.yaml"

CONFIG = """\
[models.net]
target = "net.py:Net"

[[rules]]
id = "no-more-cio"
metric = "cio"
max_increase = "0%"
"""


def environment(**more: str) -> dict[str, str]:
    """The environment of a CI job: the programs of this environment first, no variables of the host or terminal."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GITHUB_", "PYTEST_", "FORCE_COLOR"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    return kept | {"PATH": path, "NO_COLOR": "1", "COLUMNS": "120"} | more


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository `project` with a recorded network on `main`, and a wider one on the branch `wider`."""
    folder = tmp_path_factory.mktemp("repository") / "project"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "main")
    (folder / "cspprof.toml").write_text(CONFIG)
    (folder / "net.py").write_text(ONE_CONV.format(imports="", width=4))
    record = [sys.executable, "-m", "cspprof", "check", "--update-baseline"]
    subprocess.run(record, cwd=folder, env=environment(), capture_output=True, check=True)
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "recorded")
    git(folder, "checkout", "--quiet", "-b", "wider")
    (folder / "net.py").write_text(ONE_CONV.format(imports="", width=6))
    git(folder, "commit", "--quiet", "-am", "wider")
    return folder


@pytest.fixture
def project(repository: Path, tmp_path: Path) -> Path:
    """A copy of that repository, for one test."""
    return Path(shutil.copytree(repository, tmp_path / "project"))


# -- GitHub ---------------------------------------------------------------------------------------


@dataclass
class Job:
    """The result of a composite action: exit code, printed text, outputs, and the summary of the job."""

    code: int
    out: str
    outputs: dict[str, str]
    summary: str


def run_action(folder: Path, action_path: Path = CHECKOUT, env: dict[str, str] | None = None, **options: str) -> Job:
    """Run the steps of the action as GitHub does: replace expressions, run `bash -eo pipefail`, stop at a failure."""
    action = yaml.safe_load(ACTION.read_text())
    unknown = options.keys() - {name.replace("-", "_") for name in action["inputs"]}
    assert not unknown
    inputs = {name: options.get(name.replace("-", "_"), spec["default"]) for name, spec in action["inputs"].items()}
    files = {name: folder.parent / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    for file in files.values():
        file.write_text("")
    job_env = (env or environment()) | {n: str(f) for n, f in files.items()} | {"GITHUB_ACTION_PATH": str(action_path)}

    def value(text: str) -> str:
        return re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda m: inputs[m[1]], text)

    code, out = 0, ""
    for step in action["runs"]["steps"]:
        assert "${{" not in step["run"]  # otherwise an input could inject code into the script
        script = folder.parent / "step.sh"
        script.write_text(step["run"])
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=folder / value(step.get("working-directory", ".")),
            env=job_env | {name: value(text) for name, text in step.get("env", {}).items()},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        code, out = done.returncode, out + done.stdout + done.stderr
        if code:
            break
    outputs = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
    return Job(code, out, outputs, files["GITHUB_STEP_SUMMARY"].read_text())


@pytest.mark.slow
def test_the_action_fails_and_annotates_the_class(project: Path) -> None:
    failed = run_action(project, requirement="installed")
    assert (failed.code, failed.outputs) == (1, {"exit-code": "1"})
    assert failed.out.startswith(
        "::error file=net.py,line=4,title=cspprof%3A no-more-cio::"
        "cio_cspnet of net is 576; the limit is 448, exceeded by 128"
    )
    assert failed.summary.startswith("## cspprof\n\n| rule | model |")
    assert "**Why no-more-cio fails on net: CIO (CSPNet)**" in failed.summary
    git(project, "checkout", "--quiet", "main")
    passed = run_action(project, requirement="installed", format="github sarif=out.sarif", config="cspprof.toml")
    assert (passed.code, passed.outputs, passed.out) == (0, {"exit-code": "0"}, "1 hold\nwrote out.sarif\n")
    assert json.loads((project / "out.sarif").read_text())["runs"][0]["results"] == []


@pytest.mark.slow
def test_the_action_returns_exit_code_2_and_does_not_run_its_inputs(project: Path) -> None:
    job = run_action(project, requirement="installed", models="ne? nothing*")
    assert (job.code, job.outputs) == (2, {"exit-code": "2"})
    assert "error: cspprof.toml has no model named 'nothing*'" in job.out
    hostile = "x'; touch owned; $(touch owned) `touch owned`"
    assert run_action(project, requirement="installed", config=hostile, models=hostile, against=hostile).code
    assert not list(project.rglob("owned"))


@pytest.mark.slow
def test_the_action_fetches_the_revision_in_a_shallow_checkout(project: Path) -> None:
    shallow = project.parent / "shallow"
    clone = ["clone", "--quiet", "--depth=1", "--single-branch", "--branch", "wider", project.as_uri(), str(shallow)]
    git(project, *clone)
    (shallow / "cspprof-baseline.json").unlink()
    job = run_action(shallow, requirement="installed", against="origin/main")
    assert job.code == 1
    assert "(at most 0%25 above origin/main's 448" in job.out
    assert run_action(shallow, requirement="installed", against="main").code == 1
    job = run_action(shallow, requirement="installed", against="HEAD~7")
    assert (job.code, job.outputs["exit-code"]) == (2, "2")
    assert "there is no revision 'HEAD~7' in this repository" in job.out


@pytest.mark.slow
def test_the_action_installs_its_own_revision(project: Path) -> None:
    home = project.parent / "python"
    venv.create(home, with_pip=True)
    libraries = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    # The dependencies come from this environment: installing a second torch takes minutes.
    (libraries / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    env = environment(PATH=os.pathsep.join([str(home / "bin"), os.environ["PATH"]]))
    env.pop("PYTHONPATH", None)
    job = run_action(project, env=env)
    if "No matching distribution found for hatchling" in job.out:
        pytest.skip("pip cannot download the build dependencies")
    assert (job.code, job.outputs) == (1, {"exit-code": "1"}), job.out
    assert (libraries / "cspprof" / "pytest_plugin.py").is_file()


# -- GitLab ---------------------------------------------------------------------------------------


def job_of_gitlab() -> dict[str, Any]:
    job: dict[str, Any] = yaml.safe_load(GITLAB.read_text())["cspprof"]
    return job


@pytest.mark.slow
def test_the_gitlab_job_writes_its_reports(project: Path) -> None:
    job = job_of_gitlab()
    *install, check = job["script"]
    assert install == ['pip install "git+https://github.com/OWNER/cspprof@REVISION"', "pip install -e ."]
    done = subprocess.run(["bash", "-ec", check], cwd=project, env=environment(), capture_output=True, check=False)
    assert done.returncode == 1, done.stderr
    reports = job["artifacts"]["reports"]
    issue = json.loads((project / reports["codequality"]).read_text())[0]
    assert issue["location"] == {"path": "net.py", "lines": {"begin": 4}}
    assert 'failures="1"' in (project / reports["junit"]).read_text()


def test_the_guide_shows_the_gitlab_job() -> None:
    bare = re.sub(r"^#.*\n", "", GITLAB.read_text(), flags=re.M)
    assert f"```yaml\n{bare}```" in (CHECKOUT / "docs" / "guide" / "ci.md").read_text()


# -- pre-commit -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_pre_commit_hook_fails_for_a_failing_rule(project: Path) -> None:
    hooks = project.parent / "hooks"
    hooks.mkdir()
    (hooks / HOOKS.name).write_text(HOOKS.read_text())
    git(hooks, "init", "--quiet")
    git(hooks, "add", ".")
    git(hooks, "commit", "--quiet", "-m", "hooks")
    revision = git(hooks, "rev-parse", "HEAD").strip()
    used = {"repos": [{"repo": str(hooks), "rev": revision, "hooks": [{"id": "cspprof-check"}]}]}
    (project / ".pre-commit-config.yaml").write_text(yaml.safe_dump(used))
    git(project, "add", ".")

    def run(*which: str) -> subprocess.CompletedProcess[str]:
        env = environment(PRE_COMMIT_HOME=str(project.parent / "pre-commit"))
        call = [sys.executable, "-m", "pre_commit", "run", *which]
        return subprocess.run(call, cwd=project, env=env, capture_output=True, text=True, check=False)

    failed = run("--all-files")
    assert failed.returncode == 1, failed.stderr
    assert "cspprof check...." in failed.stdout
    assert "net.py:4: error: no-more-cio: cio_cspnet of net is 576; the limit is 448, exceeded by 128" in failed.stdout
    (project / "net.py").write_text(ONE_CONV.format(imports="", width=4))
    assert run("--files", "net.py").returncode == 0
    assert "no files to check" in run("--files", ".gitignore").stdout  # this file cannot change a model


# -- this repository ------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_rules_of_this_repository_hold() -> None:
    """`cspprof.toml` has a rule of every kind."""
    verdict = cspprof.check(CHECKOUT / "cspprof.toml")
    assert verdict.exit_code == 0, [f.message for f in verdict.failures]
    assert {rule.kind for rule in verdict.config.rules} == set(LIMITS)
    assert not verdict.failures
    assert not verdict.notes  # no structure changed


# -- schemas of the hosts -------------------------------------------------------------------------


@pytest.mark.parametrize(("schema", "file"), [("vendor.github-actions", ACTION), ("vendor.gitlab-ci", GITLAB)])
def test_file_fits_the_schema_of_its_host(schema: str, file: Path) -> None:
    call = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(file)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_pre_commit_manifest_is_valid() -> None:
    call = [sys.executable, "-m", "pre_commit", "validate-manifest", str(HOOKS)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
