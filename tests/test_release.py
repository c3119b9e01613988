"""The parts of a release: citation, licenses, issue forms, workflows, the matrix of versions, equal builds."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import CHECKOUT, git

import cspprof

PROJECT: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
FORMS = sorted((CHECKOUT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
WORKFLOWS = sorted((CHECKOUT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("citation-file-format", [CHECKOUT / "CITATION.cff"]),
        ("github-issue-forms", FORMS),
        ("github-issue-config", [CHECKOUT / ".github" / "ISSUE_TEMPLATE" / "config.yml"]),
        ("github-workflows", WORKFLOWS),
    ],
)
def test_files_fit_the_schema_of_their_host(schema: str, files: list[Path]) -> None:
    assert files
    call = [sys.executable, "-m", "check_jsonschema", "--default-filetype", "yaml"]
    done = subprocess.run(
        [*call, "--builtin-schema", f"vendor.{schema}", *map(str, files)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_citation_is_that_of_this_version_and_names_the_papers() -> None:
    citation = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (cspprof.__version__, PROJECT["license"])
    assert [paper["title"].partition(":")[0] for paper in citation["references"]] == ["CSPNet", "HarDNet"]


def test_the_notice_names_every_dependency_and_every_bundled_file_that_is_no_code() -> None:
    notice = (CHECKOUT / "NOTICE.md").read_text(encoding="utf-8")
    missing = [name for d in PROJECT["dependencies"] if (name := re.split(r"[<>=]", d)[0]) not in notice]
    assert missing == []
    listed = re.findall(r"`(cspprof/[\w./]+)`", notice)
    styles = {"cspprof/render/chart.mplstyle", "cspprof/py.typed", "cspprof/data/zoo_names.txt"}
    files = git(CHECKOUT, "ls-files", "cspprof").splitlines()
    others = [f for f in files if not f.endswith(".py") and f not in styles and not f.startswith(tuple(listed))]
    assert others == []


def test_forms_about_faults_ask_for_the_output_of_doctor() -> None:
    for form in FORMS:
        fields = yaml.safe_load(form.read_text())["body"]
        labels = [field["attributes"].get("label", "") for field in fields]
        assert (form.name == "idea.yml") != ("The output of `cspprof doctor`" in labels)


def test_publishing_needs_no_token_and_publishes_what_was_built_once() -> None:
    text = (CHECKOUT / ".github" / "workflows" / "release.yml").read_text()
    jobs = yaml.safe_load(text)["jobs"]
    assert "secrets." not in text
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["needs"] == ["build", "attest"]
    assert text.count("python -m build") == 1
    uses = [step.get("uses", "") for step in jobs["publish"]["steps"]]
    assert [use.partition("@")[0] for use in uses] == ["actions/download-artifact", "pypa/gh-action-pypi-publish"]


def test_ci_and_nox_run_every_supported_python_and_every_extra() -> None:
    supported = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    matrix = yaml.safe_load((CHECKOUT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["checks"]["strategy"]
    assert matrix["matrix"]["python"] == supported
    text = (CHECKOUT / "noxfile.py").read_text(encoding="utf-8")
    assert f"PYTHONS = {json.dumps(supported)}\n" in text
    extras = set(PROJECT["optional-dependencies"]) - {"all", "bench", "docs", "test"}
    assert {*re.findall(r'^    "([a-z]+)": "', text, re.M), "dask"} == extras


def test_nox_lists_its_sessions() -> None:
    pytest.importorskip("nox", reason="nox is not installed: pip install nox")
    call = [sys.executable, "-m", "nox", "--list", "--noxfile", str(CHECKOUT / "noxfile.py")]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    for session in ("tests-3.11", "lowest", "newest", "wheel", "extras(extra='openvino')"):
        assert session in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(find_spec("hatchling") is None, reason="hatchling is not installed: pip install hatchling")
def test_two_builds_of_one_commit_have_the_same_bytes(tmp_path: Path) -> None:
    """Also in another folder, at another time and with other permissions of files."""
    files = git(CHECKOUT, "ls-files", "-z").split("\0")[:-1]
    built = []
    for i, umask in enumerate((0o022, 0o077)):
        tree = tmp_path / f"tree{i}"
        for name in files:
            target = tree / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(CHECKOUT / name, target)
            target.chmod(0o666 & ~umask | (CHECKOUT / name).stat().st_mode & 0o100)
            os.utime(target, (i * 10**8, i * 10**8))
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build"], cwd=tree, env=environment, capture_output=True, check=True
        )
        built.append({path.name: path.read_bytes() for path in sorted((tree / "dist").iterdir())})
    assert len(built[0]) == 2
    assert built[0] == built[1]
    wheel, sdist = (next((tmp_path / "tree0" / "dist").glob(f"*.{kind}")) for kind in ("whl", "tar.gz"))
    in_wheel = {name.partition("/")[0].partition("-")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert in_wheel == {"cspprof"}
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "LICENSE",
        "NOTICE.md",
        "CITATION.cff",
        "noxfile.py",
        "tests/conftest.py",
        ".github/workflows/ci.yml",
    } <= in_sdist
