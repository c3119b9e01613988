"""Batch norms that can become a part of the layer in front of them, from the edges of a record. No torch.

In eval mode a batch norm scales each channel and adds a constant, which a convolution or linear layer can do with other
weights. That holds if the norm is the only reader of the layer's output, and if each call of a shared layer is followed
by the same norm.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from cspprof.core.kinds import Kind
from cspprof.core.record import Record

CONVOLUTIONS = frozenset(f"aten.conv{transposed}{n}d" for transposed in ("", "_transpose") for n in (1, 2, 3))
LINEAR = "aten.linear"
NORM = "aten.batch_norm"
NORM_ARGUMENTS = ("weight", "bias", "running_mean", "running_var")

BATCH_STATISTICS = "uses the statistics of the batch"
NO_LAYER = "follows no convolution or linear layer directly"
OTHER_READER = "reads an output that is also used elsewhere"
OTHER_CHANNELS = "normalizes other channels than those of the layer in front of it"
COMPUTED_WEIGHT = "follows a layer whose weight or bias is no parameter of its own"
SHARED = "follows a layer that is also called without this batch norm, or belongs to several layers"


class Pair(NamedTuple):
    """A call of a convolution or linear layer, and the call of the batch norm that reads its output."""

    layer: int
    norm: int


@dataclass(frozen=True, slots=True)
class NormSearch:
    """The batch norms of a record."""

    groups: list[list[Pair]] = field(default_factory=list)
    """Pairs that can be folded. The pairs of a group have the same weights: the calls of one shared layer."""
    left: dict[int, str] = field(default_factory=dict)
    """The calls of the other batch norms, with the reason: a text that continues "it"."""

    @property
    def reasons(self) -> Counter[str]:
        """How many batch norms stay, by reason."""
        return Counter(self.left.values())


def find_foldable_norms(record: Record) -> NormSearch:
    """The batch norms that can be folded, and why the others cannot."""
    found = NormSearch()
    sources, readers, users = _edges(record)
    stored = {s.id: s.spec.shape for s in record.storages if s.role in ("parameter", "buffer") and s.name}
    groups: dict[tuple[tuple[int, ...], tuple[int, ...]], list[Pair]] = {}
    for norm in norm_calls(record):
        source = sources.get(norm)
        reason = _why_not(record, source, norm, readers, stored)
        if source is None or reason:
            found.left[norm] = reason
        else:
            key = weight_storages(record, source), weight_storages(record, norm)
            groups.setdefault(key, []).append(Pair(source, norm))
    for (layer_weights, norm_weights), pairs in groups.items():
        layers, norms = {p.layer for p in pairs}, {p.norm for p in pairs}
        alone = all(users[s] <= layers for s in layer_weights) and all(users[s] <= norms for s in norm_weights)
        same = len({(record.specs[record.calls.spec[p.layer]].target, _epsilon(record, p.norm)) for p in pairs}) == 1
        if alone and same:
            found.groups.append(pairs)
        else:
            found.left.update(dict.fromkeys(norms, SHARED))
    return found


def norm_calls(record: Record) -> list[int]:
    """The calls of batch norms."""
    return [i for i, index in enumerate(record.calls.spec) if record.specs[index].target == NORM]


def weight_storages(record: Record, call: int) -> tuple[int, ...]:
    """The storages of the weights of a call."""
    spec = record.specs[record.calls.spec[call]]
    first = record.offsets[call] + len(spec.reads)
    return tuple(record.calls.storage[first : first + len(spec.weights)])


def _edges(record: Record) -> tuple[dict[int, int], dict[int, list[int]], dict[int, set[int]]]:
    """For each call the call that wrote its first operand last; for each call its readers, the number of calls for an
    output of the model; for each storage the calls that read it.

    Other than the edges of `core.dataflow`, these contain the readers that use an output as their weight.
    """
    wrote: dict[int, int] = {}
    sources: dict[int, int] = {}
    readers: dict[int, list[int]] = {}
    users: dict[int, set[int]] = {}
    for i, index in enumerate(record.calls.spec):
        if record.specs[index].kind is Kind.VIEW:
            continue
        for position, storage in enumerate(record.storages_read(i)):
            users.setdefault(storage, set()).add(i)
            if storage in wrote:
                readers.setdefault(wrote[storage], []).append(i)
                if position == 0:
                    sources[i] = wrote[storage]
        wrote |= dict.fromkeys(record.storages_written(i), i)
    for storage in record.outputs:
        if storage in wrote:
            readers.setdefault(wrote[storage], []).append(len(record.calls.spec))
    return sources, readers, users


def _why_not(
    record: Record, source: int | None, norm: int, readers: dict[int, list[int]], stored: dict[int, tuple[int, ...]]
) -> str:
    """Why a batch norm cannot be folded into the call `source`, without regard to shared layers; empty if it can.

    `stored` are the shapes of parameters and buffers by storage.
    """
    after = record.specs[record.calls.spec[norm]]
    if after.attrs.get("training") or {"running_mean", "running_var"} & after.attrs.keys():
        return BATCH_STATISTICS
    before = None if source is None else record.specs[record.calls.spec[source]]
    if source is None or before is None or before.target not in CONVOLUTIONS | {LINEAR}:
        return NO_LAYER
    if readers.get(source) != [norm]:
        return OTHER_READER
    is_batch = len(before.writes[0].shape) == (2 if before.target == LINEAR else len(before.weights[0].shape))
    is_view = record.offsets[norm] in record.calls.views
    if not is_batch or is_view or after.reads[0].shape != before.writes[0].shape:
        return OTHER_CHANNELS
    return "" if all(_reads_whole(record, call, stored) for call in (source, norm)) else COMPUTED_WEIGHT


def _reads_whole(record: Record, call: int, stored: dict[int, tuple[int, ...]]) -> bool:
    """Whether the weights of a call are whole parameters or buffers, and neither computed nor views of others."""
    spec = record.specs[record.calls.spec[call]]
    first = record.offsets[call] + len(spec.reads)
    return all(
        position not in record.calls.views and stored.get(record.calls.storage[position]) == weight.shape
        for position, weight in enumerate(spec.weights, first)
    )


def _epsilon(record: Record, norm: int) -> float:
    return float(record.specs[record.calls.spec[norm]].attrs["eps"])
