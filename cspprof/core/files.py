"""Reading files up to a size, writing them atomically, a check before long work, and paths as outputs show them."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from cspprof.core.errors import OutputError


def read_limited(path: Path, limit: int) -> bytes:
    """The content of a file. Raises OSError, also if the file has more than `limit` bytes."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except ValueError as error:  # a name that contains NUL
        raise OSError(errno.EINVAL, str(error)) from None
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit:,} bytes")
    return data


def check_writable(path: Path) -> None:
    """Raise OutputError if `path` cannot be written. Called before long work."""
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder", "Give a file in that folder.")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {folder}", f"Make it: mkdir -p {folder}")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise OutputError(f"cannot write {path}: no permission", "Name another file.")


def is_device(path: Path) -> bool:
    """Whether `path` is a device, a pipe or an open file such as /dev/stderr, which no file can replace."""
    return path.exists() and (not path.is_file() or path.parent in (Path("/dev"), Path("/dev/fd")))


def check_replaceable(
    path: Path, is_own: Callable[[bytes], bool], kind: str = "an output", option: str = "-o FILE"
) -> None:
    """Raise OutputError if `path` is a file whose first bytes `is_own` does not recognize as an output of cspprof.

    An empty file and a device can be written. `kind` and `option` are words of the message.
    """
    if not path.is_file() or is_device(path):
        return
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}", "Name another file.") from None
    if head and not is_own(head):
        raise OutputError(
            f"{path} exists and is not {kind} of cspprof",
            f"Name another file: {option}. Or remove that one first: {shlex.join(['rm', str(path)])}",
        )


HEAD_BYTES = 8192
"""Bytes of an existing file that are enough to recognize an output of cspprof."""


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path`. If writing fails, an existing file keeps its content. A link stays a link, and its file
    is replaced. Raises OutputError."""
    if is_device(path):  # a rename would replace the device itself
        try:
            with path.open("ab") as device:
                device.write(data)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}", "Name another file.") from None
        return
    with replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file, private until it is complete; then it replaces `path`. Raises OutputError."""
    path = path.resolve()
    check_writable(path)
    import tempfile  # imports twenty modules, and most commands write no file

    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
            Path(name).chmod(path.stat().st_mode if path.exists() else 0o666 & ~_umask())
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}", "Name another file.") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def display_path(path: Path) -> str:
    """`path` relative to the current folder, or only its name: outputs contain no absolute paths."""
    if path.is_absolute():
        here = Path.cwd()
        path = path.relative_to(here) if path.is_relative_to(here) else Path(path.name)
    return path.as_posix()
