"""What a network computes, whatever its layers are called, as one hash."""

from __future__ import annotations

import json
from hashlib import sha256
from itertools import chain, compress
from typing import Any

from cspprof.record import Kind, OpSpec, Profile


def structure(profile: Profile) -> str:
    """The same for two networks that compute the same on the same shapes, wired alike, under whatever names.

    Storages are numbered as they appear. Views are left out.
    """
    computed = [spec.kind is not Kind.VIEW for spec in profile.specs]
    touched = [(told,) * _width(spec) for told, spec in zip(computed, profile.specs, strict=True)]
    called = profile.calls.spec
    numbers: dict[int, int] = {}
    number = numbers.setdefault
    storages = compress(profile.calls.storage, chain.from_iterable(map(touched.__getitem__, called)))
    wires = tuple([number(storage, len(numbers)) for storage in storages])
    texts = [_text(spec) if told else b"" for told, spec in zip(computed, profile.specs, strict=True)]
    return sha256(b"".join(map(texts.__getitem__, called)) % wires).hexdigest()[:16]


def _width(spec: OpSpec) -> int:
    return len(spec.reads) + len(spec.weights) + len(spec.writes)


def _text(spec: OpSpec) -> bytes:
    """The operation, with a place for the number of each storage that a call of it touches."""
    tensors = [[[*t.shape, t.dtype] for t in ts] for ts in (spec.reads, spec.weights, spec.writes)]
    attrs: dict[str, Any] = dict(spec.attrs)
    key = json.dumps([spec.target, tensors, attrs], sort_keys=True, default=str).replace("%", "%%")
    return f"{key}[{', '.join(['%d'] * _width(spec))}]".encode()
