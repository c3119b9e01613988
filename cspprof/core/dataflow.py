"""Who reads what whom wrote: the edges of the graph that a profile's storages draw."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from cspprof.core.record import Kind, Record, TensorSpec

INPUT = -1
"""The source of an edge from the model's inputs."""


class Edge(NamedTuple):
    """A tensor that one call wrote last and another reads. `target` is the number of calls for a model's output."""

    source: int
    target: int
    tensor: TensorSpec
    """As it is read, which may be a view of what was written."""


def edges(record: Record) -> Iterator[Edge]:
    """Every read of an activation, in execution order, then the outputs. Views are neither source nor target: whoever
    reads one reads what was written to the storage behind it."""
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
