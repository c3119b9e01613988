"""The backward pass of a record: which gradients reach which tensors unchanged, and along how many paths.

Backward, an operation computes the gradient of each tensor that it reads. Concatenations, additions, slices and copies
compute nothing: they pass the gradient of their output on, whole or in part. So the gradient of a tensor is the sum of
what the next computing operations return for it (CSPNet, Wang et al. 2019, Eq. 2).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from cspprof.analysis.stages import stage_labels
from cspprof.core.cached import cached
from cspprof.core.dataflow import INPUT
from cspprof.core.record import CONVOLUTIONS, Kind, OpSpec, Record, TensorSpec

ADDITIONS = frozenset({"add", "sum"})
_COPIES = """
clone contiguous copy copy_ to _to_copy reshape flatten unflatten alias_copy permute_copy split_copy
split_with_sizes_copy squeeze_copy t_copy transpose_copy unbind_copy unsqueeze_copy view_copy slice_copy unsafe_split
unsafe_split_with_sizes slice_scatter select_scatter pixel_shuffle pixel_unshuffle channel_shuffle
native_channel_shuffle roll flip rot90 pad constant_pad_nd dropout
identity cast castlike slice split transpose depthtospace spacetodepth
"""
COPIES = frozenset(_COPIES.split())
"""Operations of kind `DATA` that move elements, each to one place. The names of ONNX are in lower case."""
ALWAYS_WEIGHTED = CONVOLUTIONS | {Kind.LINEAR, Kind.RECURRENT}
"""Kinds of layers. Operations of the other kinds below are layers if they read a parameter."""
WEIGHTED_WITH_PARAMETERS = frozenset({Kind.MATMUL, Kind.ATTENTION, Kind.EMBEDDING, Kind.CUSTOM, Kind.UNKNOWN})

POINTWISE = frozenset({Kind.ACTIVATION, Kind.ELEMENTWISE})


class Read(NamedTuple):
    """A call that reads a tensor, and what it does with the gradient of its output."""

    call: int
    """Index of the call; the number of calls for an output of the model."""
    operand: int
    """The position among the tensors that the call reads; for an output of the model, its position."""
    tensor: TensorSpec
    """The tensor as the call reads it: possibly a slice."""
    passes_to: tuple[int, ...] = ()
    """The tensors whose gradient the call passes on unchanged; empty if it computes a gradient."""


@dataclass(slots=True)
class FlowTensor:
    """The content of a storage from one write to the next. Its views are the same tensor."""

    writer: int
    """Index of the call that wrote it, or `dataflow.INPUT`."""
    spec: TensorSpec
    reads: list[Read] = field(default_factory=list)


@dataclass(slots=True)
class Unit:
    """A row of operations, each of which reads only the one before it: at most one with weights, and norms,
    activations and pools around it. The gradient changes inside, and no other gradient arrives there."""

    calls: list[int]
    outputs: tuple[int, ...]
    """The tensors that it hands to other units."""
    weighted: int | None
    """The call with the weights of a layer."""


class GradientFlow:
    """The tensors of a record, the units that read and write them, and the gradients that arrive at each tensor."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.tensors: list[FlowTensor] = []
        """In the order of their writes."""
        self.inputs_of: list[list[int]] = [[] for _ in record.calls.spec]
        """For each call, the tensors that it reads, if gradients pass through it."""
        self.outputs_of: list[tuple[int, ...]] = [()] * len(record.calls.spec)
        self._computes = [False] * len(record.calls.spec)
        """For each call: whether it computes a gradient for one of its operands."""
        self._parameters = {s.id for s in record.storages if s.role == "parameter"}
        self._read_calls()
        self._merge_pointwise_functions()
        self.unit_of: dict[int, Unit] = {}
        self.units = self._join_units()

    def spec(self, call: int) -> OpSpec:
        return self.record.specs[self.record.calls.spec[call]]

    def parameters_of(self, call: int) -> list[int]:
        """The storages of the parameters that a call reads as weights."""
        spec, at = self.spec(call), self.record.offsets[call]
        first = at + len(spec.reads)
        read = self.record.calls.storage[first : first + len(spec.weights)]
        return [s for s in read if s in self._parameters]

    # -- tensors ----------------------------------------------------------------------------------------

    def _read_calls(self) -> None:
        """Create the tensors and their reads in execution order."""
        record = self.record
        current: dict[int, int] = {}
        """By storage: the tensor in it."""
        sizes: dict[int, int] = {}
        """By storage: the elements of its first tensor, which is the whole."""

        def write(storage: int, writer: int, spec: TensorSpec) -> int:
            sizes.setdefault(storage, spec.numel)
            whole = spec if spec.numel >= sizes[storage] else self.tensors[current[storage]].spec
            self.tensors.append(FlowTensor(writer, whole))
            before = current.get(storage)
            current[storage] = len(self.tensors) - 1
            if before is not None and whole is not spec:  # the part that is not overwritten keeps its gradient
                rest = Read(writer, -1, self.tensors[before].spec, (current[storage],))
                self.tensors[before].reads.append(rest)
            return current[storage]

        for stored in record.storages:
            if stored.role == "input" and is_floating(stored.spec):
                write(stored.id, INPUT, stored.spec)
        for i in range(len(record.calls.spec)):
            spec, at = self.spec(i), record.offsets[i]
            if spec.kind is Kind.VIEW:
                continue
            read = [(p, t, current.get(record.calls.storage[at + p])) for p, t in enumerate(spec.reads)]
            first = at + len(spec.reads) + len(spec.weights)
            written = [(t, record.calls.storage[first + p]) for p, t in enumerate(spec.writes)]
            self.outputs_of[i] = outputs = tuple(write(s, i, t) for t, s in written if is_floating(t))
            for p, t, tensor in read:
                if tensor is None or not outputs or not is_floating(t) or _is_overwritten(spec, p):
                    continue
                self.inputs_of[i].append(tensor)
                passes = outputs if passes_unchanged(spec, p) else ()
                self._computes[i] |= not passes
                self.tensors[tensor].reads.append(Read(i, p, t, passes))
        end = len(record.calls.spec)
        for n, storage in enumerate(dict.fromkeys(record.outputs)):
            if storage in current:
                output = self.tensors[current[storage]]
                output.reads.append(Read(end, n, output.spec))

    # -- functions of several operations ------------------------------------------------------------------

    def _merge_pointwise_functions(self) -> None:
        """Replace operations that compute one pointwise function of one tensor, such as x · sigmoid(x), by their first
        call: it reads the tensor once, and writes what the last one wrote."""
        for i, inputs in enumerate(self.inputs_of):
            if len(inputs) < 2 or self.spec(i).kind is not Kind.ELEMENTWISE or len(self.outputs_of[i]) != 1:
                continue
            origins = [self._pointwise_origins(tensor) for tensor in inputs]
            common = next((t for t in origins[0] if all(t in others for others in origins)), None)
            if common is None or (not self._computes[i] and self._adds_parts(i, common)):
                continue
            calls = {i}.union(*(found[common] for found in origins))
            first, (exit_,) = min(calls), self.outputs_of[i]
            whole = self.tensors[common]
            whole.reads = [read for read in whole.reads if read.call not in calls]
            whole.reads.append(Read(first, 0, whole.spec))
            for call in calls - {i}:
                for inner in self.outputs_of[call]:
                    self.tensors[inner].reads = []
            for call in calls:
                self.inputs_of[call], self.outputs_of[call] = [], ()
            self.inputs_of[first], self.outputs_of[first], self._computes[first] = [common], (exit_,), True
            self.tensors[exit_].writer = first

    def _pointwise_origins(self, tensor: int) -> dict[int, set[int]]:
        """The tensors of which a tensor is a pointwise function, nearest first, and the calls in between. Nothing else
        reads the tensors in between."""
        found: dict[int, set[int]] = {tensor: set()}
        calls: set[int] = set()
        while len(self.tensors[tensor].reads) == 1:
            writer = self.tensors[tensor].writer
            if writer == INPUT or self.spec(writer).kind not in POINTWISE or len(self.inputs_of[writer]) != 1:
                break
            calls = calls | {writer}
            (tensor,) = self.inputs_of[writer]
            found[tensor] = calls
        return found

    def _adds_parts(self, call: int, tensor: int) -> bool:
        """Whether a call adds parts of a tensor, which do not overlap, and passes the gradient on to each."""
        whole = self.tensors[tensor].spec.numel
        return all(t == tensor for t in self.inputs_of[call]) and all(r.numel < whole for r in self.spec(call).reads)

    # -- units ------------------------------------------------------------------------------------------

    def _join_units(self) -> list[Unit]:
        """The units in execution order. An operation joins the unit before it if it alone reads that unit's output,
        reads nothing else, and not both have the weights of a layer."""
        units: list[Unit] = []
        writers: dict[int, Unit] = {}
        """By tensor: the unit whose only output it is."""
        for i, inputs in enumerate(self.inputs_of):
            if not inputs:
                if self.outputs_of[i] and self._is_weighted(i):  # reads no gradient, as an embedding of integers
                    units.append(self._add_unit(i, writers))
                continue
            before = writers.get(inputs[0]) if len(inputs) == 1 else None
            alone = len(self.tensors[inputs[0]].reads) == 1 and (self._computes[i] or len(self.outputs_of[i]) == 1)
            if before is not None and alone and not (before.weighted is not None and self._is_weighted(i)):
                before.calls.append(i)
                before.outputs = self.outputs_of[i]
                before.weighted = i if self._is_weighted(i) else before.weighted
                self.unit_of[i] = before
                if len(before.outputs) == 1:
                    writers[before.outputs[0]] = before
            elif self._computes[i]:
                units.append(self._add_unit(i, writers))
        return units

    def _add_unit(self, i: int, writers: dict[int, Unit]) -> Unit:
        unit = Unit([i], self.outputs_of[i], i if self._is_weighted(i) else None)
        self.unit_of[i] = unit
        if len(unit.outputs) == 1:
            writers[unit.outputs[0]] = unit
        return unit

    def _is_weighted(self, call: int) -> bool:
        kind = self.spec(call).kind
        return kind in ALWAYS_WEIGHTED or (kind in WEIGHTED_WITH_PARAMETERS and bool(self.parameters_of(call)))

    # -- gradients --------------------------------------------------------------------------------------

    @cached_property
    def gradients(self) -> list[Read]:
        """The gradients between units, in execution order of the operations that compute them: the reads that pass
        nothing on, and the outputs of the model, whose gradient is that of the loss."""
        inner = {t for unit in self.units for call in unit.calls for t in self.outputs_of[call]}
        inner.difference_update(*(unit.outputs for unit in self.units))
        found = [read for n, tensor in enumerate(self.tensors) if n not in inner
                 for read in tensor.reads if not read.passes_to]  # fmt: skip
        return sorted(found, key=lambda read: (read.call, read.operand))

    @cached_property
    def reaching(self) -> list[frozenset[int]]:
        """For each tensor: the positions in `gradients` of those that reach it unchanged."""
        position = {(read.call, read.operand): n for n, read in enumerate(self.gradients)}
        found: list[frozenset[int]] = [frozenset()] * len(self.tensors)
        for n in range(len(self.tensors) - 1, -1, -1):
            reads = self.tensors[n].reads
            parts = [found[to] for read in reads for to in read.passes_to]
            own = [position[key] for read in reads if (key := (read.call, read.operand)) in position]
            found[n] = parts[0] if len(parts) == 1 and not own else frozenset(own).union(*parts)
        return found

    @cached_property
    def paths(self) -> list[int]:
        """For each tensor: the number of paths of the dataflow from it to the outputs of the model. Backward, the
        gradient of the loss takes each of them."""
        found = [0] * len(self.tensors)
        for n in range(len(self.tensors) - 1, -1, -1):
            found[n] = sum(1 if read.call == len(self.outputs_of) else self._continued(read, found)
                           for read in self.tensors[n].reads)  # fmt: skip
        return found

    @cached_property
    def stage_paths(self) -> dict[str, int]:
        """By stage: the number of paths from the tensors that enter it to those that leave it."""
        labels = stage_labels(self.record)
        end = len(labels)
        inside = [0] * len(self.tensors)
        totals = dict.fromkeys(labels, 0)
        for n in range(len(self.tensors) - 1, -1, -1):
            tensor = self.tensors[n]
            own = labels[tensor.writer] if tensor.writer != INPUT else None
            leaves = False
            for read in tensor.reads:
                label = labels[read.call] if read.call < end else None
                if label is not None and label != own:
                    totals[label] += self._continued(read, inside)
                if label is not None and label == own:
                    inside[n] += self._continued(read, inside)
                leaves |= label != own
            inside[n] += leaves and own is not None
        return totals

    def _continued(self, read: Read, paths: list[int]) -> int:
        """The paths that go on behind a call of the record."""
        return sum(paths[to] for to in read.passes_to or self.outputs_of[read.call])

    def input_paths(self) -> int:
        """The number of paths from the inputs of the model to its outputs."""
        return sum(n for n, t in zip(self.paths, self.tensors, strict=True) if t.writer == INPUT)

    def reads_behind_copies(self, tensor: int) -> list[Read]:
        """The reads of a tensor; those of its copies and of parts of it in their place."""
        found: list[Read] = []
        pending = [tensor]
        while pending:
            for read in self.tensors[pending.pop()].reads:
                if read.passes_to and read.operand >= 0 and len(self.inputs_of[read.call]) == 1:
                    pending += read.passes_to
                else:
                    found.append(read)
        return sorted(found, key=lambda read: (read.call, read.operand))


@cached
def gradient_flow(record: Record) -> GradientFlow:
    """The gradient flow of a record."""
    return GradientFlow(record)


def is_floating(tensor: TensorSpec) -> bool:
    """Whether a tensor can have a gradient."""
    return "float" in tensor.dtype or "complex" in tensor.dtype


def passes_unchanged(spec: OpSpec, operand: int) -> bool:
    """Whether the gradient of an operand is the gradient of the output, or a part of it, without any arithmetic.

    An operand that is broadcast or scaled gets another gradient than the output has.
    """
    name = spec.name.lower()
    if spec.kind is Kind.CONCAT:
        return "relu" not in name
    if spec.kind is Kind.DATA:
        constant = "pad" not in name or spec.attrs.get("mode", "constant") == "constant"
        random = "dropout" in name and bool(spec.attrs.get("train", False))
        return name in COPIES and constant and not random
    if spec.kind is not Kind.ELEMENTWISE:
        return False
    name = name.rstrip("_")
    same_shape = spec.reads[operand].shape == spec.writes[0].shape
    if name in ADDITIONS:
        return same_shape and (operand == 0 or spec.attrs.get("alpha", 1) == 1)
    return name == "sub" and same_shape and operand == 0 and not spec.weights


def _is_overwritten(spec: OpSpec, operand: int) -> bool:
    """Whether a call overwrites the operand without reading its values."""
    return spec.name in ("copy_", "copy") and operand == 0
