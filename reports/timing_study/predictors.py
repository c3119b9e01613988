"""What each network needs in theory, and the scores of predictions that leave out its family."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, median
from typing import NamedTuple

from cspprof.core.kinds import Kind
from cspprof.core.record import Record
from cspprof.measure.calibration.fit import Sample, leave_one_family_out, spearman
from cspprof.measure.calibration.kernels import FUSIONS, Shape, kernels, total_work

DEPTHWISE_WEIGHT = 0.6
"""HarDNet (Chao et al. 2019) suggests to weight the CIO of networks with depthwise separable convolutions, whose MoC is
low, by about this number before it is compared with that of ordinary networks."""


class Predictor(NamedTuple):
    """A prediction of time from columns of `study.csv`, each with a time per unit that is fitted."""

    title: str
    columns: tuple[str, ...]


PREDICTORS = (
    Predictor("MACs", ("macs",)),
    Predictor("activations", ("activations",)),
    Predictor("CIO (HarDNet)", ("cio_hardnet",)),
    Predictor("CIO (CSPNet)", ("cio_cspnet",)),
    Predictor("CIO weighted by MoC", ("cio_moc",)),
    Predictor("traffic", ("traffic_bytes",)),
    Predictor("traffic behind a cache of 2 MiB", ("cache_2mib",)),
    Predictor("MACs and CIO (CSPNet)", ("macs", "cio_cspnet")),
    Predictor("MACs and traffic", ("macs", "traffic_bytes")),
    Predictor("MACs and traffic behind the cache", ("macs", "cache_2mib")),
    Predictor("MACs, traffic and number of kernels", ("macs", "traffic_bytes", "kernels")),
    Predictor("Roofline", ("roofline",)),
    Predictor("calibrated model", ()),
)
"""`roofline` stands for the column of the engine. The calibrated model has its own predictions."""
CALIBRATED = PREDICTORS[-1]


def has_depthwise(record: Record) -> bool:
    """Whether a convolution has a group for each of its input channels."""
    return any(
        s.kind is Kind.CONV and (groups := int(s.attrs.get("groups", 1))) > 1 and s.reads[0].shape[1] == groups
        for s in record.specs
    )


# -- the machine, from the short networks -------------------------------------------------------------


class PeakRates(NamedTuple):
    """The highest rates that a short network reached on an engine."""

    macs_per_s: float
    bytes_per_s: float


def peak_rates(short: Iterable[tuple[Record, float]], engine: str) -> PeakRates:
    """From records and seconds of short networks."""
    macs, moved = [], []
    for record, seconds in short:
        parts = kernels(record, FUSIONS[engine])
        macs.append(sum(k.macs for k in parts) / seconds)
        moved.append(sum(k.bytes for k in parts) / seconds)
    return PeakRates(max(macs), max(moved))


def roofline_seconds(record: Record, engine: str, peaks: PeakRates) -> float:
    """The sum over kernels of the larger one of compute at the peak and traffic at the bandwidth."""
    parts = kernels(record, FUSIONS[engine])
    return sum(max(k.macs / peaks.macs_per_s, k.bytes / peaks.bytes_per_s) for k in parts)


def calibration_sample(name: str, family: str, record: Record, seconds: float, engine: str, shape: Shape) -> Sample:
    return Sample(name, family, seconds, total_work(record, kernels(record, FUSIONS[engine], shape)))


# -- scores -------------------------------------------------------------------------------------------


class Score(NamedTuple):
    """How well predictions agree with measured times. Each network was predicted from the other families only."""

    n: int
    spearman: float
    """Rank correlation of predicted and measured times."""
    r2: float
    """Coefficient of determination of the logarithms of predicted times."""
    mean_error: float
    """Mean of the absolute relative errors."""
    median_error: float
    worst: str
    """The network with the largest error in either direction."""
    worst_ratio: float
    """Its predicted time divided by the measured one."""


def predictions(samples: Sequence[Sample]) -> dict[str, float]:
    """The predicted seconds of each sample by name, from a fit to the other families."""
    return {p.name: p.seconds for p in leave_one_family_out(samples).predictions}


def score(predicted: Mapping[str, float], measured: Mapping[str, float]) -> Score:
    """The score of the predicted seconds; a network without prediction does not count."""
    names = [name for name in measured if name in predicted]
    p, m = [predicted[n] for n in names], [measured[n] for n in names]
    errors = [abs(a / b - 1) for a, b in zip(p, m, strict=True)]
    logs = [math.log(b) for b in m]
    residual = sum((math.log(a) - b) ** 2 for a, b in zip(p, logs, strict=True))
    total = sum((b - mean(logs)) ** 2 for b in logs)
    worst = max(names, key=lambda n: abs(math.log(predicted[n] / measured[n])))
    return Score(
        len(names), spearman(p, m) or 0.0, 1 - residual / total if total else 0.0, mean(errors), median(errors), worst,
        predicted[worst] / measured[worst],
    )  # fmt: skip
