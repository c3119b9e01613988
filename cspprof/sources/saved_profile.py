"""A profile that was saved. No torch."""

from __future__ import annotations

from pathlib import Path

from cspprof.errors import SourceError
from cspprof.record import Profile
from cspprof.sources import Request, Spec


def load(spec: Spec, request: Request) -> Profile:
    """Read the file. What could only be done by tracing again is refused, not ignored."""
    if spec.options:
        raise SourceError(f"{spec.target} is a saved profile and takes no options", f"Write only: {spec.target}")
    for asked, option in (
        (request.inputs is not None, "--input"),
        (request.dtype is not None, "--dtype"),
        (request.train, "--train"),
        (request.device != "meta", "--device"),
    ):
        if asked:
            raise SourceError(
                f"{spec.target} is a saved profile: {option} cannot change it",
                f"Trace the model again: cspprof profile SPEC {option} … --save {spec.target}",
            )
    return Profile.load(Path(spec.target))
