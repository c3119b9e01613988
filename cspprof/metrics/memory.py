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
    held = {s.id for s in profile.storages}
    born = {s.id: (0, s.spec.nbytes) for s in profile.storages if s.role == "input"}
    last: dict[int, int] = {}
    shapes = [
        None if s.kind is Kind.VIEW else (len(s.reads) + len(s.weights), [t.nbytes for t in s.writes])
        for s in profile.specs
    ]
    storages = profile.calls.storage
    for i, (index, at) in enumerate(zip(profile.calls.spec, profile.offsets, strict=True)):
        shape = shapes[index]
        if shape is None:
            continue
        inputs, sizes = shape
        end = at + inputs
        for storage in storages[at : end + 1 if sizes else end]:  # of the outputs, the first
            last[storage] = i
        for storage, size in zip(storages[end : end + len(sizes)], sizes, strict=True):
            if storage not in born and storage not in held:
                born[storage] = (i, size)
    for storage in profile.outputs:
        last[storage] = n - 1
    steps = [0] * (n + 1)
    for storage, (start, size) in born.items():
        if storage in last:
            steps[start] += size
            steps[last[storage] + 1] -= size
    return list(accumulate(steps))[:n]
