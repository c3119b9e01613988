"""Live memory over the execution order."""

from __future__ import annotations

from itertools import accumulate, chain, compress, repeat

from cspprof.metrics import Peak, metric
from cspprof.metrics.per_spec import per_spec
from cspprof.record import Kind, OpSpec, Profile


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
    calls, n = profile.calls, len(profile.calls.spec)
    held = {s.id for s in profile.storages}
    first = {s.id: 0 for s in profile.storages if s.role == "input"}
    size = {s.id: s.spec.nbytes for s in profile.storages if s.role == "input"}
    of_spec = list(map(_uses, profile.specs))
    uses = [of_spec[i] for i in calls.spec]
    # Column by column, and without an object for each call: several times faster than call by call.
    call = list(chain.from_iterable(map(repeat, range(n), [len(used) for used, _, _ in uses])))
    last = dict(compress(zip(calls.storage, call, strict=True), chain.from_iterable([used for used, _, _ in uses])))
    writes = list(chain.from_iterable([written for _, written, _ in uses]))
    sizes = chain.from_iterable([sizes for _, _, sizes in uses])
    for storage, i, nbytes in zip(compress(calls.storage, writes), compress(call, writes), sizes, strict=True):
        if storage not in first and storage not in held:
            first[storage], size[storage] = i, nbytes
    for storage in profile.outputs:
        last[storage] = n - 1
    steps = [0] * (n + 1)
    for storage, start in first.items():
        if storage in last:
            steps[start] += size[storage]
            steps[last[storage] + 1] -= size[storage]
    return list(accumulate(steps))[:n]


@per_spec
def _uses(spec: OpSpec) -> tuple[tuple[bool, ...], tuple[bool, ...], tuple[int, ...]]:
    """Of the storages that a call touches, in its order: whether it needs them alive, whether it writes them; and the
    bytes of those that it writes."""
    inputs, outputs = len(spec.reads) + len(spec.weights), len(spec.writes)
    if spec.kind is Kind.VIEW:
        return (False,) * (inputs + outputs), (False,) * (inputs + outputs), ()
    first = tuple(i == 0 for i in range(outputs))  # what is written besides is nobody's input
    return (True,) * inputs + first, (False,) * inputs + (True,) * outputs, tuple(t.nbytes for t in spec.writes)
