"""Git revisions: a file as it was, a temporary working tree, and the measurements of a revision's code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from cspprof.core.child_process import ChildProcess, ProcessEndedError
from cspprof.core.errors import CspprofError
from cspprof.core.import_path import import_path
from cspprof.core.temporary import temporary_folder
from cspprof.gate import baseline
from cspprof.gate.config import Config, Problem
from cspprof.gate.measurement import layer_metrics
from cspprof.gate.reference import Reference
from cspprof.gate.revision_worker import redirected
from cspprof.measure.worker_process import Checkout

# -- git -------------------------------------------------------------------------------------------


GIT = ("git", "-c", f"core.hooksPath={os.devnull}")
"""Git without the hooks of the repository, which a new working tree would run."""


def git(folder: Path, *arguments: str) -> bytes:
    """The output of a git command. Raises CspprofError with git's message."""
    try:
        done = subprocess.run([*GIT, *arguments], cwd=folder, capture_output=True, check=False)
    except FileNotFoundError:
        raise CspprofError("git is not installed", "Install it, or compare with a baseline file instead.") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1].removeprefix("fatal: ") if lines else f"exit code {done.returncode}"
        raise CspprofError(f"git {arguments[0]} failed: {reason}", "See: git status")
    return done.stdout


def toplevel(folder: Path) -> Path:
    """The top folder of the repository. Raises CspprofError if `folder` is not in one."""
    try:
        return Path(git(folder, "rev-parse", "--show-toplevel").decode().rstrip("\n")).resolve()
    except CspprofError as error:
        if "git is not installed" in error.message:
            raise
        raise CspprofError(f"{folder} is not in a git repository", "Run it in one, or use a baseline file.") from None


def commit(folder: Path, revision: str) -> str:
    """The hash of the commit that `revision` names. Raises CspprofError if there is none."""
    try:
        name = f"{revision}^{{commit}}"
        return git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", name).decode().strip()
    except CspprofError:
        raise CspprofError(
            f"there is no revision {revision!r} in this repository",
            "Name a commit, branch or tag. A shallow clone has few: git fetch --unshallow (in CI: fetch-depth: 0)",
        ) from None


def file_at(path: Path, revision: str) -> bytes | None:
    """The content of a file in another revision; None if the revision does not have the file."""
    top = toplevel(path.parent)
    name = path.resolve().relative_to(top).as_posix()
    sha = commit(top, revision)
    if not git(top, "ls-tree", sha, "--", name):
        return None
    return git(top, "show", f"{sha}:{name}")


@contextmanager
def worktree(folder: Path, revision: str) -> Iterator[Path]:
    """The counterpart of `folder` in a temporary working tree of `revision`, which is always removed."""
    top = toplevel(folder)
    sha = commit(top, revision)
    with temporary_folder("revision") as temporary, _exit_on_sigterm():
        tree = temporary / "tree"
        try:
            git(top, "worktree", "add", "--detach", "--quiet", str(tree), sha)
            yield tree / folder.resolve().relative_to(top)
        finally:
            remove = ["git", "worktree", "remove", "--force", str(tree)]
            subprocess.run(remove, cwd=top, capture_output=True, check=False)
            subprocess.run(["git", "worktree", "prune"], cwd=top, capture_output=True, check=False)


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Let SIGTERM run every `finally`, as Ctrl-C does: CI systems send it to cancel a job."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread can set a handler
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# -- measuring a revision --------------------------------------------------------------------------


@contextmanager
def measured_revision(config: Config, revision: str, names: Sequence[str] = ()) -> Iterator[Reference]:
    """The measurements of the configuration's models, or of those that `names` match, with the code of `revision`.

    The current configuration says which models to measure; one that the revision does not have is a problem of the
    reference. Its checkout exists until the context ends. Raises CspprofError if git has no such revision.
    """
    selected = config.select_models(names)
    top = toplevel(config.folder)
    with worktree(config.folder, revision) as folder:
        depth = len(config.folder.resolve().relative_to(top).parts)
        tree = folder.parents[depth - 1] if depth else folder
        request: dict[str, Any] = {
            "folder": str(folder),
            "tree": str(tree),
            "top": str(top),
            "models": {
                name: {"model": config.models[name].model_dump(mode="json"), "metrics": layer_metrics(config, name)}
                for name in selected
            },
        }
        response = _run_worker(request)
        models = baseline.parse(json.dumps(response["baseline"]).encode(), revision)
        problems = {
            name: Problem(revision, f"{revision} cannot be measured: {message}", hint, model=name)
            for name, (message, hint) in response["problems"].items()
        }
        checkout = Checkout(folder, [redirected(entry, top, tree) for entry in import_path()])
        yield Reference(revision, models, problems=problems, checkout=checkout)


def _run_worker(request: dict[str, Any]) -> dict[str, Any]:
    """The response of a new process of `revision_worker`. It is killed if this process is interrupted."""
    with ChildProcess("cspprof.gate.revision_worker") as process:
        try:
            response: dict[str, Any] = process.response(request)
        except ProcessEndedError as error:
            message = f"measuring the other revision failed: {error}"
            raise CspprofError(message, "Check it out and run cspprof check there.") from None
    return response
