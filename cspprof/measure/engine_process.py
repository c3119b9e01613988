"""The process of one engine with its loaded models. If a model ends the process, the others continue in a new one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from cspprof.measure.engines import ENGINES
from cspprof.measure.engines.network import EngineError
from cspprof.measure.profilers import RUNS
from cspprof.measure.result import EngineRun, Timing
from cspprof.measure.worker import MOST_SAMPLES, OUT_OF_MEMORY
from cspprof.measure.worker_process import Checkout, WorkerProcess


class EngineProcess:
    """A process that runs one engine."""

    def __init__(
        self, engine: EngineRun, threads: int, cpus: Sequence[int], checkout: Checkout | None = None
    ) -> None:  # fmt: skip
        self.engine = engine
        self.checkout = checkout
        self.threads, self.cpus = threads, list(cpus)
        self.loaded: dict[str, tuple[Timing, Path]] = {}
        self.engine_bytes = 0
        """Peak resident memory after the engine was imported."""
        self._process = WorkerProcess(checkout)

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def start(self) -> None:
        """Import and configure the engine. Raises EngineError, which is kept as the failure of the engine."""
        try:
            started = self._process.request("start", engine=self.engine.name, threads=self.threads, cpus=self.cpus)
        except EngineError as error:
            self.engine.failure, self.engine.hint = error.message, error.hint
            raise
        self.engine.settings, self.engine.versions = started["settings"], started["versions"]
        self.engine_bytes = started["peak_bytes"]

    def check(self, timing: Timing, folder: Path) -> None:
        """Load a model, run it twice and compare its output. A failure is kept in the timing, with the nodes that the
        engine cannot run."""
        timing.engine_bytes = self.engine_bytes
        try:
            loaded = self._process.request("load", key="model", folder=str(folder))
            checked = self._process.request("check", key="model", folder=str(folder))
        except EngineError as error:
            timing.failure, timing.hint = error.message, error.hint
            return
        timing.load_seconds, timing.notes = loaded["load_seconds"], loaded["notes"]
        timing.error, timing.peak_bytes = checked["error"], checked["peak_bytes"]

    def load(self, timing: Timing, folder: Path) -> None:
        """Load a model for `measure`. A failure is kept in the timing."""
        key = _key(timing)
        try:
            self._process.request("load", key=key, folder=str(folder))
        except EngineError as error:
            timing.failure, timing.hint = error.message, error.hint
            self._restart_if_ended()
        else:
            self.loaded[key] = timing, folder

    def check_loaded(self, timing: Timing, folder: Path) -> None:
        """Compare the output of a model that `load` has loaded. A failure is kept in the timing, and the model is not
        measured."""
        try:
            timing.error = self._process.request("check", key=_key(timing), folder=str(folder))["error"]
        except EngineError as error:
            timing.failure, timing.hint = error.message, error.hint
            del self.loaded[_key(timing)]
            self._restart_if_ended()

    def measure(self, timing: Timing, seconds: float, most: int = MOST_SAMPLES) -> float:
        """Add a round of at most `most` samples to a timing, and return the CPU seconds that this took. A failure is
        kept in the timing; its earlier rounds stay."""
        try:
            measured = self._process.request("time", key=_key(timing), seconds=seconds, most=most)
        except EngineError as error:
            timing.failure, timing.hint = error.message, error.hint
            del self.loaded[_key(timing)]
            self._restart_if_ended()
            return 0.0
        timing.rounds.append(measured["samples"])
        timing.runs_per_sample = measured["runs_per_sample"]
        timing.warm_up_runs.append(measured["warm_up_runs"])
        timing.stable &= measured["stable"]
        return float(measured["cpu_seconds"])

    def profile_layers(self, folder: Path, runs: int = RUNS) -> list[dict[str, Any]]:
        """The raw profiles of a model, see `profilers`. Raises EngineError."""
        return list(self._process.request("profile_layers", folder=str(folder), runs=runs)["profiles"])

    def _restart_if_ended(self) -> None:
        """Load the remaining models in a new process if this one has ended."""
        if self._process.is_running:
            return
        self._process.close()
        self._process = WorkerProcess(self.checkout)
        remaining, self.loaded = list(self.loaded.values()), {}
        try:
            self.start()
        except EngineError as error:
            for timing, _ in remaining:
                timing.failure, timing.hint = error.message, error.hint
            return
        for timing, folder in remaining:
            self.load(timing, folder)

    def close(self) -> None:
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def unsupported_nodes(engine: EngineRun, threads: int, cpus: Sequence[int], graph: Path, folder: Path) -> list[str]:
    """The nodes of a graph that the engine cannot run on their own, each with the reason."""
    with WorkerProcess() as process:
        try:
            process.request("start", engine=engine.name, threads=threads, cpus=list(cpus))
            found: dict[str, Any] = process.request("diagnose", graph=str(graph), folder=str(folder))
        except EngineError:  # a node that ends the process
            return []
    return list(found["reasons"])


def can_be_diagnosed(engine: EngineRun, timing: Timing) -> bool:
    """Whether single nodes can explain the failure of a timing."""
    runs_graph = ENGINES.get(engine.name).runs_graph
    return runs_graph and bool(timing.failure) and not engine.failure and not timing.failure.startswith(OUT_OF_MEMORY)


def _key(timing: Timing) -> str:
    return f"{timing.model} again" if timing.again else str(timing.model)
