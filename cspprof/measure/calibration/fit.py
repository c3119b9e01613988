"""Find the time of each unit of work from networks whose times are known, and the error on networks left out.

The model is linear: the time of a network is the sum over its units of work of amount × seconds per unit. No unit takes
less than no time, so the fit is a non-negative least squares problem (Lawson and Hanson, *Solving Least Squares
Problems*, 1974, chapter 23). Each equation is divided by its measured time: relative errors count, so that a fast
network has the same weight as a slow one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Annotated, NamedTuple

from msgspec import Meta

from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.core.validation import Name
from cspprof.measure.calibration.kernels import Fusion, Shape, kernels, total_work

if TYPE_CHECKING:
    import numpy as np

MeasuredTime = Annotated[float, Meta(ge=1e-12, le=1e12)]
"""Seconds."""
Amount = Annotated[float, Meta(ge=0, le=1e30)]


@dataclass(frozen=True, slots=True)
class Sample:
    """A network with its measured time and its amounts of work."""

    name: Name
    family: Name
    """Networks of one family resemble each other: they leave the fit together."""
    seconds: MeasuredTime
    work: Mapping[Name, Amount]


def sample_of(record: Record, family: str, seconds: float, fusion: Fusion, shape: Shape) -> Sample:
    """The sample of a record. Its work misses operations of unknown cost."""
    return Sample(record.model, family, seconds, total_work(record, kernels(record, fusion, shape)))


Rates = dict[str, float]
"""Seconds per unit of work, by the name of the unit."""


def fit(samples: Iterable[Sample]) -> Rates:
    """The seconds per unit of work that fit the samples best. Raises CspprofError without samples."""
    import numpy as np

    samples = list(samples)
    units = sorted({unit for sample in samples for unit in sample.work})
    if not units:
        raise CspprofError("there are no measured networks to fit", "Calibrate first: cspprof calibrate")
    matrix = np.array([[s.work.get(u, 0.0) / s.seconds for u in units] for s in samples])
    scale = np.linalg.norm(matrix, axis=0)
    scale[scale == 0] = 1.0
    solution = non_negative_least_squares(matrix / scale, np.ones(len(samples))) / scale
    return dict(zip(units, map(float, solution), strict=True))


def non_negative_least_squares(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The x ≥ 0 that minimizes ‖matrix · x − target‖₂, by the active set method of Lawson and Hanson."""
    import numpy as np

    n = matrix.shape[1]
    x, active = np.zeros(n), np.zeros(n, dtype=bool)
    tolerance = 10 * np.finfo(float).eps * max(matrix.shape) * float(np.abs(matrix).sum(axis=0).max(initial=1.0))
    for _ in range(3 * n):
        gradient = matrix.T @ (target - matrix @ x)
        free = ~active & (gradient > tolerance)
        if not free.any():
            break
        active[np.argmax(np.where(free, gradient, -np.inf))] = True
        while True:
            solution = np.zeros(n)
            solution[active] = np.linalg.lstsq(matrix[:, active], target, rcond=None)[0]
            negative = active & (solution <= 0)
            if not negative.any():
                break
            step = float(np.min(x[negative] / np.maximum(x[negative] - solution[negative], np.finfo(float).tiny)))
            x = x + min(step, 1.0) * (solution - x)
            active &= x > tolerance
            x[~active] = 0.0
        x = solution
    return x


def predicted_seconds(work: Mapping[str, float], rates: Mapping[str, float]) -> float | None:
    """The time of an amount of work; None if the time of one of its units is not known."""
    if any(unit not in rates for unit in work):
        return None
    return sum(amount * rates[unit] for unit, amount in work.items())


# -- errors -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prediction:
    """A network that took no part in the fit, with its predicted and its measured time."""

    name: Name
    family: Name
    seconds: MeasuredTime
    measured: MeasuredTime

    @property
    def error(self) -> float:
        """Predicted over measured time, minus 1."""
        return self.seconds / self.measured - 1


class PredictionError(NamedTuple):
    """How far predictions were from measurements, on networks that took no part in the fit."""

    predictions: tuple[Prediction, ...]

    @property
    def median(self) -> float:
        """Median of the absolute relative errors."""
        return median(abs(p.error) for p in self.predictions)

    @property
    def worst(self) -> Prediction:
        return max(self.predictions, key=lambda p: abs(p.error))

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and largest measured time relative to the predicted one."""
        ratios = [p.measured / p.seconds for p in self.predictions]
        return min(ratios), max(ratios)

    @property
    def spearman(self) -> float | None:
        """Rank correlation of predicted and measured times; None for fewer than two networks or equal times."""
        return spearman([p.seconds for p in self.predictions], [p.measured for p in self.predictions])


def leave_one_family_out(samples: Sequence[Sample], always: Sequence[Sample] = ()) -> PredictionError:
    """Predict each family of `samples` from a fit to the other families and to `always`.

    A network with work of a unit that occurs in no other family cannot be predicted and is left out. Raises
    CspprofError if no network can be predicted.
    """
    found = []
    for family in dict.fromkeys(s.family for s in samples):
        rates = fit([*always, *(s for s in samples if s.family != family)])
        for sample in samples:
            if sample.family == family and (seconds := predicted_seconds(sample.work, rates)):
                found.append(Prediction(sample.name, family, seconds, sample.seconds))
    if not found:
        raise CspprofError(
            "no network could be predicted from the other families", "Measure networks of two or more families."
        )
    return PredictionError(tuple(found))


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation; equal values get the mean of their ranks. None if one of the series is constant."""
    a, b = _ranks(first), _ranks(second)
    mean = (len(a) - 1) / 2
    covariance = sum((x - mean) * (y - mean) for x, y in zip(a, b, strict=True))
    variance = sum((x - mean) ** 2 for x in a) * sum((y - mean) ** 2 for y in b)
    return covariance / variance**0.5 if variance else None


def _ranks(values: Sequence[float]) -> list[float]:
    order = sorted(values)
    return [(order.index(v) + len(order) - 1 - order[::-1].index(v)) / 2 for v in values]


# -- the block of channels and the cache --------------------------------------------------------------

BLOCKS = (1, 4, 8, 16, 32)
"""Widths to which engines pad channels: one vector register of SSE, AVX2 or AVX-512, or several."""
CACHES = (None, 2**18, 2**20, 2**21, 2**22, 2**24)
"""Sizes of a cache in bytes, beyond which activations take longer; None for no difference."""
SHAPES = tuple(Shape(block, cache) for block in BLOCKS for cache in CACHES)


def best_shape(samples_with: Callable[[Shape], Sequence[Sample]], shapes: Sequence[Shape] = SHAPES) -> Shape:
    """The shape whose fit has the smallest sum of squared relative errors; of equal ones the first."""

    def misfit(shape: Shape) -> float:
        samples = samples_with(shape)
        rates = fit(samples)
        return sum(((predicted_seconds(s.work, rates) or 0.0) / s.seconds - 1) ** 2 for s in samples)

    misfits = {shape: misfit(shape) for shape in shapes}
    least = min(misfits.values())
    return next(shape for shape in shapes if misfits[shape] <= least * (1 + 1e-6) + 1e-12)


def kind_errors(samples: Sequence[Sample]) -> dict[str, float]:
    """For each kind of kernel, the median absolute error on networks that mostly consist of it, each predicted from a
    fit to all others."""
    errors: dict[str, list[float]] = {}
    for i, sample in enumerate(samples):
        rates = fit([*samples[:i], *samples[i + 1 :]])
        seconds = predicted_seconds(sample.work, rates)
        if not seconds:
            continue
        shares: dict[str, float] = {}
        for unit, amount in sample.work.items():
            kind = unit.partition(": ")[0]
            shares[kind] = shares.get(kind, 0.0) + amount * rates[unit]
        kind = max(shares, key=lambda k: shares[k])
        errors.setdefault(kind, []).append(abs(seconds / sample.seconds - 1))
    return {kind: median(found) for kind, found in sorted(errors.items())}
