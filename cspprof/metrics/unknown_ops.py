"""The kinds that an operation of unknown kind may have: metrics of these kinds miss it."""

from __future__ import annotations

from collections import Counter

from cspprof.core.record import Kind, OpSpec, Record

NAMED_BY_KIND = frozenset({
    "aten", "prim", "prims", "quantized", "torchvision", "mkldnn", "onednn", "onnx", "ai.onnx.ml", "com.microsoft",
})  # fmt: skip
"""Namespaces in which every convolution is named so, and every pooling: those of torch, ONNX and ONNX Runtime."""
WITH_A_BODY = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""ONNX operators that run a graph of their own."""


def may_be_convolution(op: OpSpec) -> bool:
    """Whether the kind of the operation is unknown and it may be a convolution: a library's own operation without a
    rule, or one that has only a formula for its FLOPs. Torch's and ONNX's own operations have telling names."""
    return _may_be(op, "conv")


def may_be_pool(op: OpSpec) -> bool:
    """The same for pooling."""
    return _may_be(op, "pool")


def unknown_convolutions(record: Record) -> dict[str, int]:
    """The operations that may be convolutions: name and number of calls, sorted by name."""
    found: Counter[str] = Counter()
    for spec, n in record.spec_counts:
        if may_be_convolution(spec):
            found[spec.target] += n
    return dict(sorted(found.items()))


def _may_be(op: OpSpec, word: str) -> bool:
    if op.kind not in (Kind.UNKNOWN, Kind.CUSTOM):
        return False
    namespace, _, name = op.target.rpartition(".")
    return namespace not in NAMED_BY_KIND or word in name.lower() or name in WITH_A_BODY
