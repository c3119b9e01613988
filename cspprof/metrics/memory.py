"""Live memory over the execution order."""

from __future__ import annotations

from itertools import accumulate
from operator import attrgetter, getitem
from typing import NamedTuple

from cspprof.core.cached import cached
from cspprof.core.record import Kind, Record
from cspprof.metrics import Peak, metric


@metric(
    "peak_bytes",
    unit="bytes",
    title="peak memory",
    is_not="what an allocator reserves: no weights, no workspace, no fragmentation, no gradients",
    of="profile",
    zero=Peak(0),
)
def peak_bytes(record: Record) -> Peak:
    """The most activation memory alive at once. While an operation runs, its inputs and its first output are alive;
    a storage lives until its last reader; a view owns nothing; an in-place operation reuses its input's storage;
    the model's input is freed at its last use, its outputs live to the end. Weights, buffers and saved statistics
    are not in it."""
    return Peak(max(live_bytes(record), default=0))


BYTES = attrgetter("nbytes")


class Lifetimes(NamedTuple):
    """Until which call storages live. That depends on who reads what whom wrote, and on no size."""

    inputs: list[tuple[int, int]]
    """Of the model's inputs: the place among the profile's storages, and the call after the last that needs it."""
    starts: list[int]
    """Of all others, as columns: the call that writes one first, as which of its outputs, and until which call."""
    outputs: list[int]
    ends: list[int]


@cached
def lifetimes(record: Record) -> Lifetimes:
    calls, storages = record.calls, record.calls.storage
    view = Kind.VIEW
    # Of the storages that a call touches: which it writes, and how many it needs alive. What it writes besides the
    # first is nobody's input.
    written = [
        range(0) if s.kind is view else range(n := len(s.reads) + len(s.weights), n + len(s.writes))
        for s in record.specs
    ]
    alive = [places.start + bool(places) for places in written]
    last: dict[int, int] = {}
    for i, (spec, at) in enumerate(zip(calls.spec, record.offsets, strict=True)):
        for storage in storages[at : at + alive[spec]]:
            last[storage] = i
    for storage in record.outputs:
        last[storage] = len(calls.spec) - 1
    inputs, starts, outputs, ends = found = Lifetimes([], [], [], [])
    for i, (held, _, role, _) in enumerate(record.storages):
        end = last.pop(held, None)
        if role == "input" and end is not None:
            inputs.append((i, end + 1))
    for i, (spec, at) in enumerate(zip(calls.spec, record.offsets, strict=True)):
        for place in written[spec]:
            end = last.pop(storages[at + place], None)
            if end is not None:
                starts.append(i)
                outputs.append(place - written[spec].start)
                ends.append(end + 1)
    return found


@cached
def live_bytes(record: Record) -> list[int]:
    """Bytes alive while each call runs, in execution order."""
    of_call, specs = record.calls.spec, record.specs
    alive = lifetimes(record)
    steps = [0] * (len(of_call) + 1)
    for place, end in alive.inputs:
        nbytes = record.storages[place].spec.nbytes
        steps[0] += nbytes
        steps[end] -= nbytes
    written = [spec.writes for spec in specs]
    tensors = map(getitem, map(written.__getitem__, map(of_call.__getitem__, alive.starts)), alive.outputs)
    for start, end, nbytes in zip(alive.starts, alive.ends, map(BYTES, tensors), strict=True):
        steps[start] += nbytes
        steps[end] -= nbytes
    return list(accumulate(steps[:-1]))
