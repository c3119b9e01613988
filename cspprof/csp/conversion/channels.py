"""Channel coupling: which channels of a stage must change together if the width of its input changes.

Channels are followed over the calls of a record. Each tensor with a channel axis has segments: numbers of channels,
each in a group. All channels of a group are scaled by the same factor. Where two maps are added or multiplied, their
groups become one; where maps are concatenated, the segments follow one another; a convolution or linear layer starts a
new group. So in a residual block the input and the output of a stage are one group, and in a dense block the growth is
a group of its own, which keeps its width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from typing import NamedTuple

from cspprof.core.errors import CspprofError
from cspprof.core.kinds import CONVOLUTIONS, POOLS, Kind
from cspprof.core.record import OpSpec, Record, TensorSpec


class CouplingError(CspprofError):
    """The channels of a stage cannot be followed, or cannot have the new width."""


class Segment(NamedTuple):
    """Neighboring channels of one group."""

    size: int
    group: int


class Channels(NamedTuple):
    """The channel axis of a tensor and its segments. With axis −1 the channels are spread over several axes, as within
    a channel shuffle."""

    axis: int
    segments: tuple[Segment, ...]


@dataclass
class Coupling:
    """The channels of one stage."""

    entry: int
    """The group of the input's channels."""
    exit: tuple[Segment, ...] = ()
    """The segments of the output."""
    weights: dict[int, dict[int, tuple[tuple[Segment, ...], int]]] = field(default_factory=dict)
    """For each storage of a weight, by axis: the segments of the axis, and the divisor for grouped convolutions."""
    divisors: list[tuple[tuple[Segment, ...], int]] = field(default_factory=list)
    """Channels whose number must be a multiple: the groups of a convolution or of a norm."""
    widths: dict[str, dict[int, tuple[Segment, ...]]] = field(default_factory=dict)
    """For each module that calls operations itself, by their number: the channels of the tensors of these operations.
    A module may have such a number as an attribute."""
    outputs: dict[int, Channels] = field(default_factory=dict)
    """The channels of the last output of each call."""
    parents: list[int] = field(default_factory=list)

    def new_group(self) -> int:
        self.parents.append(len(self.parents))
        return len(self.parents) - 1

    def find(self, group: int) -> int:
        while self.parents[group] != group:
            group = self.parents[group]
        return group

    def unite(self, first: int, second: int) -> None:
        first, second = self.find(first), self.find(second)
        self.parents[max(first, second)] = min(first, second)

    def unite_segments(self, first: Sequence[Segment], second: Sequence[Segment]) -> None:
        """Unite the groups of channels at the same positions."""
        a, b = list(first), list(second)
        while a and b:
            self.unite(a[0].group, b[0].group)
            step = min(a[0].size, b[0].size)
            for side in (a, b):
                side[0] = side[0]._replace(size=side[0].size - step)
                if not side[0].size:
                    side.pop(0)

    def new_size(self, segments: Sequence[Segment], factor: Fraction) -> int:
        """The number of channels after the entry group was scaled. Raises CouplingError if it is no whole number."""
        entry = self.find(self.entry)
        total = sum(s.size * factor if self.find(s.group) == entry else Fraction(s.size) for s in segments)
        if total.denominator != 1 or total < 1:
            raise CouplingError(f"{sum(s.size for s in segments)} channels would become {float(total):g}")
        return int(total)

    def new_shapes(self, record: Record, factor: Fraction) -> dict[int, tuple[int, ...]]:
        """The new shape of each weight that changes, by storage. Raises CouplingError for an impossible width."""
        for segments, groups in self.divisors:
            if self.new_size(segments, factor) % groups:
                raise CouplingError(
                    f"{self.new_size(segments, factor)} channels cannot be divided into {groups} groups"
                )
        shapes = {s.id: s.spec.shape for s in record.storages if s.id in self.weights}
        result = {}
        for storage, axes in self.weights.items():
            new = list(shapes[storage])
            for axis, (segments, divisor) in axes.items():
                new[axis] = self.new_size(segments, factor) // divisor
            if tuple(new) != shapes[storage]:
                result[storage] = tuple(new)
        return result

    def new_numbers(self, factor: Fraction) -> dict[str, dict[int, int]]:
        """For each module, the numbers of channels that change, and what they become."""
        result = {}
        for path, widths in self.widths.items():
            changed = {old: self.new_size(segments, factor) for old, segments in widths.items()}
            result[path] = {old: new for old, new in changed.items() if old != new}
        return {path: numbers for path, numbers in result.items() if numbers}

    def is_dense(self) -> bool:
        """Whether the output contains the whole input and further channels of other groups."""
        entry = self.find(self.entry)
        groups = {self.find(s.group) for s in self.exit}
        return entry in groups and len(groups) > 1

    def is_residual(self) -> bool:
        """Whether the output's channels are those of the input."""
        return {self.find(s.group) for s in self.exit} == {self.find(self.entry)}


def couple(
    record: Record, calls: range, storage: int, shape: tuple[int, ...], boundaries: Sequence[int] = ()
) -> Coupling:
    """The coupling of the channels in `calls`, whose one input is a map of `shape` (N, C, H, W) in `storage`.

    `boundaries` are the calls that write the maps between the blocks. If the blocks neither add nor concatenate the
    input, these maps and all maps of the same width change together with it, as in a plain row of convolutions. Raises
    CouplingError for an operation through which the channels cannot be followed.
    """
    walk = ChannelWalk(record, storage, shape)
    for i in calls:
        walk.visit(i)
    coupling = walk.coupling
    coupling.exit = walk.outputs.get(calls[-1], walk.entry).segments
    if not coupling.is_residual() and not coupling.is_dense():
        maps = {i for i in calls if record.specs[record.calls.spec[i]].kind in CONVOLUTIONS and i in walk.outputs}
        for call in {*boundaries, *maps}:
            segments = walk.outputs[call].segments
            if sum(s.size for s in segments) == shape[1]:
                for segment in segments:
                    coupling.unite(coupling.entry, segment.group)
    return coupling


SAME_SHAPE = frozenset({Kind.ACTIVATION, Kind.SOFTMAX, Kind.RESIZE, *POOLS})
"""Kinds of operations that keep the channel axis."""
SHARES = frozenset({"Split", "split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk", "tensor_split"})
"""Operations that divide an axis into consecutive parts."""
MOVES = frozenset({"Transpose", "permute", "transpose", "swapaxes", "movedim"})


class ChannelWalk:
    """One pass over the calls of a stage."""

    def __init__(self, record: Record, storage: int, shape: tuple[int, ...]) -> None:
        self.record = record
        self.coupling = Coupling(0)
        self.entry = Channels(1, (Segment(shape[1], self.coupling.new_group()),))
        self.known: dict[int, dict[tuple[int, ...], Channels | None]] = {storage: {shape: self.entry}}
        """The channels of the tensors in each storage, by shape. A view shares its storage with its base."""
        self.outputs = self.coupling.outputs
        self.parameters = {s.id: s.spec.shape for s in record.storages if s.role in ("parameter", "buffer")}
        self.names = {s.name: s.id for s in record.storages if s.id in self.parameters}
        self.layer = ""
        """The module that calls the operation."""

    def visit(self, i: int) -> None:
        """Follow the channels through call i."""
        op = self.record.ops[i]
        spec, self.layer = op.spec, op.layer
        inputs = [self.known.get(t.storage, {}).get(t.shape) for t in op.reads]
        weights = [t.storage for t in op.weights]
        try:
            results = self._results(spec, inputs, weights)
        except CouplingError as error:
            raise CouplingError(f"{op.layer or self.record.model}: {error.message}") from None
        for tensor, channels in zip(op.writes, results, strict=False):
            shapes = self.known.setdefault(tensor.storage, {})
            if op.kind is not Kind.VIEW:
                shapes.clear()
            other = shapes.get(tensor.shape)
            if other is not None and channels is not None and other.axis == channels.axis:
                self.coupling.unite_segments(other.segments, channels.segments)  # a record has no offsets of views
            shapes[tensor.shape] = channels
            if channels is not None:
                self.outputs[i] = channels
        for found in (*inputs, *results):
            if found is not None:
                width = sum(s.size for s in found.segments)
                self.coupling.widths.setdefault(op.layer, {}).setdefault(width, found.segments)

    def _results(
        self, spec: OpSpec, inputs: Sequence[Channels | None], weights: Sequence[int]
    ) -> list[Channels | None]:
        """The channels of each output."""
        name = spec.name.strip("_")
        if spec.kind in CONVOLUTIONS:
            return [self._convolution(spec, inputs[0], weights)]
        if spec.kind is Kind.LINEAR:
            return [self._linear(spec, inputs[0], weights)]
        if spec.kind is Kind.CONCAT:
            return [self._concatenation(spec, inputs)]
        if spec.kind is Kind.ELEMENTWISE or name == "prelu":
            return [self._elementwise(spec, inputs, weights)]
        if not any(inputs):
            return [None] * len(spec.writes)
        channels = inputs[0]
        if channels is None:
            raise CouplingError(f"{name} reads a map behind another tensor")
        if spec.kind is Kind.NORM:
            return [self._norm(spec, channels, weights)] + [None] * (len(spec.writes) - 1)
        self._refuse_weights(spec, weights)
        if spec.kind in SAME_SHAPE:
            return [_on_axis(channels, t) for t in spec.writes]
        if spec.kind is Kind.REDUCTION:
            return [_reduced(spec, channels)] * len(spec.writes)
        if spec.kind in (Kind.VIEW, Kind.DATA):
            return self._view(spec, name, channels)
        raise CouplingError(f"{name} mixes channels, and conversion does not follow it")

    def _refuse_weights(self, spec: OpSpec, weights: Sequence[int]) -> None:
        if any(w in self.parameters for w in weights):
            raise CouplingError(f"{spec.name} has weights of which conversion knows no shape")

    def _weight(self, spec: OpSpec, storage: int, axis: int, segments: tuple[Segment, ...], divisor: int = 1) -> None:
        """Note that an axis of a weight has these channels."""
        if storage not in self.parameters:
            raise CouplingError(f"{spec.name} has a weight that the forward computes")
        size = sum(s.size for s in segments) // divisor
        own = self.parameters[storage]
        if axis >= len(own) or own[axis] != size:  # the operation reads a view of it
            axes_of_size = [i for i, n in enumerate(own) if n == size]
            if len(axes_of_size) != 1:
                raise CouplingError(f"{spec.name} reads a view of a weight that conversion does not follow")
            axis = axes_of_size[0]
        axes = self.coupling.weights.setdefault(storage, {})
        if axis in axes:  # a weight that two layers share
            self.coupling.unite_segments(axes[axis][0], segments)
        axes[axis] = segments, divisor

    # -- rules --------------------------------------------------------------------------------------

    def _convolution(self, spec: OpSpec, x: Channels | None, weights: Sequence[int]) -> Channels:
        """Weights (c_out, c_in/groups, k…), for transposed convolutions (c_in, c_out/groups, k…)."""
        groups = int(spec.attrs.get("groups", 1))
        c_in, c_out = spec.reads[0].shape[1], spec.writes[0].shape[1]
        if x is not None and x.axis > 1 and spec.writes[0].shape[x.axis] == spec.reads[0].shape[x.axis]:
            return x  # along the channels, as in efficient channel attention (Wang et al. 2020)
        if x is not None and x.axis != 1:
            raise CouplingError("a convolution runs over another axis than the channels")
        weights = [w if w in self.parameters else self._standardized(spec, w) for w in weights]
        entry = x.segments if x is not None else (Segment(c_in, self.coupling.new_group()),)
        transposed = spec.kind is Kind.CONV_TRANSPOSE
        if groups == c_in and groups > 1 and c_out % c_in == 0:  # depthwise
            times = c_out // c_in
            result = tuple(Segment(s.size * times, s.group) for s in entry)
            self._weight(spec, weights[0], 0, entry if transposed else result)
        else:
            result = (Segment(c_out, self.coupling.new_group()),)
            self.coupling.divisors += [(entry, groups), (result, groups)] if groups > 1 else []
            self._weight(spec, weights[0], 1, result if transposed else entry, groups)
            self._weight(spec, weights[0], 0, entry if transposed else result)
        for bias in weights[1:]:
            self._weight(spec, bias, 0, result)
        if (gain := self.names.get(f"{self.layer}.gain")) is not None:
            self._weight(spec, gain, 0, result)
        return Channels(1, result)

    def _standardized(self, spec: OpSpec, weight: int) -> int:
        """The parameter from which the module computes the weight of a convolution: weight standardization."""
        parameter = self.names.get(f"{self.layer}.weight", -1)
        if self.parameters.get(parameter) != spec.weights[0].shape:
            raise CouplingError(f"{spec.name} has a weight that the forward computes")
        return parameter

    def _linear(self, spec: OpSpec, x: Channels | None, weights: Sequence[int]) -> Channels:
        """Weights (out, in) on the last axis."""
        last = len(spec.reads[0].shape) - 1
        if x is not None and x.axis != last:
            raise CouplingError("a linear layer runs over another axis than the channels")
        result = (Segment(spec.writes[0].shape[-1], self.coupling.new_group()),)
        if x is not None:
            self._weight(spec, weights[0], 1, x.segments)
        self._weight(spec, weights[0], 0, result)
        for bias in weights[1:]:
            self._weight(spec, bias, 0, result)
        return Channels(last, result)

    def _norm(self, spec: OpSpec, x: Channels, weights: Sequence[int]) -> Channels:
        normalized = spec.attrs.get("normalized_shape")
        if normalized is not None and (len(normalized) != 1 or x.axis != len(spec.reads[0].shape) - 1):
            raise CouplingError(f"{spec.name} runs over other axes than the channels")
        groups = spec.attrs.get("num_groups", spec.attrs.get("groups"))
        if isinstance(groups, int) and groups > 1:
            self.coupling.divisors.append((x.segments, groups))
        for weight in weights:
            self._weight(spec, weight, 0, x.segments)
        return x

    def _concatenation(self, spec: OpSpec, inputs: Sequence[Channels | None]) -> Channels | None:
        known = [x for x in inputs if x is not None]
        if not known:
            return None
        rank = len(spec.writes[0].shape)
        axis, at = known[0].axis, _dimension(spec) % rank
        if spec.name not in ("cat", "Concat", "stack") or any(x.axis != axis for x in known):
            raise CouplingError("maps with different channel axes are joined")
        if spec.name == "stack":  # along a new axis
            for other in known[1:]:
                self.coupling.unite_segments(known[0].segments, other.segments)
            return Channels(axis + (0 <= at <= axis), known[0].segments)
        if at != axis:
            for other in known[1:]:
                self.coupling.unite_segments(known[0].segments, other.segments)
            return known[0]
        segments: list[Segment] = []
        for x, tensor in zip(inputs, spec.reads, strict=True):
            segments += x.segments if x is not None else [Segment(tensor.shape[axis], self.coupling.new_group())]
        return Channels(axis, tuple(segments))

    def _elementwise(self, spec: OpSpec, inputs: Sequence[Channels | None], weights: Sequence[int]) -> Channels | None:
        """Operands are aligned at their last axes. A parameter of the size of the channels is scaled with them."""
        out = spec.writes[0].shape
        found: Channels | None = None
        operands = [(x, tensor) for x, tensor in zip(inputs, spec.reads, strict=True) if x is not None]
        for channels, tensor in sorted(operands, key=lambda operand: operand[0].axis < 0):
            if channels.axis < 0 and found is not None and found.axis >= 0:
                at = found.axis - len(out) + len(tensor.shape)
                if at >= 0 and tensor.shape[at] == out[found.axis]:  # of its axes, the one of these channels is scaled
                    for segment in found.segments:
                        self.coupling.unite(segment.group, channels.segments[0].group)
                    continue
            if tensor.shape[channels.axis] != out[len(out) - len(tensor.shape) + channels.axis]:
                continue  # one channel, broadcast over all of them
            axis = len(out) - len(tensor.shape) + channels.axis
            if found is None:
                found = Channels(axis, channels.segments)
            elif found.axis != axis:
                raise CouplingError("maps with different channel axes are added or multiplied")
            else:
                self.coupling.unite_segments(found.segments, channels.segments)
        if found is None:
            return None
        for x, tensor in zip(inputs, spec.reads, strict=True):
            at = found.axis - len(out) + len(tensor.shape)
            if x is None and at >= 0 and tensor.shape[at] == out[found.axis] != 1:
                raise CouplingError(f"{spec.name} reads a tensor of fixed width")
        for weight, tensor in zip(weights, spec.weights, strict=True):
            at = found.axis - len(out) + len(tensor.shape)
            if spec.name.startswith("prelu") and len(tensor.shape) == 1:
                at = 0
            if at >= 0 and tensor.shape[at] != 1:
                self._weight(spec, weight, at, found.segments)
        return found

    def _view(self, spec: OpSpec, name: str, x: Channels) -> list[Channels | None]:
        before = spec.reads[0].shape
        rank = len(before)
        if x.axis < 0:
            return [_gathered(x, before, t.shape) for t in spec.writes]
        dim = _dimension(spec) % rank if rank else 0
        if name in SHARES or name in ("slice", "narrow"):
            if dim != x.axis:
                return [x for _ in spec.writes]
            start = int(spec.attrs.get("start") or 0)
            start += before[dim] if start < 0 else 0
            results: list[Channels | None] = []
            for tensor in spec.writes:
                if int(spec.attrs.get("step", 1) or 1) != 1:
                    raise CouplingError("a slice takes every other channel")
                results.append(Channels(x.axis, _cut(x.segments, start, start + tensor.shape[dim])))
                start += tensor.shape[dim]
            return results
        if name in MOVES:
            return [Channels(_moved(spec, name, x.axis, rank), x.segments) for _ in spec.writes]
        if name == "expand":
            return [Channels(x.axis + len(t.shape) - rank, x.segments) for t in spec.writes]
        if name == "roll" and _along(spec, x.axis, rank):
            raise CouplingError("roll moves channels, and conversion does not follow it")
        if name == "flip" and _along(spec, x.axis, rank):
            return [Channels(x.axis, x.segments[::-1]) for _ in spec.writes]
        if any(prod(t.shape) != prod(before) for t in spec.writes) and [t.shape for t in spec.writes] != [before]:
            if all(len(t.shape) == rank and t.shape[x.axis] == before[x.axis] for t in spec.writes):
                return [x for _ in spec.writes]  # a pad or a crop of the map
            raise CouplingError(f"{name} moves channels, and conversion does not follow it")
        return [self._reshaped(x, before, t) for t in spec.writes]

    def _reshaped(self, x: Channels, before: tuple[int, ...], after: TensorSpec) -> Channels:
        size, front = before[x.axis], prod(before[: x.axis])
        for axis, n in enumerate(after.shape):
            if n == size and prod(after.shape[:axis]) == front:
                return Channels(axis, x.segments)
        group = x.segments[0].group  # the channels are mixed: all of them are scaled by one factor
        for segment in x.segments:
            self.coupling.unite(group, segment.group)
        return Channels(-1, (Segment(size, group),))


def _dimension(spec: OpSpec) -> int:
    """The axis along which an operation joins or divides: `dim` in torch, `axis` in ONNX."""
    return int(spec.attrs.get("dim", spec.attrs.get("axis", 0)))


def _along(spec: OpSpec, axis: int, rank: int) -> bool:
    """Whether an operation with a list of axes, all of them by default, has `axis` among them."""
    dims = spec.attrs.get("dims") or range(rank)
    return axis in {int(d) % rank for d in (dims if isinstance(dims, (tuple, list, range)) else (dims,))}


def _on_axis(x: Channels, tensor: TensorSpec) -> Channels | None:
    size = sum(s.size for s in x.segments)
    return x if x.axis < len(tensor.shape) and (x.axis < 0 or tensor.shape[x.axis] == size) else None


def _reduced(spec: OpSpec, x: Channels) -> Channels | None:
    """The channels after a reduction; None if it sums over them."""
    before, after = spec.reads[0].shape, spec.writes[0].shape
    if len(before) == len(after):
        return _on_axis(x, spec.writes[0])
    dims = spec.attrs.get("dim")
    if dims is None or x.axis < 0:
        return None
    reduced = {d % len(before) for d in (dims if isinstance(dims, (tuple, list)) else (dims,))}
    return None if x.axis in reduced else Channels(x.axis - sum(d < x.axis for d in reduced), x.segments)


def _cut(segments: Sequence[Segment], start: int, stop: int) -> tuple[Segment, ...]:
    """The channels from `start` to `stop`."""
    result, at = [], 0
    for size, group in segments:
        low, high = max(start, at), min(stop, at + size)
        if low < high:
            result.append(Segment(high - low, group))
        at += size
    return tuple(result)


def _moved(spec: OpSpec, name: str, axis: int, rank: int) -> int:
    """The axis of the channels after a permutation."""
    if name in ("permute", "Transpose"):
        order = spec.attrs.get("dims") or spec.attrs.get("perm") or range(rank)[::-1]  # ONNX: perm
        return [int(d) % rank for d in order].index(axis)
    pair = [v for k, v in spec.attrs.items() if k.startswith(("dim", "axis", "source", "destination"))]
    if len(pair) != 2 or not all(isinstance(d, int) for d in pair):
        raise CouplingError(f"{name} moves channels, and conversion does not follow it")
    first, second = (d % rank for d in pair)
    if name == "movedim":
        order = [d for d in range(rank) if d != first]
        order.insert(second, first)
        return order.index(axis)
    return second if axis == first else first if axis == second else axis


def _gathered(x: Channels, before: tuple[int, ...], after: tuple[int, ...]) -> Channels:
    """Channels that were spread over several axes, on one axis again if the new shape has one of their number."""
    size = x.segments[0].size
    if len(after) < len(before) and size in after[1:2]:
        return Channels(1, x.segments)
    return x
