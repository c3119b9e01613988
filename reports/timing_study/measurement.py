"""Measure the networks on the engines, in batches. A finished batch is a file, so a later run continues after it.

The method is that of `cspprof measure` (docs/measuring.md): a process for each engine, a warm-up before each series of
samples, a check of each output, engines and networks in random order in each round. It differs in three points:

- Networks are measured in batches, because a session of 150 networks would need 15 GiB. One reference network is part
  of each batch. A batch that measures it much slower than another one was disturbed by other programs, and is repeated.
- The time of a network is its fastest sample, which depends least on other programs.
- The TorchScript exporter writes the graphs. It takes a tenth of the time of the other one.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cspprof._version import __version__
from cspprof.core.files import write_atomically
from cspprof.measure.calibration.networks import NETWORKS as SHORT
from cspprof.measure.calibration.session import FACTORY
from cspprof.measure.engine_process import EngineProcess
from cspprof.measure.engines.network import EngineError
from cspprof.measure.machine import CpuClock, cpus_for, this_machine
from cspprof.measure.result import EngineRun, Timing
from cspprof.measure.statistics import least, median_of
from cspprof.measure.worker_process import WorkerProcess
from timing_study import counters
from timing_study.networks import Network, groups

ROUNDS = 3
ROUND_SECONDS = 0.1
"""Time for the samples of a network in a round; at least `worker.LEAST_SAMPLES` are taken."""
FASTEST = 3
"""The position of the fastest sample in a row of `times`."""
FIRST_RUNS = 2
"""Forward passes of `EngineProcess.measure` before those of the warm-up."""
BATCH = 12
"""Networks in one batch."""
REFERENCE = Network("reference: resnet18", "resnet18", "")
REFERENCE_SIZE = 160
DISTURBED = 0.05
"""A batch is repeated if its reference network was slower than in the best batch by more than this."""
ENGINES_FOR_ALL = ("onnxruntime", "torch")
ENGINES_FOR_PART = ("opencv", "opencv-classic", "openvino")
"""Engines that measure plain/CSP pairs of the zoo and the detectors only, at the larger size."""
CALIBRATED_ENGINES = (*ENGINES_FOR_ALL, "opencv", "openvino")
"""Engines that measure the short networks of calibration."""


@dataclass(frozen=True)
class Item:
    """A network at an input size, and the engines that measure it."""

    network: Network
    size: int
    engines: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    """Empty for the size as 1×3×size×size."""

    @property
    def input_texts(self) -> list[str]:
        return list(self.inputs) or [f"1x3x{self.size}x{self.size}"]


@dataclass
class Batch:
    """Networks that are measured together."""

    name: str
    items: list[Item] = field(default_factory=list)


def batches(chosen: list[Network], batch_size: int = BATCH, part: Iterable[str] = ENGINES_FOR_PART) -> list[Batch]:
    """The batches of a run in random order, first that of the short networks of calibration.

    Related networks are in the same batch, so that their times are compared within minutes.
    """
    draws = random.Random(0)
    whole = [(group, i) for group in groups(chosen) for i in (0, 1)]
    draws.shuffle(whole)
    found = [short_batch()]
    current: list[Item] = []
    for group, i in whole:
        current += [Item(n, n.sizes[i], _engines(n, group, i, tuple(part))) for n in group]
        if len(current) >= batch_size:
            found.append(Batch(f"{len(found):02d}", current))
            current = []
    if current:
        found.append(Batch(f"{len(found):02d}", current))
    return found


def _engines(network: Network, group: list[Network], size_index: int, part: tuple[str, ...]) -> tuple[str, ...]:
    in_part = size_index == 1 and network.source == "zoo" and (len(group) > 1 or network.detector)
    at_own_size = network.name.startswith("thundernet") and size_index == 0  # published at 320×320
    return ENGINES_FOR_ALL + (part if in_part or at_own_size else ())


def short_batch(names: Sequence[str] = tuple(SHORT)) -> Batch:
    """The short networks of calibration, to which the calibrated model is always fitted."""
    items = []
    for name in names:
        shape = "x".join(map(str, SHORT[name].shape))
        network = Network(name, f"{FACTORY},name={name}", "")
        items.append(Item(network, SHORT[name].shape[-1], CALIBRATED_ENGINES, (shape,)))
    return Batch("short", items)


# -- measuring ----------------------------------------------------------------------------------------


def measure(todo: Sequence[Batch], folder: Path, seconds: float, rounds: int = ROUNDS, repeat: bool = True) -> bool:
    """Measure the batches that have no file in `folder` yet, then, if `repeat`, those that were disturbed again.

    No batch is begun after `seconds`. Returns whether all batches have a file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds
    for batch in todo:
        path = folder / f"{batch.name}.json"
        if not path.exists():
            if time.monotonic() > end:
                return False
            write_atomically(path, _measured(batch, rounds))
    found = {batch.name: json.loads((folder / f"{batch.name}.json").read_text()) for batch in todo}
    slowdowns = slowdown_by_batch(found)
    for batch in sorted(todo, key=lambda b: -slowdowns[b.name]):
        if not repeat or slowdowns[batch.name] <= DISTURBED or time.monotonic() > end:
            break
        repeated = _measured(batch, rounds)
        if slowdown_by_batch(found | {batch.name: json.loads(repeated)})[batch.name] < slowdowns[batch.name]:
            write_atomically(folder / f"{batch.name}.json", repeated)
    return True


def _measured(batch: Batch, rounds: int) -> bytes:
    print(f"{datetime.now(UTC):%H:%M:%S} batch {batch.name}: {len(batch.items)} networks", flush=True)
    return json.dumps(BatchRun(batch, rounds).run(), indent=1).encode()


def slowdown_by_batch(documents: Mapping[str, dict[str, Any]]) -> dict[str, float]:
    """For each batch, how much slower its reference network was than in the best batch: the largest of all engines."""
    return {name: max(found.values(), default=0.0) for name, found in slowdowns(documents).items()}


def slowdowns(documents: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """For each batch and engine, how much slower its reference network was than in the best batch."""
    times = {
        (name, row[0]): row[FASTEST] for name, d in documents.items() for row in d["times"] if row[1] == REFERENCE.name
    }
    best = {engine: min(t for (_, e), t in times.items() if e == engine) for _, engine in times}
    return {name: {e: round(t / best[e] - 1, 4) for (n, e), t in times.items() if n == name} for name in documents}


class BatchRun:
    """One batch: prepare the networks, load them in each engine, check the outputs, and measure in rounds."""

    def __init__(self, batch: Batch, rounds: int) -> None:
        self.rounds = rounds
        self.items = [Item(REFERENCE, REFERENCE_SIZE, tuple(dict.fromkeys(e for i in batch.items for e in i.engines)))]
        self.items += batch.items
        self.cpus = cpus_for(1)
        self.failures: list[list[Any]] = []
        """Name, size, engine (empty for all of them), reason."""

    def run(self) -> dict[str, Any]:
        """The JSON document of the batch."""
        date = datetime.now(UTC).isoformat(timespec="seconds")
        with TemporaryDirectory(prefix="cspprof-study-") as temporary:
            prepared = self._prepare(Path(temporary))
            runs = [EngineRun(name) for name in self.items[0].engines]
            processes: list[tuple[EngineProcess, list[Timing]]] = []
            try:
                for run in runs:
                    processes.append(self._loaded(run, prepared))
                share = self._measure(processes)
                accesses = self._count_accesses(processes)
            finally:
                for process, _ in processes:
                    process.close()
        timings = [t for _, found in processes for t in found]
        for t in timings:
            if t.failure:
                self._fail(self.items[t.model], t.engine, t.failure)
        return {
            "date": date, "rounds": self.rounds, "machine": asdict(this_machine()), "other_cpu_share": share,
            "versions": {"cspprof": __version__},
            "engines": {run.name: {"versions": run.versions, "settings": run.settings} for run in runs},
            "times": [self._row(t) for t in timings if any(t.rounds)],
            "accesses": accesses, "no_counters": counters.why_unavailable(), "failures": self.failures,
        }  # fmt: skip

    def _prepare(self, folder: Path) -> dict[int, Path]:
        """The folder of each network that could be prepared, by its index."""
        found = {}
        with WorkerProcess() as process:
            for i, item in enumerate(self.items):
                own = folder / str(i)
                own.mkdir()
                try:
                    facts = process.request(
                        "prepare", spec=item.network.spec, inputs=item.input_texts, folder=str(own), needs_graph=True,
                        quick=True,
                    )  # fmt: skip
                except EngineError as error:
                    self._fail(item, "", error.message)
                    if not process.is_running:
                        break
                    continue
                if facts["export"]["failure"]:
                    self._fail(item, "", facts["export"]["failure"])
                else:
                    found[i] = own
        return found

    def _loaded(self, run: EngineRun, prepared: dict[int, Path]) -> tuple[EngineProcess, list[Timing]]:
        """A process with the networks whose outputs are right on this engine."""
        process = EngineProcess(run, 1, self.cpus)
        process.start()
        timings = [Timing(run.name, i) for i in prepared if run.name in self.items[i].engines]
        for timing in timings:
            process.load(timing, prepared[timing.model])
            if not timing.failure:
                process.check_loaded(timing, prepared[timing.model])
        return process, timings

    def _measure(self, processes: list[tuple[EngineProcess, list[Timing]]]) -> float:
        """Measure in rounds, and return the share of all CPUs that other processes used."""
        order, own = random.Random(0), 0.0
        clock, began = CpuClock(), time.perf_counter()
        for _ in range(self.rounds):
            for process, timings in order.sample(processes, len(processes)):
                for timing in order.sample(timings, len(timings)):
                    if not timing.failure:
                        own += process.measure(timing, ROUND_SECONDS)
        cpus = os.cpu_count() or 1  # not only those that this process may use
        return round(min(clock.seconds(own) / cpus / (time.perf_counter() - began), 1.0), 3)

    def _count_accesses(self, processes: list[tuple[EngineProcess, list[Timing]]]) -> list[list[Any]]:
        """Name, size, and bytes that a forward pass on ONNX Runtime moves to and from memory, by hardware counters.
        Empty on machines without them."""
        if counters.why_unavailable():
            return []
        found = []
        for process, timings in processes:
            for timing in timings if process.engine.name == "onnxruntime" else ():
                if not timing.failure:
                    again = Timing(timing.engine, timing.model)
                    lines = counters.counted(process.pid, partial(process.measure, again, ROUND_SECONDS))
                    runs = again.warm_up_runs[0] + len(again.rounds[0]) * again.runs_per_sample + FIRST_RUNS
                    item = self.items[timing.model]
                    found.append([item.network.name, item.size, round(lines * counters.LINE_BYTES / runs)])
        return found

    def _fail(self, item: Item, engine: str, reason: str) -> None:
        self.failures.append([item.network.name, item.size, engine, reason.splitlines()[0] if reason else ""])

    def _row(self, timing: Timing) -> list[Any]:
        """Engine, name, size, fastest sample and median in milliseconds, number of samples, relative error."""
        item = self.items[timing.model]
        times = [_ms(least(timing.rounds)), _ms(median_of(timing.rounds))]
        return [
            timing.engine,
            item.network.name,
            item.size,
            *times,
            sum(map(len, timing.rounds)),
            _digits(timing.error, 2),
        ]


def _ms(seconds: float) -> float:
    return _digits(seconds * 1e3, 5) or 0.0


def _digits(value: float | None, digits: int) -> float | None:
    return None if value is None else float(f"{value:.{digits}g}")


def merged(documents: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """One document for all batches. Each time has the name of its batch at its end; `slowdowns` see there."""
    first = next(iter(documents.values()))
    engines: dict[str, Any] = {}
    for document in documents.values():
        engines |= document["engines"]
    return {
        "date": min(d["date"] for d in documents.values()),
        "rounds": first["rounds"],
        "machine": first["machine"],
        "versions": first["versions"],
        "engines": engines,
        "other_cpu_share": max(d["other_cpu_share"] for d in documents.values()),
        "slowdowns": slowdowns(documents),
        "times": [[*row, name] for name, d in documents.items() for row in d["times"] if row[1] != REFERENCE.name],
        "accesses": [row for d in documents.values() for row in d["accesses"]],
        "no_counters": first["no_counters"],
        "failures": [row for d in documents.values() for row in d["failures"]],
    }
