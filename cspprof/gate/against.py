"""Before and after without a baseline file: another revision's code, traced in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cspprof.core.errors import CspprofError
from cspprof.gate import baseline
from cspprof.gate.checking import Recorded, choose, layered
from cspprof.gate.loading import Config, Problem
from cspprof.gate.revision import toplevel, worktree


def record_revision(config: Config, revision: str, names: Sequence[str] = ()) -> Recorded:
    """What the models of this configuration measure in the code of `revision`.

    The models are those of today's configuration; a model that did not exist then is a problem of its own. Raises
    CspprofError where git has no such revision.
    """
    chosen = choose(config, names)
    top = toplevel(config.folder)
    with worktree(config.folder, revision) as folder:
        request: dict[str, Any] = {
            "folder": str(folder),
            "tree": str(_root(folder, config.folder, top)),
            "top": str(top),
            "models": {
                name: {"model": config.models[name].model_dump(mode="json"), "layered": layered(config, name)}
                for name in chosen
            },
        }
        answer = _ask(request)
    models = baseline.parse(json.dumps(answer["baseline"]).encode(), revision)
    problems = {
        name: Problem(revision, f"{revision} cannot be measured: {message}", hint)
        for name, (message, hint) in answer["problems"].items()
    }
    return Recorded(revision, models, "", problems)


def _root(folder: Path, ours: Path, top: Path) -> Path:
    depth = len(ours.resolve().relative_to(top).parts)
    return folder.parents[depth - 1] if depth else folder


def _ask(request: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "cspprof.gate.worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            out, err = process.communicate(json.dumps(request).encode())
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        last = (err.decode(errors="replace").strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        raise CspprofError(f"tracing the other revision failed: {last}", "Check it out and run cspprof check there.")
    answer: dict[str, Any] = json.loads(out)
    return answer
