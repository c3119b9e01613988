"""How often each gradient of the backward pass updates weights: by layer, by gradient, by stage (CSPNet, section 3).

`w_k' = f(w_k, g_0, …, g_{k−1})` (Eq. 2): if the layers of a dense block are numbered as the backward pass visits them,
each gradient updates the weights of every later layer again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from cspprof.analysis.layer_rows import layer_rows
from cspprof.analysis.stages import stage_labels
from cspprof.core.cached import cached
from cspprof.core.record import Record
from cspprof.csp.cross_stage_splits import Bypass, find_bypasses
from cspprof.csp.gradient_flow import GradientFlow, gradient_flow


@dataclass(frozen=True, slots=True)
class Gradient:
    """The gradient that an operation computes for a tensor that it reads, or that of the loss for an output."""

    name: str
    """The path of the layer that computes it, with the layer's number among those of the same path."""
    stage: str
    layers: tuple[int, ...]
    """Positions of the layers whose output it reaches unchanged: it updates their weights."""

    @property
    def uses(self) -> int:
        """The number of layers whose weights it updates."""
        return len(self.layers)

    @property
    def reused(self) -> int:
        """How often it is used again after the first time."""
        return max(self.uses - 1, 0)


@dataclass(frozen=True, slots=True)
class GradientLayer:
    """A layer with weights, together with the norms, activations and pools around it."""

    path: str
    stage: str
    calls: tuple[int, ...]
    """The calls with its weights."""
    gradients: tuple[int, ...]
    """Positions of the gradients that reach its output unchanged."""
    paths: int
    """The number of paths from its output to the outputs of the model."""


@dataclass(frozen=True, slots=True)
class StageReuse:
    """The gradients that update the layers of one stage, or of the whole model."""

    stage: str
    layers: int
    gradients: int
    """Different gradients that reach its layers."""
    uses: int
    """Pairs of a layer and a gradient that reaches it."""
    most: int
    """The layers of the stage that the most used gradient reaches."""
    paths: int
    """Paths from the inputs of the stage to its outputs."""
    shared: int
    """Pairs of a gradient of a block and an operation in it, of gradients that reach the bypassing side too."""
    fusions: tuple[str, ...]
    """The fusion of each cross stage partial block."""

    @property
    def reused(self) -> int:
        """How often gradients are used again."""
        return self.uses - self.gradients


class GradientReuse:
    """The gradients of a record and the layers that they reach."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.flow = gradient_flow(record)
        self.bypasses = find_bypasses(record)
        self._labels = stage_labels(record)
        self.gradients, self.layers = self._gradients_and_layers()

    def _gradients_and_layers(self) -> tuple[list[Gradient], list[GradientLayer]]:
        flow = self.flow
        outputs = _outputs_by_weights(flow)
        reached: list[list[int]] = [[] for _ in flow.gradients]
        layers = []
        paths = {row.index: row.path for row in layer_rows(self.record)}
        names = _numbered([paths[calls[0]] for calls, _ in outputs])
        for i, (name, (calls, tensors)) in enumerate(zip(names, outputs, strict=True)):
            found = sorted(frozenset[int]().union(*(flow.reaching[t] for t in tensors)))
            for n in found:
                reached[n].append(i)
            total = sum(flow.paths[t] for t in tensors)
            layers.append(GradientLayer(name, self._labels[calls[0]], tuple(calls), tuple(found), total))
        labels = [*self._labels, ""]  # outputs of the model have no stage
        gradients = [
            Gradient(name, labels[read.call], tuple(positions))
            for name, read, positions in zip(_gradient_names(flow, paths), flow.gradients, reached, strict=True)
        ]
        return gradients, layers

    @cached_property
    def stages(self) -> list[StageReuse]:
        """One row for each stage with layers, in execution order."""
        stages = dict.fromkeys(layer.stage for layer in self.layers)
        return [self._reuse(s, [la for la in self.layers if la.stage == s], [b for b in self.bypasses if b.stage == s],
                            self.flow.stage_paths[s]) for s in stages]  # fmt: skip

    @cached_property
    def total(self) -> StageReuse:
        """The whole model."""
        return self._reuse("", self.layers, self.bypasses, self.flow.input_paths())

    @cached_property
    def shared_uses(self) -> frozenset[tuple[int, int]]:
        """Pairs of a gradient and a layer, as positions, where the gradient reaches the bypass of the block too."""
        layer_of = {call: i for i, layer in enumerate(self.layers) for call in layer.calls}
        pairs = ((n, b.units[unit].weighted) for b in self.bypasses for n, unit in b.shared)
        return frozenset((n, layer_of[call]) for n, call in pairs if call in layer_of)

    def within(self, paths: Sequence[str]) -> StageReuse:
        """The layers inside modules. The number of paths is not counted (0)."""
        record = self.record
        inside = [any(la.path == p or la.path.startswith(f"{p}.") for p in paths) for la in record.layers]
        return self._reuse(
            "",
            [layer for layer in self.layers if inside[record.calls.layer[layer.calls[0]]]],
            [b for b in self.bypasses if inside[record.calls.layer[b.first]]],
            0,
        )

    def _reuse(self, stage: str, layers: list[GradientLayer], bypasses: list[Bypass], paths: int) -> StageReuse:
        uses = Counter(n for layer in layers for n in layer.gradients)
        fusions = tuple(b.fusion for b in bypasses if b.split != "whole")
        shared = sum(len(b.shared) for b in bypasses)
        return StageReuse(stage, len(layers), len(uses), uses.total(), max(uses.values(), default=0), paths, shared,
                          fusions)  # fmt: skip


@cached
def gradient_reuse(record: Record) -> GradientReuse:
    """The gradients of a record and the layers that they reach."""
    return GradientReuse(record)


def _outputs_by_weights(flow: GradientFlow) -> list[tuple[list[int], list[int]]]:
    """For each layer, its calls with weights and the tensors that its units hand on. Calls with the same weights are
    one layer."""
    found: dict[tuple[str, int], tuple[list[int], list[int]]] = {}
    for unit in flow.units:
        with_parameters = [call for call in unit.calls if flow.parameters_of(call)]
        call = unit.weighted if unit.weighted is not None else next(iter(with_parameters), None)
        if call is None:
            continue
        weights = flow.parameters_of(call)
        calls, tensors = found.setdefault(("weights", weights[0]) if weights else ("call", call), ([], []))
        calls.append(call)
        tensors += unit.outputs
    return list(found.values())


def _gradient_names(flow: GradientFlow, paths: dict[int, str]) -> list[str]:
    """The name of each gradient: the path of the layer in the unit that computes it, or of the unit's first operation.
    If an operation computes several gradients, the name has the number of the operand."""
    per_call = Counter(read.call for read in flow.gradients)
    units = flow.units
    unit_names = _numbered([paths[unit.calls[0] if unit.weighted is None else unit.weighted] for unit in units])
    by_call = {call: name for unit, name in zip(units, unit_names, strict=True) for call in unit.calls}
    names = []
    for read in flow.gradients:
        name = by_call.get(read.call, "output")
        names.append(f"{name} [{read.operand}]" if per_call[read.call] > 1 else name)
    return names


def _numbered(names: list[str]) -> list[str]:
    """Names that occur several times, with a number from the second on: `head.conv`, `head.conv #2`."""
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return numbered
