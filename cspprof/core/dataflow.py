"""Producer–consumer edges between the calls of a record, through the storages that they read and write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cspprof.core.record import Kind, Record, TensorSpec

INPUT = -1
"""The source of an edge from the model's inputs."""


class Edge(NamedTuple):
    """A tensor from the call that wrote its storage last to a call that reads it."""

    source: int
    """Index of the call, or `INPUT`."""
    target: int
    """Index of the call; the number of calls for an output of the model."""
    tensor: TensorSpec
    """The tensor as the target reads it, possibly a view of the tensor that the source wrote."""


def edges(record: Record) -> Iterator[Edge]:
    """All reads of activations in execution order, then the outputs of the model. Views are neither source nor target:
    an edge leads from the call that wrote the storage of the view to the call that reads the view."""
    calls, specs = record.calls, record.specs
    wrote = {s.id: (INPUT, s.spec) for s in record.storages if s.role == "input"}
    for i, index in enumerate(calls.spec):
        spec = specs[index]
        if spec.kind is Kind.VIEW:
            continue
        at = record.offsets[i]
        for tensor, storage in zip(spec.reads, calls.storage[at : at + len(spec.reads)], strict=True):
            if storage in wrote:
                yield Edge(wrote[storage][0], i, tensor)
        at += len(spec.reads) + len(spec.weights)
        for tensor, storage in zip(spec.writes, calls.storage[at : at + len(spec.writes)], strict=True):
            wrote[storage] = i, tensor
    for storage in record.outputs:
        if storage in wrote:
            source, tensor = wrote[storage]
            yield Edge(source, len(calls.spec), tensor)
