"""A profile that was saved. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cspprof.errors import SourceError
from cspprof.inputs import Inputs, arguments
from cspprof.record import Profile, TensorSpec
from cspprof.sources import Request, Spec


def load(spec: Spec, request: Request) -> Profile:
    """Read the file, and replay it where another input or dtype is asked for. What only a new trace could give is
    refused, not ignored."""
    if spec.options:
        raise SourceError(f"{spec.target} is a saved profile and takes no options", f"Write only: {spec.target}")
    profile = Profile.load(Path(spec.target))
    return granted(profile, request, spec.target)


def granted(profile: Profile, request: Request, name: str) -> Profile:
    """The profile as asked for. Raises SourceError for what could only be had by tracing the model again, ReplayError
    where the record does not say what it would do on that input."""
    for asked, option in (
        (request.train, "--train"),
        (request.device not in (None, "meta"), "--device"),
    ):
        if asked:
            raise SourceError(
                f"{name} is a saved profile: {option} cannot change it",
                f"Trace the model again: cspprof profile SPEC {option} … --save x.profile.json",
            )
    inputs, dtype = request.inputs, request.dtype
    if inputs is not None and _are(profile.inputs, inputs):
        inputs = None
    if dtype is not None and _floats(profile) == {dtype}:
        dtype = None
    return profile if inputs is None and dtype is None else profile.at(inputs, dtype=dtype)


def holds(inputs: Sequence[TensorSpec], request: Request) -> bool:
    """Whether a record on these inputs is granted as it is, whatever else it says."""
    plain = not request.train and request.device in (None, "meta") and request.dtype is None
    return plain and (request.inputs is None or _are(inputs, request.inputs))


def _are(held: Sequence[TensorSpec], inputs: Inputs) -> bool:
    asked: list[tuple[tuple[int, ...], str]] = []
    arguments(inputs, lambda given: asked.append((tuple(given.shape), str(given.dtype).removeprefix("torch."))))
    return len(asked) == len(held) and all(
        shape == tensor.shape and dtype in ("", tensor.dtype)
        for (shape, dtype), tensor in zip(asked, held, strict=True)
    )


def _floats(profile: Profile) -> set[str]:
    return {s.spec.dtype for s in profile.storages if "float" in s.spec.dtype}
