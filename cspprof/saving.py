"""A profile as a file: one JSON document of columns, optionally gzipped; written whole or not at all."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from cspprof.errors import ProfileError
from cspprof.files import write_atomically
from cspprof.record import SCHEMA, Calls, Kind, Layer, OpSpec, Profile, Storage, TensorSpec


def save(profile: Profile, path: Path) -> Path:
    """Write `profile`; a name ending in `.gz` is compressed. The same profile gives the same bytes."""
    text = json.dumps(to_dict(profile), separators=(",", ":"), ensure_ascii=False)
    data = text.encode()
    write_atomically(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def load(path: Path) -> Profile:
    """Read what `save` wrote. Raises ProfileError for anything else."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ProfileError(f"there is no file {path}", "Make one with: cspprof profile SPEC --save FILE") from None
    except OSError as error:
        raise ProfileError(f"{path} is not a saved profile: {error}", "Write it again with --save.") from None
    return from_bytes(data, str(path))


def from_bytes(data: bytes, name: str) -> Profile:
    """The profile in a file's content; `name` is what an error calls it."""
    try:
        document = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ProfileError(f"{name} is not a saved profile: {error}", "Write it again with --save.") from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise ProfileError(
            f"{name} has schema {schema!r}; this version reads {SCHEMA!r}",
            "Write it again with this version's: cspprof profile SPEC --save FILE",
        )
    try:
        return from_dict(document)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ProfileError(f"{name} is damaged: {type(error).__name__} {error}", "Write it again.") from None


def to_dict(profile: Profile) -> dict[str, Any]:
    """The document: tensor specs interned, operation specs and layers as rows, calls as columns."""
    tensors: dict[TensorSpec, int] = {}

    def ref(spec: TensorSpec) -> int:
        return tensors.setdefault(spec, len(tensors))

    specs = [
        [s.target, s.kind.value, *([ref(t) for t in ts] for ts in (s.reads, s.weights, s.writes)),
         dict(s.attrs), s.macs, s.elementwise]
        for s in profile.specs
    ]  # fmt: skip
    document = {
        "schema": SCHEMA,
        "model": profile.model,
        "status": profile.status,
        "source": profile.source,
        "inputs": [ref(t) for t in profile.inputs],
        "outputs": list(profile.outputs),
        "params": profile.params,
        "notes": list(profile.notes),
        "tool": dict(profile.tool),
        "layers": [
            [y.path, y.class_name, y.depth, y.calls, y.params, list(y.shared_with), y.stage] for y in profile.layers
        ],
        "storages": [[s.id, s.name, s.role, ref(s.spec)] for s in profile.storages],
        "specs": specs,
        "calls": {
            "spec": list(profile.calls.spec),
            "layer": list(profile.calls.layer),
            "storage": list(profile.calls.storage),
            **({"name": list(profile.calls.name)} if profile.calls.name else {}),
        },
    }
    return document | {"tensors": [[list(t.shape), t.dtype] for t in tensors]}


def from_dict(document: dict[str, Any]) -> Profile:
    tensors = [TensorSpec(tuple(shape), dtype) for shape, dtype in document["tensors"]]

    def specs_of(refs: list[int]) -> tuple[TensorSpec, ...]:
        return tuple(tensors[i] for i in refs)

    specs = tuple(
        OpSpec(
            target, Kind(kind), specs_of(reads), specs_of(weights), specs_of(writes), _tuples(attrs), macs, elementwise
        )
        for target, kind, reads, weights, writes, attrs, macs, elementwise in document["specs"]
    )  # fmt: skip
    calls = Calls(**document["calls"])
    profile = Profile(
        model=document["model"],
        status=document.get("status", ""),  # files of before there was one are of published networks, or of others'
        source=document["source"],
        inputs=tuple(tensors[i] for i in document["inputs"]),
        outputs=tuple(document["outputs"]),
        layers=tuple(
            Layer(path, cls, depth, n, params, tuple(shared), stage)
            for path, cls, depth, n, params, shared, stage in document["layers"]
        ),
        specs=specs,
        calls=calls,
        storages=tuple(Storage(i, name, role, tensors[t]) for i, name, role, t in document["storages"]),
        params=document["params"],
        notes=tuple(document["notes"]),
        tool=document["tool"],
    )
    profile.self_check()
    return profile


def _tuples(value: Any) -> Any:
    """JSON has no tuples; attributes hold nothing else that is a sequence."""
    if isinstance(value, list):
        return tuple(_tuples(v) for v in value)
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return value
