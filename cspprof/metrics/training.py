"""One training step: the MACs of forward and backward pass, and the tensors that autograd keeps between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from cspprof.core.cached import cached
from cspprof.core.record import Kind, Record
from cspprof.metrics.amounts import Ratio, Sum
from cspprof.metrics.definition import metric

UNKNOWN = Ratio(0, 0, missed=1)
"""The amount of a record that does not say which tensors require a gradient."""


class KeptTensor(NamedTuple):
    """A tensor that autograd keeps."""

    call: int
    """Index of the first call that keeps it."""
    storage: int | None
    """The storage; None for a tensor that only the backward pass reads."""
    nbytes: int
    role: str
    """`activation`, or `input`, `parameter`, `buffer` or `constant` for a storage that exists in any case."""


@cached
def backward_calls(record: Record) -> list[int]:
    """For each call a bit mask of the operands for which the backward pass computes a gradient: those that require one,
    if the output of the call reaches an output of the model."""
    masks = [0] * len(record.calls.spec)
    reached = set(record.outputs)
    for i in range(len(masks) - 1, -1, -1):
        spec, mask = record.specs[record.calls.spec[i]], record.calls.required[i]
        if not mask or (spec.backward is not None and spec.backward.ends):
            continue
        if not reached.isdisjoint(record.storages_written(i)):
            masks[i] = mask
            reached.update(operands_of(record, i, mask))
    return masks


def operands_of(record: Record, call: int, mask: int) -> list[int]:
    """The storages of the operands of a call whose bits are set in the mask."""
    return [storage for n, storage in enumerate(record.storages_read(call)) if mask >> n & 1]


def gradients_known(record: Record) -> bool:
    """Whether the record says which tensors require a gradient: not so for files of cspprof before 0.3, and ONNX."""
    return len(record.calls.required) == len(record.calls.spec)


@metric(
    "train_macs",
    unit="MACs",
    title="MACs of a training step",
    is_not="three times the MACs: the first layer needs no gradient for its input, and frozen layers none for weights",
    of="profile",
)
def train_macs(record: Record) -> Sum | Ratio:
    """MACs of the forward pass, and of the backward pass from the outputs of the model to the parameters that require a
    gradient: one product for the gradient of each operand that needs one. What a kernel computes a second time does not
    count, nor does the loss or the optimizer."""
    if not gradients_known(record):
        return UNKNOWN
    total = missed = 0
    for index, mask in zip(record.calls.spec, backward_calls(record), strict=True):
        spec = record.specs[index]
        if spec.macs is None or (mask and spec.backward is None):
            missed += 1
        total += spec.macs or 0
        if mask and spec.backward is not None:
            total += spec.backward.macs_for(mask)
    return Sum(total, missed=missed)


@cached
def storage_bytes(record: Record) -> Mapping[int, int]:
    """The bytes of each storage: those of the first tensor in it."""
    sizes = {s.id: s.spec.nbytes for s in record.storages}
    for i, index in enumerate(record.calls.spec):
        for storage, tensor in zip(record.storages_written(i), record.specs[index].writes, strict=True):
            sizes.setdefault(storage, tensor.nbytes)
    return sizes


@cached
def kept_by_calls(record: Record) -> list[tuple[int, int | None, int]]:
    """The tensors that autograd keeps, in execution order: (call, storage, bytes). The storage is None for a tensor
    that is neither operand nor output."""
    found: list[tuple[int, int | None, int]] = []
    sizes = storage_bytes(record)
    for call, mask in enumerate(backward_calls(record)):
        spec = record.specs[record.calls.spec[call]]
        if not mask or spec.backward is None:
            continue
        read, written = record.storages_read(call), record.storages_written(call)
        for kept in spec.backward.saved_for(mask):
            if kept.tensor is None:
                found.append((call, None, kept.nbytes))
            elif kept.tensor >= 0:
                found.append((call, read[kept.tensor], sizes[read[kept.tensor]]))
            elif ~kept.tensor < len(written):
                found.append((call, written[~kept.tensor], sizes[written[~kept.tensor]]))
    return found


@cached
def kept_tensors(record: Record) -> list[KeptTensor]:
    """The tensors that autograd keeps for the backward pass, each storage once, in the order in which they are kept."""
    roles = {s.id: s.role for s in record.storages}
    found: list[KeptTensor] = []
    seen: set[int] = set()
    for call, storage, nbytes in kept_by_calls(record):
        if storage is None or storage not in seen:
            role = "activation" if storage is None else roles.get(storage, "activation")
            found.append(KeptTensor(call, storage, nbytes, "activation" if role == "byproduct" else role))
        if storage is not None:
            seen.add(storage)
    return found


@cached
def overwritten_saves(record: Record) -> list[tuple[int, int]]:
    """Pairs of calls: the first keeps a tensor for the backward pass, the second later writes into its storage. Torch
    refuses the backward pass of such a network."""
    outside = {s.id for s in record.storages if s.role in ("parameter", "buffer")}
    existing = {s.id for s in record.storages}
    writes: dict[int, list[int]] = {}
    for call, index in enumerate(record.calls.spec):
        spec, written = record.specs[index], record.storages_written(call)
        if spec.kind is not Kind.VIEW and spec.attrs.get("p") != 0:  # dropout with p = 0 returns its input
            for reused in existing.intersection(written):
                writes.setdefault(reused, []).append(call)
        existing.update(written)
    pairs: list[tuple[int, int]] = []
    for keeps, storage, _ in kept_by_calls(record):
        if storage is not None and storage not in outside:
            pairs += [(keeps, write) for write in writes.get(storage, ()) if write > keeps][:1]
    return list(dict.fromkeys(pairs))


@cached
def unknown_saves(record: Record) -> dict[str, int]:
    """Operations of which it is unknown what autograd keeps: name and number of calls."""
    found: dict[str, int] = {}
    for index, mask in zip(record.calls.spec, backward_calls(record), strict=True):
        spec = record.specs[index]
        if mask and (spec.backward is None or spec.backward.saves is None):
            found[spec.target] = found.get(spec.target, 0) + 1
    return dict(sorted(found.items()))


@metric(
    "saved_bytes",
    unit="bytes",
    title="saved activations",
    is_not="the peak of a training step: no weights, no gradients, and nothing that is freed before the backward pass",
    of="profile",
)
def saved_bytes(record: Record) -> Sum | Ratio:
    """Bytes that autograd keeps from the forward to the backward pass, each storage once: activations, and masks,
    indices and statistics that only the backward pass reads. Parameters, buffers and the inputs of the model exist in
    any case and are not included."""
    if not gradients_known(record):
        return UNKNOWN
    total = sum(kept.nbytes for kept in kept_tensors(record) if kept.role == "activation")
    return Sum(total, missed=sum(unknown_saves(record).values()))
