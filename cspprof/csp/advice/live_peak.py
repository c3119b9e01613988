"""Where the most activation memory is alive, and what lowers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cspprof.analysis.module_summary import peak_path
from cspprof.core import units
from cspprof.core.kinds import Kind
from cspprof.core.record import Record
from cspprof.csp.advice.proposal import LEAST_GAIN, FoldNorms, InPlace, Proposal, adviser
from cspprof.deployment.foldable_norms import find_foldable_norms
from cspprof.deployment.in_place import in_place_calls
from cspprof.metrics import value_of
from cspprof.metrics.memory import live_bytes


@adviser("peak", most=1)
def lower_peak(record: Record) -> list[Proposal]:
    """Where the most memory is alive, and whether activations in place or folded batch norms lower it."""
    peak = value_of(record, "peak_bytes")
    live = live_bytes(record)
    if not peak:
        return []
    at = live.index(peak)
    spec = record.specs[record.calls.spec[at]]
    written = units.nbytes(spec.writes[0].nbytes) if spec.writes else "nothing"
    others = len(_alive_at(record, at)) - 1
    found = []
    finding = (
        f"{units.nbytes(peak)} are alive while {spec.name} writes {written}: {units.counted(others + 1, 'tensor')}"
    )
    calls = in_place_calls(record)
    options: list[tuple[str, InPlace | FoldNorms, Record]] = []
    if calls:
        layers = tuple(dict.fromkeys(record.layers[record.calls.layer[i]].path for i in calls))
        text = f"inplace=True for {units.counted(len(layers), 'activation')}"
        options.append((text, InPlace(layers), _in_place(record, calls)))
    pairs = _foldable_norms(record)
    if pairs:
        paths = tuple(
            (record.layers[record.calls.layer[a]].path, record.layers[record.calls.layer[b]].path) for a, b in pairs
        )
        text = f"at inference, fold {units.counted(len(pairs), 'batch norm')} into the convolutions"
        options.append((text, FoldNorms(paths), _without(record, [norm for _, norm in pairs])))
    for action, change, after in options:
        computed = value_of(after, "peak_bytes")
        if peak - computed >= LEAST_GAIN * peak:
            found.append(Proposal(peak_path(record), finding, action, "peak_bytes", change, computed))
    return sorted(found, key=lambda p: p.computed or 0)


def _alive_at(record: Record, call: int) -> set[int]:
    """The storages of activations that are alive while a call runs."""
    roles = {s.id: s.role for s in record.storages}
    first: dict[int, int] = {s: 0 for s, role in roles.items() if role == "input"}
    last: dict[int, int] = dict.fromkeys(record.outputs, len(record.calls.spec))
    for i, (index, at) in enumerate(zip(record.calls.spec, record.offsets, strict=True)):
        spec = record.specs[index]
        if spec.kind is Kind.VIEW:
            continue
        for storage in record.calls.storage[at : at + len(spec.reads) + len(spec.weights) + bool(spec.writes)]:
            if roles.get(storage, "input") == "input":
                first.setdefault(storage, i)
                last[storage] = max(last.get(storage, i), i)
    return {s for s, start in first.items() if start <= call <= last.get(s, -1)}


def _in_place(record: Record, calls: Sequence[int]) -> Record:
    """The record if these calls write into their input."""
    storages = list(record.calls.storage)
    renamed: dict[int, int] = {}
    chosen = set(calls)
    for i, (index, at) in enumerate(zip(record.calls.spec, record.offsets, strict=True)):
        spec = record.specs[index]
        width = len(spec.reads) + len(spec.weights) + len(spec.writes)
        for place in range(at, at + width):
            storages[place] = renamed.get(storages[place], storages[place])
        if i in chosen:
            place = at + len(spec.reads) + len(spec.weights)
            renamed[record.calls.storage[place]] = storages[at]
            storages[place] = storages[at]
    outputs = tuple(renamed.get(s, s) for s in record.outputs)
    return replace(record, calls=replace(record.calls, storage=storages), outputs=outputs)


def _foldable_norms(record: Record) -> list[tuple[int, int]]:
    """The calls of convolutions that are called once, and of the batch norms behind them that can be folded."""
    return [
        (pair.layer, pair.norm)
        for group in find_foldable_norms(record).groups
        for pair in group
        if len(group) == 1 and record.specs[record.calls.spec[pair.layer]].kind is Kind.CONV
    ]


def _without(record: Record, calls: Sequence[int]) -> Record:
    """The record without these calls, whose readers read what they read. Only its memory is exact."""
    dropped, renamed = set(calls), dict[int, int]()
    spec_of, layer_of, name_of, storages = [], [], [], []
    for i, (index, at) in enumerate(zip(record.calls.spec, record.offsets, strict=True)):
        spec = record.specs[index]
        width = len(spec.reads) + len(spec.weights) + len(spec.writes)
        own = [renamed.get(s, s) for s in record.calls.storage[at : at + width]]
        if i in dropped:
            renamed[record.calls.storage[at + len(spec.reads) + len(spec.weights)]] = own[0]
            continue
        spec_of.append(index)
        layer_of.append(record.calls.layer[i])
        name_of += [record.calls.name[i]] if record.calls.name else []
        storages += own
    calls_left = replace(record.calls, spec=spec_of, layer=layer_of, storage=storages, name=name_of)
    return replace(record, calls=calls_left, outputs=tuple(renamed.get(s, s) for s in record.outputs))
