"""The memory of one training step over time: forward pass, backward pass, optimizer step."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from cspprof.core.cached import cached
from cspprof.core.errors import CspprofError
from cspprof.core.record import Kind, Record
from cspprof.metrics.amounts import Peak, Ratio
from cspprof.metrics.definition import metric
from cspprof.metrics.training import (
    UNKNOWN,
    backward_calls,
    gradients_known,
    kept_by_calls,
    operands_of,
    storage_bytes,
    unknown_saves,
)


class Optimizer(NamedTuple):
    """The tensors of an optimizer, in multiples of the parameters that it updates."""

    state: int
    """Tensors of the size of a parameter that stay between steps."""
    temporary: int
    """Tensors of the size of the largest parameter that exist while that is updated."""


OPTIMIZERS = {"sgd": Optimizer(0, 0), "momentum": Optimizer(1, 0), "adamw": Optimizer(2, 2)}
"""As torch.optim updates one parameter after the other: SGD, SGD with momentum, AdamW."""
DEFAULT_OPTIMIZER = "sgd"


def optimizer_named(name: str) -> Optimizer:
    """The optimizer. Raises CspprofError for an unknown name."""
    if name not in OPTIMIZERS:
        raise CspprofError(f"no optimizer is named {name!r}", f"Name one of: {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name]


class Moment(NamedTuple):
    """The memory of a training step while one operation runs."""

    phase: str
    """`forward`, `backward` or `optimizer`."""
    call: int
    """Index of the call; the number of calls for the optimizer."""
    fixed: int
    """Bytes of weights, buffers, the input, and the state of the optimizer."""
    gradients: int
    """Bytes of the gradients of parameters."""
    saved: int
    """Bytes that autograd keeps."""
    other: int
    """Bytes of other activations, and of gradients of activations."""

    @property
    def total(self) -> int:
        return self.fixed + self.gradients + self.saved + self.other


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """The memory of one training step."""

    weights: int
    """Bytes of parameters and buffers."""
    inputs: int
    gradients: int
    """Bytes of the gradients of all parameters that the backward pass reaches."""
    optimizer: int
    """Bytes of the state of the optimizer."""
    moments: tuple[Moment, ...]

    @property
    def peak(self) -> Moment:
        """The first moment with the most memory."""
        return max(self.moments, key=lambda moment: moment.total)


def trained_parameters(record: Record) -> dict[int, int]:
    """The storages of the parameters for which the backward pass computes a gradient, each with its bytes."""
    sizes = {s.id: s.spec.nbytes for s in record.storages if s.role == "parameter"}
    found: dict[int, int] = {}
    for call, mask in enumerate(backward_calls(record)):
        for storage in operands_of(record, call, mask):
            if storage in sizes:
                found[storage] = sizes[storage]
    return found


@cached
def training_memory(record: Record, optimizer: str = DEFAULT_OPTIMIZER) -> TrainingMemory:
    """The memory of one training step, with gradients that are freed before each step (`zero_grad`).

    In the forward pass, a storage lives until its last reader has run, or, if autograd keeps it, until the backward
    pass of the last operation that needs it. In the backward pass, the gradient of a storage lives from the first
    operation that computes a part of it until the operation that wrote the storage has used it. Raises CspprofError for
    an unknown optimizer.
    """
    chosen = optimizer_named(optimizer)
    weights = sum(s.spec.nbytes for s in record.storages if s.role in ("parameter", "buffer", "constant"))
    inputs = sum(s.spec.nbytes for s in record.storages if s.role == "input")
    trained = trained_parameters(record)
    state = chosen.state * sum(trained.values())
    fixed = weights + inputs + state
    saved, other = _activations(record)
    gradients = _gradients(record)
    n = len(record.calls.spec)
    moments = [Moment("forward", i, fixed, 0, saved[i], other[i]) for i in range(n)]
    remaining, of_parameters = dict(trained), 0
    masks = backward_calls(record)
    for i in range(n - 1, -1, -1):
        if not masks[i]:
            continue
        of_parameters += sum(remaining.pop(s, 0) for s in operands_of(record, i, masks[i]))
        at = 2 * n - 1 - i
        moments.append(Moment("backward", i, fixed, of_parameters, saved[at], other[at] + gradients[i]))
    if trained:
        outputs = sum(storage_bytes(record).get(s, 0) for s in set(record.outputs))
        temporary = chosen.temporary * max(trained.values())
        moments.append(Moment("optimizer", n, fixed, sum(trained.values()), 0, outputs + temporary))
    return TrainingMemory(weights, inputs, sum(trained.values()), state, tuple(moments))


def _activations(record: Record) -> tuple[list[int], list[int]]:
    """Bytes of activations over the 2·n moments of forward and backward pass: those that autograd keeps, and others.

    Call i runs at moment i, and its backward pass at moment 2·n − 1 − i.
    """
    calls, specs, n = record.calls, record.specs, len(record.calls.spec)
    held = {s.id for s in record.storages}
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for i, index in enumerate(calls.spec):
        if specs[index].kind is Kind.VIEW:
            continue
        written = record.storages_written(i)
        for storage in written:
            first.setdefault(storage, i)
        last.update(dict.fromkeys([*record.storages_read(i), *written[:1]], i))
    last.update(dict.fromkeys(record.outputs, 2 * n - 1))
    kept_from: dict[int, int] = {}
    kept_until: dict[int, int] = {}
    saved, other = [0] * (2 * n + 1), [0] * (2 * n + 1)

    def add(column: list[int], start: int, end: int, nbytes: int) -> None:
        column[start] += nbytes
        column[end + 1] -= nbytes

    for i, kept, nbytes in kept_by_calls(record):
        if kept is None:
            add(saved, i, 2 * n - 1 - i, nbytes)
        elif kept not in held:
            kept_from.setdefault(kept, i)
            kept_until.setdefault(kept, 2 * n - 1 - i)
    sizes = storage_bytes(record)
    for storage, start in first.items():
        if storage in held or storage not in last:
            continue
        end = last[storage]
        if storage in kept_from:
            add(saved, kept_from[storage], kept_until[storage], sizes[storage])
            if start < kept_from[storage]:
                add(other, start, kept_from[storage] - 1, sizes[storage])
            if kept_until[storage] < end:
                add(other, kept_until[storage] + 1, end, sizes[storage])
        else:
            add(other, start, end, sizes[storage])
    return list(accumulate(saved)), list(accumulate(other))


def _gradients(record: Record) -> list[int]:
    """For each call: the bytes of gradients of activations that are alive while its backward pass runs."""
    calls, specs = record.calls, record.specs
    sizes = storage_bytes(record)
    parameters = {s.id for s in record.storages}
    masks = backward_calls(record)
    writer: dict[int, int] = {}
    for i, index in enumerate(calls.spec):
        if masks[i] and specs[index].kind is not Kind.VIEW:
            for storage in record.storages_written(i):
                writer.setdefault(storage, i)
    buffer: dict[int, int] = {}
    """By storage: its gradient, as the number of a piece of memory, which several storages may share."""
    users: dict[int, set[int]] = defaultdict(set)
    bytes_of: dict[int, int] = {}
    live = 0
    found = [0] * len(calls.spec)

    def allocate(storage: int) -> None:
        nonlocal live
        number = len(bytes_of)
        buffer[storage], bytes_of[number] = number, sizes[storage]
        users[number] = {storage}
        live += sizes[storage]

    for storage in dict.fromkeys(record.outputs):
        if storage in writer:
            allocate(storage)
    for i in range(len(calls.spec) - 1, -1, -1):
        spec = specs[calls.spec[i]]
        if not masks[i]:
            continue
        if spec.kind is Kind.VIEW:
            found[i] = live
            continue
        written = record.storages_written(i)
        passes = spec.backward is not None and spec.backward.passes
        temporary = 0
        for storage in dict.fromkeys(operands_of(record, i, masks[i])):
            if storage in parameters or storage in written:
                if storage in written and not passes:
                    temporary += sizes[storage]  # an operation in place: the new gradient beside the old one
                continue
            shared = buffer.get(written[0]) if passes and written else None
            if storage not in buffer:
                if shared is not None and sizes[storage] <= bytes_of[shared]:
                    buffer[storage] = shared
                    users[shared].add(storage)
                else:
                    allocate(storage)
            elif not passes or len(users[buffer[storage]]) > 1:
                temporary += sizes[storage]
        found[i] = live + temporary
        for storage in written:
            if writer.get(storage) == i and storage in buffer:
                number = buffer.pop(storage)
                users[number].discard(storage)
                if not users[number]:
                    live -= bytes_of[number]
    return found


@metric(
    "train_peak_bytes",
    unit="bytes",
    title="peak of a training step",
    is_not="what an allocator reserves: no workspace of kernels, no fragmentation",
    of="profile",
    zero=Peak(0),
)
def train_peak_bytes(record: Record) -> Peak | Ratio:
    """The largest memory alive at one time in a training step with plain SGD: weights, buffers and the input, gradients
    of parameters, activations that are alive or that autograd keeps, and gradients of activations. The command
    `profile --training` computes it for other optimizers."""
    if not gradients_known(record):
        return UNKNOWN
    moments = training_memory(record).moments
    return Peak(max((m.total for m in moments), default=0), missed=sum(unknown_saves(record).values()))
