"""A model of a file of measurements, `x.measured.json`: its record, as in a saved profile. No torch."""

from __future__ import annotations

from pathlib import Path

from cspprof.core.errors import SourceError
from cspprof.core.record import Record
from cspprof.core.registry import suggestion
from cspprof.sources.saved_profile import check_request
from cspprof.sources.spec import Request, Spec
from cspprof.storage import measured_file


def read_record(spec: Spec, request: Request) -> Record:
    """The record of the model that the option `model` names; without it, of the only model.

    Raises ProfileError, and SourceError if the request differs from the recorded trace.
    """
    if unknown := set(spec.options) - {"model"}:
        raise SourceError(
            f"{spec.target} is a measurement and has no option {min(unknown)!r}", f"Write: {spec.target},model=NAME"
        )
    records = measured_file.records(Path(spec.target))
    name = str(spec.options.get("model", "")) or next(iter(records), "")
    if name not in records:
        hint = suggestion(name, records) if name else "Measure again: cspprof measure SPEC --save FILE"
        raise SourceError(f"{spec.target} has no model {name!r}", hint)
    if len(records) > 1 and "model" not in spec.options:
        raise SourceError(
            f"{spec.target} has {len(records)} models", f"Name one of them: {model_spec(spec.target, name)}"
        )
    check_request(records[name], request, spec.target)
    return records[name]


def is_measurement(spec: Spec) -> bool:
    return spec.target.endswith(measured_file.SUFFIX)


def model_spec(target: str, name: str) -> str:
    """The SPEC of one model of a file."""
    return f"{target},model={name!r}"


def each_model(spec: Spec) -> list[str]:
    """The SPECs of all models of a file; only the given one if it names a model. Raises ProfileError."""
    if spec.options:
        return [spec.text]
    names = measured_file.records(Path(spec.target))
    return [model_spec(spec.target, name) for name in names] or [spec.text]  # reading a file without models says so
