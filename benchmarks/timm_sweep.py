"""Compare cspprof with torch's FlopCounterMode on every architecture that timm lists, at its own input size, on meta.

`python benchmarks/timm_sweep.py [--only GLOB] [--limit N] [--jobs 2] [--no-oracle] [--json FILE]`

The table at the end lists the architectures on which the two differ, each with a reason: the error that FlopCounterMode
raised, or the operations for which it has no formula, if their MACs are the whole difference. The exit code is 1 if an
architecture failed, has an unknown operation, or differs for no known reason. Each architecture runs in a worker
process, so a crash becomes a row of the table. Ctrl-C keeps the rows measured so far.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import signal
import sys
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

EQUAL, EXPLAINED, UNEXPLAINED, INCOMPLETE, FAILED = "equal", "explained", "unexplained", "incomplete", "failed"
UNCHECKED = "not checked"
PASSING = {EQUAL, EXPLAINED, UNCHECKED}


@dataclass
class Row:
    """The result for one architecture."""

    name: str
    verdict: str
    input: str = ""
    macs: int | None = None
    """The count of cspprof."""
    torch_macs: float | None = None
    """Half of the FLOPs of FlopCounterMode."""
    reason: str = ""
    seconds: float = 0.0


def measure(name: str, oracle: bool) -> Row:
    """Count an architecture with cspprof, and with FlopCounterMode if `oracle`."""
    import cspprof

    start = time.perf_counter()
    row = Row(name, FAILED)
    try:
        profile = cspprof.profile(f"timm:{name}")
        profile.self_check()
    except Exception as error:
        row.reason = _first_line(error)
        return row
    row.input, row.macs = str(profile.inputs[0]), profile.total("macs")
    if not profile.complete:
        row.verdict = INCOMPLETE
        row.reason = ", ".join(f"no rule for {op} ×{n}" for op, n in profile.uncounted.items())
    elif oracle:
        row.torch_macs, row.verdict, row.reason = compare(name, profile.inputs[0].shape, row.macs)
    else:
        row.verdict = UNCHECKED
    row.seconds = round(time.perf_counter() - start, 3)
    return row


def compare(name: str, shape: tuple[int, ...], macs: int) -> tuple[float | None, str, str]:
    """FlopCounterMode's MACs, the verdict on `macs`, and its reason."""
    counter = torch_counter()
    try:
        count_by_torch(counter, name, shape)
    except Exception as error:
        return None, EXPLAINED, f"FlopCounterMode raises {_first_line(error)}"
    theirs = counter.get_total_flops() / 2
    if theirs == macs:
        return theirs, EQUAL, ""
    missed = {op: cost for op, cost in counter.missed.items() if sum(cost)}
    if theirs + sum(map(sum, missed.values())) == macs:
        listed = ", ".join(f"{op} ×{len(cost)} ({sum(cost):,} MACs)" for op, cost in missed.items())
        return theirs, EXPLAINED, f"no formula in torch's registry for {listed}"
    return theirs, UNEXPLAINED, "the counters differ"


def count_by_torch(counter: Any, name: str, shape: tuple[int, ...]) -> None:
    """Run the forward on meta under FlopCounterMode.

    No parameter requires a gradient, because the counter's module tracker sets backward hooks even under `no_grad` and
    then fails on modules that are called with a parameter.
    """
    import timm
    import torch

    with torch.device("meta"):
        model = timm.create_model(name).eval().requires_grad_(False)
    with torch.no_grad(), counter:
        model(torch.empty(shape, device="meta"))


def torch_counter() -> Any:
    """A FlopCounterMode that also counts, by the rules of cspprof, the operations for which it has no formula."""
    from torch.utils.flop_counter import FlopCounterMode

    from cspprof.core.record import TensorSpec
    from cspprof.operands.pytree import replace_tensors, tensors_in
    from cspprof.ops import RULES

    class Counting(FlopCounterMode):
        def __init__(self) -> None:
            super().__init__(display=False)
            self.missed: dict[str, list[int]] = {}
            """The MACs of each call, by operation."""

        def _count_flops(self, packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
            target = str(packet)
            if packet not in self.flop_registry and target in RULES:
                specs = (TensorSpec(tuple(t.shape)) for t in tensors_in((args, list(kwargs.values()))))
                made = [TensorSpec(tuple(t.shape)) for t in tensors_in(out)]
                named = {k: replace_tensors(v, specs) for k, v in kwargs.items()}
                facts = RULES.get(target)(
                    *replace_tensors(args, specs), out=made[0] if made else TensorSpec((0,)), **named
                )
                self.missed.setdefault(target, []).append(facts.macs or 0)
            return super()._count_flops(packet, out, args, kwargs)

    return Counting()


def _first_line(error: BaseException) -> str:
    """The type of an exception and the first line of its message."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"[:200]


# -- processes -------------------------------------------------------------------------------------


def serve(pipe: Connection, oracle: bool) -> None:
    """Run in a worker: receive names and send rows until the pipe closes. The parent handles Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            name = pipe.recv()
        except EOFError:
            return
        pipe.send(measure(name, oracle))


class Worker:
    """A process that measures one architecture at a time."""

    def __init__(self, oracle: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, oracle), daemon=True)
        self.process.start()
        theirs.close()
        self.name = ""

    def start(self, name: str) -> None:
        self.name = name
        self.pipe.send(name)

    def stop(self) -> None:
        self.pipe.close()
        self.process.terminate()
        self.process.join()


def sweep(names: list[str], jobs: int, oracle: bool) -> Iterator[Row]:
    """Yield rows as they are measured. A worker that dies yields a failed row and is replaced."""
    waiting = deque(names)
    busy: dict[Any, Worker] = {}
    try:
        for _ in range(min(jobs, len(names))):
            worker = Worker(oracle)
            busy[worker.pipe] = worker
            worker.start(waiting.popleft())
        while busy:
            for pipe in wait(list(busy)):
                worker = busy.pop(pipe)
                try:
                    row = worker.pipe.recv()
                except (EOFError, OSError):
                    worker.process.join()
                    row = Row(worker.name, FAILED, reason=f"its process ended with exit code {worker.process.exitcode}")
                    worker.stop()
                    worker = Worker(oracle)
                if waiting:
                    worker.start(waiting.popleft())
                    busy[worker.pipe] = worker
                else:
                    worker.stop()
                yield row
    finally:
        for worker in busy.values():
            worker.stop()


# -- output ----------------------------------------------------------------------------------------


def collect(rows: Iterator[Row], total: int, console: Console) -> list[Row]:
    """Collect the rows and show progress: a bar on a terminal, else a line for each row. Ctrl-C ends it early."""
    done: list[Row] = []
    columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, TextColumn("{task.fields[now]}"), console=console, disable=not console.is_terminal)
    try:
        with progress:
            task = progress.add_task("timm", total=total, now="")
            for row in rows:
                done.append(row)
                progress.update(task, advance=1, now=row.name)
                if not console.is_terminal:
                    macs = "–" if row.macs is None else f"{row.macs:,}"
                    print(f"{len(done):5}/{total} {row.name:52}{macs:>20}  {row.verdict}", flush=True)
    except KeyboardInterrupt:
        console.print(f"stopped after {len(done)} of {total}")
    return done


def table_of(rows: list[Row]) -> Table:
    table = Table("architecture", "MACs", "FlopCounterMode / 2", "difference", "reason", box=None, header_style="bold")
    for column in table.columns[1:4]:
        column.justify = "right"
    for row in rows:
        ours = "–" if row.macs is None else f"{row.macs:,}"
        theirs = "–" if row.torch_macs is None else f"{row.torch_macs:,.0f}"
        difference = "–" if row.macs is None or row.torch_macs is None else f"{row.macs - row.torch_macs:+,.0f}"
        reason = row.reason if row.verdict == EXPLAINED else f"{row.verdict}: {row.reason}"
        table.add_row(row.name, ours, theirs, difference, reason)
    return table


def main() -> int:
    """The exit code: 0 if all architectures are complete and equal or explained, else 1; 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="GLOB", default="*", help="architectures whose names match, such as 'vit_*'")
    parser.add_argument("--limit", metavar="N", type=int, help="the first N of them")
    parser.add_argument("--jobs", metavar="N", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--no-oracle", action="store_true", help="profile only, without FlopCounterMode")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all rows to this file")
    options = parser.parse_args()

    import timm
    import torch

    import cspprof

    listed = timm.list_models()
    names = [n for n in listed if fnmatch(n, options.only)][: options.limit]
    if not names:
        parser.error(f"timm has no architecture that matches {options.only!r}")
    console = Console(width=None if sys.stdout.isatty() else 200)
    versions = f"cspprof {cspprof.__version__}, timm {timm.__version__}, torch {torch.__version__}"
    console.print(f"{versions}: {len(names):,} of {len(listed):,} architectures")
    start = time.perf_counter()
    rows = collect(sweep(names, max(options.jobs, 1), not options.no_oracle), len(names), console)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    differing = [row for row in rows if row.verdict not in (EQUAL, UNCHECKED)]
    if differing:
        console.print(table_of(differing))
    complete = sum(row.verdict not in (FAILED, INCOMPLETE) for row in rows)
    verdicts = ", ".join(f"{n:,} {verdict}" for verdict, n in Counter(row.verdict for row in rows).most_common())
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(f"{complete:,} of {len(names):,} profiled with no unknown operation; against FlopCounterMode: {verdicts}")
    print(f"{time.perf_counter() - start:.0f} s with {options.jobs} jobs, at most {memory} MiB in a worker")
    if len(rows) < len(names):
        return 130
    return 0 if all(row.verdict in PASSING for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
