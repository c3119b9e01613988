"""The process that prepares models, or that runs one engine: reads requests from stdin, writes responses to stdout.

Both are JSON, one object per line. A request names its function in `do`; a response has `failed` and `hint` if it
raised. See `worker_process` for the other side.
"""

from __future__ import annotations

import gc
import json
import re
import sys
import time
from collections.abc import Callable
from importlib import import_module
from math import ceil
from pathlib import Path
from typing import Any

from cspprof.core.child_process import response_stream
from cspprof.core.errors import CspprofError
from cspprof.measure.denormals import flush_denormals
from cspprof.measure.engines import ENGINES
from cspprof.measure.engines.network import Network, Prepared
from cspprof.measure.machine import peak_resident_bytes, pin
from cspprof.measure.parity import check_parity
from cspprof.measure.profilers import PROFILERS
from cspprof.measure.statistics import is_warm

SHORTEST_SAMPLE = 1e-3
"""Seconds. If a run takes less, a sample is the mean of several runs, so that the clock adds no error."""
LEAST_SAMPLES = 5
MOST_SAMPLES = 50
"""Samples of a model in one round."""
MOST_SECONDS = 10.0
"""Time after which a round has fewer than `LEAST_SAMPLES` samples, but one."""
MOST_WARM_UP = 100
"""Samples after which the warm-up ends although the times are not stable."""
WARM_UP_SECONDS = 5.0
"""The same, in seconds."""


class Worker:
    """The state of the process: its engine and the networks that it has loaded."""

    def __init__(self) -> None:
        self.engine: Any = None
        self.name = ""
        self.threads = 1
        self.networks: dict[str, Network] = {}

    def import_from(self, path: list[str]) -> dict[str, Any]:
        """Import models from these places. The modules of cspprof stay those that the process was started with."""
        sys.path[:] = path
        return {}

    def prepare(
        self, spec: str, inputs: list[str], folder: str, needs_graph: bool, quick: bool = False
    ) -> dict[str, Any]:
        """See `preparation.prepare`."""
        from cspprof.measure.preparation import prepare

        return prepare(spec, inputs, Path(folder), needs_graph, quick)

    def start(self, engine: str, threads: int, cpus: list[int]) -> dict[str, Any]:
        """Pin the process, then import and configure the engine. Returns its settings and versions."""
        pinned = pin(cpus)
        flushed = flush_denormals()  # before the engine starts threads, which inherit it
        self.threads, self.name = threads, engine
        self.engine = import_module(f"cspprof.measure.engines.{ENGINES.get(engine).module}")
        settings = self.engine.configure(threads)
        return {
            "settings": {**settings, "pinned_to": cpus if pinned else None, "denormals_flushed": flushed},
            "versions": ENGINES.get(engine).versions(),
            "peak_bytes": peak_resident_bytes(),
        }

    def load(self, key: str, folder: str) -> dict[str, Any]:
        """Load a prepared model."""
        began = time.perf_counter()
        network = self.networks[key] = self.engine.load(Prepared(Path(folder)), self.threads)
        return {"load_seconds": time.perf_counter() - began, "notes": list(network.notes)}

    def check(self, key: str, folder: str) -> dict[str, Any]:
        """Run a loaded network twice, and compare its output with the correct one."""
        network = self.networks[key]
        network.run()
        network.run()
        peak = peak_resident_bytes()  # before the correct output is read
        prepared = Prepared(Path(folder))
        error = check_parity(network.outputs(), prepared.outputs(), prepared.tolerance)
        return {"error": error, "peak_bytes": peak}

    def diagnose(self, graph: str, folder: str) -> dict[str, Any]:
        """Why the engine cannot run a graph: one reason for each kind of node that fails on its own."""
        from cspprof.measure.single_nodes import single_nodes

        reasons = []
        for node in single_nodes(Path(graph), Path(folder)):
            prepared = Prepared(node.folder)
            try:
                network = self.engine.load(prepared, self.threads)
                network.run()
                if (node.folder / "outputs.npz").exists():
                    check_parity(network.outputs(), prepared.outputs())
            except Exception as error:  # engines raise errors of many classes
                reasons.append(f"{node.label}: {short_reason(error)}")
        return {"reasons": reasons}

    def profile_layers(self, folder: str, runs: int) -> dict[str, Any]:
        """See `profilers`. It loads the model for itself: a profile slows the engine down."""
        profiler = import_module(f"cspprof.measure.profilers.{PROFILERS[self.name]}")
        return {"profiles": profiler.profile(Prepared(Path(folder)), self.threads, runs, self.name)}

    def time(self, key: str, seconds: float, most: int) -> dict[str, Any]:
        """Warm up, then measure for `seconds`, or until there are `most` samples. Returns the samples and the CPU time
        that this took."""
        network, cpu = self.networks[key], time.process_time()
        gc.collect()
        gc.disable()
        try:
            warm_up, runs = self._warm_up(network)
            samples: list[float] = []
            began = time.perf_counter()
            while len(samples) < most:
                elapsed = time.perf_counter() - began
                if samples and (elapsed > MOST_SECONDS or (len(samples) >= LEAST_SAMPLES and elapsed >= seconds)):
                    break
                samples.append(network.seconds(runs))
        finally:
            gc.enable()
        return {
            "samples": samples,
            "runs_per_sample": runs,
            "warm_up_runs": len(warm_up) * runs,
            "stable": is_warm(warm_up),
            "cpu_seconds": time.process_time() - cpu,
        }

    @staticmethod
    def _warm_up(network: Network) -> tuple[list[float], int]:
        """Run until the times are stable, and return them with the runs of one sample."""
        began = time.perf_counter()
        first = network.seconds(1)
        fastest = min(first, network.seconds(1)) if first < WARM_UP_SECONDS / 10 else first
        runs = max(1, ceil(SHORTEST_SAMPLE / fastest)) if fastest > 0 else 1
        times: list[float] = []
        while not is_warm(times) and len(times) < MOST_WARM_UP and time.perf_counter() - began < WARM_UP_SECONDS:
            times.append(network.seconds(runs))
        return times, runs


def main() -> None:
    """Answer requests until stdin ends."""
    out = response_stream()  # what a model or an engine prints must not mix with the responses
    _be_killed_first()
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        response = _respond(getattr(worker, request.pop("do")), request)
        out.write(json.dumps(response) + "\n")
        out.flush()


def _respond(function: Callable[..., dict[str, Any]], arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        return function(**arguments)
    except Exception as error:  # engines raise errors of many classes
        if isinstance(error, MemoryError) or any(phrase in str(error).lower() for phrase in MEMORY_PHRASES):
            return {"failed": OUT_OF_MEMORY, "hint": MEMORY_HINT}
        return {"failed": short_reason(error), "hint": error.hint if isinstance(error, CspprofError) else None}


def short_reason(error: Exception) -> str:
    """The class of an error and the part of its text that names the cause, without names of the engine's own files.

    OpenVINO writes the places through which an error came, then the cause; others write the cause first, and OpenCV
    continues it in lines that start with `>`.
    """
    if isinstance(error, CspprofError):
        return error.message
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" >")]
    if lines and lines[0].startswith("Exception from "):
        cause = lines[-1].strip("- ")
    else:
        cause = " ".join([*lines[:1], *(line.lstrip("> ") for line in lines[1:] if line.startswith(">"))])
    text = _SOURCE_FILE.sub("", cause).strip(" :").removeprefix("error: ")
    return f"{type(error).__name__}: {text[:LONGEST_REASON]}"


LONGEST_REASON = 400
"""Characters."""
_SOURCE_FILE = re.compile(r"OpenCV\([^)]*\)|/?[\w./-]+\.(cpp|cc|h|hpp):\d+:?")
"""Names of source files of an engine, with their line."""

OUT_OF_MEMORY = "the model outgrows the memory of this machine"
MEMORY_HINT = "Measure it at a smaller input, for example --input 1x3x128x128, or on a machine with more memory."
MEMORY_PHRASES = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "failed to allocate",
    "memoryerror",
)
"""Words of the errors that the allocators of the engines raise, in lower case."""


def _be_killed_first() -> None:
    """Where memory runs out, let Linux end this process and not another one of the user."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:
        return


if __name__ == "__main__":
    main()
