"""`Record`: what one forward pass of a model did. Metrics are computed from it and never stored in it.

A record is columnar. Calls with the same operation, shapes and arguments share one `OpSpec`; a call is an index into
the specs, an index into the layers, and the storages that it reads and writes. A network of 10⁵ calls has a few hundred
specs, so a metric of operations is computed a few hundred times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple, overload

from cspprof.core.backward import Backward as Backward
from cspprof.core.errors import ProfileError
from cspprof.core.kinds import COMPUTE as COMPUTE
from cspprof.core.kinds import CONVOLUTIONS as CONVOLUTIONS
from cspprof.core.kinds import POOLS as POOLS
from cspprof.core.kinds import Kind as Kind
from cspprof.core.tensors import Tensor as Tensor
from cspprof.core.tensors import TensorSpec as TensorSpec

SCHEMA = "cspprof.record/2"


class OpSpec(NamedTuple):
    """An operation on tensors of known shapes, shared by all calls of it."""

    target: str
    """The qualified name: `aten.conv2d`."""
    kind: Kind
    reads: tuple[TensorSpec, ...]
    """Activations."""
    weights: tuple[TensorSpec, ...]
    """Parameters, buffers, and activations passed in their place."""
    writes: tuple[TensorSpec, ...]
    attrs: Mapping[str, Any] = {}
    """The other arguments by name, and what the cost rule adds."""
    macs: int | None = 0
    """Exact multiply-accumulates; None if unknown."""
    elementwise: int = 0
    """Scalar operations other than multiply-accumulates."""
    backward: Backward | None = None
    """The backward pass; None if it is unknown."""

    def __hash__(self) -> int:
        return hash((self.target, self.macs, self.elementwise, self.writes))

    @property
    def name(self) -> str:
        """The last part of the target: `conv2d` of `aten.conv2d`."""
        return self.target.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class Op:
    """One call, created on demand from the columns of the record."""

    index: int
    spec: OpSpec
    layer: str
    """Path of the module whose forward called it; empty for the model itself."""
    reads: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]
    writes: tuple[Tensor, ...]

    @property
    def target(self) -> str:
        return self.spec.target

    @property
    def kind(self) -> Kind:
        return self.spec.kind

    @property
    def macs(self) -> int | None:
        return self.spec.macs

    @property
    def elementwise(self) -> int:
        return self.spec.elementwise

    @property
    def attrs(self) -> Mapping[str, Any]:
        return self.spec.attrs


class Layer(NamedTuple):
    """A module of the model. A tuple, because a model can have a hundred thousand."""

    path: str
    class_name: str
    """The qualified name: `torch.nn.modules.conv.Conv2d`."""
    depth: int
    calls: int
    params: int
    """Elements of its own parameters, without those of submodules and those shared with an earlier layer."""
    shared_with: tuple[str, ...] = ()
    """Other paths of the same module."""
    stage: str | None = None
    """The stage that the author of the model declared for it or for a module around it."""
    frozen: int = 0
    """Those of `params` that need no gradient."""


class Storage(NamedTuple):
    """A storage that exists before the first call that uses it: a model input, parameter, buffer or constant."""

    id: int
    name: str
    role: str
    """`input`, `parameter`, `buffer`, `constant`, or `byproduct`: an output that the rule of its operation excludes,
    and that a later call reads."""
    spec: TensorSpec


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls in execution order, as columns."""

    spec: Sequence[int]
    """Index of the spec, for each call."""
    layer: Sequence[int]
    """Index of the layer, for each call."""
    storage: Sequence[int]
    """The storages of all calls, end to end: for each call those of its reads, weights and writes."""
    name: Sequence[str] = ()
    """The name of the graph node, for each call, if the source names its nodes as ONNX does; else empty."""
    views: Mapping[int, int] = field(default_factory=dict)
    """For reads of views, the position in `storage` of the write that made the view, by that of the read. A record of
    another source can lack it: then the storage and the shape say which view is read."""
    required: Sequence[int] = ()
    """For each call a bit mask of the operands (reads, then weights) that require a gradient; empty if unknown."""


class Ops(Sequence[Op]):
    """The calls of a record as a sequence of `Op` objects, which are created on access."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def __len__(self) -> int:
        return len(self._record.calls.spec)

    @overload
    def __getitem__(self, index: int) -> Op: ...
    @overload
    def __getitem__(self, index: slice) -> list[Op]: ...
    def __getitem__(self, index: int | slice) -> Op | list[Op]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(index)
        return self._op(position)

    def __iter__(self) -> Iterator[Op]:
        return map(self._op, range(len(self)))

    def _op(self, i: int) -> Op:
        record = self._record
        spec = record.specs[record.calls.spec[i]]
        at = record.offsets[i]
        parts = []
        for tensors in (spec.reads, spec.weights, spec.writes):
            storages = record.calls.storage[at : at + len(tensors)]
            parts.append(tuple(Tensor(t.shape, t.dtype, s) for t, s in zip(tensors, storages, strict=True)))
            at += len(tensors)
        return Op(i, spec, record.layers[record.calls.layer[i]].path, *parts)


@dataclass(frozen=True)
class Record:
    """The operations, layers and tensors of one forward pass: immutable, without torch."""

    model: str
    source: str
    inputs: tuple[TensorSpec, ...]
    layers: tuple[Layer, ...]
    specs: tuple[OpSpec, ...]
    calls: Calls
    storages: tuple[Storage, ...]
    """Storages that no call writes first."""
    params: int
    """Elements of all parameters of the model, each parameter once."""
    outputs: tuple[int, ...] = ()
    """Storages of the tensors that the forward returned."""
    notes: tuple[str, ...] = ()
    """Remarks for the user, such as modules that ran but do not belong to the model."""
    tool: Mapping[str, str] = field(default_factory=dict)
    """The versions of cspprof and torch that made the record."""
    status: str = ""
    """`reading` or `construction` for a network of the zoo without a published definition; else empty."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Files that define classes of the user's project, by qualified name; relative to the folder of the trace."""
    deployed: bool = False
    """Whether this is the deployed form of the model: see `cspprof.deployment`."""

    # -- other arrangements of the same data -----------------------------------------------------

    @property
    def label(self) -> str:
        """The name of the model with its status: `csp_peleenet (reading)`."""
        return f"{self.model} ({self.status})" if self.status else self.model

    @property
    def ops(self) -> Ops:
        return Ops(self)

    @cached_property
    def offsets(self) -> list[int]:
        """The position of the first storage of each call in `calls.storage`."""
        widths = [len(s.reads) + len(s.weights) + len(s.writes) for s in self.specs]
        return list(accumulate((widths[i] for i in self.calls.spec[:-1]), initial=0)) if self.calls.spec else []

    def storages_read(self, call: int) -> Sequence[int]:
        """The storages of the operands of a call, weights included."""
        spec, at = self.specs[self.calls.spec[call]], self.offsets[call]
        return self.calls.storage[at : at + len(spec.reads) + len(spec.weights)]

    def storages_written(self, call: int) -> Sequence[int]:
        """The storages of the outputs of a call."""
        spec, at = self.specs[self.calls.spec[call]], self.offsets[call]
        first = at + len(spec.reads) + len(spec.weights)
        return self.calls.storage[first : first + len(spec.writes)]

    @cached_property
    def spec_counts(self) -> list[tuple[OpSpec, int]]:
        """Each spec and the number of its calls. A sum over calls is a sum over these."""
        return [(self.specs[i], n) for i, n in Counter(self.calls.spec).items()]

    @cached_property
    def repeated_weight_reads(self) -> list[tuple[TensorSpec, list[tuple[OpSpec, TensorSpec]]]]:
        """Stored tensors that are read as a weight more than once, each with all its reads: the operation, and the
        weight as that operation reads it."""
        reads: dict[int, list[tuple[OpSpec, TensorSpec]]] = {}
        for i, at in zip(self.calls.spec, self.offsets, strict=True):
            spec = self.specs[i]
            for position, weight in enumerate(spec.weights, at + len(spec.reads)):
                reads.setdefault(self.calls.storage[position], []).append((spec, weight))
        return [(s.spec, reads[s.id]) for s in self.storages if len(reads.get(s.id, ())) > 1]

    @cached_property
    def uncounted(self) -> dict[str, int]:
        """Operations of unknown cost: name and number of calls, sorted by name."""
        unknown: Counter[str] = Counter()
        for spec, n in self.spec_counts:
            if spec.macs is None:
                unknown[spec.target] += n
        return dict(sorted(unknown.items()))

    @property
    def complete(self) -> bool:
        """Whether the cost of every operation is known."""
        return not self.uncounted

    @property
    def dtype(self) -> str:
        """The dtype of the first floating input; without one, as for token ids, the floating dtype that most parameters
        have, else the dtype of the first input, else `float32`."""
        floating = [t.dtype for t in self.inputs if "float" in t.dtype]
        weights: Counter[str] = Counter()
        for storage in self.storages:
            if storage.role == "parameter" and "float" in storage.spec.dtype:
                weights[storage.spec.dtype] += storage.spec.numel
        most = [dtype for dtype, _ in weights.most_common(1)]
        return (floating or most or [t.dtype for t in self.inputs] or ["float32"])[0]

    def self_check(self) -> None:
        """Raise ProfileError if the layers are no tree, the columns are inconsistent, or a call reads a storage before
        it is written."""
        self._check_layers()
        calls = self.calls
        optional = (len(calls.name), len(calls.required))
        if len(calls.spec) != len(calls.layer) or any(n not in (0, len(calls.spec)) for n in optional):
            raise ProfileError("the call columns differ in length")
        for column, entries, noun in ((calls.spec, self.specs, "spec"), (calls.layer, self.layers, "layer")):
            if column and not 0 <= min(column) <= max(column) < len(entries):
                raise ProfileError(f"a call names a {noun} that does not exist")
        widths = [len(s.reads) + len(s.weights) + len(s.writes) for s in self.specs]
        if sum(widths[i] for i in calls.spec) != len(calls.storage):
            raise ProfileError("the storage column does not fit the calls")
        if any(not 0 <= made < read < len(calls.storage) for read, made in calls.views.items()):
            raise ProfileError("a call reads a view that does not exist")
        for i, mask in enumerate(calls.required):
            spec = self.specs[calls.spec[i]]
            if mask < 0 or mask >> (len(spec.reads) + len(spec.weights)):
                raise ProfileError(
                    f"call {i} ({spec.target}) requires the gradient of an operand that it does not have"
                )
        self._check_storages(widths)

    def _check_layers(self) -> None:
        """Raise ProfileError unless the first layer is the model, and every other one is in a layer before it."""
        if not self.layers or self.layers[0].path or self.layers[0].depth:
            raise ProfileError("the first layer is not the model: its path is not empty, or its depth is not 0")
        before = 0
        for i, layer in enumerate(self.layers):
            if not 0 <= layer.depth <= before + 1:
                raise ProfileError(f"layer {i} ({layer.path}) has depth {layer.depth} after a layer of depth {before}")
            before = layer.depth

    def _check_storages(self, widths: Sequence[int]) -> None:
        """Raise ProfileError if a storage exists twice, or is read before it is written."""
        calls = self.calls
        written = {s.id for s in self.storages}
        if len(written) != len(self.storages):
            raise ProfileError("two storages have the same id")
        for i, (index, at) in enumerate(zip(calls.spec, self.offsets, strict=True)):
            spec = self.specs[index]
            first_write = at + len(spec.reads) + len(spec.weights)
            for storage in calls.storage[at:first_write]:
                if storage not in written:
                    raise ProfileError(f"operation {i} ({spec.target}) reads storage {storage} before it is written")
            written.update(calls.storage[first_write : at + widths[index]])

    def __getstate__(self) -> dict[str, Any]:  # without cached properties
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def __repr__(self) -> str:
        inputs = ", ".join(map(str, self.inputs))
        return f"<Record {self.label} ({inputs}): {len(self.ops)} operations, {len(self.layers)} layers>"
