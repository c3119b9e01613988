"""A saved profile: `x.profile.json` or `x.profile.json.gz`. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cspprof.core.errors import SourceError
from cspprof.core.inputs import Inputs, arguments
from cspprof.core.record import Record, TensorSpec
from cspprof.sources import Request, Spec
from cspprof.storage import profile_file


def load(spec: Spec, request: Request) -> Record:
    """Read the file. Raises SourceError if the request differs from what was traced: only a new trace can answer it."""
    if spec.options:
        raise SourceError(f"{spec.target} is a saved profile and takes no options", f"Write only: {spec.target}")
    record = profile_file.load(Path(spec.target))
    check_request(record, request, spec.target)
    return record


def check_request(record: Record, request: Request, name: str) -> None:
    """Raise SourceError if the record cannot answer the request."""
    other_inputs = request.inputs is not None and not _same_inputs(record.inputs, request.inputs)
    other_dtype = request.dtype is not None and _float_dtypes(record) != {request.dtype}
    for differs, option in (
        (request.train, "--train"),
        (request.device not in (None, "meta"), "--device"),
        (other_inputs, "--input"),
        (other_dtype, "--dtype"),
    ):
        if differs:
            raise SourceError(
                f"{name} is a saved profile: {option} cannot change it",
                f"Trace the model again: cspprof profile SPEC {option} … --save x.profile.json",
            )


def _same_inputs(traced: Sequence[TensorSpec], inputs: Inputs) -> bool:
    requested: list[tuple[tuple[int, ...], str]] = []
    arguments(inputs, lambda given: requested.append((tuple(given.shape), str(given.dtype).removeprefix("torch."))))
    return len(requested) == len(traced) and all(
        shape == tensor.shape and dtype in ("", tensor.dtype)
        for (shape, dtype), tensor in zip(requested, traced, strict=True)
    )


def _float_dtypes(record: Record) -> set[str]:
    return {s.spec.dtype for s in record.storages if "float" in s.spec.dtype}
