"""A hash of what a network computes, independent of the names of its layers."""

from __future__ import annotations

import json
from hashlib import sha256

from cspprof.core.record import Kind, OpSpec, Record


def structural_hash(record: Record) -> str:
    """16 hexadecimal digits, equal for two networks with the same operations on the same shapes, connected alike.

    Storages are numbered in the order of their first use. Views are left out. Baselines store this hash, so its
    definition must not change.
    """
    texts = [_text(spec) for spec in record.specs]
    widths = [len(spec.reads) + len(spec.weights) + len(spec.writes) for spec in record.specs]
    numbers: dict[int, int] = {}
    digest = sha256()
    for spec, at in zip(record.calls.spec, record.offsets, strict=True):
        if record.specs[spec].kind is Kind.VIEW:
            continue
        storages = record.calls.storage[at : at + widths[spec]]
        digest.update(texts[spec])
        digest.update(str([numbers.setdefault(storage, len(numbers)) for storage in storages]).encode())
    return digest.hexdigest()[:16]


def _text(spec: OpSpec) -> bytes:
    tensors = [[[*t.shape, t.dtype] for t in ts] for ts in (spec.reads, spec.weights, spec.writes)]
    return json.dumps([spec.target, tensors, dict(spec.attrs)], sort_keys=True, default=str).encode()
