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
    n = len(profile.calls.spec)
    born: dict[int, tuple[int, int]] = {}
    excluded = set()
    for held in profile.storages:
        if held.role == "input":
            born[held.id] = (0, held.spec.nbytes)
        else:
            excluded.add(held.id)
    last: dict[int, int] = {}
    shapes = [(len(s.reads) + len(s.weights), [t.nbytes for t in s.writes], s.kind is Kind.VIEW) for s in profile.specs]
    calls, offsets = profile.calls, profile.offsets
    for i, index in enumerate(calls.spec):
        inputs, sizes, view = shapes[index]
        if view:
            continue
        at = offsets[i]
        for storage in calls.storage[at : at + inputs]:
            last[storage] = i
        for position, storage in enumerate(calls.storage[at + inputs : at + inputs + len(sizes)]):
            if storage not in born:
                born[storage] = (i, sizes[position])
            if position == 0:
                last[storage] = i
    for storage in profile.outputs:
        last[storage] = n - 1
    steps = [0] * (n + 1)
    for storage, (start, size) in born.items():
        if storage not in excluded and storage in last:
            steps[start] += size
            steps[last[storage] + 1] -= size
    return list(accumulate(steps))[:n]
