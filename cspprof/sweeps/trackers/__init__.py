"""Trackers of experiments, which receive the rows of a sweep as runs: MLflow and TensorBoard.

The journal stays the only file that a sweep needs. A tracker knows by their keys which rows it has, so that a row is
logged once, also if a sweep is interrupted and run again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib import import_module
from itertools import islice
from typing import Protocol

from cspprof.core.errors import CspprofError
from cspprof.core.registry import suggestion
from cspprof.sweeps.candidate import Row
from cspprof.sweeps.report import axis_field

TRACKERS = {"mlflow": ("sqlite:///mlflow.db", "mlflow_runs"), "tensorboard": ("runs", "tensorboard_runs")}
"""An example of the place of each tracker, and its module."""
BATCH = 20
"""Rows that are logged at once."""
MOST_PENDING = 1000
"""Batches that wait for a tracker. With more, the sweep waits too."""


class TrackerError(CspprofError):
    """A tracker is not installed, or its store cannot be opened."""


class Tracker(Protocol):
    """A store of runs, one per row. Only one thread uses it at a time."""

    def log(self, rows: Sequence[Row]) -> None:
        """Log those of the rows that the store does not have. May raise any exception."""


def open_tracker(text: str) -> Tracker:
    """The tracker that `mlflow:URI` or `tensorboard:FOLDER` names. Raises TrackerError if it cannot be used."""
    name, _, place = text.partition(":")
    if name not in TRACKERS:
        raise TrackerError(f"there is no tracker {name!r}", suggestion(name, TRACKERS))
    example, module = TRACKERS[name]
    if not place:
        raise TrackerError(f"the tracker {name} has no place", f"Write for example: --tracker {name}:{example}")
    made: Tracker = import_module(f"cspprof.sweeps.trackers.{module}").open_tracker(place)
    return made


def numbers_of(row: Row) -> dict[str, float]:
    """The numbers of a row as trackers hold them, in double precision. A lower bound has another name than a value."""
    return {f"{k}_at_least" if k in row.at_least else k: float(v) for k, v in row.values.items()}


def choices_of(row: Row) -> dict[str, object]:
    """The properties that distinguish the candidate: its SPEC, its input and the values of its axes."""
    fixed = {"spec": row.spec, "input": row.input}
    return fixed | {axis_field(name, list(fixed)): value for name, value in row.axes.items()}


@contextmanager
def tracking(texts: Iterable[str], notes: list[str]) -> Iterator[Callable[[Iterable[Row]], None]]:
    """Yields a function that sends rows to the trackers. They log in threads of their own, so that no worker waits.

    A tracker that fails gets no more rows; `notes` then tells how to log the rest. Raises TrackerError if a tracker
    cannot be opened.
    """
    with ExitStack() as stack:
        logs = [stack.enter_context(_logging(text, open_tracker(text), notes)) for text in dict.fromkeys(texts)]

        def send(rows: Iterable[Row]) -> None:
            remaining = iter(rows) if logs else iter(())
            while batch := list(islice(remaining, BATCH)):
                for log in logs:
                    log(batch)

        yield send


@contextmanager
def _logging(text: str, tracker: Tracker, notes: list[str]) -> Iterator[Callable[[list[Row]], None]]:
    pool = ThreadPoolExecutor(1, thread_name_prefix="cspprof-tracker")
    pending: list[Future[None]] = []
    failure: list[str] = []

    def failed(done: Future[None]) -> bool:
        """Whether logging has failed. The first failure becomes a note."""
        if not failure and (error := done.exception()) is not None:
            lines = str(error).strip().splitlines()
            failure.append(f"{type(error).__name__}: {lines[0] if lines else ''}")
            notes.append(
                f"The tracker {text} has failed: {failure[0]}. All rows are in the journal. Run the same command again "
                "to log those that are missing."
            )
        return bool(failure)

    def log(rows: list[Row]) -> None:
        while pending and (pending[0].done() or len(pending) >= MOST_PENDING):
            failed(pending.pop(0))
        if not failure:
            pending.append(pool.submit(tracker.log, rows))

    try:
        yield log
        while pending and not failed(pending.pop(0)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)
