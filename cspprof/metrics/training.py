"""One training step: the MACs of forward and backward pass, what autograd keeps between them, and the peak memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    calls, specs = record.calls, record.specs
    masks = [0] * len(calls.spec)
    reached = set(record.outputs)
    for i in range(len(calls.spec) - 1, -1, -1):
        spec, at, mask = specs[calls.spec[i]], record.offsets[i], calls.required[i]
        if not mask or (spec.backward is not None and spec.backward.ends):
            continue
        operands = len(spec.reads) + len(spec.weights)
        if reached.isdisjoint(calls.storage[at + operands : at + operands + len(spec.writes)]):
            continue
        masks[i] = mask
        reached.update(s for n, s in enumerate(calls.storage[at : at + operands]) if mask >> n & 1)
    return masks


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
    calls = record.calls
    sizes = {s.id: s.spec.nbytes for s in record.storages}
    for index, at in zip(calls.spec, record.offsets, strict=True):
        spec = record.specs[index]
        if spec.kind is not Kind.VIEW:
            first = at + len(spec.reads) + len(spec.weights)
            for place, tensor in enumerate(spec.writes, first):
                sizes.setdefault(calls.storage[place], tensor.nbytes)
    return sizes


def kept_by(record: Record, call: int, mask: int) -> Iterator[tuple[int | None, int]]:
    """What autograd keeps for one call: storages, each with its bytes, and (None, bytes) for other tensors."""
    spec, at = record.specs[record.calls.spec[call]], record.offsets[call]
    if spec.backward is None:
        return
    operands = len(spec.reads) + len(spec.weights)
    for kept in spec.backward.saved_for(mask):
        if kept.tensor is None:
            yield None, kept.nbytes
        else:
            place = kept.tensor if kept.tensor >= 0 else operands + ~kept.tensor
            if place < operands + len(spec.writes):
                storage = record.calls.storage[at + place]
                yield storage, storage_bytes(record)[storage]


@cached
def kept_tensors(record: Record) -> list[KeptTensor]:
    """What autograd keeps for the backward pass, each storage once, in the order of the calls that keep it first."""
    roles = {s.id: s.role for s in record.storages}
    found: list[KeptTensor] = []
    seen: set[int] = set()
    for call, mask in enumerate(backward_calls(record)):
        if not mask:
            continue
        for storage, nbytes in kept_by(record, call, mask):
            if storage is None or storage not in seen:
                role = "activation" if storage is None else roles.get(storage, "activation")
                found.append(KeptTensor(call, storage, nbytes, "activation" if role == "byproduct" else role))
            if storage is not None:
                seen.add(storage)
    return found


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
