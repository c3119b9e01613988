"""Measure the networks on the engines, in batches. A finished batch is a file, so a later run continues after it.

The method is that of `cspprof measure` (docs/measuring.md): a process for each engine, a warm-up before each series of
samples, a check of each output, engines and networks in random order in each round. Two things differ, because a
session of 150 networks would need 15 GiB: the networks are measured in batches, and one reference network is part of
each batch, twice. Its times show how the machine changed between batches, its pairs what a batch can show. The graphs
are exported by the TorchScript exporter, which takes a tenth of the time of the other one.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
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
from cspprof.measure.statistics import least, median_estimate, ratio_estimate
from cspprof.measure.worker_process import WorkerProcess
from timing_study import counters
from timing_study.networks import Network, groups

ROUNDS = 3
ROUND_SECONDS = 0.1
"""Time for the samples of a network in a round; at least `worker.LEAST_SAMPLES` are taken."""
FIRST_RUNS = 2
"""Forward passes of `EngineProcess.measure` before those of the warm-up."""
BATCH = 12
"""Networks in one batch."""
REFERENCE = Network("reference: resnet18", "resnet18", "")
REFERENCE_SIZE = 160
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


def measure(todo: Sequence[Batch], folder: Path, seconds: float, rounds: int = ROUNDS) -> bool:
    """Measure the batches that have no file in `folder` yet. Returns whether all have one after at most `seconds`."""
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    for batch in todo:
        path = folder / f"{batch.name}.json"
        if path.exists():
            continue
        if time.monotonic() - began > seconds:
            return False
        print(f"{datetime.now(UTC):%H:%M:%S} batch {batch.name}: {len(batch.items)} networks", flush=True)
        document = BatchRun(batch, rounds).run()
        write_atomically(path, json.dumps(document, indent=1).encode())
    return True


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
            "date": date, "rounds": self.rounds, "machine": this_machine()._asdict(), "other_cpu_share": share,
            "versions": {"cspprof": __version__},
            "engines": {run.name: {"versions": run.versions, "settings": run.settings} for run in runs},
            "times": [self._row(t) for t in timings if any(t.rounds) and not t.again],
            "same_model_ratios": dict(_same_model_ratios(timings)),
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
        """A process with the networks whose outputs are right on this engine; the reference is loaded twice."""
        process = EngineProcess(run, 1, self.cpus)
        process.start()
        timings = [Timing(run.name, i) for i in prepared if run.name in self.items[i].engines]
        if 0 in prepared:
            timings.append(Timing(run.name, 0, again=True))
        for timing in timings:
            process.load(timing, prepared[timing.model])
            if not timing.failure:
                process.check_loaded(timing, prepared[timing.model])
        return process, timings

    def _measure(self, processes: list[tuple[EngineProcess, list[Timing]]]) -> float:
        """Measure in rounds, and return the share of the used CPU that other processes took."""
        order, own = random.Random(0), 0.0
        clock, began = CpuClock(), time.perf_counter()
        for _ in range(self.rounds):
            for process, timings in order.sample(processes, len(processes)):
                for timing in order.sample(timings, len(timings)):
                    if not timing.failure:
                        own += process.measure(timing, ROUND_SECONDS)
        elapsed = (time.perf_counter() - began) * this_machine().cores
        return round(min(clock.seconds(own) / elapsed, 1.0), 4) if elapsed else 0.0

    def _count_accesses(self, processes: list[tuple[EngineProcess, list[Timing]]]) -> list[list[Any]]:
        """Name, size, and bytes that a forward pass on ONNX Runtime moves to and from memory, by hardware counters.
        Empty on machines without them."""
        if counters.why_unavailable():
            return []
        found = []
        for process, timings in processes:
            for timing in timings if process.engine.name == "onnxruntime" else ():
                if not timing.failure and not timing.again:
                    again = Timing(timing.engine, timing.model)
                    lines = counters.counted(process.pid, partial(process.measure, again, ROUND_SECONDS))
                    runs = again.warm_up_runs[0] + len(again.rounds[0]) * again.runs_per_sample + FIRST_RUNS
                    item = self.items[timing.model]
                    found.append([item.network.name, item.size, round(lines * counters.LINE_BYTES / runs)])
        return found

    def _fail(self, item: Item, engine: str, reason: str) -> None:
        self.failures.append([item.network.name, item.size, engine, reason.splitlines()[0] if reason else ""])

    def _row(self, timing: Timing) -> list[Any]:
        """Engine, name, size, median, ends of its interval and minimum in ms, samples, error, whether stable."""
        item, median = self.items[timing.model], median_estimate(timing.rounds)
        times = [_ms(t) for t in (*median, least(timing.rounds))]
        samples = sum(map(len, timing.rounds))
        return [timing.engine, item.network.name, item.size, *times, samples, _digits(timing.error, 2), timing.stable]


def _same_model_ratios(timings: Sequence[Timing]) -> Iterator[tuple[str, list[float]]]:
    """For each engine, the ratio of the two copies of the reference network, with its interval."""
    for again in (t for t in timings if t.again and any(t.rounds)):
        first = next(t for t in timings if (t.engine, t.model, t.again) == (again.engine, again.model, False))
        if any(first.rounds):
            yield again.engine, [round(v, 4) for v in ratio_estimate(first.rounds, again.rounds)]


def _ms(seconds: float) -> float:
    return _digits(seconds * 1e3, 5) or 0.0


def _digits(value: float | None, digits: int) -> float | None:
    return None if value is None else float(f"{value:.{digits}g}")


def merged(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One document for all batches."""
    first = documents[0]
    engines: dict[str, Any] = {}
    for document in documents:
        engines |= document["engines"]
    return {
        "date": min(d["date"] for d in documents),
        "rounds": first["rounds"],
        "machine": first["machine"],
        "versions": first["versions"],
        "engines": engines,
        "other_cpu_share": max(d["other_cpu_share"] for d in documents),
        "references": [row for d in documents for row in d["times"] if row[1] == REFERENCE.name],
        "same_model_ratios": [d["same_model_ratios"] for d in documents],
        "times": [row for d in documents for row in d["times"] if row[1] != REFERENCE.name],
        "accesses": [row for d in documents for row in d["accesses"]],
        "no_counters": first["no_counters"],
        "failures": [row for d in documents for row in d["failures"]],
    }
