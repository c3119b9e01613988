"""The other revision's process: measures models in another tree. Reads a request and prints an answer, both JSON.

A process of its own, because two versions of one module cannot be imported side by side. What this project put on the
import path is moved to the other tree, and a model whose code came from the working copy all the same (an editable
install that is not a path) is refused: it would be compared with itself.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from cspprof.core.errors import CspprofError
from cspprof.gate import baseline
from cspprof.gate.config import Model
from cspprof.gate.measure import profile_of
from cspprof.gate.measurement import Measured, measured


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a model prints while it is imported is no part of the answer
    top, tree = Path(request["top"]), Path(request["tree"])
    sys.path[:] = [_moved(entry, top, tree) for entry in sys.path]
    models: dict[str, Measured] = {}
    problems: dict[str, tuple[str, str]] = {}
    for name, asked in request["models"].items():
        try:
            models[name] = _measure(name, asked, Path(request["folder"]))
            _refuse_working_copy(top, tree)
        except CspprofError as error:
            models.pop(name, None)
            problems[name] = (error.message.replace(str(tree), "."), error.hint or "")
    json.dump({"baseline": json.loads(baseline.dump(models)), "problems": problems}, out)
    out.close()


def _measure(name: str, asked: dict[str, Any], folder: Path) -> Measured:
    model = Model.model_validate(asked["model"])
    if not folder.is_dir():
        raise CspprofError(f"it has no folder {folder.name}", "Compare with a later revision.")
    found = measured(name, profile_of(model, folder), model.convention, asked["layered"])
    if found.uncounted:
        raise CspprofError(f"operations without a rule: {', '.join(found.uncounted)}", "See cspprof.op_rule.")
    return found


def _moved(entry: str, top: Path, tree: Path) -> str:
    """A folder of the project on the import path -> the same folder in the other tree, where that has it."""
    path = Path(entry or ".").resolve()
    if path.is_relative_to(top) and (tree / path.relative_to(top)).is_dir():
        return str(tree / path.relative_to(top))
    return entry


def _refuse_working_copy(top: Path, tree: Path) -> None:
    ours = Path(__file__).parents[1]
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "/")
        if file.is_relative_to(top) and not file.is_relative_to(ours) and (tree / file.relative_to(top)).exists():
            raise CspprofError(
                f"{name} was imported from the working copy, not from that revision",
                "Name the file in target (path/to/net.py:Net), or install the project by path: pip install -e .",
            )


if __name__ == "__main__":
    main()
