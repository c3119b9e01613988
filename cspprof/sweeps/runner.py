"""Run the candidates of a space that the journal does not have, and write their rows."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait

from cspprof.core.errors import CspprofError
from cspprof.sweeps.candidate import Row, Status
from cspprof.sweeps.child import Limits, run_candidates
from cspprof.sweeps.executors import SchedulerError, Workers, gone, is_cluster_error
from cspprof.sweeps.journal import Journal
from cspprof.sweeps.space import Candidate, Space
from cspprof.sweeps.versions import versions_of

FLUSH_SECONDS = 0.5
"""The longest time that a finished row waits before it is written."""
TASKS_PER_WORKER = 3
"""Tasks that wait or run, so that no worker waits for the next one."""
LOOKUP = 500
"""Candidates that are looked up in the journal at once."""
MOST_ATTEMPTS = 5
"""How often a task of a cluster is sent again after its worker has gone."""


def check_journal(space: Space, journal: Journal, extend: bool) -> None:
    """Raise CspprofError if the journal has rows of another space, unless it is to be extended."""
    held, description = journal.space(), space.description()
    if held not in (None, description) and not extend:
        raise CspprofError(
            f"{journal.path} is the journal of another space",
            "Add the candidates of this one with --extend, or name another file: --journal FILE",
        )
    if held is None or extend:
        journal.set_space(description)


def run_space(
    space: Space, journal: Journal, workers: Workers, limits: Limits, on_rows: Callable[[list[Row]], None],
    retried: Collection[Status] = (),
) -> None:  # fmt: skip
    """Trace the candidates that have no row yet, or one whose status is `retried`, and write a row for each.

    `on_rows` receives the rows as they come. Raises SchedulerError if the cluster has gone, JournalError if a row
    cannot be written. Rows that were written stay.
    """
    versions = versions_of(list(space.models))
    tasks = _chunks(missing_candidates(space, journal, versions, retried), workers.chunk)

    def accepted(rows: list[Row]) -> None:
        _check_accepted(space, rows)
        on_rows(rows)

    run_tasks(tasks, journal, workers, limits, versions, accepted)


def run_tasks(
    tasks: Iterator[list[Candidate]], journal: Journal, workers: Workers, limits: Limits, versions: str,
    on_rows: Callable[[list[Row]], None],
) -> None:  # fmt: skip
    """Trace the candidates of the tasks, and write a row for each.

    A task is taken only when a worker has room for it, so a later one may depend on the rows that `on_rows` has
    received. An empty task says that the next one depends on a row that is not there yet.
    """
    running: dict[Future[list[Row]], tuple[list[Candidate], int]] = {}
    finished: list[Row] = []
    written = time.monotonic()

    def submit(task: list[Candidate], attempt: int) -> None:
        running[workers.executor.submit(run_candidates, task, versions, limits)] = task, attempt

    try:
        while True:
            for task in itertools.islice(tasks, max(0, workers.threads * TASKS_PER_WORKER - len(running))):
                if not task:
                    break
                submit(task, 1)
            if not running:
                break
            done, _ = wait(running, timeout=FLUSH_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                task, attempt = running.pop(future)
                rows = _result(future)
                if rows is None and attempt < MOST_ATTEMPTS:
                    submit(task, attempt + 1)
                elif rows is None:
                    raise SchedulerError(
                        f"{attempt} workers have gone while they ran {task[0].spec}",
                        "See the output of the workers. Run the same command again: it goes on with the rows that are "
                        "written.",
                    )
                else:
                    on_rows(rows)
                    finished += rows
            if finished and (time.monotonic() - written > FLUSH_SECONDS):
                journal.add(finished)
                finished, written = [], time.monotonic()
    finally:
        if finished:
            journal.add(finished)


def _check_accepted(space: Space, rows: list[Row]) -> None:
    """Raise CspprofError if the only model of the space does not exist or does not accept an axis: no candidate will
    have numbers."""
    for row in rows:
        if row.status == "refused" and len(space.models) == 1:
            message, _, hint = row.error.partition("\n")
            raise CspprofError(message, hint or None)


def _result(future: Future[list[Row]]) -> list[Row] | None:
    """The rows of a task; None if its worker has gone. Raises SchedulerError if the scheduler has gone."""
    try:
        return future.result()
    except CancelledError:
        raise gone() from None
    except Exception as error:
        if is_cluster_error(error):
            return None
        raise


def missing_candidates(
    space: Space, journal: Journal, versions: str, retried: Collection[Status] = ()
) -> Iterator[Candidate]:
    """The candidates that have no row, or one whose status is `retried`, in the order of the space."""
    for batch in _chunks(space, LOOKUP):
        keys = [candidate.key(versions) for candidate in batch]
        missing = journal.missing(keys, retried)
        for candidate, key in zip(batch, keys, strict=True):
            if key in missing:
                missing.discard(key)
                yield candidate


def _chunks(items: Iterable[Candidate], size: int) -> Iterator[list[Candidate]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
