"""Activation memory over the execution order."""

from __future__ import annotations

from itertools import accumulate

from cspprof.core.cached import cached
from cspprof.core.record import Kind, Record
from cspprof.metrics.amounts import Peak
from cspprof.metrics.definition import metric


@metric(
    "peak_bytes",
    unit="bytes",
    title="peak memory",
    is_not="what an allocator reserves: no weights, no workspace, no fragmentation, no gradients",
    of="profile",
    zero=Peak(0),
)
def peak_bytes(record: Record) -> Peak:
    """The largest activation memory alive at one time. While an operation runs, its inputs and its first output are
    alive. A storage lives until its last reader has run. A view owns no memory, and an in-place operation reuses the
    storage of its input. The model's input is freed after its last use; the model's outputs live to the end. Weights,
    buffers and saved statistics are not included."""
    return Peak(max(live_bytes(record), default=0))


@cached
def activation_bytes(record: Record) -> int:
    """Bytes of the activations that operations allocate, all together, as if none were freed. The storage
    of the first output of an operation counts once: views and in-place operations allocate none."""
    existing = {storage.id for storage in record.storages}
    sizes: dict[int, int] = {}
    for index, at in zip(record.calls.spec, record.offsets, strict=True):
        spec = record.specs[index]
        if spec.kind is not Kind.VIEW:
            first = at + len(spec.reads) + len(spec.weights)
            for place, tensor in enumerate(spec.writes[:1], first):
                storage = record.calls.storage[place]
                if storage not in existing:
                    sizes[storage] = max(sizes.get(storage, 0), tensor.nbytes)
    return sum(sizes.values())


@cached
def live_bytes(record: Record) -> list[int]:
    """Bytes of activations that are alive while each call runs, in execution order."""
    calls = record.calls
    last_use: dict[int, int] = {}
    for i, (index, at) in enumerate(zip(calls.spec, record.offsets, strict=True)):
        spec = record.specs[index]
        if spec.kind is not Kind.VIEW:
            used = len(spec.reads) + len(spec.weights) + bool(spec.writes)  # later outputs only if a call reads them
            last_use.update(dict.fromkeys(calls.storage[at : at + used], i))
    last_use.update(dict.fromkeys(record.outputs, len(calls.spec) - 1))
    changes = [0] * (len(calls.spec) + 1)
    for storage, _, role, tensor in record.storages:
        end = last_use.pop(storage, None)
        if role == "input" and end is not None:
            changes[0] += tensor.nbytes
            changes[end + 1] -= tensor.nbytes
    for i, (index, at) in enumerate(zip(calls.spec, record.offsets, strict=True)):
        spec = record.specs[index]
        if spec.kind is Kind.VIEW:
            continue
        first_write = at + len(spec.reads) + len(spec.weights)
        for place, tensor in enumerate(spec.writes, first_write):
            end = last_use.pop(calls.storage[place], None)  # None: written by an earlier call, or never used
            if end is not None:
                changes[i] += tensor.nbytes
                changes[end + 1] -= tensor.nbytes
    return list(accumulate(changes[:-1]))
