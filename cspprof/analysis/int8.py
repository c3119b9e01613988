"""A record as its network would be with every floating tensor in 8-bit integers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from cspprof.core import units
from cspprof.core.inputs import INT8
from cspprof.core.record import OpSpec, Record
from cspprof.core.tensors import TensorSpec
from cspprof.metrics import value_of


def at_int8(record: Record) -> Record:
    """The record with one byte for each element of a floating tensor: activations, parameters, statistics, inputs.

    Operations, shapes and MACs stay. The cost of a training step is unknown: integers have no gradient. Scales and zero
    points, and biases and accumulators of 32 bits, are not included.
    """
    if not any(
        _is_floating(t) for spec in record.specs for t in (*spec.reads, *spec.weights, *spec.writes)
    ) and not any(_is_floating(storage.spec) for storage in record.storages):
        return record
    narrow = cache(_narrow)

    def narrowed(tensors: Iterable[TensorSpec]) -> tuple[TensorSpec, ...]:
        return tuple(map(narrow, tensors))

    specs = tuple(
        spec._replace(
            reads=narrowed(spec.reads),
            weights=narrowed(spec.weights),
            writes=narrowed(spec.writes),
            backward=None,
            attrs=_narrow_lookup(spec),
        )
        for spec in record.specs
    )
    storages = tuple(s._replace(spec=narrow(s.spec)) for s in record.storages)
    counted = replace(
        record, inputs=narrowed(record.inputs), specs=specs, storages=storages, calls=replace(record.calls, required=())
    )
    return replace(counted, notes=(*record.notes, _note(record, counted)))


def _is_floating(tensor: TensorSpec) -> bool:
    return "float" in tensor.dtype


def _narrow(tensor: TensorSpec) -> TensorSpec:
    return TensorSpec(tensor.shape, INT8) if _is_floating(tensor) else tensor


def _narrow_lookup(spec: OpSpec) -> Mapping[str, Any]:
    """The arguments of an operation, with the bytes that a lookup moves if its table has one byte per element."""
    tables = [t for t in (*spec.reads, *spec.weights) if _is_floating(t) and t.numel]
    sizes = {t.nbytes // t.numel for t in tables}
    if "table_bytes" not in spec.attrs or len(sizes) != 1 or spec.attrs["table_bytes"] > sum(t.nbytes for t in tables):
        return spec.attrs
    (size,) = sizes
    return {k: v // size if k in ("table_bytes", "bytes_read", "bytes_written") else v for k, v in spec.attrs.items()}


def _note(record: Record, counted: Record) -> str:
    """A note with the bytes of weights and activations in the traced dtype and at int8, and the parts not included."""
    weights = " instead of ".join(units.nbytes(_weight_bytes(r)) for r in (counted, record))
    peaks = " instead of ".join(units.nbytes(int(value_of(r, "peak_bytes"))) for r in (counted, record))
    return (
        f"{record.label} at int8: weights take {weights}, activations at the peak {peaks}, one byte per element. "
        "Scales, zero points, and 32-bit biases and accumulators are not included."
    )


def _weight_bytes(record: Record) -> int:
    """Bytes of the parameters and buffers that the forward reads."""
    return sum(s.spec.nbytes for s in record.storages if s.role in ("parameter", "buffer"))
