"""The notebooks run, and the committed files contain their current output."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
from conftest import CHECKOUT

import cspprof

NOTEBOOKS = CHECKOUT / "notebooks"
NAMES = sorted(p.stem for p in NOTEBOOKS.glob("*.ipynb"))


def committed(name: str) -> Any:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_notebook_is_current(name: str) -> None:
    command = [sys.executable, NOTEBOOKS / "make.py", "--check", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_each_notebook_has_a_text_file() -> None:
    assert NAMES == ["cost_analysis", "profile_and_gate", "your_network"]
    assert sorted(p.stem for p in NOTEBOOKS.glob("*.py") if p.name != "make.py") == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_notebook_cells_equal_the_text_file(name: str) -> None:
    text = jupytext.read(NOTEBOOKS / f"{name}.py")
    assert [(c.cell_type, c.source) for c in committed(name).cells] == [(c.cell_type, c.source) for c in text.cells]


@pytest.mark.parametrize("name", NAMES)
def test_notebook_contains_charts_and_no_machine_data(name: str) -> None:
    notebook = committed(name)
    outputs = [o for c in notebook.cells for o in c.get("outputs", ())]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 4
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert all(not c.metadata for c in notebook.cells)
    assert set(notebook.metadata) == {"kernelspec", "drawn_with"}
    assert (NOTEBOOKS / f"{name}.ipynb").stat().st_size < 1_000_000


@pytest.mark.parametrize("name", NAMES)
def test_notebook_uses_only_the_public_api(name: str) -> None:
    tree = ast.parse(Path(NOTEBOOKS / f"{name}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not [a.name for a in node.names if a.name.startswith("cspprof.")]
        elif isinstance(node, ast.ImportFrom):
            assert not (node.module or "").startswith("cspprof.")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "cspprof":
            assert node.attr in cspprof.__all__
