"""The house keeps its shape: who may import whom, how long a module is, and what the repository does not say."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import CHECKOUT

import cspprof

PACKAGE = CHECKOUT / "cspprof"
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"torch", "timm", "torchvision", "fvcore", "matplotlib", "pandas", "numpy"}
TORCH_ROOMS = ("cspprof.trace", "cspprof.zoo.", "cspprof.sources.")
LOWEST = {"cspprof.errors", "cspprof.registry", "cspprof.units", "cspprof._version"}
FACTS = {"cspprof.record", "cspprof.formulas", "cspprof.inputs", "cspprof.files"}
SHOWN = ("cspprof.render", "cspprof.cli")


def name_of(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, everywhere: bool) -> Iterator[str]:
    """Names imported by a module: at import time, or also inside functions. Imports for types only are left out."""
    tree = ast.parse(path.read_text())
    nodes: list[ast.AST] = list(ast.walk(tree)) if everywhere else list(_top(tree.body))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _top(body: list[ast.stmt]) -> Iterator[ast.AST]:
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        for inner in ("body", "orelse"):
            if isinstance(node, (ast.If, ast.Try, ast.With)):
                yield from _top(getattr(node, inner, []))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_tracing_rooms_load_torch_and_nobody_loads_heavy_libraries_on_import(path: Path) -> None:
    name = name_of(path)
    roots = {i.split(".")[0] for i in imports(path, everywhere=False)}
    allowed = {"torch"} if name.startswith(TORCH_ROOMS) else set()
    assert not (roots & HEAVY) - allowed


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    name = name_of(path)
    ours = {i for i in imports(path, everywhere=False) if i.startswith("cspprof")}
    if name in LOWEST:
        assert ours <= LOWEST
    elif name in FACTS:
        assert ours <= LOWEST | FACTS
    if not name.startswith("cspprof.cli"):
        assert not {i for i in ours if i.startswith("cspprof.cli")} or name == "cspprof.__main__"
    if not name.startswith(SHOWN):
        assert not {i for i in ours if i.startswith("cspprof.render")}
    if name.startswith("cspprof.render"):
        assert not {i for i in ours if i.startswith(("cspprof.trace", "cspprof.sources", "cspprof.zoo"))}
    if name.startswith("cspprof.metrics"):
        assert ours <= LOWEST | FACTS | {"cspprof.metrics"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_stays_readable(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_no_module_hides_behind_an_exported_name() -> None:
    modules = {p.stem for p in PACKAGE.glob("*.py")} | {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert not modules & (set(cspprof.__all__) - {"errors"})


def test_public_names_are_all_there() -> None:
    for name in cspprof.__all__:
        assert getattr(cspprof, name) is not None
    assert dir(cspprof) == cspprof.__all__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = cspprof.nothing


def test_no_path_of_a_machine_is_in_the_repository() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    files = [CHECKOUT / f for f in listed.stdout.splitlines()] or MODULES
    homes = (str(Path.home()) + "/", str(CHECKOUT.parent) + "/")
    for file in files:
        if file.is_file() and file.suffix in (".py", ".md", ".toml", ".json", ".html", ".ipynb", ".csv"):
            text = file.read_text()
            assert not any(home in text for home in homes if len(home) > 2), file
