"""The records in a file of measurements, `x.measured.json`, which `cspprof.measure` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import Struct

from cspprof.core.errors import ProfileError
from cspprof.core.files import read_limited
from cspprof.core.json_text import MAX_BYTES, parse_json
from cspprof.core.record import Record
from cspprof.core.validation import Name, validated
from cspprof.storage import profile_file

SCHEMA = "cspprof.measured/1"
SUFFIX = ".measured.json"


def is_own(head: bytes) -> bool:
    """Whether a file that starts with these bytes is a file of measurements."""
    return head.startswith(b'{"schema":"cspprof.measured/')


def load(path: Path) -> dict[str, Any]:
    """The document. Raises ProfileError."""
    try:
        data = read_limited(path, MAX_BYTES)
    except FileNotFoundError:
        raise ProfileError(f"there is no file {path}", "Make one with: cspprof measure SPEC --save FILE") from None
    except OSError as error:
        raise ProfileError(f"cannot read {path}: {error.strerror or error}", "Name another file.") from None
    try:
        document = parse_json(data, parse_constant=float)  # of a record: see profile_file
    except ValueError as error:
        raise ProfileError(f"{path} is not a file of measurements: {error}", "Measure again with --save.") from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise ProfileError(
            f"{path} has schema {schema!r}; this version reads {SCHEMA!r}",
            "Measure again with this version: cspprof measure SPEC --save FILE",
        )
    return dict(document)


class Model(Struct):
    """The entry of a model, of which `cspprof.measure.result` reads the other keys."""

    name: Name
    record: dict[str, Any]


class Models(Struct):
    """The part of the document that contains records."""

    models: list[Model]


def records(path: Path) -> dict[str, Record]:
    """The record of each model by name, in order; of two models with one name the first. Raises ProfileError."""
    document = load(path)
    found: dict[str, Record] = {}
    try:
        for i, model in enumerate(validated(document, Models).models):
            if model.name not in found:
                found[model.name] = record_of(model.record, i)
    except (ValueError, ProfileError) as error:
        raise damaged(path, error) from None
    return found


def record_of(document: Any, i: int) -> Record:
    """The record of the model `i`. Raises ValueError."""
    try:
        return profile_file.from_dict(document)
    except (ValueError, ProfileError) as error:
        raise ValueError(f"models[{i}].record: {error}") from None


def damaged(path: Path, error: Exception) -> ProfileError:
    """The error for a file whose values have wrong types or do not fit together."""
    return ProfileError(f"{path} is damaged: {error}", "Measure again: cspprof measure SPEC --save FILE")
