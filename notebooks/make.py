"""Run the notebooks and write them with their output: `python notebooks/make.py [NAME...]`.

The source of a notebook is the text file `NAME.py` (cells in jupytext's percent format). `NAME.ipynb` contains the
same cells with their output. With --check nothing is written: the printed output is compared with the committed
notebook, and charts and tables too if the libraries have the versions that drew them.
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
DRAWING_LIBRARIES = ("matplotlib", "numpy", "pandas", "pillow")
"""Their versions decide how a chart or table looks."""
METADATA = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


def names() -> list[str]:
    return sorted(p.stem for p in HERE.glob("*.py") if p.name != "make.py")


def run(name: str) -> nbformat.NotebookNode:
    """The notebook with the output of its cells, run in an empty folder. It contains no times and no paths."""
    notebook = jupytext.read(HERE / f"{name}.py")
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    drawn_with = {library: version(library) for library in DRAWING_LIBRARIES}
    notebook.metadata = nbformat.from_dict(METADATA | {"drawn_with": drawn_with})
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i}"
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = list(tidy_outputs(cell.outputs))
    return notebook


def tidy_outputs(outputs: Sequence[Any]) -> Iterator[Any]:
    """Join printed output that arrived in pieces, and drop the text form of images and tables."""
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


def visible(notebook: nbformat.NotebookNode, displays: bool) -> Iterator[Any]:
    """The source and the printed output of each cell, and with `displays` its images and tables."""
    for cell in notebook.cells:
        yield cell.source
        for output in cell.get("outputs", ()):
            yield output.get("text", ""), output.get("data", {}) if displays else None


def stale(name: str) -> bool:
    """Whether the committed notebook differs from a new run."""
    committed = nbformat.read(HERE / f"{name}.ipynb", 4)
    now = run(name)
    same = committed.metadata.drawn_with == now.metadata.drawn_with
    return list(visible(committed, same)) != list(visible(now, same))


def main(arguments: Sequence[str]) -> int:
    """Write the notebooks, or with --check print the names of stale ones and return 1."""
    os.environ |= {"COLUMNS": "100", "NO_COLOR": "1"}
    check, chosen = "--check" in arguments, [a for a in arguments if a != "--check"] or names()
    found_stale = False
    for name in chosen:
        if check and stale(name):
            print(f"notebooks/{name}.ipynb is stale: run python notebooks/make.py {name}", file=sys.stderr)
            found_stale = True
        elif not check:
            nbformat.write(run(name), HERE / f"{name}.ipynb")
    return int(found_stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
