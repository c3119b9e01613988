"""Parameters, counted in the three published ways."""

from __future__ import annotations

from collections.abc import Sequence

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
    """Elements of the weights of convolutions, linear and recurrent layers that the forward reads, each parameter once.
    Biases and normalization are not included, nor are kernels that are no parameters: buffers, inputs, constants. A
    weight that the forward computes counts with its elements, and all of them at most with the model's parameters."""
    stored = {s.id: s for s in record.storages}
    read: dict[int, int] = {}
    computed = 0
    for i, at in zip(record.calls.spec, record.offsets, strict=True):
        spec = record.specs[i]
        if spec.kind not in WITH_MATRICES:
            continue
        for place, weight in enumerate(spec.weights, at + len(spec.reads)):
            storage = stored.get(record.calls.storage[place])
            if len(weight.shape) < 2:
                continue
            if storage is None:
                computed += weight.numel
            elif storage.role == "parameter":
                read[storage.id] = min(read.get(storage.id, 0) + weight.numel, storage.spec.numel)
    missed = sum([n for spec, n in record.spec_counts if _may_have_matrices(spec)])
    return Sum(min(sum(read.values()) + computed, record.params), missed=missed)


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
    total = sum([n * weight.numel for spec, n in record.spec_counts for weight in _darknet_weights(spec)])
    for stored, reads in record.repeated_weight_reads:  # a storage counts at most its own size
        sizes = [weight.numel for spec, weight in reads if weight in _darknet_weights(spec)]
        if len(sizes) > 1:
            total -= max(0, sum(sizes) - stored.numel)
    return Sum(total, missed=sum([n for spec, n in record.spec_counts if _may_have_matrices(spec)]))


def _may_have_matrices(op: OpSpec) -> bool:
    """Whether the kind of an operation with a matrix or kernel as weight is unknown."""
    return op.kind in (Kind.UNKNOWN, Kind.CUSTOM) and any(len(w.shape) > 1 for w in op.weights)


def _darknet_weights(op: OpSpec) -> Sequence[TensorSpec]:
    return op.weights if op.kind in WITH_MATRICES or op.target.endswith("batch_norm") else ()
