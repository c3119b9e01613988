"""How fast `cspprof sweep` is, with the goals beside the figures, as ratios measured in one run.

    python benchmarks/sweep.py [--quick] [--json FILE] [timm] [workers] [dask] [growth] [journal]

- timm: every architecture of timm by the command, imports and journal included.
- workers, dask: two workers against one, and the part of the run that is no tracing.
- growth: seconds per candidate with 10² to 10⁵ rows in the journal.
- journal: front, figure and Parquet of a journal with 10⁶ rows.

Each section has a temporary folder of its own. Wall times need an idle machine with two processors or more; CPU times
are also right on a busy one. `--quick` measures a part of everything, to see that it works.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from cspprof.metrics import METRICS
from cspprof.sweeps.candidate import Row, trace_candidate
from cspprof.sweeps.child import Limits
from cspprof.sweeps.executors import Workers, dask_workers, local_workers
from cspprof.sweeps.journal import SqliteJournal
from cspprof.sweeps.runner import run_space
from cspprof.sweeps.space import Space
from cspprof.sweeps.versions import versions_of

NET = """
from torch import nn

class Net(nn.Module):
    example_input_shape = (1, 3, 64, 64)

    def __init__(self, depth=1, width=8, number=0):
        super().__init__()
        kinds = [lambda: nn.Conv2d(width, width, 3, padding=1), lambda: nn.BatchNorm2d(width), nn.ReLU]
        self.layers = nn.Sequential(nn.Conv2d(3, width, 1), *(kinds[i % 3]() for i in range(depth)))

    def forward(self, x):
        return self.layers(x)
"""
"""A model whose trace takes about as long as its depth."""
DEPTH = 400
"""At which a candidate takes 50 ms and more."""


class Figure(NamedTuple):
    """One line of the result."""

    what: str
    value: float
    unit: str
    goal: str = ""


class Finished(NamedTuple):
    """A command that has ended."""

    seconds: float
    cpu: float
    """Of the command and the processes that it started."""
    megabytes: float
    """The peak of its memory, without its child processes."""


def command(folder: Path, *arguments: str) -> Finished:
    """Run `cspprof sweep` in the folder. Raises SystemExit if it fails."""
    started = time.perf_counter()
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cspprof", "sweep", *arguments], cwd=folder, stdout=output, stderr=output,
            env={**os.environ, "CSPPROF_CACHE_DIR": str(folder)},
        )  # fmt: skip
        _, code, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if code:
        raise SystemExit((folder / "output").read_text())
    return Finished(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def rows_of(path: Path) -> list[Row]:
    journal = SqliteJournal(path)
    try:
        return list(journal.rows())
    finally:
        journal.close()


def timm(folder: Path, quick: bool) -> Iterator[Figure]:
    """The command on all architectures of timm with two workers."""
    spec = "timm:resnet*" if quick else "timm:*"
    done = command(folder, spec, "--workers", "2", "--journal", "timm.sweep", "--format", "csv")
    rows = rows_of(folder / "timm.sweep")
    traced = sum(row.seconds for row in rows)
    yield Figure(f"cspprof sweep '{spec}', {len(rows):,} architectures", done.seconds, "s", "≤ 90 s for all")
    yield Figure("the same, CPU time of all processes", done.cpu, "s")
    yield Figure("the same, seconds of tracing in both workers together", traced, "s")
    yield Figure("the same, architectures without numbers", sum(row.status != "ok" for row in rows), "")


def candidates(count: int, depth: int = DEPTH, first: int = 0) -> Space:
    return Space(["net.py:Net"], {"depth": [depth], "number": range(first, first + count)})


class Measured(NamedTuple):
    """Some candidates that were traced and written."""

    wall: float
    cpu: float
    """Of this process: the journal, the scheduling and the exchange with the workers."""
    rows: list[Row]


def measured(space: Space, journal: SqliteJournal, workers: Workers) -> Measured:
    rows: list[Row] = []
    cpu, wall = time.process_time(), time.perf_counter()
    run_space(space, journal, workers, Limits(), rows.extend)
    return Measured(time.perf_counter() - wall, time.process_time() - cpu, rows)


def two_against_one(
    folder: Path, quick: bool, where: str, hire: Callable[[int], AbstractContextManager[Workers]]
) -> Iterator[Figure]:
    """The same number of new candidates with one and with two workers, which have imported everything before."""
    count = 40 if quick else 400
    wall: dict[int, float] = {}
    bare = bare_loop(20 if quick else 100)
    yield Figure("a loop without journal, in one process: CPU time of a candidate", 1000 * bare, "ms", "≥ 50 ms")
    for workers in (1, 2):
        journal = SqliteJournal(folder / f"{where}{workers}.sweep")
        with hire(workers) as hired:
            measured(candidates(8 * workers, 10), journal, hired)
            done = measured(candidates(count), journal, hired)
        journal.close()
        wall[workers] = done.wall
        traced = sum(row.seconds for row in done.rows)
        what = f"{where}, {workers} {'worker' if workers == 1 else 'workers'}"
        yield Figure(f"{what}: wall time without tracing", 100 * (1 - traced / workers / done.wall), "%", "≤ 5 %")
        share = done.cpu / len(done.rows) / bare
        yield Figure(f"{what}: CPU time of journal and scheduling", 100 * share, "%", "≤ 5 % of the loop")
    yield Figure(f"{where}: two workers against one", wall[1] / wall[2], "×", "≥ 1.8 ×")


def bare_loop(count: int) -> float:
    """CPU seconds of a candidate that is traced in this process."""
    import torch

    torch.set_num_threads(1)
    versions = versions_of(["net.py:Net"])
    for candidate in candidates(5):
        trace_candidate(candidate, versions)
    started = time.process_time()
    for candidate in candidates(count):
        trace_candidate(candidate, versions)
    return (time.process_time() - started) / count


def workers(folder: Path, quick: bool) -> Iterator[Figure]:
    """Processes on this machine."""
    return two_against_one(folder, quick, "processes", local_workers)


def dask(folder: Path, quick: bool) -> Iterator[Figure]:
    """A scheduler and workers with one thread each, as processes of this machine."""

    @contextlib.contextmanager
    def hire(count: int) -> Iterator[Workers]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        address = f"tcp://127.0.0.1:{port}"
        with ExitStack() as stack:
            stack.enter_context(process(folder, "scheduler", "--host", "127.0.0.1", "--port", str(port)))
            for _ in range(count):
                stack.enter_context(process(folder, "worker", address, "--nthreads", "1", "--death-timeout", "120"))
            wait_for_workers(address, count)
            # small tasks, so that the few candidates before the measurement reach every worker
            yield stack.enter_context(dask_workers(address, ["net.py:Net"], 8 * count))

    yield from two_against_one(folder, quick, "Dask", hire)


@contextlib.contextmanager
def process(folder: Path, kind: str, *arguments: str) -> Iterator[None]:
    with (folder / "dask.log").open("ab") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", "dask", kind, *arguments, "--no-dashboard"], cwd=folder, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        started.kill()
        started.wait()


def wait_for_workers(address: str, count: int) -> None:
    from distributed import Client

    with Client(address, timeout=60, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=120)


def growth(folder: Path, quick: bool) -> Iterator[Figure]:
    """New candidates of a space of which 10² to 10⁵ others are done: the journal and the search for them."""
    new = 100 if quick else 500
    versions = versions_of(["net.py:Net"])
    costs: list[float] = []
    with local_workers(1) as hired:
        for power in (2, 3, 4) if quick else (2, 3, 4, 5):
            done = 10**power
            journal = SqliteJournal(folder / f"{done}.sweep")
            fill(journal, (candidate.key(versions) for candidate in candidates(done, 30)))
            started = time.process_time()
            assert not journal.missing([candidate.key(versions) for candidate in candidates(done, 30)])
            skipping = (time.process_time() - started) / done
            measured(candidates(20, 31), journal, hired)
            more = measured(candidates(new, 30, done), journal, hired)
            journal.close()
            costs.append(more.cpu / new)
            yield Figure(f"{done:,} done: CPU time of journal and scheduling for one more", 1000 * costs[-1], "ms")
            yield Figure(f"{done:,} done: wall time of one more, with its trace", 1000 * more.wall / new, "ms")
            yield Figure(f"{done:,} done: CPU time to skip one of them", 1e6 * skipping, "µs")
    yield Figure("CPU time of one more, most done against fewest", costs[-1] / costs[0], "×", "about 1")


def fill(journal: SqliteJournal, keys: Iterable[bytes]) -> int:
    """Write a row with random numbers for each key; returns how many."""
    choose = random.Random(0)
    names = METRICS.names()
    batch: list[Row] = []
    i = 0
    for i, key in enumerate(keys, 1):
        macs = choose.randint(10**8, 10**10)
        values: dict[str, int | float] = {name: macs // k + choose.randint(0, 10**6) for k, name in enumerate(names, 1)}
        axes = {"gamma": i % 97, "width": i // 97}
        spec = f"net.py:Net,gamma={i % 97},width={i // 97}"
        batch.append(Row(key, i, spec, axes, "1x3x224x224", "ok", values, (), "", 0.05, "cspprof 1"))
        if len(batch) == 1000:
            journal.add(batch)
            batch = []
    journal.add(batch)
    return i


def journal(folder: Path, quick: bool) -> Iterator[Figure]:
    """The command that shows a journal with a million rows."""
    count = 10**5 if quick else 10**6
    book = SqliteJournal(folder / "large.sweep")
    fill(book, (secrets.token_bytes(16) for _ in range(count)))
    book.close()
    done = command(folder, "--journal", "large.sweep", "-o", "front.png", "-o", "rows.parquet")
    what = f"{count:,} rows: front, figure and Parquet"
    yield Figure(what, done.seconds, "s", "≤ 60 s")
    yield Figure(f"{what}, CPU time", done.cpu, "s", "≤ 60 s")
    yield Figure(f"{what}, peak of memory", done.megabytes, "MB", "≤ 1000 MB")


SECTIONS: dict[str, Callable[[Path, bool], Iterator[Figure]]] = {
    "timm": timm, "workers": workers, "dask": dask, "growth": growth, "journal": journal,
}  # fmt: skip


def main() -> None:
    """Print the figures of the chosen sections, each with its goal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a part of everything, in about two minutes")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"there is no section {', '.join(sorted(unknown))}")
    print(f"{os.cpu_count()} processors, Python {platform.python_version()}, {versions_of(['timm:resnet50'])}\n")
    output = options.json.resolve() if options.json else None
    found: dict[str, list[dict[str, Any]]] = {}
    start = Path.cwd()
    for name in options.sections or SECTIONS:
        with tempfile.TemporaryDirectory() as place:
            (Path(place) / "net.py").write_text(NET)
            os.chdir(place)
            for figure in SECTIONS[name](Path(place), options.quick):
                print(f"{figure.what:68}{figure.value:12,.2f} {figure.unit:3}  {figure.goal}", flush=True)
                found.setdefault(name, []).append(figure._asdict())
            os.chdir(start)
    if output:
        output.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
