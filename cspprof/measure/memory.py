"""The peak of activations: that of the record, beside what the allocators of torch and ONNX Runtime gave.

`peak_bytes` of a record frees a tensor after its last use. Eager torch frees it when no Python name refers to it: a
tensor that is the argument of a module lives until the module returns, because the caller holds it, and a local
variable of a `forward` lives until it is assigned again or the `forward` returns. Both follow from the calls and the
modules of a record, the first exactly and the second as an upper bound.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import NamedTuple

from cspprof.core.record import Kind, Record
from cspprof.measure.layers import LayerProfile


class ActivationPeaks(NamedTuple):
    """Peaks in bytes, without the inputs of the model, which exist before a run allocates anything."""

    last_use: int
    """A tensor is freed after its last use: `peak_bytes` without inputs."""
    arguments: int
    """It also lives as long as a module runs whose argument it is."""
    local_variables: int
    """It also lives until the `forward` returns that made it: the most that local variables can hold."""


def activation_peaks(record: Record) -> ActivationPeaks:
    """The peaks of activations for three rules of when a tensor is freed."""
    written, last_use, sizes = _lifetimes(record)
    spans = _module_spans(record)
    least = _peak(record, written, last_use, sizes)
    for start, end in spans:
        for storage in _read_in(record, start, end):
            if written.get(storage, start) < start:
                last_use[storage] = max(last_use[storage], end)
    arguments = _peak(record, written, last_use, sizes)
    for storage, end in _ends_of_forwards(spans, written, last_use).items():
        last_use[storage] = max(last_use[storage], end)
    return ActivationPeaks(least, arguments, _peak(record, written, last_use, sizes))


def _lifetimes(record: Record) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
    """The first call that writes a storage, the last call that uses it, and its bytes. Outputs live to the end."""
    calls = record.calls
    written: dict[int, int] = {}
    last_use: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for i, (index, at) in enumerate(zip(calls.spec, record.offsets, strict=True)):
        spec = record.specs[index]
        if spec.kind is Kind.VIEW:
            continue
        first_write = at + len(spec.reads) + len(spec.weights)
        last_use.update((s, i) for s in calls.storage[at:first_write] if s in written)
        for tensor, storage in zip(spec.writes, calls.storage[first_write:], strict=False):
            if storage not in written:
                written[storage], sizes[storage] = i, tensor.nbytes
            if tensor is spec.writes[0]:  # other outputs only if a call reads them
                last_use[storage] = i
    last_use.update((s, len(calls.spec) - 1) for s in record.outputs if s in written)
    existing = {s.id for s in record.storages}
    written = {s: i for s, i in written.items() if s in last_use and s not in existing}
    return written, last_use, sizes


def _peak(record: Record, written: dict[int, int], last_use: dict[int, int], sizes: dict[int, int]) -> int:
    changes = [0] * (len(record.calls.spec) + 1)
    for storage, start in written.items():
        changes[start] += sizes[storage]
        changes[last_use[storage] + 1] -= sizes[storage]
    return max(accumulate(changes[:-1]), default=0)


def _module_spans(record: Record) -> list[tuple[int, int]]:
    """The first and last call of each run of a module, the model itself included. Two runs of one module without
    another operation between them count as one."""
    spans = []
    running: dict[str, int] = {}
    for i, layer in enumerate(record.calls.layer):
        parts = record.layers[layer].path.split(".") if record.layers[layer].path else []
        around = {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
        spans += [(running.pop(path), i - 1) for path in list(running) if path not in around]
        for path in around:
            running.setdefault(path, i)
    last = len(record.calls.layer) - 1
    return [*spans, *((start, last) for start in running.values()), (0, last)]


def _read_in(record: Record, start: int, end: int) -> set[int]:
    """The storages of activations that the calls from `start` to `end` read."""
    found: set[int] = set()
    for i in range(start, end + 1):
        spec, at = record.specs[record.calls.spec[i]], record.offsets[i]
        found.update(record.calls.storage[at : at + len(spec.reads)])
    return found


def _ends_of_forwards(
    spans: list[tuple[int, int]], written: dict[int, int], last_use: dict[int, int]
) -> dict[int, int]:
    """For each storage, the end of the outermost run of a module that can have it in a local variable: the module that
    makes it, and each module around that one which uses it after the inner one has returned."""
    found: dict[int, int] = {}
    by_size = sorted(set(spans), key=lambda span: span[1] - span[0])
    for storage, start in written.items():
        around = [span for span in by_size if span[0] <= start <= span[1]]
        end = around[0][1]
        for (_, inner_end), (_, outer_end) in pairwise(around):
            if last_use[storage] <= inner_end:
                break
            end = outer_end
        found[storage] = end
    return found


def allocator_peak(profile: LayerProfile) -> int | None:
    """The peak that is comparable: without the workspace of operations, where the engine tells it apart."""
    kept = profile.peak_without_workspace
    return profile.peak_bytes if kept is None else kept
