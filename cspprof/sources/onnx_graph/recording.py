"""The calls and storages of a graph, collected while it is walked over, and the record that they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from onnx import NodeProto, TensorProto

from cspprof._version import __version__
from cspprof.core.kinds import Kind
from cspprof.core.record import Calls, OpSpec, Record, Storage
from cspprof.core.tensors import TensorSpec
from cspprof.sources.onnx_graph.module_paths import ModulePaths
from cspprof.sources.onnx_graph.values import Origin, Stored, Value
from cspprof.sources.onnx_graph.weights import Role, operand_role, recorded_spec

MAX_SOURCES = 2_000_000
"""Stored tensors from which constants are computed, those of each constant together."""


class Numbers(dict[int, None]):
    """Numbers in the order in which they were added."""

    def add_all(self, numbers: Iterable[int]) -> None:
        self.update(dict.fromkeys(numbers))

    def after(self, count: int) -> set[int]:
        """Those behind the first `count`."""
        return set(islice(reversed(self), len(self) - count))

    def shorten(self, count: int) -> None:
        """Remove those behind the first `count`."""
        while len(self) > count:
            self.popitem()


class Checkpoint(NamedTuple):
    """How much of a recording existed at some moment."""

    calls: int
    storages: int
    parameters: int
    buffers: int


class Recording:
    """Collects calls. A storage has a number; stored tensors that one call reads as one weight share a storage."""

    def __init__(self) -> None:
        self.inputs: dict[int, Storage] = {}
        self.stored: dict[int, Stored] = {}
        self.stored_at: dict[tuple[str, str, TensorSpec], int] = {}
        """Stored tensors by place, name and spec."""
        self.next_storage = 0
        self.shared_with: dict[int, int] = {}
        """A stored tensor and another one, with which it shares a storage: a forest."""
        self.parameters = Numbers()
        """The stored tensors that a call reads as a parameter."""
        self.buffers = Numbers()
        self.sources_left = MAX_SOURCES
        self.paths = ModulePaths()
        self.op_specs: dict[OpSpec, int] = {}
        self.call_specs: list[int] = []
        self.call_layers: list[int] = []
        self.call_storages: list[int] = []
        self.call_names: list[str] = []

    # -- values -------------------------------------------------------------------------------------

    def input(self, name: str, spec: TensorSpec) -> Value:
        value = self.activation(spec)
        self.inputs[value.storage] = Storage(value.storage, name, "input", spec)
        return value

    def activation(self, spec: TensorSpec) -> Value:
        """A tensor in a new storage."""
        self.next_storage += 1
        return Value(spec, self.next_storage - 1)

    def store(
        self, place: str, name: str, spec: TensorSpec, origin: Origin, array: Any = None,
        tensor: TensorProto | None = None,
    ) -> Value:  # fmt: skip
        """A stored tensor. The same name and spec at the same place is the same tensor."""
        key = place, name, spec
        if key not in self.stored_at:
            self.stored_at[key] = self.activation(spec).storage
            self.stored[self.stored_at[key]] = Stored(name, spec, origin, tensor)
        number = self.stored_at[key]
        return Value(spec, number, frozenset({number}), array)

    def derive(
        self, place: str, name: str, spec: TensorSpec, data: Sequence[Value], array: Any = None, stored_dtype: str = ""
    ) -> Value:
        """A constant that is computed from other constants. It consists of their stored tensors, unless it has more
        elements than they have: then it is a stored tensor itself."""
        sources = frozenset[int]().union(*(v.sources or () for v in data))
        self.sources_left -= len(sources)
        if self.sources_left < 0:
            raise ValueError(f"the file computes constants from more than {MAX_SOURCES:,} others")
        if any(self.stored[s].spec.numel > 1 for s in sources):  # the numbers of a program add no elements
            sources = frozenset(
                s for s in sources if self.stored[s].spec.numel > 1 or self.stored[s].origin is Origin.INITIALIZER
            )
        if not sources or spec.numel > sum(self.stored[s].spec.numel for s in sources):
            origins = {self.stored[s].origin for s in sources}
            is_number = all(self.stored[s].spec.numel == 1 for s in sources) and Origin.INITIALIZER not in origins
            return self.store(place, name, spec, Origin.GENERATED if is_number else Origin.INITIALIZER, array)
        return Value(spec, min(sources), sources, array, stored_dtype)

    # -- calls --------------------------------------------------------------------------------------

    def call(self, node: NodeProto, layer: int, spec: OpSpec, storages: Iterable[int]) -> None:
        """Record a call. `storages` are those of the reads, weights and writes of the spec, in this order."""
        self.call_specs.append(self.op_specs.setdefault(spec, len(self.op_specs)))
        self.call_layers.append(layer)
        self.call_names.append(node.name)
        self.call_storages += storages

    def read_weight(self, operator: str, kind: Kind, i: int, value: Value) -> TensorSpec | None:
        """Note that a call reads a constant as input i. The result is its spec as recorded; None: it is not recorded,
        because it is an argument such as a shape."""
        sources = value.sources or frozenset()
        role = operand_role(operator, kind, i, value.spec, [self.stored[s] for s in sources])
        if role is Role.ARGUMENT:
            return None
        if role is Role.PARAMETER:
            self.parameters.add_all(sources)
        elif role is Role.BUFFER:
            self.buffers.add_all(sources)
        for source in sources:
            first, other = self.root(value.storage), self.root(source)
            if first != other:
                self.shared_with[other] = first
        return recorded_spec(operator, kind, i, role, value.stored_spec)

    def root(self, storage: int) -> int:
        """The number of the storage that contains a stored tensor."""
        while storage in self.shared_with:
            above = self.shared_with[storage]
            if above in self.shared_with:
                self.shared_with[storage] = self.shared_with[above]
            storage = above
        return storage

    # -- attempts -----------------------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(len(self.call_specs), len(self.call_storages), len(self.parameters), len(self.buffers))

    def restore(self, to: Checkpoint) -> None:
        """Remove the calls after a checkpoint, and what they read."""
        for column in (self.call_specs, self.call_layers, self.call_names):
            del column[to.calls :]
        del self.call_storages[to.storages :]
        self.parameters.shorten(to.parameters)
        self.buffers.shorten(to.buffers)

    # -- the result ---------------------------------------------------------------------------------

    def record(
        self,
        path: Path,
        source: str,
        inputs: Mapping[str, TensorSpec],
        outputs: Sequence[Value],
        notes: tuple[str, ...],
    ) -> Record:
        storages = [self.root(s) for s in self.call_storages]
        results = tuple(self.root(value.storage) for value in outputs)
        used = sorted(set(self.call_specs))
        number = {old: new for new, old in enumerate(used)}
        specs = tuple(self.op_specs)
        return Record(
            model=path.name, source=source, inputs=tuple(inputs.values()), layers=self.paths.layers(),
            specs=tuple(specs[i] for i in used),
            calls=Calls([number[i] for i in self.call_specs], self.call_layers, storages, self.call_names),
            storages=(*self.inputs.values(), *self._stored_storages({*storages, *results})),
            params=sum(self.stored[s].spec.numel for s in self.parameters),
            outputs=results, notes=notes, tool={"cspprof": __version__, "onnx": onnx.__version__},
        )  # fmt: skip

    def _stored_storages(self, used: set[int]) -> list[Storage]:
        """The storages of stored tensors that the calls use."""
        groups: dict[int, list[int]] = {}
        for number in sorted(self.stored):
            groups.setdefault(self.root(number), []).append(number)
        storages = []
        for root, members in groups.items():
            if root not in used:
                continue
            role = "constant"
            for known, name in ((self.parameters, "parameter"), (self.buffers, "buffer")):
                if not known.keys().isdisjoint(members):
                    role, members = name, [m for m in members if m in known]
                    break
            name, spec = self.stored[members[0]].name, self.stored[members[0]].spec
            if len(members) > 1:
                spec = TensorSpec((sum(self.stored[m].spec.numel for m in members),), spec.dtype)
            storages.append(Storage(root, name, role, spec))
        return storages
