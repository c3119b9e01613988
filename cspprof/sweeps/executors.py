"""Executors of sweeps, in the form of `concurrent.futures.Executor`: this machine, and a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from cspprof.core.errors import CspprofError, pip_install
from cspprof.sweeps.child import stop_children
from cspprof.sweeps.versions import versions_of

if TYPE_CHECKING:
    from distributed import Client

DASK_CHUNK = 16
"""Candidates in one task of a Dask cluster, which needs about a millisecond to schedule a task."""
CONNECT_SECONDS = 15


class SchedulerError(CspprofError):
    """The scheduler of a cluster cannot be reached, or has gone."""


class Workers(NamedTuple):
    """An executor, and how to feed it."""

    executor: Executor
    threads: int
    chunk: int
    """Candidates in one task."""


@contextmanager
def local_workers(count: int | None) -> Iterator[Workers]:
    """Processes on this machine, one per processor that this process may use unless `count` says otherwise.

    A thread of the pool watches each process. Leaving the context ends the processes.
    """
    count = count or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))
    pool = ThreadPoolExecutor(count, thread_name_prefix="cspprof-sweep")
    try:
        yield Workers(pool, count, 1)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        stop_children()


@contextmanager
def dask_workers(address: str, models: list[str], candidates: int) -> Iterator[Workers]:
    """The workers of the Dask cluster whose scheduler is at `address`.

    Raises SchedulerError if there is none, or if a worker has another version of a package on which the models depend.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError:
        raise SchedulerError("dask.distributed is not installed", f"Install it: {pip_install('dask')}") from None
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise SchedulerError(
            f"there is no Dask scheduler at {address}: {error}", "Start one, and workers: dask scheduler; dask worker "
            f"{address}",
        ) from None  # fmt: skip
    try:
        yield _hired(client, address, models, candidates)
    except SchedulerError:
        raise
    except Exception as error:
        if not is_cluster_error(error) and not isinstance(error, OSError):
            raise
        raise gone() from error
    finally:
        with suppress(Exception):  # the scheduler may have gone
            client.run(stop_children, on_error="ignore")
        with suppress(Exception):
            client.close()


def _hired(client: Client, address: str, models: list[str], candidates: int) -> Workers:
    """The workers of a cluster. Raises SchedulerError if there is none, or if one has other packages."""
    with suppress(TimeoutError):
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    threads = sum(worker["nthreads"] for worker in client.scheduler_info(n_workers=-1)["workers"].values())
    if not threads:
        raise SchedulerError(f"the scheduler at {address} has no worker", f"Start some: dask worker {address}")
    ours = versions_of(models)
    for worker, theirs in client.run(versions_of, models).items():
        if theirs != ours:
            raise SchedulerError(
                f"the worker {worker} has other packages:\n  {theirs}\nthan this machine:\n  {ours}",
                "Install the same versions, and copy the files of the models to the folder of the worker.",
            )
    chunk = max(1, min(DASK_CHUNK, candidates // (4 * threads)))
    return Workers(client.get_executor(pure=False, retries=3), threads, chunk)


def gone() -> SchedulerError:
    """The error for a scheduler that does not answer any more."""
    return SchedulerError(
        "the scheduler has gone", "Start it again, and run the same command: it goes on with the rows that are written."
    )


def is_cluster_error(error: BaseException) -> bool:
    """Whether an exception of a task comes from the cluster, and not from the candidates of the task."""
    return type(error).__module__.partition(".")[0] in ("distributed", "dask", "tornado")
