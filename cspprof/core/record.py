"""The central record: what a traced model did, as facts. Costs are computed from it, never stored in it.

A `Record` is columnar. What an operation does, whichever call of it, is an `OpSpec`, kept once; a call is an
index into the specs, a layer and the storages that it touched. A network of 10⁵ operations has a few
hundred specs, so whatever depends on the spec alone is computed a few hundred times.
"""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import accumulate, chain, compress
from typing import Any, NamedTuple, overload

from cspprof.core.errors import ProfileError
from cspprof.core.kinds import COMPUTE as COMPUTE
from cspprof.core.kinds import CONVOLUTIONS as CONVOLUTIONS
from cspprof.core.kinds import POOLS as POOLS
from cspprof.core.kinds import Kind as Kind
from cspprof.core.tensors import Tensor as Tensor
from cspprof.core.tensors import TensorSpec as TensorSpec

SCHEMA = "cspprof.record/2"


class OpSpec(NamedTuple):
    """What an operation does, whichever call of it.

    `reads` are activations, `weights` parameters, buffers and whatever stands in their place. `macs` is exact,
    and None where nobody knows. `elementwise` counts scalar operations other than multiply-accumulates.
    """

    target: str
    kind: Kind
    reads: tuple[TensorSpec, ...]
    weights: tuple[TensorSpec, ...]
    writes: tuple[TensorSpec, ...]
    attrs: Mapping[str, Any] = {}
    macs: int | None = 0
    elementwise: int = 0

    def __hash__(self) -> int:
        return hash((self.target, self.macs, self.elementwise, self.writes))

    @property
    def name(self) -> str:
        """The operation's own name: `conv2d` of `aten.conv2d`."""
        return self.target.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class Op:
    """One call. Made on demand from the profile's columns."""

    index: int
    spec: OpSpec
    layer: str
    """Path of the module whose forward ran it; the root's is the empty string."""
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
    """A module of the model, in the order of `named_modules`. A tuple, since there may be a hundred thousand."""

    path: str
    class_name: str
    """Qualified: `torch.nn.modules.conv.Conv2d`."""
    depth: int
    calls: int
    params: int
    """Own parameter elements, those of submodules and those counted with an earlier layer left out."""
    shared_with: tuple[str, ...] = ()
    """Further paths of the same module."""
    stage: str | None = None
    """The stage that the model's author named for it, handed down to its submodules."""


class Storage(NamedTuple):
    """A storage that no operation of the trace wrote first: a model input, or what the model holds."""

    id: int
    name: str
    role: str
    """`input`, `parameter`, `buffer`, `constant`, or `byproduct`: an output that its operation's rule leaves out, but
    that is read later."""
    spec: TensorSpec


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls in execution order, as columns of equal length and one flat column of storages.

    Call i touches `len(reads) + len(weights) + len(writes)` storages of its spec, laid end to end.
    """

    spec: Sequence[int]
    layer: Sequence[int]
    storage: Sequence[int]
    name: Sequence[str] = ()
    """What the graph that was read calls each call, where it names its nodes as ONNX does; else nothing."""


class Ops(Sequence[Op]):
    """A profile's calls as `Op` objects, made when looked at."""

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
        return self._make(position)

    def __iter__(self) -> Iterator[Op]:
        return map(self._make, range(len(self)))

    def _make(self, i: int) -> Op:
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
    """What one forward pass of a model did, immutable and free of torch."""

    model: str
    source: str
    inputs: tuple[TensorSpec, ...]
    layers: tuple[Layer, ...]
    specs: tuple[OpSpec, ...]
    calls: Calls
    storages: tuple[Storage, ...]
    params: int
    """Parameter elements of the whole model, each parameter once."""
    outputs: tuple[int, ...] = ()
    """Storages of what the forward returned."""
    notes: tuple[str, ...] = ()
    tool: Mapping[str, str] = field(default_factory=dict)
    status: str = ""
    """Of the zoo's network: `reading` or `construction` where no published definition stands behind it; else empty."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Where classes of the project that was traced are defined: qualified name and file, from where the trace ran."""

    # -- facts in other arrangements -------------------------------------------------------------

    @property
    def label(self) -> str:
        """The model's name as people read it: `csp_peleenet (reading)`."""
        return f"{self.model} ({self.status})" if self.status else self.model

    @property
    def ops(self) -> Ops:
        return Ops(self)

    @cached_property
    def offsets(self) -> list[int]:
        """Where each call's storages begin in the flat column."""
        widths = [len(s.reads) + len(s.weights) + len(s.writes) for s in self.specs]
        return list(accumulate((widths[i] for i in self.calls.spec[:-1]), initial=0)) if self.calls.spec else []

    @cached_property
    def call_counts(self) -> list[tuple[int, int]]:
        """The number of each spec and how often it was called."""
        return list(Counter(self.calls.spec).items())

    @cached_property
    def spec_counts(self) -> list[tuple[OpSpec, int]]:
        """Each spec and how often it was called; what sums over calls is a sum over these."""
        return [(self.specs[i], n) for i, n in self.call_counts]

    @cached_property
    def weights_read_again(self) -> list[tuple[TensorSpec, list[tuple[OpSpec, TensorSpec]]]]:
        """What the model holds and reads as a weight more than once, and each reading: the operation, and the weight
        as that has it."""
        calls, specs = self.calls, self.specs
        held = [(False,) * len(s.reads) + (True,) * len(s.weights) + (False,) * len(s.writes) for s in specs]
        read = list(compress(calls.storage, chain.from_iterable(map(held.__getitem__, calls.spec))))
        if len(set(read)) == len(read):  # as nearly always
            return []
        weights = [(specs[i], weight) for i in calls.spec for weight in specs[i].weights]
        readings: dict[int, list[tuple[OpSpec, TensorSpec]]] = {}
        for storage, reading in zip(read, weights, strict=True):
            readings.setdefault(storage, []).append(reading)
        return [(s.spec, readings[s.id]) for s in self.storages if len(readings.get(s.id, ())) > 1]

    @cached_property
    def uncounted(self) -> dict[str, int]:
        """Operations without a rule: name and number of calls, sorted by name."""
        unknown: Counter[str] = Counter()
        for spec, n in self.spec_counts:
            if spec.macs is None:
                unknown[spec.target] += n
        return dict(sorted(unknown.items()))

    @property
    def complete(self) -> bool:
        """Whether every operation was counted."""
        return not self.uncounted

    @property
    def dtype(self) -> str:
        """The first floating input's dtype, else the first input's."""
        floating = [t.dtype for t in self.inputs if "float" in t.dtype]
        return (floating or [t.dtype for t in self.inputs] or ["float32"])[0]

    def self_check(self) -> None:
        """Raise `ProfileError` where the record contradicts itself."""
        calls = self.calls
        if len(calls.spec) != len(calls.layer) or len(calls.name) not in (0, len(calls.spec)):
            raise ProfileError("the call columns differ in length")
        for column, known, noun in ((calls.spec, self.specs, "spec"), (calls.layer, self.layers, "layer")):
            if column and not 0 <= min(column) <= max(column) < len(known):
                raise ProfileError(f"a call names a {noun} that does not exist")
        uses = [(False,) * (len(s.reads) + len(s.weights)) + (True,) * len(s.writes) for s in self.specs]
        writes = list(chain.from_iterable([uses[i] for i in calls.spec]))
        if len(writes) != len(calls.storage):
            raise ProfileError("the storage column does not fit the calls")
        first = dict(zip(reversed(calls.storage), reversed(writes), strict=True)) | {s.id: True for s in self.storages}
        unwritten = [(calls.storage.index(s), s) for s, written in first.items() if not written]
        if unwritten:
            at, storage = min(unwritten)
            op = self.ops[bisect(self.offsets, at) - 1]
            raise ProfileError(f"operation {op.index} ({op.target}) reads storage {storage} unwritten")

    def __getstate__(self) -> dict[str, Any]:  # a copy works out again what was worked out
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def __repr__(self) -> str:
        inputs = ", ".join(map(str, self.inputs))
        return f"<Record {self.label} ({inputs}): {len(self.ops)} operations, {len(self.layers)} layers>"
