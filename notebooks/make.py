"""Runs the notebooks and writes them with their output: `python notebooks/make.py [NAME...]`.

A notebook is the text file `NAME.py` (cells in jupytext's percent form); `NAME.ipynb` beside it is the same, run, with
its output to be seen. With --check nothing is written: what runs now is compared with what is kept; pictures and tables
only under the versions that drew them, what is printed always.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
DRAWING = ("matplotlib", "numpy", "pandas", "pillow")
"""Whose versions decide how a picture or table looks."""
KEPT = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def names() -> list[str]:
    return sorted(p.stem for p in HERE.glob("*.py") if p.name != "make.py")


def run(name: str) -> nbformat.NotebookNode:
    """The notebook with what its cells give, run in an empty folder; nothing in it tells when or where that was."""
    notebook = jupytext.read(HERE / f"{name}.py")
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    drawn_with = {library: version(library) for library in DRAWING}
    notebook.metadata = nbformat.from_dict(KEPT | {"drawn_with": drawn_with})
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = list(tidied(cell.outputs))
    return notebook


def tidied(outputs: Sequence[Any]) -> Iterator[Any]:
    """What is printed in one piece, however it arrived, and what is shown without its text for those who see none."""
    printed = None
    for output in outputs:
        if output.output_type != "stream":
            printed = None
            if set(output.data) & {"image/png", "text/html"}:
                output.data.pop("text/plain", None)
        elif printed is not None and printed.name == output.name:
            printed.text += output.text
            continue
        else:
            printed = output
        yield output


def shown(notebook: nbformat.NotebookNode, displays: bool) -> Iterator[Any]:
    """What a reader sees of each cell: its text and what it prints, and pictures and tables if wanted."""
    for cell in notebook.cells:
        yield cell.source
        for output in cell.get("outputs", ()):
            yield output.get("text", ""), output.get("data", {}) if displays else None


def stale(name: str) -> bool:
    """Whether the notebook that is kept shows something else than the code gives."""
    kept = nbformat.read(HERE / f"{name}.ipynb", 4)
    now = run(name)
    same = kept.metadata.drawn_with == now.metadata.drawn_with
    return list(shown(kept, same)) != list(shown(now, same))


def main(arguments: Sequence[str]) -> int:
    """Write the notebooks, or with --check name those that are stale."""
    os.environ |= {"COLUMNS": "100", "NO_COLOR": "1"}
    check, chosen = "--check" in arguments, [a for a in arguments if a != "--check"] or names()
    old = False
    for name in chosen:
        if check and stale(name):
            print(f"notebooks/{name}.ipynb is stale: run python notebooks/make.py {name}", file=sys.stderr)
            old = True
        elif not check:
            nbformat.write(run(name), HERE / f"{name}.ipynb")
    return int(old)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
