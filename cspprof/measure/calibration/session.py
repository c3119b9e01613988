"""Calibrate one engine on this machine: measure short networks and networks of the zoo, then fit."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cspprof._version import __version__
from cspprof.core.errors import CspprofError
from cspprof.core.inputs import parse_inputs
from cspprof.core.record import Record
from cspprof.core.temporary import temporary_folder
from cspprof.measure.calibration.calibration_file import Calibration
from cspprof.measure.calibration.fit import (
    Sample,
    best_shape,
    fit,
    kind_errors,
    leave_one_family_out,
    sample_of,
)
from cspprof.measure.calibration.kernels import FUSIONS, Shape
from cspprof.measure.engine_process import EngineProcess
from cspprof.measure.engines import ENGINES
from cspprof.measure.engines.network import EngineError
from cspprof.measure.machine import CpuClock, Machine, cpus_for, default_threads, this_machine
from cspprof.measure.result import EngineRun, Timing
from cspprof.measure.statistics import median_of
from cspprof.measure.worker_process import WorkerProcess
from cspprof.profiles import profile_spec
from cspprof.sources import Request
from cspprof.zoo import catalog

ROUNDS = 2
ROUND_SECONDS = 0.15
"""Time for the samples of one network in one round."""

REFERENCES = (
    "squeezenet", "mobilenet_v2", "peleenet", "resnet18", "densenet121", "efficientnet_b0_darknet", "darknet_ref",
    "hardnet39ds", "thundernet_snet49", "res2netlite72", "csp_resnext50", "yolov3_tiny_prn",
)  # fmt: skip
"""Networks of the zoo, of many families. The error of predictions is measured on them."""

FACTORY = "cspprof.measure.calibration.networks:build"

Progress = Callable[[str, int, int], None]
"""Called with what happens next, the number of steps done, and the number of all steps."""


class Network(NamedTuple):
    """A network to measure."""

    name: str
    family: str
    """Empty for a short network that is always part of the fit."""
    spec: str
    inputs: list[str]
    record: Record


def short_networks(names: Sequence[str] | None = None) -> list[Network]:
    """The short networks, all of them or those with these names, each with its record."""
    from cspprof.measure.calibration.networks import NETWORKS

    found = []
    for name in NETWORKS if names is None else names:
        spec, inputs = f"{FACTORY},name={name}", ["x".join(map(str, NETWORKS[name].shape))]
        record = profile_spec(spec, Request(inputs=parse_inputs(inputs)))
        found.append(Network(name, "", spec, inputs, record))
    return found


def reference_networks(names: Sequence[str] = REFERENCES) -> list[Network]:
    """Networks of the zoo at their own input, each with its family and its record."""
    return [Network(name, catalog().get(name).family, name, [], profile_spec(name, cache=True)) for name in names]


class CalibrationSession:
    """Measures networks on one engine and fits the time of each unit of work."""

    def __init__(
        self, engine: str, threads: int | None = None, progress: Progress = lambda text, done, steps: None,
        names: Sequence[str] | None = None, references: Sequence[str] = REFERENCES,
    ) -> None:  # fmt: skip
        """Raises CspprofError for an impossible number of threads. `names` chooses some of the short networks."""
        self.threads = default_threads() if threads is None else threads
        self.cpus = cpus_for(self.threads)
        self.engine = EngineRun(engine)
        self.progress = progress
        self.names, self.references = names, references
        self.skipped: dict[str, str] = {}

    def run(self) -> Calibration:
        """Measure and fit. Raises EngineError if the engine cannot start, CspprofError if too little was measured."""
        began, date = time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
        self.progress(f"{self.engine.name}: tracing", 0, 1)
        networks = short_networks(self.names) + reference_networks(self.references)
        with temporary_folder("calibrate") as folder:
            folders = self._prepare(networks, folder)
            seconds, other_cpu_share = self._measure(networks, folders)
        measured = [(network, seconds[i]) for i, network in enumerate(networks) if i in seconds]
        return calibration_of(
            self.engine, self.threads, this_machine(), measured, date=date, skipped=self.skipped,
            seconds=time.perf_counter() - began, other_cpu_share=other_cpu_share,
        )  # fmt: skip

    def _prepare(self, networks: Sequence[Network], folder: Path) -> dict[int, Path]:
        """The folder of each network that could be prepared, by its index."""
        folders: dict[int, Path] = {}
        needs_graph = ENGINES.get(self.engine.name).runs_graph
        with WorkerProcess() as process:
            for i, network in enumerate(networks):
                self.progress(f"{self.engine.name}: preparing {network.name}", i, (ROUNDS + 2) * len(networks))
                own = folder / str(i)
                own.mkdir()
                try:
                    facts = process.request(
                        "prepare", spec=network.spec, inputs=network.inputs, folder=str(own), needs_graph=needs_graph,
                        quick=True,
                    )  # fmt: skip
                except EngineError as error:
                    self.skipped[network.name] = error.message
                    continue
                if needs_graph and facts["export"]["failure"]:
                    self.skipped[network.name] = facts["export"]["failure"]
                else:
                    folders[i] = own
        return folders

    def _measure(self, networks: Sequence[Network], folders: dict[int, Path]) -> tuple[dict[int, float], float]:
        """The median time of each network that the engine runs correctly, and the share of the CPUs that other
        processes used."""
        timings = [Timing(self.engine.name, i) for i in folders]
        order, own_seconds, steps = random.Random(0), 0.0, (ROUNDS + 2) * len(networks)
        done = len(networks)
        with EngineProcess(self.engine, self.threads, self.cpus) as process:
            process.start()
            for timing in timings:
                done += 1
                self.progress(f"{self.engine.name}: loading {networks[timing.model].name}", done, steps)
                process.load(timing, folders[timing.model])
                if not timing.failure:
                    process.check_loaded(timing, folders[timing.model])
            clock, began = CpuClock(), time.perf_counter()
            for i in range(ROUNDS):
                for timing in order.sample(timings, len(timings)):
                    done += 1
                    self.progress(f"{self.engine.name}: round {i + 1} of {ROUNDS}", done, steps)
                    if not timing.failure:
                        own_seconds += process.measure(timing, ROUND_SECONDS)
            elapsed = (time.perf_counter() - began) * len(self.cpus)
            share = min(clock.seconds(own_seconds) / elapsed, 1.0)
        self.skipped |= {networks[t.model].name: t.failure for t in timings if t.failure}
        return {t.model: median_of(t.rounds) for t in timings if not t.failure}, share


def calibration_of(
    engine: EngineRun, threads: int, machine: Machine, measured: Sequence[tuple[Network, float]], date: str,
    skipped: dict[str, str], seconds: float = 0.0, other_cpu_share: float | None = None,
) -> Calibration:  # fmt: skip
    """Fit the measured networks: the block of channels, the cache, the time of each unit of work, and the errors.

    Raises CspprofError if too few networks were measured.
    """
    fusion = FUSIONS[engine.name]

    def samples_with(shape: Shape) -> list[Sample]:
        return [replace(sample_of(n.record, n.family, t, fusion, shape), name=n.name) for n, t in measured]

    if not any(n.family for n, _ in measured) or all(n.family for n, _ in measured):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(skipped.items())[:3])
        raise CspprofError(f"{engine.name} ran too few networks to calibrate it. {reasons}", engine.hint)
    shape = best_shape(samples_with)
    samples = samples_with(shape)
    short, references = [s for s in samples if not s.family], [s for s in samples if s.family]
    return Calibration(
        engine.name, threads, machine, date, {"cspprof": __version__, **engine.versions}, engine.settings, shape,
        fit(samples), leave_one_family_out(references, short), kind_errors(short), short, references, skipped, seconds,
        other_cpu_share,
    )  # fmt: skip
