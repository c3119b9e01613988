"""The widths of a whole network: which of them can change, and the record that the network has with other ones.

The channels of all calls are followed as in a stage (`csp/conversion/channels.py`). A group of channels is fixed if its
number cannot change: the channels of the model's input and outputs, and those that an operation reads that is not
followed. All other groups start at a convolution or linear layer and can get another width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod

from cspprof.core.kinds import CONVOLUTIONS, Kind
from cspprof.core.record import OpSpec, Record, TensorSpec
from cspprof.csp.conversion.channels import Channels, ChannelWalk, CouplingError, Segment

Factors = Mapping[int, Fraction]
"""By group: new width over old width."""


@dataclass(frozen=True, slots=True)
class WidthChange:
    """Other widths for some layers, and for all channels that are coupled to them."""

    widths: tuple[tuple[str, int], ...]
    """Paths of layers and their new numbers of output channels."""
    dense: tuple[str, ...] = ()
    """Paths of grouped or depthwise convolutions that get one group."""


@dataclass(frozen=True, slots=True)
class NewShapes:
    """The edits of modules that change a width."""

    weights: dict[int, tuple[int, ...]]
    """By storage: the new shapes of parameters and buffers that change."""
    numbers: dict[str, dict[int, int]]
    """By module: the numbers of channels that change, and what they become."""


@dataclass(frozen=True, slots=True)
class WidthGroup:
    """Channels that change together: the output of one or more layers."""

    root: int
    width: int
    layers: tuple[str, ...]
    """The paths of the layers that write them, in execution order."""
    resolution: tuple[int, ...]
    """(H, W) of the map that the first of them writes."""


class NetworkWidths:
    """The channel groups of a record."""

    def __init__(self, record: Record) -> None:
        self.record = record
        walk = _NetworkWalk(record)
        for i in range(len(record.calls.spec)):
            walk.visit(i)
        for storage in record.outputs:
            for channels in walk.known.get(storage, {}).values():
                walk.fix(channels)
        self._walk = walk
        self._coupling = walk.coupling
        self.fixed = {self._coupling.find(group) for group in walk.fixed}

    def groups(self) -> list[WidthGroup]:
        """The groups that can change, in execution order."""
        found: dict[int, list[tuple[str, int, tuple[int, ...]]]] = {}
        for i, path in self._walk.writers:
            channels = self._walk.writes[i][0]
            if channels is None or len(channels.segments) != 1:
                continue
            (segment,) = channels.segments
            root, shape = (
                self._coupling.find(segment.group),
                self.record.specs[self.record.calls.spec[i]].writes[0].shape,
            )
            if root not in self.fixed and path:
                found.setdefault(root, []).append((path, segment.size, shape[2:]))
        return [
            WidthGroup(root, writers[0][1], tuple(dict.fromkeys(path for path, _, _ in writers)), writers[0][2])
            for root, writers in found.items()
            if len({size for _, size, _ in writers}) == 1
        ]

    def group_of(self, layer: str) -> WidthGroup:
        """The group that a layer writes. Raises CouplingError if its width cannot change."""
        for group in self.groups():
            if layer in group.layers:
                return group
        raise CouplingError(f"the width of {layer} cannot change")

    def roots(self, channels: Channels | None) -> set[int]:
        """The groups of a tensor's channels."""
        return set() if channels is None else {self._coupling.find(s.group) for s in channels.segments}

    def reads(self, call: int) -> list[Channels | None]:
        """The channels of the tensors that a call reads."""
        return self._walk.reads[call]

    def writes(self, call: int) -> list[Channels | None]:
        """The channels of the tensors that a call writes."""
        return self._walk.writes[call]

    def parts(self, segments: Sequence[Segment], roots: Sequence[int]) -> list[int]:
        """The channels that belong to each group in `roots`, and behind them the number of all others."""
        counts = dict.fromkeys(roots, 0)
        rest = 0
        for segment in segments:
            root = self._coupling.find(segment.group)
            if root in counts:
                counts[root] += segment.size
            else:
                rest += segment.size
        return [*counts.values(), rest]

    # -- changes --------------------------------------------------------------------------------------

    def factors(self, change: WidthChange) -> Factors:
        """Raises CouplingError for a layer whose width cannot change, and for two widths of one group."""
        result: dict[int, Fraction] = {}
        for path, width in change.widths:
            group = self.group_of(path)
            factor = Fraction(width, group.width)
            if result.setdefault(group.root, factor) != factor:
                raise CouplingError(f"{path} is coupled to a layer that gets another width")
        return result

    def new_shapes(self, change: WidthChange) -> NewShapes:
        """The new shapes of weights. Raises CouplingError for an impossible width."""
        return self._new_shapes(self.factors(change), frozenset(change.dense))

    def _new_shapes(self, factors: Factors, dense: frozenset[str]) -> NewShapes:
        for path, segments, groups in self._walk.divisors:
            if path not in dense and self._size(segments, factors) % groups:
                raise CouplingError(f"{path}: {self._size(segments, factors)} channels cannot be in {groups} groups")
        stored = {s.id: s for s in self.record.storages}
        weights = {}
        for storage, axes in self._coupling.weights.items():
            path = stored[storage].name.rpartition(".")[0]
            new = list(stored[storage].spec.shape)
            for axis, (segments, divisor) in axes.items():
                new[axis] = self._size(segments, factors) // (1 if path in dense else divisor)
            if path in dense and len(new) > 2 and 1 not in axes:  # depthwise
                new[1] = new[0]
            if tuple(new) != stored[storage].spec.shape:
                weights[storage] = tuple(new)
        numbers = {}
        for path, widths in self._coupling.widths.items():
            changed = {old: self._size(segments, factors) for old, segments in widths.items()}
            if kept := {old: new for old, new in changed.items() if old != new}:
                numbers[path] = kept
        return NewShapes(weights, numbers)

    def _size(self, segments: Iterable[Segment], factors: Factors) -> int:
        total = Fraction(0)
        for size, group in segments:
            total += size * factors.get(self._coupling.find(group), Fraction(1))
        if total.denominator != 1 or total < 1:
            raise CouplingError(f"a layer would have {float(total):g} channels")
        return int(total)

    def resized(self, change: WidthChange) -> Record:
        """The record of the network after a change, computed from shapes. Raises CouplingError if it is not known."""
        record, factors, dense = self.record, self.factors(change), frozenset(change.dense)
        weights = self._new_shapes(factors, dense).weights
        storages = tuple(
            s._replace(spec=replace_shape(s.spec, weights[s.id])) if s.id in weights else s for s in record.storages
        )
        specs: dict[OpSpec, int] = {}
        order: list[OpSpec] = []
        called = []
        for i, index in enumerate(record.calls.spec):
            spec = self._resized_spec(i, record.specs[index], factors, weights, dense)
            key = replace_attrs(spec)
            if key not in specs:
                specs[key] = len(order)
                order.append(spec)
            called.append(specs[key])
        before = {s.id: s.spec.numel for s in record.storages if s.role == "parameter"}
        grown: dict[str, int] = {}
        for storage in storages:
            if storage.id in weights and storage.role == "parameter":
                path = storage.name.rpartition(".")[0]
                grown[path] = grown.get(path, 0) + storage.spec.numel - before[storage.id]
        layers = tuple(la._replace(params=la.params + grown.get(la.path, 0)) for la in record.layers)
        return replace(
            record, specs=tuple(order), calls=replace(record.calls, spec=called), storages=storages, layers=layers,
            params=record.params + sum(grown.values()),
        )  # fmt: skip

    def _resized_spec(
        self, i: int, spec: OpSpec, factors: Factors, weights: Mapping[int, tuple[int, ...]], dense: frozenset[str]
    ) -> OpSpec:
        record = self.record
        at = record.offsets[i] + len(spec.reads)
        reads = [self._resized_tensor(t, c, factors) for t, c in zip(spec.reads, self.reads(i), strict=True)]
        writes = [self._resized_tensor(t, c, factors) for t, c in zip(spec.writes, self.writes(i), strict=True)]
        own = {s: self._stored_shape(s) for s in record.calls.storage[at : at + len(spec.weights)] if s in weights}
        new_weights = [
            _reshaped_weight(t, own[s], weights[s]) if s in own else t
            for t, s in zip(spec.weights, record.calls.storage[at : at + len(spec.weights)], strict=True)
        ]
        if reads == list(spec.reads) and writes == list(spec.writes) and new_weights == list(spec.weights):
            return spec
        attrs, macs = dict(spec.attrs), spec.macs
        path = record.layers[record.calls.layer[i]].path
        if spec.kind in CONVOLUTIONS:
            groups = attrs.get("groups", 1)
            attrs["groups"] = 1 if path in dense else reads[0].shape[1] if groups == spec.reads[0].shape[1] else groups
        if macs:
            if spec.kind not in CONVOLUTIONS and spec.kind is not Kind.LINEAR:
                raise CouplingError(f"the MACs of {spec.name} with other widths are not known")
            macs = macs * new_weights[0].numel // spec.weights[0].numel
        elementwise = spec.elementwise
        if elementwise and spec.writes and spec.writes[0].numel:
            elementwise = elementwise * writes[0].numel // spec.writes[0].numel
        return spec._replace(
            reads=tuple(reads), weights=tuple(new_weights), writes=tuple(writes), attrs=attrs, macs=macs,
            elementwise=elementwise,
        )  # fmt: skip

    def _stored_shape(self, storage: int) -> tuple[int, ...]:
        return self._walk.parameters[storage]

    def _resized_tensor(self, tensor: TensorSpec, channels: Channels | None, factors: Factors) -> TensorSpec:
        if channels is None or not self.roots(channels) & set(factors):
            return tensor
        if channels.axis < 0:
            raise CouplingError("the channels of a tensor are spread over several axes")
        shape = list(tensor.shape)
        shape[channels.axis] = self._size(channels.segments, factors)
        return replace_shape(tensor, tuple(shape))


def replace_shape(tensor: TensorSpec, shape: tuple[int, ...]) -> TensorSpec:
    return TensorSpec(shape, tensor.dtype)


def replace_attrs(spec: OpSpec) -> OpSpec:
    """The spec with its attributes as text: a key for equal specs."""
    return spec._replace(attrs=repr(sorted(spec.attrs.items(), key=lambda item: item[0])))  # type: ignore[arg-type]  # only a key


def _reshaped_weight(tensor: TensorSpec, old: tuple[int, ...], new: tuple[int, ...]) -> TensorSpec:
    """A weight as an operation reads it: the stored one, or a view of it with one changed axis."""
    if tensor.shape == old:
        return replace_shape(tensor, new)
    changed = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    axes = [i for i, n in enumerate(tensor.shape) if changed and n == changed[0][0]]
    if len(changed) != 1 or len(axes) != 1 or prod(tensor.shape) != prod(old):
        raise CouplingError("an operation reads a part of a weight")
    shape = list(tensor.shape)
    shape[axes[0]] = changed[0][1]
    return replace_shape(tensor, tuple(shape))


class _NetworkWalk(ChannelWalk):
    """A walk over all calls. An operation that cannot be followed fixes the channels that it reads."""

    def __init__(self, record: Record) -> None:
        inputs = [s for s in record.storages if s.role == "input"]
        first = next((s for s in inputs if len(s.spec.shape) == 4), None)
        if first is None:
            raise CouplingError("the model reads no map (N, C, H, W)")
        super().__init__(record, first.id, first.spec.shape)
        self.fixed = {0}
        """Groups whose width cannot change."""
        self.reads: list[list[Channels | None]] = []
        self.writes: list[list[Channels | None]] = []
        """By call: the channels of the tensors that it reads, and of those that it writes."""
        self.writers: list[tuple[int, str]] = []
        """Convolutions and linear layers: the number of the call, and the path."""
        self.divisors: list[tuple[str, tuple[Segment, ...], int]] = []
        """Channels whose number must be a multiple, with the path of the layer that requires it."""

    def visit(self, i: int) -> None:
        op = self.record.ops[i]
        inputs = [self.known.get(t.storage, {}).get(t.shape) for t in op.reads]
        noted = len(self.coupling.divisors)
        try:
            super().visit(i)
        except CouplingError:
            for channels in inputs:
                self.fix(channels)
            for tensor in op.weights:
                for segments, _ in self.coupling.weights.get(tensor.storage, {}).values():
                    self.fix(Channels(0, segments))
            for tensor in op.writes:
                self.known[tensor.storage] = {}
        self.divisors += [(op.layer, *entry) for entry in self.coupling.divisors[noted:]]
        self.reads.append(inputs)
        self.writes.append([self.known.get(t.storage, {}).get(t.shape) for t in op.writes])
        if op.kind in CONVOLUTIONS or op.kind is Kind.LINEAR:
            self.writers.append((i, op.layer))

    def fix(self, channels: Channels | None) -> None:
        """The channels keep their number."""
        if channels is not None:
            self.fixed |= {segment.group for segment in channels.segments}

    def _convolution(self, spec: OpSpec, x: Channels | None, weights: Sequence[int]) -> Channels:
        first_new = len(self.coupling.parents)
        result = super()._convolution(spec, x, weights)
        if x is None:
            self.fixed.add(first_new)
        return result

    def _concatenation(self, spec: OpSpec, inputs: Sequence[Channels | None]) -> Channels | None:
        first_new = len(self.coupling.parents)
        result = super()._concatenation(spec, inputs)
        self.fixed |= set(range(first_new, len(self.coupling.parents)))
        return result
