"""Parameters, counted in the three published ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cspprof.core.record import CONVOLUTIONS, Kind, OpSpec, Record, TensorSpec
from cspprof.metrics import metric

LEARNED = CONVOLUTIONS | {Kind.LINEAR, Kind.MATMUL, Kind.RECURRENT}


@metric("params", unit="values", title="params", is_not="the #Params column of the CSPNet tables", of="profile")
def params(record: Record) -> int:
    """Elements of all parameters of the model, each parameter once, used by this forward or not, and the weights that
    quantised layers keep packed. Buffers (running mean and variance) are not parameters."""
    return record.params


@metric(
    "conv_weights",
    unit="values",
    title="conv weights",
    is_not="all parameters: no bias, no normalisation",
    paper="Wang et al. 2019: the #Params columns",
    of="profile",
)
def conv_weights(record: Record) -> int:
    """Weights of convolutions, linear and recurrent layers that the forward reads, each once, without biases and
    without normalisation."""
    return _read_once(record, _matrices)


@metric(
    "params_darknet",
    unit="values",
    title="params (Darknet)",
    is_not="torch's count: running mean and variance are in it",
    paper="the values of a Darknet weight file; the PRN repository's tables",
    of="profile",
)
def params_darknet(record: Record) -> int:
    """Values in a Darknet weight file: weights and biases of convolutions and linear layers, and four values per
    batch-normalised channel (scale, shift, running mean, running variance)."""
    return _read_once(record, _of_darknet)


def _read_once(record: Record, chosen: Callable[[OpSpec], Sequence[TensorSpec]]) -> int:
    """Elements of the chosen weights over all calls; a storage read again counts at most its own size."""
    total = sum([n * weight.numel for spec, n in record.spec_counts for weight in chosen(spec)])
    for held, readings in record.weights_read_again:
        read = [weight.numel for spec, weight in readings if weight in chosen(spec)]
        if len(read) > 1:
            total -= max(0, sum(read) - held.numel)
    return total


def _matrices(op: OpSpec) -> Sequence[TensorSpec]:
    return [w for w in op.weights if len(w.shape) > 1] if op.kind in LEARNED else ()


def _of_darknet(op: OpSpec) -> Sequence[TensorSpec]:
    return op.weights if op.kind in LEARNED or op.target.endswith("batch_norm") else ()
