"""Why one model takes longer than another on an engine: the measured difference as a sum of named parts.

The time of operation i of the engine is modelled as

    t_i = small + compute · MACs_i + traffic · bytes_i + rest_i

with three rates ≥ 0 that are fitted to the operations of both models at once, by least squares. Concatenations and
layout changes are not modelled: their whole time is their part. So the difference of two models is

    Δ small kernels + Δ compute + Δ traffic + Δ concatenation + Δ layout changes + Δ channel padding + Δ overhead + rest

where overhead is the time between operations, channel padding is what the rates give for the MACs and bytes that the
engine adds to fill its blocks of channels, and the rest is "not explained".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from cspprof.core.record import Kind, Record
from cspprof.measure.executed import boundary_bytes, specs_of
from cspprof.measure.layers import ExecutedNode, LayerProfile, node_label

COMPUTE, TRAFFIC, CONCATENATION, LAYOUT = "compute", "traffic", "concatenation", "layout changes"
SMALL, PADDING, OVERHEAD, REST = "small kernels", "channel padding", "overhead", "not explained"
PARTS = (COMPUTE, TRAFFIC, CONCATENATION, LAYOUT, SMALL, PADDING, OVERHEAD, REST)
MEANING = {
    COMPUTE: "multiply-accumulates",
    TRAFFIC: "bytes that operations read and write, weights included",
    CONCATENATION: "operations that concatenate",
    LAYOUT: "operations that change the layout of a tensor, and transpositions",
    SMALL: "a fixed time per operation",
    PADDING: "multiply-accumulates and bytes of channels that the engine adds to fill its blocks",
    OVERHEAD: "time between operations",
    REST: "what the rates of this engine do not give",
}

TRANSPOSING = frozenset({"Transpose", "Permute"})
TOP_LAYERS = 3
"""Layers that are named for each part."""


@dataclass(frozen=True, slots=True)
class Work:
    """One operation of the engine: its time and what it does."""

    layer: str
    seconds: float
    macs: int = 0
    """Those of the model; without padding."""
    nbytes: int = 0
    padding_macs: int = 0
    padding_bytes: int = 0
    part: str = ""
    """`concatenation` or `layout changes` if the whole time belongs to it."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds per operation, per multiply-accumulate and per byte."""

    small: float
    compute: float
    traffic: float
    determination: float
    """R² of the fit over the operations."""

    def of(self, work: Work) -> dict[str, float]:
        """The parts of the time of an operation; they add up to it."""
        if work.part:
            return {work.part: work.seconds}
        known = {
            SMALL: self.small,
            COMPUTE: self.compute * work.macs,
            TRAFFIC: self.traffic * work.nbytes,
            PADDING: self.compute * work.padding_macs + self.traffic * work.padding_bytes,
        }
        return {**known, REST: work.seconds - sum(known.values())}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the difference, with the layers that contribute most to it in its own direction."""

    name: str
    seconds: float
    layers: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The difference `other − base` of two models on an engine as a sum of parts."""

    engine: str
    base: int
    other: int
    """Indices in `Measurement.models`."""
    base_seconds: float
    other_seconds: float
    parts: tuple[Part, ...]
    """In the order of `PARTS`; they add up to the difference."""
    rates: Rates
    knows_padding: bool
    """Whether the engine reports the shapes that ran; else padding is in the other parts."""

    @property
    def difference(self) -> float:
        return self.other_seconds - self.base_seconds


def work_of(record: Record, profile: LayerProfile, seconds: float) -> list[Work]:
    """The operations of a profile, with times scaled so that the profile takes `seconds`, the measured time."""
    scale = seconds / profile.seconds if profile.seconds else 0.0
    return [_work(record, node, node.seconds * scale) for node in profile.nodes]


def _work(record: Record, node: ExecutedNode, seconds: float) -> Work:
    label = node_label(record, node)
    specs = specs_of(record, node.calls)
    if node.is_layout or (node.operator in TRANSPOSING and not specs):
        return Work(label, seconds, part=LAYOUT)
    if specs and all(spec.kind is Kind.CONCAT for spec in specs):
        return Work(label, seconds, part=CONCATENATION)
    macs = sum(spec.macs or 0 for spec in specs)
    nbytes = boundary_bytes(record, node.calls)
    if node.macs is None or node.macs <= macs or node.activation_bytes is None or node.output_bytes is None:
        return Work(label, seconds, macs, nbytes)
    weights = sum(weight.nbytes for spec in specs for weight in spec.weights)
    moved = node.activation_bytes + node.output_bytes + weights
    return Work(label, seconds, macs, nbytes, node.macs - macs, max(moved - nbytes, 0))


def fitted_rates(works: Sequence[Work]) -> Rates:
    """The non-negative rates with the smallest sum of squared errors over the operations that are modelled. The fixed
    time of an operation is at most that of the fastest one."""
    modelled = [work for work in works if not work.part]
    rows = [(1.0, float(w.macs + w.padding_macs), float(w.nbytes + w.padding_bytes)) for w in modelled]
    times = [work.seconds for work in modelled]
    rates = non_negative_least_squares(rows, times)
    fastest = min(times, default=0.0)
    if rates[0] > fastest:
        others = non_negative_least_squares([row[1:] for row in rows], [t - fastest for t in times])
        rates = [fastest, *others]
    mean = sum(times) / len(times) if times else 0.0
    spread = sum((t - mean) ** 2 for t in times)
    errors = sum(
        (t - sum(rate * x for rate, x in zip(rates, row, strict=True))) ** 2 for t, row in zip(times, rows, strict=True)
    )
    small, compute, traffic = rates
    return Rates(small, compute, traffic, 1 - errors / spread if spread else 1.0)


def non_negative_least_squares(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """The coefficients ≥ 0 that minimize Σ (value − row · coefficients)², by trying every set of positive ones."""
    if not rows:
        return [0.0, 0.0, 0.0]
    width = len(rows[0])
    scales = [max(abs(row[j]) for row in rows) or 1.0 for j in range(width)]
    scaled = [[row[j] / scales[j] for j in range(width)] for row in rows]
    best, least = [0.0] * width, sum(v * v for v in values)
    for size in range(1, width + 1):
        for chosen in combinations(range(width), size):
            solution = _least_squares([[row[j] for j in chosen] for row in scaled], values)
            if solution is None or min(solution) < 0:
                continue
            error = sum(
                (v - sum(c * row[j] for c, j in zip(solution, chosen, strict=True))) ** 2
                for row, v in zip(scaled, values, strict=True)
            )
            if error < least:
                best, least = [0.0] * width, error
                for c, j in zip(solution, chosen, strict=True):
                    best[j] = c / scales[j]
    return best


def _least_squares(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float] | None:
    """The solution of the normal equations by Gaussian elimination; None if they are singular."""
    n = len(rows[0])
    system = [
        [sum(row[i] * row[j] for row in rows) for j in range(n)]
        + [sum(row[i] * v for row, v in zip(rows, values, strict=True))]
        for i in range(n)
    ]
    for i in range(n):
        pivot = max(range(i, n), key=lambda k: abs(system[k][i]))
        if abs(system[pivot][i]) < 1e-12 * len(rows):
            return None
        system[i], system[pivot] = system[pivot], system[i]
        for k in range(n):
            if k != i:
                factor = system[k][i] / system[i][i]
                system[k] = [a - factor * b for a, b in zip(system[k], system[i], strict=True)]
    return [system[i][n] / system[i][i] for i in range(n)]


def explained_difference(
    records: tuple[Record, Record], profiles: tuple[LayerProfile, LayerProfile], seconds: tuple[float, float]
) -> Explanation:
    """The difference of the measured times `seconds` of two models as a sum of parts."""
    works = [work_of(r, p, s) for r, p, s in zip(records, profiles, seconds, strict=True)]
    rates = fitted_rates([*works[0], *works[1]])
    layers: dict[str, dict[str, float]] = {name: defaultdict(float) for name in PARTS}
    for sign, of_model in zip((-1, 1), works, strict=True):
        for work in of_model:
            for name, part in rates.of(work).items():
                layers[name][work.layer] += sign * part
    totals = {name: sum(found.values()) for name, found in layers.items()}
    between = [s - sum(w.seconds for w in of_model) for s, of_model in zip(seconds, works, strict=True)]
    totals[OVERHEAD] = between[1] - between[0]
    difference = seconds[1] - seconds[0]
    totals[REST] += difference - sum(totals.values())  # rounding errors of the sums above
    return Explanation(
        profiles[1].engine,
        profiles[0].model,
        profiles[1].model,
        *seconds,
        tuple(Part(name, totals[name], _top(layers[name], totals[name])) for name in PARTS),
        rates,
        any(node.macs is not None for profile in profiles for node in profile.nodes),
    )


def _top(layers: Mapping[str, float], total: float) -> tuple[tuple[str, float], ...]:
    """The layers with the largest contributions in the direction of the total."""
    same = [(name, value) for name, value in layers.items() if value * total > 0]
    return tuple(sorted(same, key=lambda item: abs(item[1]), reverse=True)[:TOP_LAYERS])
