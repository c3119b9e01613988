"""Live memory over the execution order."""

from __future__ import annotations

from itertools import accumulate

from cspprof.metrics import Peak, metric
from cspprof.record import Kind, Profile


@metric(
    "peak_bytes",
    unit="bytes",
    title="peak memory",
    is_not="what an allocator reserves: no weights, no workspace, no fragmentation, no gradients",
    of="profile",
    zero=Peak(0),
)
def peak_bytes(profile: Profile) -> Peak:
    """The most activation memory alive at once. While an operation runs, its inputs and its first output are alive;
    a storage lives until its last reader; a view owns nothing; an in-place operation reuses its input's storage;
    the model's input is freed at its last use, its outputs live to the end. Weights, buffers and saved statistics
    are not in it."""
    return Peak(max(profile.live_bytes, default=0))


def live_bytes(profile: Profile) -> list[int]:
    """Bytes alive while each call runs, in execution order."""
    calls, specs, storages = profile.calls, profile.specs, profile.calls.storage
    view = Kind.VIEW
    # Of the storages that a call touches: which it writes, and how many it needs alive. What it writes besides the
    # first is nobody's input.
    written = [
        range(0) if s.kind is view else range(n := len(s.reads) + len(s.weights), n + len(s.writes)) for s in specs
    ]
    alive = [places.start + bool(places) for places in written]
    last: dict[int, int] = {}
    for i, (spec, at) in enumerate(zip(calls.spec, profile.offsets, strict=True)):
        for storage in storages[at : at + alive[spec]]:
            last[storage] = i
    for storage in profile.outputs:
        last[storage] = len(calls.spec) - 1
    steps = [0] * (len(calls.spec) + 1)

    def live(storage: int, start: int, nbytes: int) -> None:
        steps[start] += nbytes
        steps[last[storage] + 1] -= nbytes

    for held in profile.storages:
        if held.role == "input" and held.id in last:
            live(held.id, 0, held.spec.nbytes)
    begun = {held.id for held in profile.storages}
    for i, (spec, at) in enumerate(zip(calls.spec, profile.offsets, strict=True)):
        for place in written[spec]:
            storage = storages[at + place]
            if storage in last and storage not in begun:
                begun.add(storage)
                live(storage, i, specs[spec].writes[place - written[spec].start].nbytes)
    return list(accumulate(steps[:-1]))
