"""Memory traffic as executed, beside that of the record: what each operation of the engine read and wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cspprof.core.record import CONVOLUTIONS, POOLS, Kind, OpSpec, Record
from cspprof.measure.layers import ExecutedNode, LayerProfile, node_label
from cspprof.metrics.traffic import cio_cspnet, traffic_bytes

FLOAT_BYTES = 4
"""All engines compute in float32."""


@dataclass(frozen=True, slots=True)
class ExecutedTraffic:
    """The activations that one operation of the engine read and wrote."""

    name: str
    """Its layers, or its own name if it executes none."""
    operator: str
    cio: int
    """`cio_cspnet` of its calls, in elements."""
    executed_cio: int
    """Elements that it read and wrote, if it executes a convolution or pooling; else 0."""
    nbytes: int
    """Bytes of activations that its calls read and write one by one: `traffic_bytes` without weights."""
    executed_bytes: int
    fused: int
    """Calls that run inside the operation of another call."""
    is_layout: bool

    @property
    def saved_bytes(self) -> int:
        """The traffic of the record's calls that the engine saved; negative if it moved more."""
        return self.nbytes - self.executed_bytes


def executed_traffic(record: Record, profile: LayerProfile) -> list[ExecutedTraffic]:
    """One row per operation; empty if the engine reports no bytes."""
    return [_row(record, n) for n in profile.nodes if n.activation_bytes is not None and n.output_bytes is not None]


def _row(record: Record, node: ExecutedNode) -> ExecutedTraffic:
    specs = specs_of(record, node.calls)
    moved = (node.activation_bytes or 0) + (node.output_bytes or 0)
    counts = any(spec.kind in CONVOLUTIONS or spec.kind in POOLS for spec in specs)
    return ExecutedTraffic(
        node_label(record, node),
        node.operator,
        sum(cio_cspnet(spec) or 0 for spec in specs),
        moved // FLOAT_BYTES if counts else 0,
        sum(traffic_bytes(spec) - sum(weight.nbytes for weight in spec.weights) for spec in specs),
        moved,
        max(len(specs) - 1, 0),
        node.is_layout,
    )


def specs_of(record: Record, calls: Sequence[int]) -> list[OpSpec]:
    return [record.specs[record.calls.spec[call]] for call in calls]


def not_executed_bytes(record: Record, calls: Sequence[int]) -> int:
    """Bytes of activations of calls that the engine does not execute."""
    return sum(traffic_bytes(s) - sum(weight.nbytes for weight in s.weights) for s in specs_of(record, calls))


def boundary_bytes(record: Record, calls: Sequence[int]) -> int:
    """Bytes that an operation moves if it executes these calls and keeps what only they read: the activations that it
    reads from elsewhere, its weights, and the activations that a later call or the caller of the model reads."""
    own = set(calls)
    written: dict[int, int] = {}
    read: dict[int, int] = {}
    total = 0
    for call in calls:
        spec = record.specs[record.calls.spec[call]]
        at = record.offsets[call]
        storages = record.calls.storage[at : at + len(spec.reads) + len(spec.weights) + len(spec.writes)]
        for tensor, storage in zip(spec.reads, storages, strict=False):
            if storage not in written:
                read[storage] = max(read.get(storage, 0), tensor.nbytes)
        total += sum(weight.nbytes for weight in spec.weights)
        for tensor, storage in zip(spec.writes[:1], storages[len(spec.reads) + len(spec.weights) :], strict=False):
            written[storage] = tensor.nbytes
    needed = _read_elsewhere(record, own, set(written))
    return total + sum(read.values()) + sum(size for storage, size in written.items() if storage in needed)


def _read_elsewhere(record: Record, own: set[int], storages: set[int]) -> set[int]:
    """Those of the storages that a later call outside `own` reads before another call writes it, or that the model
    returns."""
    found = storages & set(record.outputs)
    for call in range(max(own, default=0) + 1, len(record.calls.spec)):
        spec = record.specs[record.calls.spec[call]]
        if call in own or spec.kind is Kind.VIEW:
            continue
        found |= storages & set(record.storages_read(call))
        if found == storages:
            break
    return found
