"""A record as a file: a JSON document, gzipped if the name ends in `.gz`.

The document is columnar, like the record. Tensor specs, class names, stages and roles are written once and referred to
by number; `calls.layer` and `calls.storage` hold differences between neighbors, which are small and compress well.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from collections.abc import Hashable, Iterable, Sequence
from importlib import resources
from itertools import accumulate
from operator import sub
from pathlib import Path
from typing import Any

from cspprof.core.backward import Backward, Saved
from cspprof.core.errors import ProfileError
from cspprof.core.files import check_replaceable, write_atomically
from cspprof.core.json_text import gunzip, parse_json
from cspprof.core.record import SCHEMA, Calls, Kind, Layer, OpSpec, Record, Storage, TensorSpec

COMPRESSION = 2
"""Level of gzip. For 100,000 calls, level 5 gives 6 % smaller files and takes nearly three times as long."""


def save(record: Record, path: Path) -> Path:
    """Write the file atomically. The same record gives the same bytes. Raises OutputError, also if the file exists and
    is no saved profile."""
    check_replaceable(path, is_own, "a saved profile", "--save FILE")
    write_atomically(path, to_bytes(record, compressed=path.suffix == ".gz"))
    return path


def is_own(head: bytes) -> bool:
    """Whether a file that starts with these bytes is a saved profile."""
    if head[:2] == b"\x1f\x8b":
        with contextlib.suppress(zlib.error):
            head = zlib.decompressobj(wbits=31).decompress(head, 100)
    return head.startswith(b'{"schema":"cspprof.record/')


def to_bytes(record: Record, compressed: bool) -> bytes:
    data = json.dumps(to_dict(record), separators=(",", ":"), ensure_ascii=False).encode()
    return gzip.compress(data, COMPRESSION, mtime=0) if compressed else data


def load(path: Path) -> Record:
    """Read a file that `save` wrote. Raises ProfileError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ProfileError(f"there is no file {path}", "Make one with: cspprof profile SPEC --save FILE") from None
    except OSError as error:
        raise ProfileError(f"cannot read {path}: {error.strerror or error}", "Name another file.") from None
    return from_bytes(data, str(path))


def packaged_resnet50() -> Record:
    """ResNet-50 at 224×224, as torchvision and timm build it. The profile is part of the package."""
    file = resources.files("cspprof") / "data" / "resnet50.profile.json.gz"
    return from_bytes(file.read_bytes(), file.name)


def from_bytes(data: bytes, name: str) -> Record:
    """The record in the content of a file; `name` is the file's name in errors. Raises ProfileError."""
    try:
        document = parse_json(gunzip(data) if data[:2] == b"\x1f\x8b" else data)
    except ValueError as error:
        raise ProfileError(f"{name} is not a saved profile: {error}", "Write it again with --save.") from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise ProfileError(
            f"{name} has schema {schema!r}; this version reads {SCHEMA!r}",
            "Write it again with this version: cspprof profile SPEC --save FILE",
        )
    try:
        return from_dict(document)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ProfileError(f"{name} is damaged: {type(error).__name__} {error}", "Write it again.") from None


class ValueNumbers(dict[Any, int]):
    """Values in the order of their first use, each with its number."""

    def numbers(self, values: Iterable[Hashable]) -> list[int]:
        return [self.setdefault(value, len(self)) for value in values]


def to_dict(record: Record) -> dict[str, Any]:
    """The document."""
    tensors, classes, stages, roles = (ValueNumbers() for _ in range(4))
    layers, storages, calls = record.layers, record.storages, record.calls
    document = {
        "schema": SCHEMA,
        "model": record.model,
        "status": record.status,
        "source": record.source,
        "inputs": tensors.numbers(record.inputs),
        "outputs": list(record.outputs),
        "params": record.params,
        "notes": list(record.notes),
        "tool": dict(record.tool),
        "sources": dict(record.sources),
        "layers": {
            "path": [layer.path for layer in layers],
            "class": classes.numbers(layer.class_name for layer in layers),
            "depth": [layer.depth for layer in layers],
            "calls": [layer.calls for layer in layers],
            "params": [layer.params for layer in layers],
            "stage": stages.numbers(layer.stage for layer in layers),
            "frozen": {str(i): layer.frozen for i, layer in enumerate(layers) if layer.frozen},
            "shared_with": {str(i): list(layer.shared_with) for i, layer in enumerate(layers) if layer.shared_with},
        },
        "storages": {
            "id": [storage.id for storage in storages],
            "name": [storage.name for storage in storages],
            "role": roles.numbers(storage.role for storage in storages),
            "tensor": tensors.numbers(storage.spec for storage in storages),
        },
        "specs": [
            [
                spec.target,
                spec.kind.value,
                tensors.numbers(spec.reads),
                tensors.numbers(spec.weights),
                tensors.numbers(spec.writes),
                dict(spec.attrs),
                spec.macs,
                spec.elementwise,
            ]
            for spec in record.specs
        ],
        "calls": {
            "spec": list(calls.spec),
            "layer": _differences(calls.layer),
            "storage": _differences(calls.storage),
            "name": list(calls.name),
            "views": [_differences(list(calls.views)), _differences(list(calls.views.values()))],
            "required": list(calls.required),
        },
        "backward": [_backward_to_list(spec.backward) for spec in record.specs],
    }
    if record.deployed:
        document["deployed"] = True
    return document | {
        "tensors": [[list(tensor.shape), tensor.dtype] for tensor in tensors],
        "classes": list(classes),
        "stages": list(stages),
        "roles": list(roles),
    }


def from_dict(document: dict[str, Any]) -> Record:
    """The record in the document. Raises KeyError, TypeError, ValueError or IndexError, and ProfileError."""
    tensors = [TensorSpec(tuple(shape), dtype) for shape, dtype in document["tensors"]]
    classes, stages, roles = document["classes"], document["stages"], document["roles"]
    layers, storages, calls = document["layers"], document["storages"], document["calls"]
    frozen = layers.get("frozen", {})
    shared_with = [tuple(layers["shared_with"].get(str(i), ())) for i in range(len(layers["path"]))]

    def specs(numbers: list[int]) -> tuple[TensorSpec, ...]:
        return tuple([tensors[number] for number in numbers])

    record = Record(
        model=document["model"],
        status=document["status"],
        source=document["source"],
        inputs=specs(document["inputs"]),
        outputs=tuple(document["outputs"]),
        layers=tuple(
            Layer(path, classes[class_], depth, count, params, shared, stages[stage], frozen.get(str(i), 0))
            for i, (path, class_, depth, count, params, shared, stage) in enumerate(
                zip(
                    layers["path"],
                    layers["class"],
                    layers["depth"],
                    layers["calls"],
                    layers["params"],
                    shared_with,
                    layers["stage"],
                    strict=True,
                )
            )
        ),
        storages=tuple(
            Storage(id_, name, roles[role], tensors[tensor])
            for id_, name, role, tensor in zip(
                storages["id"], storages["name"], storages["role"], storages["tensor"], strict=True
            )
        ),
        specs=tuple(
            OpSpec(
                target,
                Kind(kind),
                specs(reads),
                specs(weights),
                specs(writes),
                _tuples(attrs),
                macs,
                elementwise,
                _backward_from_list(backward),
            )
            for (target, kind, reads, weights, writes, attrs, macs, elementwise), backward in zip(
                document["specs"], document.get("backward", [None] * len(document["specs"])), strict=True
            )
        ),
        calls=Calls(
            calls["spec"],
            list(accumulate(calls["layer"])),
            list(accumulate(calls["storage"])),
            calls["name"] or (),
            dict(zip(*map(accumulate, calls.get("views", ((), ()))), strict=True)),
            calls.get("required") or (),  # files of versions before 0.3 lack it and `backward`
        ),
        params=document["params"],
        notes=tuple(document["notes"]),
        tool=document["tool"],
        sources=document.get("sources", {}),
        deployed=bool(document.get("deployed", False)),
    )
    record.self_check()
    return record


def _backward_to_list(backward: Backward | None) -> list[Any] | None:
    if backward is None:
        return None
    saves = None if backward.saves is None else [list(kept) for kept in backward.saves]
    return [list(backward.macs), saves, backward.passes, backward.ends]


def _backward_from_list(listed: list[Any] | None) -> Backward | None:
    if listed is None:
        return None
    macs, saves, passes, ends = listed
    kept = None if saves is None else tuple([Saved(t, n, tuple(by), tuple(unless)) for t, n, by, unless in saves])
    return Backward(tuple([(n, tuple(by)) for n, by in macs]), kept, passes, ends)


def _differences(column: Sequence[int]) -> list[int]:
    """Each number minus the one before it; `itertools.accumulate` is the inverse."""
    return list(map(sub, column, [0, *column]))


def _tuples(value: Any) -> Any:
    """The value with tuples in place of lists, which JSON has instead."""
    if isinstance(value, list):
        return tuple(_tuples(v) for v in value)
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return value
