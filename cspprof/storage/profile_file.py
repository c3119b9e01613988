"""A profile as a file: one JSON document of columns, optionally gzipped; written whole or not at all."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from operator import sub
from pathlib import Path
from typing import Any, TypeVar

from cspprof.core.errors import ProfileError
from cspprof.core.files import write_atomically
from cspprof.core.record import SCHEMA, Calls, Kind, Layer, OpSpec, Record, Storage, TensorSpec


def save(record: Record, path: Path) -> Path:
    """Write `profile`; a name ending in `.gz` is compressed. The same profile gives the same bytes."""
    write_atomically(path, to_bytes(record, compressed=path.suffix == ".gz"))
    return path


def to_bytes(record: Record, compressed: bool) -> bytes:
    """The content of a file."""
    data = _text(to_dict(record)).encode()
    return gzip.compress(data, compresslevel=LEVEL, mtime=0) if compressed else data


LEVEL = 2
"""Of gzip. The columns of a hundred thousand calls get 6 % smaller with 5, in nearly three times the time."""


def load(path: Path) -> Record:
    """Read what `save` wrote. Raises ProfileError for anything else."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ProfileError(f"there is no file {path}", "Make one with: cspprof profile SPEC --save FILE") from None
    except OSError as error:
        raise ProfileError(f"cannot read {path}: {error.strerror or error}", "Name another file.") from None
    return from_bytes(data, str(path))


def from_bytes(data: bytes, name: str) -> Record:
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


def to_dict(record: Record) -> dict[str, Any]:
    """The document. What repeats is kept once (tensor specs, operation specs, class names, stages); layers, storages
    and calls are columns, and the storages that calls touch are written as differences, which are short."""
    specs, classes, stages, roles = Numbered(), Numbered(), Numbered(), Numbered()
    calls = record.calls
    paths, class_names, depths, called, params, shared, named = _columns(record.layers, Layer)
    ids, names, rolled, held = _columns(record.storages, Storage)
    document = {
        "schema": SCHEMA,
        "model": record.model,
        "status": record.status,
        "source": record.source,
        "inputs": [specs[t] for t in record.inputs],
        "outputs": list(record.outputs),
        "params": record.params,
        "notes": list(record.notes),
        "tool": dict(record.tool),
        "sources": dict(record.sources),
        "layers": {
            "path": Names(paths),
            "class": classes.column(class_names),
            "depth": Column(depths),
            "calls": Column(called),
            "params": Column(params),
            "stage": stages.column(named),
            "shared_with": {str(i): list(others) for i, others in enumerate(shared) if others},
        },
        "storages": {
            "id": ids,
            "name": Names(names),
            "role": roles.column(rolled),
            "tensor": specs.column(held),
        },
        "specs": [
            [s.target, s.kind.value, *([specs[t] for t in ts] for ts in (s.reads, s.weights, s.writes)),
             dict(s.attrs), s.macs, s.elementwise]
            for s in record.specs
        ],
        "calls": {
            "spec": Column(calls.spec),
            "layer": _differences(calls.layer),
            "storage": _differences(calls.storage),
            "name": Names(calls.name),
        },
    }  # fmt: skip
    return document | {
        "tensors": [[list(t.shape), t.dtype] for t in specs],
        "classes": list(classes),
        "stages": list(stages),
        "roles": list(roles),
    }


class Numbered(dict[Any, int]):
    """Values with their numbers, in the order in which they were first asked for."""

    def __missing__(self, value: Any) -> int:
        number = self[value] = len(self)
        return number

    def column(self, values: Iterable[Any]) -> Column:
        return Column(map(self.__getitem__, values))


class Column(list[int]):
    """Whole numbers, among which the same few come again and again."""


class Names(list[str]):
    """Many short texts."""


class _Texts(dict[int, str]):
    """Numbers as they are written."""

    def __missing__(self, number: int) -> str:
        text = self[number] = str(number)
        return text


PLAIN = bytes(c for c in range(ord(" "), 127) if c not in b'"\\')
"""Characters that JSON writes as they are."""


def _text(value: Any) -> str:
    """JSON. A column is put together from the texts of its few numbers, names that need no escapes as they are: in a
    third of the time."""
    if type(value) is Column:
        return f"[{','.join(map(_Texts().__getitem__, value))}]"
    if type(value) is Names and value and not "".join(value).encode(errors="surrogatepass").translate(None, PLAIN):
        names = '","'.join(value)
        return f'["{names}"]'
    if isinstance(value, dict):
        return f"{{{','.join([f'{_text(name)}:{_text(v)}' for name, v in value.items()])}}}"
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _columns(rows: Sequence[tuple[Any, ...]], kind: type[Layer] | type[Storage]) -> list[list[Any]]:
    cells, width = list(chain.from_iterable(rows)), len(kind._fields)
    return [cells[i::width] for i in range(width)]


def _differences(column: Sequence[int]) -> Column:
    """Each number less the one before it; `itertools.accumulate` undoes it."""
    return Column(map(sub, column, chain((0,), column)))


def from_dict(document: dict[str, Any]) -> Record:
    tensors = [TensorSpec(tuple(shape), dtype) for shape, dtype in document["tensors"]]
    layers, held, calls = document["layers"], document["storages"], document["calls"]
    shared = {int(i): tuple(paths) for i, paths in layers["shared_with"].items()}

    def specs_of(refs: list[int]) -> tuple[TensorSpec, ...]:
        return tuple(map(tensors.__getitem__, refs))

    def named(column: list[int], table: str) -> Iterator[Any]:
        return map(document[table].__getitem__, column)

    profile = Record(
        model=document["model"],
        status=document["status"],
        source=document["source"],
        inputs=specs_of(document["inputs"]),
        outputs=tuple(document["outputs"]),
        layers=_rows(
            Layer, layers["path"], named(layers["class"], "classes"), layers["depth"], layers["calls"],
            layers["params"], [shared.get(i, ()) for i in range(len(layers["path"]))],
            named(layers["stage"], "stages"),
        ),
        storages=_rows(
            Storage, held["id"], held["name"], named(held["role"], "roles"), specs_of(held["tensor"])
        ),
        specs=tuple(
            OpSpec(target, Kind(kind), specs_of(reads), specs_of(weights), specs_of(writes), _tuples(attrs), macs, n)
            for target, kind, reads, weights, writes, attrs, macs, n in document["specs"]
        ),
        calls=Calls(
            calls["spec"], list(accumulate(calls["layer"])), list(accumulate(calls["storage"])), calls["name"] or (),
        ),
        params=document["params"],
        notes=tuple(document["notes"]),
        tool=document["tool"],
        sources=document.get("sources", {}),
    )  # fmt: skip
    profile.self_check()
    return profile


T = TypeVar("T", bound=tuple[Any, ...])


def _rows(kind: type[T], *columns: Iterable[Any]) -> tuple[T, ...]:
    new = tuple.__new__  # half the time of a call of the class
    return tuple([new(kind, row) for row in zip(*columns, strict=True)])


def _tuples(value: Any) -> Any:
    """JSON has no tuples; attributes hold nothing else that is a sequence."""
    if isinstance(value, list):
        return tuple(_tuples(v) for v in value)
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return value
