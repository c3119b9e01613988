"""Modules that could be checkpointed: what that saves of the memory of a training step, and what it computes again."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from cspprof.core.cached import cached
from cspprof.core.record import Kind, Record
from cspprof.metrics.training import kept_by_calls, storage_bytes


class Candidate(NamedTuple):
    """A module that could be checkpointed: its backward pass would first run its forward pass again."""

    path: str
    class_name: str
    kept: int
    """Bytes that autograd keeps for the module and would free."""
    inputs: int
    """Bytes of the module's inputs that autograd does not keep now and would have to keep."""
    macs: int
    """MACs of the forward pass of the module, which would be computed a second time."""

    @property
    def saved(self) -> int:
        """The change of `saved_bytes`."""
        return self.kept - self.inputs


@cached
def checkpoint_candidates(record: Record) -> list[Candidate]:
    """The modules whose checkpointing would save memory, the largest saving first; of modules with the same calls the
    innermost. A module that runs more than once is left out, as is one with operations of unknown cost."""
    calls, specs, layers = record.calls, record.specs, record.layers
    sizes = storage_bytes(record)
    held = {s.id for s in record.storages}
    writers: dict[int, int] = {}
    readers: dict[int, list[int]] = defaultdict(list)
    keepers: dict[int, list[int]] = defaultdict(list)
    own: dict[int, int] = defaultdict(int)
    for i, index in enumerate(calls.spec):
        if specs[index].kind is not Kind.VIEW:
            for storage in record.storages_written(i):
                writers.setdefault(storage, i)
        for storage in record.storages_read(i):
            readers[storage].append(i)
    for i, storage_kept, nbytes in kept_by_calls(record):
        if storage_kept is None:
            own[i] += nbytes
        elif storage_kept not in held:
            keepers[storage_kept].append(i)
    found: dict[tuple[int, ...], Candidate] = {}
    outputs = set(record.outputs)
    inside_of = _calls_by_module(record)
    for layer in layers:
        inside = inside_of.get(layer.path, [])
        if not layer.path or layer.calls != 1 or len(inside) < 2:
            continue
        members = set(inside)
        if any(specs[calls.spec[i]].macs is None for i in inside):
            continue
        kept = sum(own[i] for i in inside)
        inputs = 0
        touched = {s for i in inside for s in (*record.storages_read(i), *record.storages_written(i))} - held
        for storage in touched:
            written_inside = writers.get(storage, -1) in members
            kept_outside = any(i not in members for i in keepers[storage])
            if written_inside and keepers[storage] and not kept_outside and storage not in outputs:
                kept += sizes[storage]
            elif not written_inside and not keepers[storage] and any(i in members for i in readers[storage]):
                inputs += sizes[storage]
        macs = sum(specs[calls.spec[i]].macs or 0 for i in inside)
        candidate = Candidate(layer.path, layer.class_name.rpartition(".")[2], kept, inputs, macs)
        if candidate.saved > 0:
            found[tuple(inside)] = candidate
    return sorted(found.values(), key=lambda c: -c.saved)


def _calls_by_module(record: Record) -> dict[str, list[int]]:
    """The calls of each module, those of the modules in it included, by path."""
    found: dict[str, list[int]] = defaultdict(list)
    for i, layer in enumerate(record.calls.layer):
        parts = record.layers[layer].path.split(".")
        for n in range(1, len(parts) + 1):
            found[".".join(parts[:n])].append(i)
    return found
