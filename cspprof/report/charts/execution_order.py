"""Shared by charts over the execution order: layers with their values, stages, axes, and thinning of many bars."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cspprof.analysis.headline import OF_CONVOLUTIONS, needs_conv_share
from cspprof.analysis.layer_rows import LayerRow, kind_label, layer_rows
from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.core.units import shape, significant
from cspprof.metrics import METRICS
from cspprof.report.chart_model import Axis, Mark, Span
from cspprof.report.metric_labels import conv_share_text
from cspprof.report.tables import share

T = TypeVar("T")

MOST_BARS = 600
"""The number of bars that are distinguishable in a picture one column wide."""
HEADROOM = 1.12
"""The length of a value axis, relative to the largest value."""


@dataclass(frozen=True, slots=True)
class LayerValues:
    """The layers of a model with a value other than 0, in execution order, and the sum of the values."""

    profile: Record
    metric: str
    rows: list[LayerRow]
    values: list[int]
    total: int
    missed: int
    """The number of layers whose value is unknown."""

    @property
    def peak(self) -> int:
        """The position of the largest value; the first of equal ones."""
        return max(range(len(self.values)), key=self.values.__getitem__)

    @property
    def peak_text(self) -> str:
        """The path of the largest layer: `stage1.down.conv`, or `stage1.down.conv and 5 equal`."""
        return with_equal(self.rows[self.peak].path, self.values)

    @property
    def total_text(self) -> str:
        """`6.534 G MACs`, or `≥ 6.534 G MACs`."""
        return self.with_bound(format_value(self.metric, self.total))

    def with_bound(self, text: str) -> str:
        """The text of a total or peak, marked as a lower bound if layers are missed."""
        return f"≥ {text}" if self.missed else text

    def share_text(self, value: float) -> str:
        """The share of a value in the total. It is an upper bound if the total misses layers."""
        return share(value, self.total, 0, self.missed).text


def layer_values(record: Record, metric: str) -> LayerValues:
    """The layers in which a metric is not 0.

    Raises CspprofError if there are none, or if the metric is no sum over layers.
    """
    m = METRICS.get(metric)
    if not m.additive:
        raise CspprofError(
            f"{metric} is no sum over layers", "Choose a metric that is: macs, cio_cspnet, traffic_bytes"
        )
    by_spec = {spec: amount.n for spec, _ in record.spec_counts if (amount := m.op_value(spec))}  # type: ignore[union-attr]
    found = [(r, by_spec[r.spec]) for r in layer_rows(record) if by_spec.get(r.spec)]
    if not found:
        raise CspprofError(
            f"{record.model} has no layer with {m.title}, so the chart is empty",
            f"Choose another model, or list its operations: cspprof profile {record.source} --by kind",
        )
    rows, values = [r for r, _ in found], [v for _, v in found]
    return LayerValues(record, metric, rows, values, sum(values), m.total(record).missed)


def with_equal(path: str, values: Sequence[int]) -> str:
    """The path of the first layer with the largest of `values`, and the number of layers that have the same value."""
    others = values.count(max(values)) - 1
    return f"{path} and {others:,} equal" if others else path


def cio_note(metric: str, profiles: Sequence[Record]) -> str:
    """A sentence for the caption, with a space before it, on the share of the MACs that CIO sees; empty for other
    metrics, and if CIO sees nearly all MACs of all models."""
    if metric not in OF_CONVOLUTIONS or not any(map(needs_conv_share, profiles)):
        return ""
    shares = " and ".join(f"{conv_share_text([p])} of the MACs of {p.label}" for p in profiles)
    return f" {METRICS.get(metric).title} sees {shares}."


def missed_note(models: Sequence[LayerValues]) -> str:
    """A sentence for the caption, with a space before it, if the chart lacks layers whose value is unknown."""
    missed = [f"{f.missed:,} of {f.profile.label}" for f in models if f.missed]
    return (
        f" Not shown, because the value is unknown: operations without a rule ({', '.join(missed)})." if missed else ""
    )


def thin(items: Sequence[T], value: Callable[[T], int], most: int = MOST_BARS) -> tuple[list[tuple[int, T]], int]:
    """(position, item) of the largest of every n neighbors, and n, so that at most `most` remain.

    >>> thin([3, 1, 2, 5], value=int, most=2)
    ([(0, 3), (3, 5)], 2)
    """
    n = -(-len(items) // most)
    starts = range(0, len(items), n) if n else ()
    largest = [max(range(i, min(i + n, len(items))), key=lambda j: value(items[j])) for i in starts]
    return [(i, items[i]) for i in largest], n


def thinning_note(record: Record, count: int, n: int) -> str:
    """A sentence for the caption, with a space before it; empty if each layer has its own bar."""
    if n <= 1:
        return ""
    return f" {record.label} has {count:,} layers here: each bar is the largest of {n} neighbors."


def stage_spans(layers: Sequence[LayerRow]) -> tuple[Span, ...]:
    """The stages of layers at positions 1, 2, 3 …, each from its first to its last layer."""
    spans, start = [], 0
    for i, r in enumerate(layers):
        if i + 1 == len(layers) or layers[i + 1].stage != r.stage:
            spans.append(Span(start + 0.5, i + 1.5, r.stage))
            start = i + 1
    return tuple(spans)


def layer_mark(position: int, row: LayerRow, value: int, base: int = 0, width: float = 1, text: str = "") -> Mark:
    """The bar of one layer at its position in the execution order, counted from 1."""
    return Mark(position + 1, value, row.path, base, width, stage=row.stage, detail=layer_detail(row), text=text)


def layer_detail(row: LayerRow) -> str:
    """`conv 3×3, 1×64×56×56 -> 1×128×56×56`."""
    reads, writes = (" + ".join(shape(t.shape) for t in side) for side in (row.spec.reads, row.spec.writes))
    return f"{kind_label(row.spec)}, {reads} -> {writes}"


def order_axis(title: str, count: int) -> Axis:
    """Positions 1 … count, each as wide as a bar."""
    return Axis("position", title, low=0.5, high=count + 0.5, integer=True)


def value_axis(metric: str, largest: int) -> Axis:
    """An axis from 0 for the values of a metric, with the unit prefix of the largest value."""
    m = METRICS.get(metric)
    divisor, unit = prefixed_unit(largest, m.unit)
    return Axis(metric, m.title, unit, divisor, 0, largest * HEADROOM)


def prefixed_unit(largest: float, unit: str) -> tuple[int, str]:
    """A divisor that makes the values short, and the unit with its prefix: 2·10⁶ elements -> (10⁶, M elements)."""
    if unit == "bytes":
        steps = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
        return next(((n, name) for n, name in steps if largest >= n), (1, "bytes"))
    if unit == "BFLOPs":
        return 10**9, "BFLOPs"
    prefixes = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))
    return next(((n, f"{p} {unit}") for n, p in prefixes if largest >= n), (1, unit))


def format_value(metric: str, value: int) -> str:
    """A value of a metric with a unit prefix: `6.534 G MACs`."""
    divisor, unit = prefixed_unit(value, METRICS.get(metric).unit)
    return f"{significant(value / divisor, 4)} {unit}"


def input_text(profiles: Sequence[Record]) -> str:
    """The input shapes of the models: `1×3×256×256`."""
    shapes = list(dict.fromkeys(", ".join(shape(t.shape) for t in p.inputs) for p in profiles))
    return shapes[0] if len(shapes) == 1 else " / ".join(shapes) if len(shapes) <= 3 else "inputs of several sizes"
