"""Two versions of models on one engine, in turns: an A/B measurement with its A/A pair.

Three processes load every model: two run the base, one runs the head. A round measures each model in the three
processes one after another, in random order, so that a slow change of the machine meets all of them alike. The two
processes of the base are the A/A pair. Their difference includes what differs from process to process, such as the
addresses of memory.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.core.temporary import temporary_folder
from cspprof.measure.engine_process import EngineProcess
from cspprof.measure.engines import ENGINES
from cspprof.measure.engines.network import EngineError
from cspprof.measure.machine import cpus_for, default_threads
from cspprof.measure.result import EngineRun, Timing
from cspprof.measure.session import ROUND_SECONDS, ROUNDS, Progress, refuse_without_memory
from cspprof.measure.statistics import Estimate, least_difference, median_of, ratio_estimate
from cspprof.measure.worker_process import Checkout, WorkerProcess

MOST_ROUNDS = 3 * ROUNDS
"""Rounds of a model that fewer rounds do not decide."""


class VersionedModel(NamedTuple):
    """A model that both versions of the code have."""

    name: str
    spec: str
    inputs: list[str]
    record: Record


@dataclass
class ABTiming:
    """The times of a model: A (`base`), A again in another process, and B (`head`)."""

    base: Timing
    again: Timing
    head: Timing

    @property
    def ratio(self) -> Estimate:
        """The median of the head divided by that of the base. Raises ValueError without samples."""
        return ratio_estimate(self.base.rounds, self.head.rounds)

    @property
    def least_difference(self) -> float:
        """The spread of the A/A pair, relative: differences up to it mean nothing."""
        return least_difference(ratio_estimate(self.base.rounds, self.again.rounds))

    @property
    def milliseconds(self) -> tuple[float, float]:
        """The medians of the base and of the head."""
        return median_of(self.base.rounds) * 1e3, median_of(self.head.rounds) * 1e3

    @property
    def failed(self) -> Timing | None:
        """The timing that failed; None if all three have samples."""
        return next((t for t in (self.base, self.again, self.head) if t.failure), None)


class ABSession:
    """Measures two versions of models on one engine."""

    def __init__(
        self, models: Sequence[VersionedModel], engine: str, base: Checkout, head: Checkout,
        is_decided: Callable[[int, ABTiming], bool], progress: Progress = lambda text, done, steps: None,
    ) -> None:  # fmt: skip
        """`is_decided` says whether the timing of the model with this index needs no further rounds."""
        self.models, self.engine, self.is_decided = models, engine, is_decided
        self.checkouts = (base, base, head)
        self.timings = [
            ABTiming(Timing(engine, i), Timing(engine, i, again=True), Timing(engine, i)) for i in range(len(models))
        ]
        self._progress = progress
        self._done, self._steps = 0, 3 * len(models) + ROUNDS

    def run(self) -> list[ABTiming]:
        """The times of each model. A failure is kept in its timing."""
        with temporary_folder("measure") as folder, ExitStack() as stack:
            self._prepare(folder)
            processes = [stack.enter_context(process) for process in self._processes()]
            self._load(processes, folder)
            self._measure(processes)
        return self.timings

    def _prepare(self, folder: Path) -> None:
        """Write what the engine loads: for each model `0/base`, `0/head`. One process prepares all models of a side."""
        needs_graph = ENGINES.get(self.engine).runs_graph
        for side, checkout in (("base", self.checkouts[0]), ("head", self.checkouts[-1])):
            with ExitStack() as stack:
                process: WorkerProcess | None = None
                for i, (model, timing) in enumerate(zip(self.models, self.timings, strict=True)):
                    self._step(f"preparing {model.name} ({side})")
                    if timing.failed:
                        continue
                    if process is None or not process.is_running:
                        process = stack.enter_context(WorkerProcess(checkout))
                    own, place = timing.base if side == "base" else timing.head, folder / str(i) / side
                    place.mkdir(parents=True)
                    try:
                        refuse_without_memory(model.record, len(self.checkouts))
                        process.request(
                            "prepare", spec=model.spec, inputs=model.inputs, folder=str(place), needs_graph=needs_graph
                        )
                    except CspprofError as error:
                        own.failure, own.hint = error.message, error.hint

    def _processes(self) -> Iterator[EngineProcess]:
        threads = default_threads()
        for checkout in self.checkouts:
            yield EngineProcess(EngineRun(self.engine), threads, cpus_for(threads), checkout)

    def _load(self, processes: Sequence[EngineProcess], folder: Path) -> None:
        """Load every model in each process, and compare its output with that of torch."""
        for process in processes:
            try:
                process.start()
            except EngineError:  # the failure is kept in the engine
                continue
        for i, timing in enumerate(self.timings):
            self._step(f"loading {self.models[i].name} in {self.engine}")
            for process, own in zip(processes, (timing.base, timing.again, timing.head), strict=True):
                place = folder / str(i) / ("head" if own is timing.head else "base")
                if timing.failed:
                    break
                if process.engine.failure:
                    own.failure, own.hint = process.engine.failure, process.engine.hint
                    break
                process.load(own, place)
                if not own.failure:
                    process.check_loaded(own, place)

    def _measure(self, processes: Sequence[EngineProcess]) -> None:
        order = random.Random(0)
        for i in range(MOST_ROUNDS):
            pending = [
                timing for model, timing in enumerate(self.timings)
                if not timing.failed and not (i >= ROUNDS and self.is_decided(model, timing))
            ]  # fmt: skip
            if not pending:
                break
            self._steps = max(self._steps, self._done + 1)
            self._step(f"round {i + 1} on {self.engine}")
            for timing in order.sample(pending, len(pending)):
                turns = list(zip(processes, (timing.base, timing.again, timing.head), strict=True))
                for process, own in order.sample(turns, len(turns)):
                    if not timing.failed:
                        process.measure(own, ROUND_SECONDS)

    def _step(self, text: str) -> None:
        self._progress(text, self._done, self._steps)
        self._done += 1
