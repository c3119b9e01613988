"""Activations that may write into their input, from a record. No torch."""

from __future__ import annotations

from cspprof.core.kinds import Kind
from cspprof.core.record import Record

WITH_SETTING = frozenset({
    "ReLU", "ReLU6", "SiLU", "Mish", "Hardswish", "Hardsigmoid", "LeakyReLU", "ELU", "CELU", "SELU", "Hardtanh",
    "Threshold", "RReLU",
})  # fmt: skip
"""Classes of torch with a setting `inplace`."""


def in_place_calls(record: Record) -> list[int]:
    """Activations that write a new map although no later operation reads their input."""
    last_use = dict.fromkeys(record.outputs, len(record.calls.spec))
    kept = {s.id for s in record.storages}
    for i, (index, at) in enumerate(zip(record.calls.spec, record.offsets, strict=True)):
        spec = record.specs[index]
        for storage in record.calls.storage[at : at + len(spec.reads) + len(spec.weights) + len(spec.writes)]:
            last_use[storage] = max(last_use.get(storage, i), i)
    possible: dict[int, bool] = {}
    calls_of: dict[int, list[int]] = {}
    for i, index in enumerate(record.calls.spec):
        spec, layer = record.specs[index], record.calls.layer[i]
        if record.layers[layer].class_name.rpartition(".")[2] not in WITH_SETTING or spec.kind is not Kind.ACTIVATION:
            continue
        at = record.offsets[i]
        read, written = record.calls.storage[at], record.calls.storage[at + len(spec.reads) + len(spec.weights)]
        fits = read != written and read not in kept and last_use[read] == i and spec.reads[0] == spec.writes[0]
        possible[layer] = possible.get(layer, True) and fits
        calls_of.setdefault(layer, []).append(i)
    return [i for layer, fits in possible.items() if fits for i in calls_of[layer]]


def in_place_layers(record: Record) -> list[str]:
    """The paths of the modules of these calls."""
    return list(dict.fromkeys(record.layers[record.calls.layer[i]].path for i in in_place_calls(record)))
