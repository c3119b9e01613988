"""The guide: its commands and its Python code run as printed, and the site builds."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from conftest import CHECKOUT, Result, quick
from preloaded import run_module

from cspprof.metrics import METRICS
from cspprof.ops import RULES

DOCS = CHECKOUT / "docs"
GUIDE = sorted((DOCS / "guide").glob("*.md"))
REQUIRED = {"pyarrow": ".parquet", "matplotlib": " plot "}
"""Optional libraries, and the text of the commands that need them."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.S)


def commands(page: Path) -> list[str]:
    return [line[2:] for block in blocks(page, "console") for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.parametrize("page", quick(GUIDE, 1), ids=lambda page: page.stem)
def test_commands_run_as_printed(
    page: Path, run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for code in blocks(page, "python"):
        if named := re.match(r"# (\w+\.py)\n", code):
            (tmp_path / named[1]).write_text(code)
    for command in commands(page):
        for library, part in REQUIRED.items():
            if part in command:
                pytest.importorskip(library, reason=f"{command} needs {library}")
        if ".onnx" in command or command.startswith("cspprof watch"):
            continue  # test_documented_commands runs the one beside such a file, test_watch the other
        program, *arguments = shlex.split(command)
        assert program in ("cspprof", "pytest")
        done = run(*arguments) if program == "cspprof" else run_pytest(*arguments)
        assert done.code == 0, f"{command}\n{done.err}"
        if "-o" in arguments:
            assert (tmp_path / arguments[arguments.index("-o") + 1]).stat().st_size, command


def run_pytest(*arguments: str) -> Result:
    """In a new process with the plugin, even if its entry point is not installed."""
    installed = any(point.name == "cspprof" for point in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "cspprof.pytest_plugin"]
    done = run_module("pytest", "-q", *plugin, *arguments)
    return Result(done.returncode, done.stdout, done.stderr or done.stdout)


@pytest.mark.parametrize(
    ("page", "arguments"),
    [(CHECKOUT / "README.md", ["check", "--why"]), (DOCS / "guide" / "ci.md", ["check", "--format=concise"])],
    ids=["README", "ci"],
)
def test_gate_output_is_as_printed(
    page: Path, arguments: list[str], run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    net = next(code for code in blocks(DOCS / "guide" / "ci.md", "python") if code.startswith("# net.py"))
    (tmp_path / "net.py").write_text(net.removeprefix("# net.py\n"))
    if page.name == "README.md":
        configured = next(code for code in blocks(page, "toml") if "[models." in code)
        (tmp_path / "cspprof.toml").write_text(configured)
    else:
        assert run("init").code == 0
    assert run("check", "--update-baseline").code == 0
    wider = net.removeprefix("# net.py\n").replace("nn.Conv2d(32, 64", "nn.Conv2d(32, 96").replace("(64, 10", "(96, 10")
    (tmp_path / "net.py").write_text(wider)
    failed = run(*arguments)
    assert failed.code == 1
    assert f"{failed.out}```" in page.read_text()


def test_the_guide_contains_commands() -> None:
    assert sum(len(commands(page)) for page in GUIDE) > 20


def test_python_in_the_guide() -> None:
    scope: dict[str, object] = {}
    try:
        for code in blocks(DOCS / "guide" / "extend.md", "python"):
            exec(compile(code, "extend.md", "exec"), scope)
    finally:
        METRICS.remove("conv_kernels")
        RULES.remove("mylib.shift_conv")


PROGRAMS = [page for page in GUIDE if page.stem != "extend" and "```python\nimport cspprof\n" in page.read_text()]
"""The pages with Python code that runs alone; the other Python blocks are files."""
LIBRARIES = {"torchvision": "import torchvision", "pyarrow": ".parquet"}


@pytest.mark.slow
@pytest.mark.parametrize("page", PROGRAMS, ids=lambda page: page.stem)
def test_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for code in blocks(page, "python"):
        for library, part in LIBRARIES.items():
            if part in code:
                pytest.importorskip(library, reason=f"{page.name} needs {library}")
        if code.startswith("import cspprof\n"):
            exec(compile(code, page.name, "exec"), {})


def test_many_pages_have_python_that_runs_alone() -> None:
    assert {page.stem for page in PROGRAMS} >= {"advise", "audit", "convert", "deploy", "sweep", "training"}


def test_site_builds_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "guide" / "reports" / "index.html").is_file()
    assert not list(tmp_path.rglob("*.py"))
