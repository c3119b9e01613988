"""What a network computes, whatever its layers are called, as one hash."""

from __future__ import annotations

import json
from hashlib import sha256
from itertools import chain, compress, islice
from typing import Any

from cspprof.core.record import Kind, OpSpec, Record

AT_ONCE = 1024
"""Calls whose texts are made together: what they need stays near the processor."""


def structural_hash(record: Record) -> str:
    """The same for two networks that compute the same on the same shapes, wired alike, under whatever names.

    Storages are numbered as they appear. Views are left out.
    """
    specs = [None if spec.kind is Kind.VIEW else spec for spec in record.specs]
    texts = [b"" if spec is None else _text(spec) for spec in specs]
    widths = [0 if spec is None else _width(spec) for spec in specs]
    touched = [(spec is not None,) * _width(known) for spec, known in zip(specs, record.specs, strict=True)]
    called = record.calls.spec
    storages = compress(record.calls.storage, chain.from_iterable(map(touched.__getitem__, called)))
    numbers: dict[int, int] = {}
    number = numbers.setdefault
    digest = sha256()
    for start in range(0, len(called), AT_ONCE):
        block = called[start : start + AT_ONCE]
        wires = [number(storage, len(numbers)) for storage in islice(storages, sum(map(widths.__getitem__, block)))]
        digest.update(b"".join(map(texts.__getitem__, block)) % tuple(wires))
    return digest.hexdigest()[:16]


def _width(spec: OpSpec) -> int:
    return len(spec.reads) + len(spec.weights) + len(spec.writes)


def _text(spec: OpSpec) -> bytes:
    """The operation, with a place for the number of each storage that a call of it touches."""
    tensors = [[[*t.shape, t.dtype] for t in ts] for ts in (spec.reads, spec.weights, spec.writes)]
    attrs: dict[str, Any] = dict(spec.attrs)
    key = json.dumps([spec.target, tensors, attrs], sort_keys=True, default=str).replace("%", "%%")
    return f"{key}[{', '.join(['%d'] * _width(spec))}]".encode()
