"""Documentation: generated pages are current, and the code in it runs."""

from __future__ import annotations

import doctest
import importlib
import re
import subprocess
import sys

import pytest
from conftest import CHECKOUT

import cspprof
from cspprof.metrics import METRICS
from cspprof.ops import RULES


@pytest.mark.slow
def test_generated_parts_are_current() -> None:
    done = subprocess.run([sys.executable, CHECKOUT / "docs" / "generate.py", "--check"], check=False)
    assert done.returncode == 0, "run: python docs/generate.py"


def test_command_reference_is_current() -> None:
    done = subprocess.run([sys.executable, CHECKOUT / "docs" / "commands.py", "--check"], check=False)
    assert done.returncode == 0, "run: python docs/commands.py"


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md", "README.md", "CHANGELOG.md"])
def test_files_named_in_documentation_exist(page: str) -> None:
    named = set(re.findall(r"`((?:[\w.-]+/)*[\w-]+(?:/|\.py|\.md|\.toml))`", (CHECKOUT / page).read_text()))
    users = {"report.html", "x.csv", "cspprof.toml", "pyproject.toml", "make.py"}
    missing = [name for name in named - users if not any((r / name).exists() for r in (CHECKOUT, CHECKOUT / "cspprof"))]
    assert missing == []


def test_every_metric_is_documented() -> None:
    page = (CHECKOUT / "docs" / "semantics.md").read_text()
    for name in METRICS.names():
        assert f"### `{name}`" in page


def test_python_in_the_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision", reason="the README profiles a torchvision model")
    blocks = re.findall(r"```python\n(.*?)```", (CHECKOUT / "README.md").read_text(), re.S)
    assert len(blocks) == 3
    scope: dict[str, object] = {}
    try:
        for block in blocks:
            exec(compile(block, "README.md", "exec"), scope)
        assert cspprof.profile("torchvision:resnet50").total("relu_elements") == 9_608_704
    finally:
        METRICS.remove("relu_elements")
        RULES.remove("mylib.fused_conv")


def with_examples() -> list[str]:
    """The modules with an example in a docstring."""
    files = [path for path in (CHECKOUT / "cspprof").rglob("*.py") if re.search(r"^ *>>> ", path.read_text(), re.M)]
    return sorted(".".join(path.relative_to(CHECKOUT).with_suffix("").parts) for path in files)


@pytest.mark.slow
@pytest.mark.parametrize("name", with_examples())
def test_docstring_examples(name: str) -> None:
    module = importlib.import_module(name.removesuffix(".__init__"))
    metrics, rules = set(METRICS.names()), set(RULES.names())
    try:
        result = doctest.testmod(module, optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    finally:
        for registry, known in ((METRICS, metrics), (RULES, rules)):
            for added in set(registry.names()) - known:
                registry.remove(added)
    assert result.attempted > 0
    assert result.failed == 0
