"""A session of measurements: prepare the models, check each on each engine, then measure in rounds."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from cspprof._version import __version__
from cspprof.core.errors import CspprofError
from cspprof.core.inputs import parse_inputs
from cspprof.core.record import Record
from cspprof.core.temporary import temporary_folder
from cspprof.measure.engine_process import EngineProcess, can_be_diagnosed, unsupported_nodes
from cspprof.measure.engines import ENGINES
from cspprof.measure.engines.network import EngineError, Prepared
from cspprof.measure.layers import LayerProfile, layer_profile
from cspprof.measure.machine import CpuClock, available_memory, cpus_for, default_threads, this_machine
from cspprof.measure.profilers import NO_PROFILER, PROFILERS
from cspprof.measure.result import MAX_SAMPLES, EngineRun, MeasuredModel, Measurement, Timing
from cspprof.measure.worker import LEAST_SAMPLES, MEMORY_HINT, MOST_SAMPLES, OUT_OF_MEMORY
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
        rounds: int = ROUNDS, progress: Progress = lambda text, done, steps: None, layers: bool = False,
    ) -> None:  # fmt: skip
        """Raises CspprofError for an impossible option, and from the trace of a model."""
        if rounds < 1:
            raise CspprofError(f"--rounds {rounds} measures nothing", "Write --rounds N with N ≥ 1; the default is 5.")
        timings = (len(specs) + 1) * max(1, len(engines))  # the first model is measured twice
        self.most_samples = min(MOST_SAMPLES, MAX_SAMPLES // (rounds * timings))
        """Samples of a model in one round, so that the result can be read again."""
        if self.most_samples < LEAST_SAMPLES:
            most = MAX_SAMPLES // (LEAST_SAMPLES * timings)
            raise CspprofError(
                f"--rounds {rounds}: a result holds {MAX_SAMPLES:,} samples, and a round takes at least "
                f"{LEAST_SAMPLES * timings}",
                f"Write --rounds {most} or less." if most else "Measure fewer models at a time.",
            )
        self.threads = default_threads() if threads is None else threads
        self.cpus = cpus_for(self.threads)
        self.inputs = list(inputs)
        self.progress = progress
        self.layers = layers
        """Whether each model is profiled per layer, after the rounds."""
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
        self._steps = models + engines * models + (0 if check_only else engines * (models + 1 + result.rounds))
        with temporary_folder("measure") as folder:
            try:
                folders = self._prepare(folder)
                self._check(folders)
                if not check_only:
                    self._measure(folders)
                if self.layers and not check_only:
                    self._profile_layers(folders)
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
                    self._check_one(engine, timing, folders[i])

    def _check_one(self, engine: EngineRun, timing: Timing, folder: Path) -> None:
        if engine.failure:
            timing.failure, timing.hint = engine.failure, engine.hint
            return
        with EngineProcess(engine, self.threads, self.cpus) as process:
            try:
                process.start()
            except EngineError as error:
                timing.failure, timing.hint = error.message, error.hint
                return
            process.check(timing, folder)
        if can_be_diagnosed(engine, timing) and not self.result.models[timing.model].export.get("failure"):
            graph = Prepared(folder).graph
            nodes = unsupported_nodes(engine, self.threads, self.cpus, graph, folder / engine.name)
            if nodes:
                version = next(iter(engine.versions.values()), "")
                timing.failure = "\n".join(
                    [timing.failure, *(f"{engine.name} {version} fails on {node}" for node in nodes)]
                )

    # -- measure -------------------------------------------------------------------------------------

    def _measure(self, folders: Sequence[Path]) -> None:
        """Rounds in which every engine measures every model. The order of engines and of models is random."""
        order, own_seconds = random.Random(0), 0.0
        with ExitStack() as stack:
            processes = []
            for engine in self.result.engines:
                if any(not t.failure for t in self.result.of_engine(engine.name)):
                    processes.append(stack.enter_context(self._loaded(engine, folders)))
            self._done = self._steps - self.result.rounds * len(processes)
            clock, began = CpuClock(), time.perf_counter()
            for i in range(self.result.rounds if processes else 0):
                for process in order.sample(processes, len(processes)):
                    self._step(f"round {i + 1} of {self.result.rounds}: {process.engine.name}")
                    keys = list(process.loaded)
                    for key in order.sample(keys, len(keys)):
                        if key in process.loaded:  # not after it ended the process
                            own_seconds += process.measure(process.loaded[key][0], ROUND_SECONDS, self.most_samples)
                self.result.finished_rounds = i + 1
                elapsed = (time.perf_counter() - began) * self.result.machine.cores
                self.result.other_cpu_share = min(clock.seconds(own_seconds) / elapsed, 1.0)

    # -- layers --------------------------------------------------------------------------------------

    def _profile_layers(self, folders: Sequence[Path]) -> None:
        """Profile each model on each engine in a process of its own: profiles slow an engine down, so the samples are
        taken without."""
        runs = [(e, t) for e in self.result.engines for t in self.result.of_engine(e.name) if not t.failure]
        self._steps += len(runs)
        for engine, timing in runs:
            self._step(f"profiling layers of {self.result.models[timing.model].name} on {engine.name}")
            self.result.layer_profiles += self._profiles_of(engine, timing, folders[timing.model])

    def _profiles_of(self, engine: EngineRun, timing: Timing, folder: Path) -> list[LayerProfile]:
        if engine.name not in PROFILERS:
            return [LayerProfile(engine.name, timing.model, failure=NO_PROFILER[engine.name])]
        record = self.result.models[timing.model].record
        try:
            with EngineProcess(engine, self.threads, self.cpus) as process:
                process.start()
                raw = process.profile_layers(folder)
        except EngineError as error:
            return [LayerProfile(engine.name, timing.model, failure=error.message)]
        return [layer_profile(record, engine.name, timing.model, one) for one in raw]

    def _loaded(self, engine: EngineRun, folders: Sequence[Path]) -> EngineProcess:
        """A process with the models that the engine runs correctly; the first of them is loaded twice."""
        correct = [t for t in self.result.of_engine(engine.name) if not t.failure]
        again = Timing(engine.name, correct[0].model, again=True)
        self.result.timings.append(again)
        process = EngineProcess(engine, self.threads, self.cpus)
        try:
            process.start()
            for timing in (*correct, again):
                self._step(f"loading {self.result.models[timing.model].name} in {engine.name}")
                process.load(timing, folders[timing.model])
        except EngineError as error:
            for timing in (*correct, again):
                timing.failure, timing.hint = error.message, error.hint
        except BaseException:
            process.close()
            raise
        return process


def refuse_without_memory(record: Record, processes: int = 1) -> None:
    """Raise EngineError if weights and activations of a float32 model, in so many processes, need more memory than
    there is."""
    needed = processes * (4 * record.params + int(value_of(record, "peak_bytes") or 0))
    free = available_memory()
    if needed > free:
        raise EngineError(
            f"{OUT_OF_MEMORY}: {record.label} needs {needed / 2**30:.1f} GiB for weights and activations, and "
            f"{free / 2**30:.1f} GiB are free",
            MEMORY_HINT,
        )
