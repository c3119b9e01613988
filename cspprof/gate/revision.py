"""Other revisions: a file as it was, and a whole working tree that is gone again afterwards."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from cspprof.core.errors import CspprofError


def git(folder: Path, *arguments: str) -> bytes:
    """What git prints. Raises CspprofError with git's own words."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    except FileNotFoundError:
        raise CspprofError("git is not installed", "Install it, or compare with a baseline file instead.") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        reason = words[-1].removeprefix("fatal: ") if words else f"exit code {done.returncode}"
        raise CspprofError(f"git {arguments[0]} failed: {reason}", "Look at it with: git status")
    return done.stdout


def toplevel(folder: Path) -> Path:
    """The repository's folder. Raises CspprofError outside of one."""
    try:
        return Path(git(folder, "rev-parse", "--show-toplevel").decode().rstrip("\n")).resolve()
    except CspprofError as error:
        if "git is not installed" in error.message:
            raise
        raise CspprofError(f"{folder} is in no git repository", "Run it in one, or use a baseline file.") from None


def commit(folder: Path, revision: str) -> str:
    """The commit that a revision names. Raises CspprofError."""
    try:
        named = f"{revision}^{{commit}}"
        return git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", named).decode().strip()
    except CspprofError:
        raise CspprofError(
            f"there is no revision {revision!r} here",
            "Name a commit, branch or tag. A shallow clone has few: git fetch --unshallow (in CI: fetch-depth: 0)",
        ) from None


def file_at(path: Path, revision: str) -> bytes | None:
    """A file's content in another revision; None where that does not have it."""
    top = toplevel(path.parent)
    name = path.resolve().relative_to(top).as_posix()
    sha = commit(top, revision)
    if not git(top, "ls-tree", sha, "--", name):
        return None
    return git(top, "show", f"{sha}:{name}")


@contextmanager
def worktree(folder: Path, revision: str) -> Iterator[Path]:
    """The counterpart of `folder` in a temporary checkout of `revision`, removed whatever happens, also on SIGTERM."""
    top = toplevel(folder)
    sha = commit(top, revision)
    with tempfile.TemporaryDirectory(prefix="cspprof-") as temporary, _terminating():
        place = Path(temporary).resolve() / "tree"
        try:
            git(top, "worktree", "add", "--detach", "--quiet", str(place), sha)
            yield place / folder.resolve().relative_to(top)
        finally:
            subprocess.run(
                ["git", "worktree", "remove", "--force", str(place)], cwd=top, capture_output=True, check=False
            )
            subprocess.run(["git", "worktree", "prune"], cwd=top, capture_output=True, check=False)


@contextmanager
def _terminating() -> Iterator[None]:
    """For the time being, SIGTERM leaves through every `finally`, as Ctrl-C does: CI systems cancel jobs with it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
