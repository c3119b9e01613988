"""The process that measures the models of another revision: reads a request from stdin, writes a response to stdout.

Both are JSON. A separate process is needed because Python cannot import two versions of one module side by side. Import
paths inside the project are redirected to the tree of the revision. If a model still imports code from the working copy
(an editable install that is not a path), it is refused: it would be compared with itself.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cspprof.core.child_process import response_stream
from cspprof.core.errors import CspprofError
from cspprof.gate import baseline
from cspprof.gate.config import Model
from cspprof.gate.measurement import Measurement, measure, profile_entry


def main() -> None:
    """Answer one request."""
    request = json.loads(sys.stdin.readline())
    out = response_stream()  # what a model prints while it is imported must not mix with the response
    top, tree = Path(request["top"]), Path(request["tree"])
    sys.path[:] = [redirected(entry, top, tree) for entry in sys.path]
    models: dict[str, Measurement] = {}
    problems: dict[str, tuple[str, str]] = {}
    for name, entry in request["models"].items():
        try:
            measurement = _measure(name, entry, Path(request["folder"]))
            _refuse_working_copy(top, tree)
            models[name] = measurement
        except CspprofError as error:
            problems[name] = (error.message.replace(str(tree), "."), error.hint or "")
    print(json.dumps({"baseline": json.loads(baseline.dump(models)), "problems": problems}), file=out, flush=True)


def _measure(name: str, entry: dict[str, Any], folder: Path) -> Measurement:
    model = Model.model_validate(entry["model"])
    if not folder.is_dir():
        raise CspprofError(f"it has no folder {folder.name}", "Compare with a later revision.")
    return measure(name, profile_entry(model, folder), model.convention, entry["metrics"])


def redirected(entry: str, top: Path, tree: Path) -> str:
    """An import path; if it is a folder of the project, the same folder in the other tree, if it exists there."""
    path = Path(entry or ".").resolve()
    if path.is_relative_to(top) and (tree / path.relative_to(top)).is_dir():
        return str(tree / path.relative_to(top))
    return entry


def _refuse_working_copy(top: Path, tree: Path) -> None:
    cspprof = Path(__file__).parents[1]
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "/")
        if file.is_relative_to(top) and not file.is_relative_to(cspprof) and (tree / file.relative_to(top)).exists():
            raise CspprofError(
                f"{name} was imported from the working copy, not from that revision",
                "Name the file in target (path/to/net.py:Net), or install the project by path: pip install -e .",
            )


if __name__ == "__main__":
    main()
