"""The peak of activations: that of the record, beside what the allocators of torch and ONNX Runtime gave."""

from __future__ import annotations

from dataclasses import replace

from cspprof.core.record import Record
from cspprof.measure.layers import LayerProfile
from cspprof.metrics.memory import live_bytes


def peak_without_inputs(record: Record) -> int:
    """`peak_bytes` without the inputs of the model, which exist before a run allocates anything."""
    own = replace(record, storages=tuple(s for s in record.storages if s.role != "input"))
    return max(live_bytes(own), default=0)


def allocator_peak(profile: LayerProfile) -> int | None:
    """The peak that is comparable: without the workspace of operations, where the engine tells it apart."""
    kept = profile.peak_without_workspace
    return profile.peak_bytes if kept is None else kept
