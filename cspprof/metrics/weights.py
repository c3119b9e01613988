"""Parameters, counted in the three published ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cspprof.core.record import CONVOLUTIONS, Kind, OpSpec, Record, TensorSpec
from cspprof.metrics.amounts import Sum
from cspprof.metrics.definition import metric

WITH_MATRICES = CONVOLUTIONS | {Kind.LINEAR, Kind.MATMUL, Kind.RECURRENT}
"""Kinds of operations whose weights are kernels or matrices."""


@metric("params", unit="values", title="params", is_not="the #Params column of the CSPNet tables", of="profile")
def params(record: Record) -> int:
    """Elements of all parameters of the model, each parameter once, whether this forward uses it or not. Includes the
    packed weights of quantized layers. Buffers (running mean and variance) are not parameters."""
    return record.params


@metric(
    "conv_weights",
    unit="values",
    title="conv weights",
    is_not="all parameters: no bias, no normalization",
    paper="Wang et al. 2019: the #Params columns",
    of="profile",
)
def conv_weights(record: Record) -> Sum:
    """Elements of the weights of convolutions, linear and recurrent layers that the forward reads, each weight once.
    Biases and normalization are not included."""
    return _elements(record, _matrices, _may_have_matrices)


@metric(
    "params_darknet",
    unit="values",
    title="params (Darknet)",
    is_not="torch's parameter count: running mean and variance are included",
    paper="the values of a Darknet weight file; the PRN repository's tables",
    of="profile",
)
def params_darknet(record: Record) -> Sum:
    """Values in a Darknet weight file: weights and biases of convolutions and linear layers, and four values for each
    batch-normalized channel (scale, shift, running mean, running variance)."""
    return _elements(record, _darknet_weights, _may_have_matrices)


def _elements(
    record: Record, weights_of: Callable[[OpSpec], Sequence[TensorSpec]], unknown: Callable[[OpSpec], bool]
) -> Sum:
    """Elements of the weights that `weights_of` selects, over all calls. A storage that is read several times counts at
    most its own size. Calls of which it is `unknown` whether their weights belong to them are missed."""
    total = sum([n * weight.numel for spec, n in record.spec_counts for weight in weights_of(spec)])
    for stored, reads in record.repeated_weight_reads:
        sizes = [weight.numel for spec, weight in reads if weight in weights_of(spec)]
        if len(sizes) > 1:
            total -= max(0, sum(sizes) - stored.numel)
    return Sum(total, missed=sum([n for spec, n in record.spec_counts if unknown(spec)]))


def _matrices(op: OpSpec) -> Sequence[TensorSpec]:
    return [w for w in op.weights if len(w.shape) > 1] if op.kind in WITH_MATRICES else ()


def _may_have_matrices(op: OpSpec) -> bool:
    """Whether the kind of an operation with a matrix or kernel as weight is unknown."""
    return op.kind in (Kind.UNKNOWN, Kind.CUSTOM) and any(len(w.shape) > 1 for w in op.weights)


def _darknet_weights(op: OpSpec) -> Sequence[TensorSpec]:
    return op.weights if op.kind in WITH_MATRICES or op.target.endswith("batch_norm") else ()
