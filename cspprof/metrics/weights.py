"""Parameters, counted in the three published ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cspprof.metrics import metric
from cspprof.metrics.per_spec import per_spec
from cspprof.record import CONVOLUTIONS, Kind, OpSpec, Profile, TensorSpec

LEARNED = CONVOLUTIONS | {Kind.LINEAR, Kind.MATMUL, Kind.RECURRENT}


@metric("params", unit="values", title="params", is_not="the #Params column of the CSPNet tables", of="profile")
def params(profile: Profile) -> int:
    """Elements of all parameters of the model, each parameter once, used by this forward or not, and the weights that
    quantised layers keep packed. Buffers (running mean and variance) are not parameters."""
    return profile.params


@metric(
    "conv_weights",
    unit="values",
    title="conv weights",
    is_not="all parameters: no bias, no normalisation",
    paper="Wang et al. 2019: the #Params columns",
    of="profile",
)
def conv_weights(profile: Profile) -> int:
    """Weights of convolutions, linear and recurrent layers that the forward reads, each once, without biases and
    without normalisation."""
    return _read_once(profile, _matrices)


@metric(
    "params_darknet",
    unit="values",
    title="params (Darknet)",
    is_not="torch's count: running mean and variance are in it",
    paper="the values of a Darknet weight file; the PRN repository's tables",
    of="profile",
)
def params_darknet(profile: Profile) -> int:
    """Values in a Darknet weight file: weights and biases of convolutions and linear layers, and four values per
    batch-normalised channel (scale, shift, running mean, running variance)."""
    return _read_once(profile, _of_darknet)


def _read_once(profile: Profile, chosen: Callable[[OpSpec], list[tuple[int, int]]]) -> int:
    """Elements of the chosen weights over all calls; a storage read again counts at most its own size. `chosen` gives
    their positions among a call's storages, and their elements."""
    of_spec = list(map(chosen, profile.specs))
    storages = profile.calls.storage
    read: dict[int, int] = {}
    again = set()
    for index, at in zip(profile.calls.spec, profile.offsets, strict=True):
        for position, numel in of_spec[index]:
            storage = storages[at + position]
            if storage in read:
                again.add(storage)
                read[storage] += numel
            else:
                read[storage] = numel
    for held in profile.storages if again else ():
        if held.id in again:
            read[held.id] = min(read[held.id], held.spec.numel)
    return sum(read.values())


@per_spec
def _matrices(op: OpSpec) -> list[tuple[int, int]]:
    return [(i, w.numel) for i, w in _weights(op) if len(w.shape) > 1] if op.kind in LEARNED else []


@per_spec
def _of_darknet(op: OpSpec) -> list[tuple[int, int]]:
    return [(i, w.numel) for i, w in _weights(op)] if op.kind in LEARNED or op.name.endswith("batch_norm") else []


def _weights(op: OpSpec) -> Iterator[tuple[int, TensorSpec]]:
    """The weights, and their positions among the storages of a call."""
    return enumerate(op.weights, start=len(op.reads))
