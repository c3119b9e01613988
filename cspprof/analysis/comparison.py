"""Records compared with a base: the changes of metrics, and the stages and layers that they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from cspprof.analysis.headline import headline
from cspprof.analysis.layer_matching import match_rows
from cspprof.analysis.layer_rows import LayerRow, RowGroup, group_by_stage, layer_rows
from cspprof.analysis.stages import has_stage_tags, stage_depths
from cspprof.core.errors import CspprofError
from cspprof.core.record import Record
from cspprof.core.units import shape
from cspprof.metrics import METRICS, Amount, Number, Sum

Bound = Literal["", "≥", "≤", "?"]
"""Of a change: empty if it is exact, else at least, at most, or unknown."""
UNKNOWN: Bound = "?"


def bound_of_change(base_missed: int, missed: int) -> Bound:
    """The sign that a change between two totals has if one of them misses operations, and is a lower bound."""
    if base_missed:
        return UNKNOWN if missed else "≤"
    return "≥" if missed else ""


class Delta(NamedTuple):
    """One metric of one model compared with the base."""

    base: str
    model: str
    metric: str
    base_value: Number
    value: Number
    base_missed: int = 0
    """The number of calls that the base value misses: it is then a lower bound."""
    missed: int = 0
    """The number of calls that the value misses."""

    @classmethod
    def of(cls, base: Record, other: Record, metric: str) -> Delta:
        """The change of a metric from `base` to `other`."""
        before, after = (METRICS.get(metric).total(p) for p in (base, other))
        return cls(base.model, other.model, metric, before.value, after.value, before.missed, after.missed)

    @property
    def relative(self) -> float | None:
        """(value - base_value) / base_value; see `bound`. None if the base value is 0, if a value is missing, or if
        both values are lower bounds."""
        if self.base_value is None or self.value is None or self.base_value == 0 or self.bound == UNKNOWN:
            return None
        return (self.value - self.base_value) / self.base_value

    @property
    def bound(self) -> Bound:
        """Whether the change is exact, a bound, or unknown."""
        return bound_of_change(self.base_missed, self.missed)


class Contribution(NamedTuple):
    """The part of a difference that comes from one stage or layer. A model without it has the value None."""

    name: str
    base: int | None
    value: int | None
    base_missed: int = 0
    missed: int = 0

    @classmethod
    def of(cls, name: str, base: Amount | None, other: Amount | None) -> Contribution:
        before, after = (None if amount is None else int(amount.value or 0) for amount in (base, other))
        return cls(name, before, after, base.missed if base else 0, other.missed if other else 0)

    @property
    def difference(self) -> int:
        """Value minus base; see `bound`."""
        return (self.value or 0) - (self.base or 0)

    @property
    def bound(self) -> Bound:
        """Whether the difference is exact, a bound, or unknown."""
        return bound_of_change(self.base_missed, self.missed)


@dataclass(frozen=True)
class Comparison:
    """Two or more records. The first is the base that every other one is compared with."""

    profiles: tuple[Record, ...]

    @property
    def base(self) -> Record:
        return self.profiles[0]

    @property
    def others(self) -> tuple[Record, ...]:
        return self.profiles[1:]

    def deltas(self, metrics: Sequence[str] | None = None) -> list[Delta]:
        """The change of each of `metrics` (by default all registered ones) in every other model."""
        names = METRICS.names() if metrics is None else metrics
        return [Delta.of(self.base, p, name) for p in self.others for name in names]

    def by_stage(self, metric: str, other: int = 0) -> list[Contribution]:
        """The difference between the base and `others[other]` stage by stage. It adds up to the whole difference."""
        use_tags = all(map(has_stage_tags, self.profiles))
        base, value = (group_by_stage(p, use_tags) for p in (self.base, self.others[other]))
        return _contributions(metric, base, value)

    def by_layer(self, metric: str, other: int = 0) -> list[Contribution]:
        """The difference between the base and `others[other]` layer by layer, the largest first, without unchanged
        layers.

        Layers with other paths are paired by what they compute: see `match_rows`. A pair has the path of the base.
        """
        check_additive(metric)
        records = (self.base, self.others[other])
        rows = (layer_rows(records[0]), layer_rows(records[1]))
        amounts = (_row_amounts(records[0], metric), _row_amounts(records[1], metric))
        known = ([None if a.missed else a.n for a in amounts[0]], [None if a.missed else a.n for a in amounts[1]])
        sums: dict[str, list[Sum | None]] = {}
        for pair in match_rows(rows, known):
            path = next(rows[side][i].path for side, i in enumerate(pair) if i is not None)
            total = sums.setdefault(path, [None, None])
            for side, i in enumerate(pair):
                if i is not None:
                    total[side] = (total[side] or Sum(0)) + amounts[side][i]
        changed = [
            c for c in (Contribution.of(path, *total) for path, total in sums.items()) if c.difference or c.bound
        ]
        return sorted(changed, key=lambda c: (-abs(c.difference), c.name))

    @cached_property
    def notes(self) -> list[str]:
        """Reasons to read the changes with care: of one or two other models each, of more models in short."""
        if len(self.others) <= 2:
            return [note for i in range(len(self.others)) for note in self.notes_on(i)]
        notes = []
        if len({tuple(depths) for p in self.profiles if (depths := stage_depths(p))}) > 1:
            notes.append("The depth per stage differs: part of a change is depth, not the refactor itself.")
        if len({p.inputs for p in self.profiles}) > 1:
            inputs: dict[str, list[str]] = {}
            for p in self.profiles:
                inputs.setdefault(_inputs(p), []).append(p.label)
            traced = "; ".join(f"{', '.join(labels)} on {tensors}" for tensors, labels in inputs.items())
            notes.append(f"The inputs differ: {traced}.")
        trades: dict[tuple[str, str], list[str]] = {}
        for p in self.others:
            if trade := self._trade(p):
                trades.setdefault(trade, []).append(p.label)
        for (less, more), labels in trades.items():
            notes.append(f"Less {less} and more {more} than {self.base.label}: {', '.join(labels)}.")
        return notes

    def notes_on(self, other: int) -> list[str]:
        """The same for `others[other]`: different depths, different inputs, a trade of compute for traffic."""
        base, p = self.base, self.others[other]
        notes = []
        base_depths, depths = stage_depths(base), stage_depths(p)
        if base_depths != depths and base_depths and depths:
            notes.append(
                f"{base.label} has stages {format_depths(base_depths)}, {p.label} {format_depths(depths)}: part of the "
                "change is depth, not the refactor itself."
            )
        if p.inputs != base.inputs:
            notes.append(f"{base.label} was traced on {_inputs(base)}, {p.label} on {_inputs(p)}.")
        if trade := self._trade(p):
            less, more = trade
            notes.append(f"{p.label} lowers {less} and raises {more}.")
        return notes

    def _trade(self, other: Record) -> tuple[str, str] | None:
        """The names of the falling and of the rising quantity, if compute and memory traffic go opposite ways."""
        metric = headline([self.base, other])
        deltas = [Delta.of(self.base, other, m) for m in ("macs", metric)]
        macs, traffic = (0 if delta.bound else delta.relative or 0 for delta in deltas)
        if macs * traffic >= 0:
            return None
        name = "CIO" if metric == "cio_cspnet" else METRICS.get(metric).title
        return ("compute", name) if macs < 0 else (name, "compute")


def format_depths(depths: Sequence[int]) -> str:
    """Depths as text: 3-4-6-3."""
    return "-".join(map(str, depths))


def adds_up(metric: str) -> bool:
    """Whether the values of the layers add up to that of the model, as integers."""
    m = METRICS.get(metric)
    return metric == "params" or (m.additive and m.scale == 1)


def check_additive(metric: str) -> None:
    """Raise CspprofError unless the values of the layers add up to that of the model, as integers."""
    if not adds_up(metric):
        raise CspprofError(
            f"a change of {metric} cannot be split into layers",
            "Choose a metric that adds up over layers: macs, flops, cio_cspnet, traffic_bytes …",
        )


def _row_amounts(record: Record, metric: str) -> list[Sum]:
    """The value of each row of `layer_rows`."""
    rows = layer_rows(record)
    if metric == "params":
        return [Sum(row.params) for row in rows]
    amounts = [RowGroup("", (LayerRow(0, "", spec, "", 0, 0),)).amount(metric) for spec in record.specs]
    of_spec = [amount if isinstance(amount, Sum) else Sum(0) for amount in amounts]
    return [of_spec[record.calls.spec[row.index]] for row in rows]


def _inputs(record: Record) -> str:
    return ", ".join(f"{shape(t.shape)} {t.dtype}" for t in record.inputs)


def _contributions(metric: str, base: list[RowGroup], other: list[RowGroup]) -> list[Contribution]:
    check_additive(metric)
    before, after = ({g.name: g.amount(metric) or Sum(0) for g in groups} for groups in (base, other))
    return [Contribution.of(name, before.get(name), after.get(name)) for name in merged_names([[*before], [*after]])]


def merged_names(lists: Sequence[Sequence[str]]) -> list[str]:
    """Every name once. A name that only a later list has stands behind its predecessor in that list."""
    merged: list[str] = []
    for names in lists:
        at = 0
        for name in names:
            if name not in merged:
                merged.insert(at, name)
            at = merged.index(name) + 1
    return merged
