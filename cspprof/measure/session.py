"""A session of measurements: prepare the models, check each on each engine, then measure in rounds."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from cspprof._version import __version__
from cspprof.core.errors import CspprofError
from cspprof.core.inputs import parse_inputs
from cspprof.core.record import Record
from cspprof.measure.engines import ENGINES
from cspprof.measure.engines.network import EngineError
from cspprof.measure.machine import CpuClock, available_memory, cpus_for, default_threads, this_machine
from cspprof.measure.result import EngineRun, MeasuredModel, Measurement, Timing
from cspprof.measure.worker import MEMORY_HINT, OUT_OF_MEMORY
from cspprof.measure.worker_process import WorkerProcess
from cspprof.metrics import value_of
from cspprof.profiles import profile_spec
from cspprof.sources import Request

ROUNDS = 5
ROUND_SECONDS = 0.5
"""Time for the samples of one model in one round; at least `worker.LEAST_SAMPLES` samples are taken."""

Progress = Callable[[str, int, int], None]
"""Called with what happens next, the number of steps done, and the number of all steps."""


class Session:
    """Measures models on engines. `result` grows while it works, so that an interruption loses nothing."""

    def __init__(
        self, specs: Sequence[str], engines: Sequence[str], inputs: Sequence[str] = (), threads: int | None = None,
        rounds: int = ROUNDS, progress: Progress = lambda text, done, steps: None,
    ) -> None:  # fmt: skip
        """Raises CspprofError for an impossible option, and from the trace of a model."""
        if rounds < 1:
            raise CspprofError(f"--rounds {rounds} measures nothing", "Write --rounds N with N ≥ 1; the default is 5.")
        self.threads = default_threads() if threads is None else threads
        self.cpus = cpus_for(self.threads)
        self.inputs = list(inputs)
        self.progress = progress
        self._done, self._steps = 0, 0
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        date = datetime.now(UTC).isoformat(timespec="seconds")
        self.result = Measurement(this_machine(), date, self.threads, rounds, load, versions={"cspprof": __version__})
        self.result.engines = [EngineRun(name) for name in engines]
        request = Request(inputs=parse_inputs(self.inputs))
        for spec in specs:
            record = profile_spec(spec, request, cache=True)
            self.result.models.append(MeasuredModel(record.model, spec, self.inputs, record))

    def run(self, check_only: bool = False) -> Measurement:
        """Prepare, check and measure. After Ctrl-C, the result has what was measured until then."""
        result = self.result
        result.checked_only = check_only
        models, engines = len(result.models), len(result.engines)
        self._steps = models + engines * models + (0 if check_only else engines * models + result.rounds * engines)
        with TemporaryDirectory(prefix="cspprof-measure-") as folder:
            try:
                folders = self._prepare(Path(folder))
                self._check(folders)
                if not check_only:
                    self._measure(folders)
            except KeyboardInterrupt:
                result.interrupted = True
        return result

    def _step(self, text: str) -> None:
        self.progress(text, self._done, self._steps)
        self._done += 1

    # -- prepare -------------------------------------------------------------------------------------

    def _prepare(self, folder: Path) -> list[Path]:
        """The folder of each prepared model. A model that cannot be prepared gets the reason."""
        needs_graph = any(ENGINES.get(engine.name).runs_graph for engine in self.result.engines)
        by_spec: dict[str, tuple[Path, MeasuredModel]] = {}
        folders = []
        for i, model in enumerate(self.result.models):
            self._step(f"preparing {model.name}")
            if model.spec in by_spec:
                own, first = by_spec[model.spec]
                model.export, model.notes, model.failure, model.hint = (
                    first.export, first.notes, first.failure, first.hint,
                )  # fmt: skip
            else:
                own = folder / str(i)
                own.mkdir()
                self._prepare_one(model, own, needs_graph)
                by_spec[model.spec] = own, model
            folders.append(own)
        return folders

    def _prepare_one(self, model: MeasuredModel, folder: Path, needs_graph: bool) -> None:
        try:
            refuse_without_memory(model.record)
            with WorkerProcess() as process:
                facts = process.request(
                    "prepare", spec=model.spec, inputs=self.inputs, folder=str(folder), needs_graph=needs_graph
                )
        except CspprofError as error:
            model.failure, model.hint = error.message, error.hint
            return
        model.notes = facts["notes"]
        model.export = {k: v for k, v in facts["export"].items() if k != "path"}

    # -- check ---------------------------------------------------------------------------------------

    def _check(self, folders: Sequence[Path]) -> None:
        """Run each model on each engine in a process of its own: its output must be right, and its peak memory is that
        of this model alone."""
        for engine in self.result.engines:
            for i, model in enumerate(self.result.models):
                self._step(f"checking {model.name} on {engine.name}")
                timing = Timing(engine.name, i, failure=model.failure, hint=model.hint)
                self.result.timings.append(timing)
                if not timing.failure:
                    self._check_one(engine, timing, str(folders[i]))

    def _check_one(self, engine: EngineRun, timing: Timing, folder: str) -> None:
        if engine.failure:
            timing.failure, timing.hint = engine.failure, engine.hint
            return
        try:
            with WorkerProcess() as process:
                self._start(process, engine)
                timing.engine_bytes = self._engine_bytes
                loaded = process.request("load", key="model", folder=folder)
                checked = process.request("check", key="model", folder=folder)
        except CspprofError as error:
            timing.failure, timing.hint = error.message, error.hint
            return
        timing.load_seconds, timing.notes = loaded["load_seconds"], loaded["notes"]
        timing.error, timing.peak_bytes = checked["error"], checked["peak_bytes"]

    def _start(self, process: WorkerProcess, engine: EngineRun) -> None:
        """Start the engine in a new process. Raises EngineError."""
        try:
            started = process.request("start", engine=engine.name, threads=self.threads, cpus=self.cpus)
        except EngineError as error:
            engine.failure, engine.hint = error.message, error.hint
            raise
        engine.settings, engine.versions = started["settings"], started["versions"]
        self._engine_bytes: int = started["peak_bytes"]

    # -- measure -------------------------------------------------------------------------------------

    def _measure(self, folders: Sequence[Path]) -> None:
        """Rounds in which every engine measures every model. The order of engines and of models is random."""
        order = random.Random(0)
        own_seconds = 0.0
        with ExitStack() as stack:
            loaded: list[tuple[WorkerProcess, list[tuple[str, Timing]]]] = []
            for engine in self.result.engines:
                process = stack.enter_context(WorkerProcess())
                timings = self._load_all(process, engine, folders)
                if timings:
                    loaded.append((process, timings))
            self._done = self._steps - self.result.rounds * len(self.result.engines)
            clock, began = CpuClock(), time.perf_counter()
            for i in range(self.result.rounds if loaded else 0):
                for process, timings in order.sample(loaded, len(loaded)):
                    self._step(f"round {i + 1} of {self.result.rounds}: {timings[0][1].engine}")
                    for key, timing in order.sample(timings, len(timings)):
                        own_seconds += self._measure_one(process, key, timing)
                self.result.finished_rounds = i + 1
                elapsed = (time.perf_counter() - began) * self.result.machine.cores
                self.result.other_cpu_share = min(clock.seconds(own_seconds) / elapsed, 1.0)

    def _load_all(self, process: WorkerProcess, engine: EngineRun, folders: Sequence[Path]) -> list[tuple[str, Timing]]:
        """Load the models that the engine runs correctly, the first of them twice, and return them with their keys."""
        correct = [t for t in self.result.of_engine(engine.name) if not t.failure]
        if not correct:
            return []
        again = Timing(engine.name, correct[0].model, again=True)
        self.result.timings.append(again)
        try:
            self._start(process, engine)
        except EngineError as error:
            for timing in (*correct, again):
                timing.failure, timing.hint = error.message, error.hint
            return []
        loaded = []
        for timing in (*correct, again):
            key = f"{timing.model} {timing.again}"
            self._step(f"loading {self.result.models[timing.model].name} in {engine.name}")
            try:
                process.request("load", key=key, folder=str(folders[timing.model]))
            except EngineError as error:
                timing.failure, timing.hint = error.message, error.hint
            else:
                loaded.append((key, timing))
        return loaded

    def _measure_one(self, process: WorkerProcess, key: str, timing: Timing) -> float:
        """Add a round to a timing; returns the CPU seconds of the process."""
        if timing.failure:
            return 0.0
        try:
            measured = process.request("time", key=key, seconds=ROUND_SECONDS)
        except EngineError as error:
            timing.failure, timing.hint = error.message, error.hint
            return 0.0
        timing.rounds.append(measured["samples"])
        timing.runs_per_sample = measured["runs_per_sample"]
        timing.warm_up_runs.append(measured["warm_up_runs"])
        timing.stable &= measured["stable"]
        return float(measured["cpu_seconds"])


def refuse_without_memory(record: Record) -> None:
    """Raise EngineError if weights and activations of a float32 model need more memory than there is."""
    needed = 4 * record.params + int(value_of(record, "peak_bytes") or 0)
    free = available_memory()
    if needed > free:
        raise EngineError(
            f"{OUT_OF_MEMORY}: {record.label} needs {needed / 2**30:.1f} GiB for weights and activations, and "
            f"{free / 2**30:.1f} GiB are free",
            MEMORY_HINT,
        )
