"""The widths with the least CIO at equal MACs, for two classes of layers or for one class without groups."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

from cspprof.core.kinds import CONVOLUTIONS, POOLS, Kind
from cspprof.core.record import Record
from cspprof.csp.advice.network_widths import NetworkWidths, WidthChange, WidthGroup
from cspprof.csp.conversion.channels import CouplingError
from cspprof.metrics import value_of

LEAST_SHARE_OF_MACS = 0.95
"""The MACs after a change at equal MACs, at least, as a part of those before."""
WIDTH_STEP = 16


def balanced(
    record: Record, widths: NetworkWidths, first: Sequence[WidthGroup], second: Sequence[WidthGroup]
) -> tuple[WidthChange, Record] | None:
    """The change of two classes of groups, each of one width, with the least CIO at equal MACs, and its record.

    The wider class gets narrower and the other one wider, until they are equal at most. None if no such widths have
    less CIO.
    """
    a, b = first[0].width, second[0].width
    step = gcd(WIDTH_STEP, a, b)
    cost = _Cost(record, widths, first, second)
    macs, cio = cost.of(a, b)
    candidates = []
    possible = range(min(a, b), max(a, b) + 1, step)
    for new_b in possible:
        fitting = [w for w in possible if _nearer(a, b, w, new_b) and cost.of(w, new_b)[0] <= macs]
        if fitting and (new := cost.of(fitting[-1], new_b))[0] >= LEAST_SHARE_OF_MACS * macs and new[1] < cio:
            candidates.append((new[1], fitting[-1], new_b))
    for _, new_a, new_b in sorted(candidates):
        change = WidthChange((*((g.layers[0], new_a) for g in first), *((g.layers[0], new_b) for g in second)))
        try:
            return change, widths.resized(change)
        except CouplingError:
            continue
    return None


def _nearer(a: int, b: int, new_a: int, new_b: int) -> bool:
    """Whether both widths change and come nearer to each other."""
    return b < new_b <= new_a < a if a > b else a < new_a <= new_b < b


def without_groups(
    record: Record, widths: NetworkWidths, groups: Sequence[WidthGroup], layers: Sequence[str]
) -> tuple[int, WidthChange, Record] | None:
    """The largest width of `groups` with which the network has at most its MACs if the convolutions `layers` have one
    group: the width, the change and its record. None if there is none."""
    step = gcd(8, groups[0].width)
    macs = value_of(record, "macs")
    best = None
    low, high = 1, groups[0].width // step
    while low <= high:
        middle = (low + high) // 2
        change = WidthChange(tuple((g.layers[0], middle * step) for g in groups), tuple(layers))
        try:
            after = widths.resized(change)
        except CouplingError:
            return best
        if value_of(after, "macs") <= macs:
            best = middle * step, change, after
            low = middle + 1
        else:
            high = middle - 1
    return best


class _Cost:
    """MACs and CIO of a network as functions of two widths. Floating-point numbers, to find candidates quickly."""

    def __init__(
        self, record: Record, widths: NetworkWidths, first: Sequence[WidthGroup], second: Sequence[WidthGroup]
    ) -> None:
        self.widths = first[0].width, second[0].width
        roots = [g.root for g in (*first, *second)]
        self.terms: dict[tuple[tuple[float, float, float], tuple[float, float, float], bool], list[float]] = {}
        for i, index in enumerate(record.calls.spec):
            spec = record.specs[index]
            counts_in_cio = spec.kind in CONVOLUTIONS or spec.kind in POOLS
            if not counts_in_cio and spec.kind is not Kind.LINEAR:
                continue
            sides = []
            for channels in (widths.reads(i)[0], widths.writes(i)[0]):
                parts = [0, 0, 1] if channels is None else widths.parts(channels.segments, roots)
                total = sum(parts)
                in_first, in_second = sum(parts[: len(first)]), sum(parts[len(first) : len(roots)])
                sides.append((in_first / total, in_second / total, parts[-1] / total))
            depthwise = spec.kind in CONVOLUTIONS and 1 < spec.attrs.get("groups", 1) == spec.reads[0].shape[1]
            sums = self.terms.setdefault((sides[0], sides[1], depthwise), [0.0, 0.0, 0.0])
            sums[0] += spec.macs or 0
            if counts_in_cio:
                sums[1] += spec.reads[0].numel
                sums[2] += spec.writes[0].numel

    def of(self, a: int, b: int) -> tuple[float, float]:
        """MACs and CIO (rule of CSPNet) with these two widths."""
        x, y = a / self.widths[0], b / self.widths[1]
        macs = cio = 0.0
        for (into, out, depthwise), (products, read, written) in self.terms.items():
            c_in = into[0] * x + into[1] * y + into[2]
            c_out = out[0] * x + out[1] * y + out[2]
            macs += products * (c_out if depthwise else c_in * c_out)
            cio += read * c_in + written * c_out
        return macs, cio
