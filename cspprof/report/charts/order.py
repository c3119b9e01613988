"""What charts over the execution order share: the layers they show, how many fit, and the stages behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cspprof.analysis.layer_rows import LayerRow, kind_label, layer_rows
from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.core.units import shape, significant
from cspprof.metrics import METRICS
from cspprof.report.chart_model import Axis, Mark, Span

T = TypeVar("T")

MOST_BARS = 600
"""Bars that a picture one column wide can hold apart; beyond, neighbours share one."""
HEADROOM = 1.12


@dataclass(frozen=True, slots=True)
class Layers:
    """A model's layers in execution order that have a value, and what they amount to."""

    profile: Record
    rows: list[LayerRow]
    values: list[int]
    total: int

    @property
    def peak(self) -> int:
        """The position of the largest, the first of equals."""
        return max(range(len(self.values)), key=self.values.__getitem__)


def layers_with(record: Record, metric: str) -> Layers:
    """The layers in which a metric that adds up has a value other than 0.

    Raises CspprofError where there is none, and for a number that is not one of layers.
    """
    m = METRICS.get(metric)
    if not m.additive:
        raise CspprofError(
            f"{metric} is no count of layers", "Take one that adds up over them: macs, cio_cspnet, traffic_bytes"
        )
    worth = {spec: amount.n for spec, _ in record.spec_counts if (amount := m.op_value(spec))}  # type: ignore[union-attr]
    found = [(r, worth[r.spec]) for r in layer_rows(record) if worth.get(r.spec)]
    if not found:
        raise CspprofError(
            f"{record.model} has no layer with {m.title}: there is nothing to draw",
            f"Take another model, or see what it does: cspprof profile {record.source} --by kind",
        )
    return Layers(record, [r for r, _ in found], [v for _, v in found], sum(v for _, v in found))


def thinned(items: Sequence[T], value: Callable[[T], int], most: int = MOST_BARS) -> tuple[list[tuple[int, T]], int]:
    """(position, item) of each item or, where there are more than `most`, of the largest of every n neighbours; and n.

    >>> thinned([3, 1, 2, 5], value=int, most=2)
    ([(0, 3), (3, 5)], 2)
    """
    n = -(-len(items) // most)
    starts = range(0, len(items), n) if n else ()
    chosen = [max(range(i, min(i + n, len(items))), key=lambda j: value(items[j])) for i in starts]
    return [(i, items[i]) for i in chosen], n


def thinning(record: Record, count: int, n: int) -> str:
    """What a caption says, with a space before it, where `n` neighbours share a bar; else nothing."""
    if n <= 1:
        return ""
    return f" {name_of(record)} has {count:,} layers here: each bar is the largest of {n} neighbours."


def stage_spans(rows_: Sequence[LayerRow]) -> tuple[Span, ...]:
    """The stages of rows that stand at 1, 2, 3 …, each where it is entered until it is left."""
    spans, start = [], 0
    for i, r in enumerate(rows_):
        if i + 1 == len(rows_) or rows_[i + 1].stage != r.stage:
            spans.append(Span(start + 0.5, i + 1.5, r.stage))
            start = i + 1
    return tuple(spans)


def layer_mark(position: int, row: LayerRow, value: int, base: int = 0, width: float = 1, text: str = "") -> Mark:
    """The bar of one layer, at its place in the order, counted from 1."""
    return Mark(position + 1, value, row.path, base, width, stage=row.stage, detail=describe(row), text=text)


def describe(row: LayerRow) -> str:
    """`conv 3×3, 1×64×56×56 -> 1×128×56×56`."""
    reads, writes = (" + ".join(shape(t.shape) for t in side) for side in (row.spec.reads, row.spec.writes))
    return f"{kind_label(row.spec)}, {reads} -> {writes}"


def order_axis(title: str, count: int) -> Axis:
    """Positions 1 … count, each as wide as a bar."""
    return Axis("position", title, low=0.5, high=count + 0.5, whole=True)


def value_axis(metric: str, largest: int) -> Axis:
    """An axis from 0 for exact values of a metric, in the prefix that suits the largest."""
    m = METRICS.get(metric)
    divisor, unit = scale(largest, m.unit)
    return Axis(metric, m.title, unit, divisor, 0, largest * HEADROOM)


def scale(largest: float, unit: str) -> tuple[int, str]:
    """What to divide by so that the numbers are short, and the unit with its prefix: 2·10⁶ elements -> M elements."""
    if unit == "bytes":
        steps = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
        return next(((n, name) for n, name in steps if largest >= n), (1, "bytes"))
    if unit == "BFLOPs":
        return 10**9, "BFLOPs"
    prefixes = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))
    return next(((n, f"{p} {unit}") for n, p in prefixes if largest >= n), (1, unit))


def amount(metric: str, value: int) -> str:
    """An exact value of a metric in the prefix that suits it: `6.534 G MACs`."""
    divisor, unit = scale(value, METRICS.get(metric).unit)
    return f"{significant(value / divisor, 4)} {unit}"


def inputs_of(profiles: Sequence[Record]) -> str:
    """What the models were traced on: `1×3×256×256`, or each on its own."""
    found = list(dict.fromkeys(", ".join(shape(t.shape) for t in p.inputs) for p in profiles))
    return found[0] if len(found) == 1 else " / ".join(found) if len(found) <= 3 else "inputs of several sizes"


def name_of(record: Record) -> str:
    """The model as a picture names it."""
    return record.label
