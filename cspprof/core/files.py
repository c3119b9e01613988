"""Files that are written: checked before the work, and whole or not at all; and paths as they are shown."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cspprof.core.errors import OutputError


def check_writable(path: Path) -> None:
    """Raise OutputError, before any work is done, where `path` could not be written after it."""
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder", "Name a file in it.")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {folder}", f"Make it: mkdir -p {folder}")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise OutputError(f"cannot write {path}: no permission", "Name another file with -o.")


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside the target, then rename over it; whatever goes wrong, the old content stays."""
    if path.exists() and not path.is_file():  # a device or a pipe: nothing to rename over
        try:
            path.write_bytes(data)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}", "Name another file with -o.") from None
        return
    check_writable(path)
    import tempfile  # reads twenty modules, and most commands write none

    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).chmod(path.stat().st_mode if path.exists() else 0o666 & ~_umask())
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}", "Name another file with -o.") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def shown(path: Path) -> str:
    """`path` as it may stand in an output: relative to where we are, or the name alone. No path of this machine."""
    if path.is_absolute():
        here = Path.cwd()
        path = path.relative_to(here) if path.is_relative_to(here) else Path(path.name)
    return path.as_posix()
