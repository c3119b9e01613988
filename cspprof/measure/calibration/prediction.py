"""Predict the latency of a record without running it: from a calibration, or from the peak rates of named hardware."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from cspprof.analysis.layer_rows import layer_rows
from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.measure.calibration.calibration_file import Calibration
from cspprof.measure.calibration.fit import predicted_seconds
from cspprof.measure.calibration.kernels import (
    BEST_FUSION,
    FAR,
    FUSED_CHEAP,
    FUSED_OTHER,
    FUSIONS,
    REORDERED,
    Fusion,
    Kernel,
    kernels,
    run_work,
    unit_names,
)
from cspprof.papers.hardware import Hardware


@dataclass(frozen=True)
class KernelTime:
    """The predicted time of one kernel."""

    path: str
    """The path of the layer that leads."""
    fused: tuple[str, ...]
    """Paths of the layers that it computes too."""
    kind: str
    seconds: float | None
    """None if the cost of an operation is unknown, or if its kind was not measured."""
    error: float | None
    """Median absolute relative error for this kind of kernel; None if it is not known."""
    limit: str
    """The part that takes most of the time: `compute`, `memory`, `overhead`; empty if unknown."""


@dataclass(frozen=True)
class LatencyPrediction:
    """The predicted time of one forward pass."""

    record: Record
    machine: str
    """The engine and its threads, or the title of the hardware."""
    engine: str
    """Empty for named hardware."""
    fusion: Fusion
    kernels: tuple[KernelTime, ...]
    run_seconds: float
    """The time that each forward pass takes beside its kernels."""
    error: float | None
    """Median absolute relative error on families that took no part in the fit; None if it was never measured."""
    range: tuple[float, float] | None
    """The smallest and largest measured time relative to the predicted one, on the same networks."""

    @cached_property
    def seconds(self) -> float:
        """The predicted time; a lower bound if `missed`."""
        return self.run_seconds + sum(k.seconds for k in self.kernels if k.seconds is not None)

    @cached_property
    def missed(self) -> int:
        """The number of kernels whose time is unknown."""
        return sum(k.seconds is None for k in self.kernels)


def predict(record: Record, calibration: Calibration) -> LatencyPrediction:
    """The latency by a calibration. Raises CspprofError for a record of another dtype than float32."""
    _check_dtype(record)
    fusion = FUSIONS[calibration.engine]

    def time_of(kernel: Kernel) -> tuple[float | None, str]:
        work = dict(unit_names(kernel))
        seconds = predicted_seconds(work, calibration.rates) if work else None
        if seconds is None:
            return None, ""
        parts = {"compute": 0.0, "memory": 0.0, "overhead": 0.0}
        for unit, amount in work.items():
            parts[_limit_of(unit)] += amount * calibration.rates[unit]
        return seconds, max(parts, key=lambda part: parts[part])

    parts = kernels(record, fusion, calibration.shape)
    times = _kernel_times(record, parts, [time_of(k) for k in parts], calibration.kind_errors)
    run_seconds = sum(amount * calibration.rates.get(unit, 0.0) for unit, amount in run_work(record).items())
    error = calibration.error
    return LatencyPrediction(
        record, calibration.label, calibration.engine, fusion, times, run_seconds, error.median, error.range
    )


def _limit_of(unit: str) -> str:
    """Whether a unit of work is compute, memory or overhead."""
    name = unit.rpartition(": ")[2]
    if name.endswith("macs") or name in ("scalar operations", FUSED_CHEAP, FUSED_OTHER):
        return "compute"
    return "memory" if name in ("elements", FAR, REORDERED, "weights") else "overhead"


def estimate(record: Record, hardware: Hardware) -> LatencyPrediction:
    """The latency by the peak rates of hardware: for each kernel the larger one of compute at the peak and of traffic
    at the full bandwidth (Roofline, Williams et al. 2009), without overhead and without caches.

    Raises CspprofError for a record of another dtype than float32, in which the peak is given.
    """
    _check_dtype(record)

    def time_of(kernel: Kernel) -> tuple[float | None, str]:
        if not kernel.work:
            return None, ""
        compute, memory = kernel.macs / (hardware.gmacs * 1e9), kernel.bytes / (hardware.gb_per_s * 1e9)
        return max(compute, memory), "compute" if compute > memory else "memory"

    parts = kernels(record, BEST_FUSION)
    times = _kernel_times(record, parts, [time_of(k) for k in parts], {})
    return LatencyPrediction(record, hardware.title, "", BEST_FUSION, times, 0.0, None, None)


def _kernel_times(
    record: Record, parts: Sequence[Kernel], times: Sequence[tuple[float | None, str]], errors: dict[str, float]
) -> tuple[KernelTime, ...]:
    paths = {row.index: row.path for row in layer_rows(record)}
    return tuple(
        KernelTime(
            paths[kernel.calls[0]], tuple(paths[i] for i in kernel.calls[1:]), kernel.kind, seconds,
            errors.get(kernel.kind), limit,
        )
        for kernel, (seconds, limit) in zip(parts, times, strict=True)
    )  # fmt: skip


def _check_dtype(record: Record) -> None:
    if record.dtype != "float32":
        raise CspprofError(
            f"{record.label}: latency is predicted for float32, and the model was traced with {record.dtype}",
            "Leave out --dtype.",
        )
