"""The records in a file of measurements, `x.measured.json`, which `cspprof.measure` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cspprof.core.errors import ProfileError
from cspprof.core.json_text import parse_json
from cspprof.core.record import Record
from cspprof.storage import profile_file

SCHEMA = "cspprof.measured/1"
SUFFIX = ".measured.json"


def is_own(head: bytes) -> bool:
    """Whether a file that starts with these bytes is a file of measurements."""
    return head.startswith(b'{"schema":"cspprof.measured/')


def load(path: Path) -> dict[str, Any]:
    """The document. Raises ProfileError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ProfileError(f"there is no file {path}", "Make one with: cspprof measure SPEC --save FILE") from None
    except OSError as error:
        raise ProfileError(f"cannot read {path}: {error.strerror or error}", "Name another file.") from None
    try:
        document = parse_json(data)
    except ValueError as error:
        raise ProfileError(f"{path} is not a file of measurements: {error}", "Measure again with --save.") from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise ProfileError(
            f"{path} has schema {schema!r}; this version reads {SCHEMA!r}",
            "Measure again with this version: cspprof measure SPEC --save FILE",
        )
    return dict(document)


def records(path: Path) -> dict[str, Record]:
    """The record of each model by name, in order; of two models with one name the first. Raises ProfileError."""
    found: dict[str, Record] = {}
    try:
        for model in load(path)["models"]:
            if model["name"] not in found:
                found[str(model["name"])] = profile_file.from_dict(model["record"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ProfileError(f"{path} is damaged: {type(error).__name__} {error}", "Measure again.") from None
    return found
