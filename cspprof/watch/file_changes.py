"""Waiting for saves. The operating system's events end a wait at once; the states of the files decide what changed.

Folders are watched and not files, because many editors save by renaming a new file over the old one. The states are
also compared several times a second, for file systems without events, such as network drives.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cspprof.sources.user_modules import absolute

if TYPE_CHECKING:
    from watchfiles import Change

State = tuple[int, ...] | None
"""Time of the last change in ns, size and inode; of a folder the time and inode; None if there is no such file."""
READ_BY_CODE = frozenset({".py", ".json", ".toml", ".yaml", ".yml", ".ini", ".cfg"})
"""Endings of files that the code of a model may read or import, though it has not done so yet."""
STEP_MS = 10
"""Events that follow each other faster belong to one save."""
LONGEST_SAVE_MS = 400
POLL_MS = 200
"""How often the states are compared without an event."""
MOST_REPEATS = 5
"""Models are traced again if a file changed while their code ran, because it may have been saved. After so many traces
in succession, the code itself is taken to write the file in each trace."""
SAVE_SECONDS = 0.2
"""A file that is empty or missing may be in the middle of a save for this long."""
CLOCK_NS = 20_000_000
"""Times of files come from a clock that can be this much behind."""


class FileChanges:
    """The files of some models, and their states when the models were last traced."""

    def __init__(self) -> None:
        self._files: set[Path] = set()
        self._folders: set[Path] = set()
        self._states: dict[Path, State] = {}
        """Also of the folders, and of other files in them for which an event came."""
        self._traced_since = self._traced_until = time.time_ns()
        self._by_code: dict[Path, State] = {}
        """Files that changed while the code of the models ran, with their states afterwards."""
        self._again = False
        """Whether a file changed since the trace began, so that the models must be traced once more."""
        self._repeats = 0
        """How many traces in succession were made for that reason."""
        self._events: Generator[set[tuple[Change, str]], None, None] | None = None
        self._watched: dict[Path, tuple[int, ...]] = {}

    def follow(self, places: Collection[Path]) -> None:
        """Wait for changes of these files, and of other files in these folders, from now on. Called after each trace.

        A file that changed since the trace began was perhaps read before: the next `wait` returns at once. For a file
        that changed while code ran it does so `MOST_REPEATS` times, because the code of a model may write files itself.
        """
        folders = {place for place in places if place.is_dir()}
        self._files = {path for file in {*places} - folders for path in (file, _resolved(file))}
        self._folders = folders | {file.parent for file in self._files}
        others = {path for path in self._states.keys() - self._files if _state(path) is not None}
        now = _states({*self._files, *self._present_folders(), *others})
        earliest = self._traced_since - CLOCK_NS
        changed = {
            path
            for path, state in now.items()
            if (
                state != self._states[path] if path in self._states else path in self._files and _newer(state, earliest)
            )
        }
        by_code = {path for path in changed if path not in self._states or self._by_code.get(path, ()) == now[path]}
        self._repeats = self._repeats + 1 if self._again else 0
        self._again = bool(changed - by_code) or (bool(by_code) and self._repeats < MOST_REPEATS)
        self._by_code.clear()
        self._states, self._traced_until = now, time.time_ns()

    @contextmanager
    def while_code_runs(self) -> Iterator[None]:
        """The code of a model runs inside this context, and may write files."""
        before = _states(self._states)
        try:
            yield
        finally:
            after = _states(before)
            self._by_code |= {path: state for path, state in after.items() if state != before[path]}

    def wait(self) -> set[Path]:
        """Wait until files changed, and return those that are followed. The set is empty if only other files in their
        folders did, which the code of a model may read."""
        while True:
            now = _states(self._states)
            if now != self._states:
                changed = {path for path, state in now.items() if state != self._states[path]}
                self._states = self._after_save(now)
                self._again = False
                self._traced_since = time.time_ns()
                return changed & self._files
            if self._again:
                self._traced_since = time.time_ns()
                return set()
            for path in {absolute(Path(name)) for _, name in self._next_events()} - self._states.keys():
                state = _state(path)
                written_by_code = self._repeats > 0 and not _newer(state, self._traced_until)
                if path.suffix in READ_BY_CODE:
                    self._states[path] = state if written_by_code else ()  # no state is equal to ()

    def close(self) -> None:
        """Stop the thread that receives the events."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def _after_save(self, now: dict[Path, State]) -> dict[Path, State]:
        """The states when no file is empty or missing that was there before, or after some time."""
        until = time.monotonic() + SAVE_SECONDS
        filled = {path for path in self._files if (self._states.get(path) or (0, 0))[1]}
        while any(not (now[path] or (0, 0))[1] for path in filled) and time.monotonic() < until:
            time.sleep(STEP_MS / 1000)
            now = _states(now)
        return now

    def _present_folders(self) -> set[Path]:
        """The folders; in place of one that is missing, the nearest above it that is there."""
        return {next(f for f in (folder, *folder.parents) if f.is_dir()) for folder in self._folders}

    def _next_events(self) -> set[tuple[Change, str]]:
        """The events of the folders, or none after `POLL_MS`."""
        import watchfiles

        folders = {folder: (_state(folder) or ())[1:] for folder in self._present_folders()}
        if folders != self._watched or self._events is None:  # a folder that was replaced sends no more events
            self.close()
            self._watched = folders
            self._events = watchfiles.watch(
                *folders, watch_filter=None, step=STEP_MS, debounce=LONGEST_SAVE_MS, rust_timeout=POLL_MS,
                yield_on_timeout=True, recursive=False, ignore_permission_denied=True,
            )  # fmt: skip
        try:
            return next(self._events)
        except (OSError, RuntimeError):  # the folder is gone, or the system watches no more folders
            self._events = None
            time.sleep(POLL_MS / 1000)
            return set()


def _states(paths: Iterable[Path]) -> dict[Path, State]:
    return {path: _state(path) for path in paths}


def _state(path: Path) -> State:
    try:
        found = path.stat()
    except OSError:
        return None
    size = () if path.is_dir() else (found.st_size,)
    return (found.st_mtime_ns, *size, found.st_ino)


def _newer(state: State, time_ns: int) -> bool:
    return state is not None and state[0] > time_ns


def _resolved(path: Path) -> Path:
    """The file that a symbolic link names, else the path itself."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a loop of links
        return path
