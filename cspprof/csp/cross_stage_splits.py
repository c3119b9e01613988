"""Where a map, or a part of it, bypasses layers and meets their output again, and which gradients both sides share.

In a dense or residual block the whole map bypasses the layers. In a cross stage partial block (CSPNet, Wang et al.
2019, Fig. 3) one part of its channels does, by a slice or by a 1×1 convolution of its own, and the places of the
transitions decide which gradients reach both sides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from cspprof.analysis.stages import stage_labels
from cspprof.core.cached import cached
from cspprof.core.dataflow import INPUT
from cspprof.core.record import POOLS, Kind, Record
from cspprof.csp.gradient_flow import GradientFlow, Read, Unit, gradient_flow

TRANSITION_KINDS = frozenset({Kind.CONV, Kind.NORM, Kind.ACTIVATION, Kind.DATA, *POOLS})
"""A transition is a 1×1 convolution with norms, activations and pools around it."""
FUSIONS = {(True, True): "csp", (False, True): "first", (True, False): "last", (False, False): "none"}
"""The fusions of Fig. 3, by whether a transition stands before the concatenation, and whether one follows."""


@dataclass(frozen=True, slots=True)
class Bypass:
    """A map that bypasses layers and meets their output again, in whole or in part."""

    first: int
    """The first call on the other side, which runs through the layers."""
    join: int
    """The call that joins both sides last."""
    stage: str
    split: str
    """`slice` or `conv` for a cross stage partial block; `whole` if the whole map bypasses the layers."""
    fusion: str
    """`csp`, `first` or `last` as in Fig. 3, `none` without a transition; empty if the map is not split."""
    units: tuple[Unit, ...]
    """The units on the other side, in execution order."""
    bypassed: frozenset[int]
    """The gradients that reach the bypassing side, as positions in `GradientFlow.gradients`."""
    processed: frozenset[int]
    """The gradients that reach the units on the other side."""
    shared: tuple[tuple[int, int], ...]
    """Each gradient of the block that reaches both sides, with each unit that it reaches on the other side, as a
    position in `units`. The gradients of a block are those that its units and the transition behind it compute."""


@cached
def find_bypasses(record: Record) -> list[Bypass]:
    """The bypasses in execution order. Inside a cross stage partial block, only further splits are listed."""
    finder = _Finder(gradient_flow(record))
    found = sorted(finder.find(), key=lambda b: b.first)
    splits = [b for b in found if b.split != "whole"]
    return [b for b in found if b.split != "whole" or not any(s.first <= b.first < s.join for s in splits)]


class _Finder:
    def __init__(self, flow: GradientFlow) -> None:
        self.flow = flow
        self.labels = stage_labels(flow.record)

    def find(self) -> Iterable[Bypass]:
        for n, tensor in enumerate(self.flow.tensors):
            unit = self.flow.unit_of.get(tensor.writer)
            computed = tensor.writer == INPUT or (unit is not None and n in unit.outputs)
            if not computed and len(self.flow.inputs_of[tensor.writer]) <= 1:
                continue  # a copy, or a tensor inside a unit
            reads = self.flow.reads_behind_copies(n)
            if len(reads) > 1:
                bypass = self._by_slices(n, reads) or self._by_convolutions(reads)
                if bypass is None and computed:  # a sum or a concatenation continues the bypass of another tensor
                    bypass = self._whole(reads)
                if bypass is not None:
                    yield bypass

    # -- kinds of bypasses ------------------------------------------------------------------------------

    def _by_slices(self, tensor: int, reads: list[Read]) -> Bypass | None:
        """The channels of the tensor are cut in two, and a concatenation joins one part with the output of layers."""
        whole = self.flow.tensors[tensor].spec.numel
        sizes = {read.tensor.numel for read in reads}
        joins, layers = self._joins(reads), self._layers(reads)
        if not joins or not layers or not all(size < whole and whole - size in sizes for size in sizes):
            return None
        join = max(joins, key=lambda read: read.call)  # dense layers join the other part earlier
        return self._bypass("slice", layers, [join], join) if self._concatenates(join) else None

    def _by_convolutions(self, reads: list[Read]) -> Bypass | None:
        """Two 1×1 convolutions read the tensor, and a concatenation joins the output of one with that of layers behind
        the other."""
        if len(reads) != 2 or not all(self._is_transition(read) for read in reads):
            return None
        units = [self.flow.unit_of[read.call] for read in reads]
        outputs = [[r for t in unit.outputs for r in self.flow.reads_behind_copies(t)] for unit in units]
        for bypassing, layer, other in ((0, reads[1], outputs[1]), (1, reads[0], outputs[0])):
            joins = outputs[bypassing]
            if len(joins) == 1 and self._concatenates(joins[0]) and joins[0].call not in [r.call for r in other]:
                bypass = self._bypass("conv", [layer], joins, joins[0])
                return bypass if self._descends(joins[0].call, [layer]) else None
        return None

    def _whole(self, reads: list[Read]) -> Bypass | None:
        """The whole tensor is concatenated with what layers compute from it, or added to it."""
        joins, layers = self._joins(reads), self._layers(reads)
        if not joins or not layers:
            return None
        last = max((self._last_join(read) for read in joins), key=lambda read: read.call)
        return self._bypass("whole", layers, joins, last) if self._descends(last.call, layers) else None

    def _joins(self, reads: list[Read]) -> list[Read]:
        return [read for read in reads if read.passes_to]

    def _layers(self, reads: list[Read]) -> list[Read]:
        return [read for read in reads if not read.passes_to and read.call < len(self.labels)]

    def _concatenates(self, read: Read) -> bool:
        return bool(read.passes_to) and self.flow.spec(read.call).kind is Kind.CONCAT

    def _last_join(self, read: Read) -> Read:
        """The last concatenation or addition through which the tensor flows unchanged."""
        pending, last, seen = list(read.passes_to), read, {*read.passes_to}
        while pending:
            for further in self.flow.tensors[pending.pop()].reads:
                if further.passes_to:
                    last = max(last, further, key=lambda r: r.call)
                    pending += [t for t in further.passes_to if t not in seen]
                    seen.update(further.passes_to)
        return last

    # -- what both sides share --------------------------------------------------------------------------

    def _bypass(self, split: str, layers: list[Read], joins: list[Read], join: Read) -> Bypass:
        """The bypass of tensors that `layers` and `joins` read; `join` is the last one."""
        flow = self.flow
        calls = self._calls_behind(layers, join.call)
        units = tuple({id(flow.unit_of[c]): flow.unit_of[c] for c in sorted(calls) if c in flow.unit_of}.values())
        bypassed = frozenset[int]().union(*(flow.reaching[t] for read in joins for t in read.passes_to))
        reached = [frozenset[int]().union(*(flow.reaching[t] for t in unit.outputs)) for unit in units]
        behind = frozenset[int]().union(*(flow.reaching[t] for t in join.passes_to))
        transition = behind if len(behind) == 1 and self._is_transition(flow.gradients[min(behind)]) else frozenset()
        own = [n for n in sorted(bypassed) if n in transition or flow.gradients[n].call in calls]
        shared = tuple((n, i) for n in own for i, gradients in enumerate(reached) if n in gradients)
        fusion = "" if split == "whole" else FUSIONS[self._ends_in_transition(join, calls), bool(transition)]
        first = min(read.call for read in layers)
        return Bypass(first, join.call, self.labels[first], split, fusion, units, bypassed,
                      frozenset[int]().union(*reached), shared)  # fmt: skip

    def _calls_behind(self, layers: list[Read], end: int) -> set[int]:
        """The calls of the layers and those that read their output, directly or not, up to the call `end`."""
        found = {read.call for read in layers}
        pending = list(found)
        while pending:
            for tensor in self.flow.outputs_of[pending.pop()]:
                further = {read.call for read in self.flow.tensors[tensor].reads if read.call <= end} - found
                found |= further
                pending += further
        return found

    def _descends(self, call: int, layers: list[Read]) -> bool:
        return call in self._calls_behind(layers, call)

    def _ends_in_transition(self, join: Read, calls: set[int]) -> bool:
        """Whether the layers end in a transition, whose output the concatenation joins with the bypassing side."""
        tensors = {t for t in self.flow.inputs_of[join.call] if self.flow.tensors[t].writer in calls}
        writers = [self.flow.tensors[t].writer for t in tensors]
        return len(writers) == 1 and writers[0] in self.flow.unit_of and self._is_1x1(self.flow.unit_of[writers[0]])

    def _is_transition(self, gradient: Read) -> bool:
        """Whether a 1×1 convolution computes the gradient, with what stands around it."""
        return gradient.call in self.flow.unit_of and self._is_1x1(self.flow.unit_of[gradient.call])

    def _is_1x1(self, unit: Unit) -> bool:
        specs = [self.flow.spec(call) for call in unit.calls]
        if unit.weighted is None or any(spec.kind not in TRANSITION_KINDS for spec in specs):
            return False
        conv = self.flow.spec(unit.weighted)
        attrs = conv.attrs
        pointwise = set(attrs.get("kernel", (0,))) == {1} == {*attrs.get("stride", (1,)), attrs.get("groups", 1)}
        return pointwise and prod(conv.writes[0].shape[2:]) > 1
