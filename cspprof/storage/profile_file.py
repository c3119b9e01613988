"""A record as a file: a JSON document, gzipped if the name ends in `.gz`.

The document is columnar, like the record. Tensor specs, class names, stages and roles are written once and referred to
by number; `calls.layer` and `calls.storage` hold differences between neighbors, which are small and compress well.

A file can come from anyone. `Document` has the types and limits of its values; `from_dict` checks that the values fit
together. A record that it returns is safe for every function of records. Unknown keys are ignored.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import zlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from importlib import resources
from itertools import accumulate
from operator import sub
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal, NamedTuple

from msgspec import Meta, Struct, field

from cspprof.core.backward import Backward
from cspprof.core.errors import ProfileError
from cspprof.core.files import check_replaceable, read_limited, write_atomically
from cspprof.core.json_text import MAX_BYTES, gunzip, json_bytes, parse_json
from cspprof.core.record import SCHEMA, Calls, Kind, Layer, OpSpec, Record, Storage, TensorSpec
from cspprof.core.tensors import MAX_BYTES as MAX_TENSOR
from cspprof.core.tensors import MAX_DIMENSIONS
from cspprof.core.validation import LARGEST, SMALLEST, Count, Integer, Name, Text, validated
from cspprof.storage.operation_check import check_operation

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
    text = json.dumps(to_dict(record), separators=(",", ":"), ensure_ascii=False)
    data = json_bytes(text)
    return gzip.compress(data, COMPRESSION, mtime=0) if compressed else data


def load(path: Path) -> Record:
    """Read a file that `save` wrote. Raises ProfileError."""
    try:
        data = read_limited(path, MAX_BYTES)
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
        # an argument of an operation can be infinite, as that of masked_fill
        document = parse_json(gunzip(data) if data[:2] == b"\x1f\x8b" else data, parse_constant=float)
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
    except (ValueError, ProfileError) as error:
        raise ProfileError(f"{name} is damaged: {error}", "Write it again: cspprof profile SPEC --save FILE") from None


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


def _backward_to_list(backward: Backward | None) -> list[Any] | None:
    if backward is None:
        return None
    saves = None if backward.saves is None else [list(kept) for kept in backward.saves]
    return [list(backward.macs), saves, backward.passes, backward.ends]


def _differences(column: Sequence[int]) -> list[int]:
    """Each number minus the one before it; `itertools.accumulate` is the inverse."""
    return list(map(sub, column, [0, *column]))


# -- reading -----------------------------------------------------------------------------------------

MAX_DEPTH = 1000
"""The levels of modules, which is Python's limit for nested calls."""
MAX_NESTING = 16
"""The levels of lists in an argument of an operation."""

Numbers = list[Count]
Role = Literal["input", "parameter", "buffer", "constant", "byproduct"]


class LayerColumns(Struct):
    """`layers`: one entry for each module."""

    path: list[Name]
    class_: Numbers = field(name="class")
    depth: list[Annotated[int, Meta(ge=0, le=MAX_DEPTH)]]
    calls: Numbers
    params: Numbers
    stage: Numbers
    shared_with: dict[str, tuple[Name, ...]]
    frozen: dict[str, Count] = {}


class StorageColumns(Struct):
    """`storages`: one entry for each storage that no call writes first."""

    id: Numbers
    name: list[Name]
    role: Numbers
    tensor: Numbers


class CallColumns(Struct):
    """`calls`: one entry for each call; `storage` has one for each operand and output."""

    spec: Numbers
    layer: list[Integer]
    storage: list[Integer]
    name: list[Name] | None = None
    views: tuple[list[Integer], list[Integer]] = ([], [])
    required: list[int] = []
    """Bit masks, so integers of any size. Files of versions before 0.3 lack it, and `backward` of the document."""


class Operation(NamedTuple):
    """An entry of `specs`."""

    target: Name
    kind: Kind
    reads: Numbers
    weights: Numbers
    writes: Numbers
    attrs: dict[Name, Any]
    macs: Count | None
    elementwise: Count


_OPERATION_FIELD = re.compile(r"^(specs\[\d+\])\[(\d)\]")
"""The place of a field of an operation, which has a number."""


class Document(Struct):
    """The document of a file."""

    model: Name
    status: Name
    source: Text
    inputs: Numbers
    outputs: Numbers
    params: Count
    notes: tuple[Text, ...]
    tool: dict[Name, Name]
    layers: LayerColumns
    storages: StorageColumns
    specs: list[Operation]
    calls: CallColumns
    tensors: list[tuple[Annotated[tuple[Count, ...], Meta(max_length=MAX_DIMENSIONS)], Name]]
    classes: list[Name]
    stages: list[Name | None]
    roles: list[Role]
    sources: dict[Name, Name] = {}
    deployed: bool = False
    backward: list[Backward | None] | None = None


def from_dict(value: object) -> Record:
    """The record in a document. Raises ValueError, and ProfileError from the check of the record, with the place."""
    try:
        document = validated(value, Document)
    except ValueError as error:
        raise ValueError(_OPERATION_FIELD.sub(lambda m: f"{m[1]}.{Operation._fields[int(m[2])]}", str(error))) from None
    tensors = [_tensor(f"tensors[{i}]", *entry) for i, entry in enumerate(document.tensors)]
    backward = [None] * len(document.specs) if document.backward is None else document.backward
    _check_lengths({"specs": document.specs, "backward": backward})
    record = Record(
        model=document.model,
        status=document.status,
        source=document.source,
        inputs=tuple(_picked(tensors, document.inputs, "inputs")),
        outputs=tuple(document.outputs),
        layers=_layers(document),
        storages=_storages(document, tensors),
        specs=tuple(
            _operation(f"specs[{i}]", operation, tensors, backward[i]) for i, operation in enumerate(document.specs)
        ),
        calls=_calls(document.calls),
        params=document.params,
        notes=document.notes,
        tool=document.tool,
        sources={name: _project_file(name, file) for name, file in document.sources.items()},
        deployed=document.deployed,
    )
    record.self_check()
    return record


def _tensor(place: str, shape: tuple[int, ...], dtype: str) -> TensorSpec:
    tensor = TensorSpec(shape, dtype)
    if tensor.nbytes > MAX_TENSOR:
        raise ValueError(f"{place} has {tensor.nbytes:,} bytes: no tensor is that large")
    return tensor


def _layers(document: Document) -> tuple[Layer, ...]:
    columns = document.layers
    lists = {n: getattr(columns, n) for n in ("path", "class_", "depth", "calls", "params", "stage")}
    _check_lengths({f"layers.{name.strip('_')}": column for name, column in lists.items()})
    n = len(columns.path)
    for name, entries in (("frozen", columns.frozen), ("shared_with", columns.shared_with)):
        for key in entries:
            if not (key.isdecimal() and key.isascii() and int(key[:20]) < n):
                raise ValueError(f"layers.{name} has the key {key[:40]!r}, which is the number of no layer")
    return tuple(
        [
            Layer(
                columns.path[i], class_, columns.depth[i], columns.calls[i], columns.params[i],
                columns.shared_with.get(str(i), ()), stage, columns.frozen.get(str(i), 0),
            )
            for i, (class_, stage) in enumerate(
                zip(
                    _picked(document.classes, columns.class_, "layers.class"),
                    _picked(document.stages, columns.stage, "layers.stage"),
                    strict=True,
                )
            )
        ]
    )  # fmt: skip


def _storages(document: Document, tensors: Sequence[TensorSpec]) -> tuple[Storage, ...]:
    columns = document.storages
    _check_lengths({f"storages.{name}": getattr(columns, name) for name in StorageColumns.__struct_fields__})
    roles = _picked(document.roles, columns.role, "storages.role")
    return tuple(map(Storage, columns.id, columns.name, roles, _picked(tensors, columns.tensor, "storages.tensor")))


def _operation(
    place: str, operation: Operation, tensors: Sequence[TensorSpec], backward: Backward | None
) -> OpSpec:  # fmt: skip
    target, kind, reads, weights, writes, attrs, macs, elementwise = operation
    spec = OpSpec(
        target,
        kind,
        tuple(_picked(tensors, reads, place)),
        tuple(_picked(tensors, weights, place)),
        tuple(_picked(tensors, writes, place)),
        {name: _argument(value, f"{place}.{name}") for name, value in attrs.items()},
        macs,
        elementwise,
        backward,
    )
    try:
        check_operation(spec)
    except ValueError as error:
        raise ValueError(f"{place} ({target}): {error}") from None
    return spec


def _calls(columns: CallColumns) -> Calls:
    reads, writes = (list(accumulate(column)) for column in columns.views)
    _check_lengths({"calls.views[0]": reads, "calls.views[1]": writes})
    return Calls(
        columns.spec,
        list(accumulate(columns.layer)),
        list(accumulate(columns.storage)),
        columns.name or (),
        dict(zip(reads, writes, strict=True)),
        columns.required or (),
    )


def _check_lengths(columns: Mapping[str, Sequence[object]]) -> None:
    """Raise ValueError if columns differ in length."""
    (first, expected), *others = ((name, len(column)) for name, column in columns.items())
    for name, length in others:
        if length != expected:
            raise ValueError(f"{first} has {expected:,} entries and {name} has {length:,}")


def _picked(entries: Sequence[Any], numbers: Sequence[int], place: str) -> list[Any]:
    """The entries with these numbers. Raises ValueError for a number without an entry."""
    if numbers and max(numbers) >= len(entries):
        raise ValueError(f"{place} refers to entry {max(numbers)} of {len(entries)}")
    return [entries[number] for number in numbers]


def _argument(value: Any, place: str, depth: int = 0) -> Any:
    """An argument of an operation, with tuples in place of lists, which JSON has instead."""
    if depth > MAX_NESTING:
        raise ValueError(f"{place} is nested too deeply")
    if isinstance(value, list):
        return tuple([_argument(v, place, depth + 1) for v in value])
    if isinstance(value, dict):
        return {k: _argument(v, place, depth + 1) for k, v in value.items()}
    if isinstance(value, int) and not SMALLEST <= value <= LARGEST:
        raise ValueError(f"{place} is an integer of more than 64 bits")
    return value


def _project_file(class_name: str, file: str) -> str:
    """A file of the user's project, relative to its folder. Raises ValueError for a file anywhere else."""
    parts = PurePosixPath(file).parts
    if not parts or ".." in parts or "\\" in file or "\0" in file or PureWindowsPath(file).anchor or parts[0] == "/":
        raise ValueError(f"sources: the file of {class_name} is {file!r}, which is no path inside a project")
    return file
