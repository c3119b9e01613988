"""A saved profile: `x.profile.json` or `x.profile.json.gz`. No torch."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from cspprof.core.errors import SourceError
from cspprof.core.inputs import INT8, Inputs, Value, arguments
from cspprof.core.record import Record, TensorSpec
from cspprof.sources.spec import Request, Spec
from cspprof.storage import profile_file


def read_record(spec: Spec, request: Request) -> Record:
    """Read the file. Raises ProfileError, and SourceError if the request differs from the recorded trace."""
    if spec.options:
        raise SourceError(f"{spec.target} is a saved profile and takes no options", f"Write only: {spec.target}")
    record = profile_file.load(Path(spec.target))
    check_request(record, request, spec.target)
    return record


def check_request(record: Record, request: Request, name: str) -> None:
    """Raise SourceError if the request differs from the recorded trace; the hint is the command for a new trace."""
    for differs, option in (
        (request.train, "--train"),
        (request.deploy and not record.deployed, "--deploy"),
        (request.device not in (None, "meta"), "--device"),
        (request.inputs is not None and not _same_inputs(record.inputs, request.inputs), "--input"),
        (request.dtype not in (None, INT8) and _float_dtypes(record) != {request.dtype}, "--dtype"),
    ):
        if differs:
            raise SourceError(f"{name} is a saved profile: {option} cannot change it", _new_trace_hint(record, request))


def is_spec(source: str) -> bool:
    """Whether the source of a record is a SPEC, and not the class of a module that was profiled in Python."""
    target = source.partition(",")[0]
    return ":" in target or "." not in target or target.endswith((".cfg", ".onnx", ".pt2"))


def _same_inputs(traced: Sequence[TensorSpec], inputs: Inputs) -> bool:
    requested: list[tuple[tuple[int, ...], str]] = []
    values: list[Value] = []
    arguments(inputs, lambda leaf: requested.append((tuple(leaf.shape), _dtype(leaf))), values.append)
    return (
        not values
        and len(requested) == len(traced)
        and all(
            shape == tensor.shape and dtype in ("", tensor.dtype)
            for (shape, dtype), tensor in zip(requested, traced, strict=True)
        )
    )


def _dtype(leaf: TensorSpec) -> str:
    """The dtype of a spec or tensor; empty for a bare shape."""
    return str(leaf.dtype).removeprefix("torch.")


def _float_dtypes(record: Record) -> set[str]:
    return {s.spec.dtype for s in record.storages if "float" in s.spec.dtype}


def _new_trace_hint(record: Record, request: Request) -> str:
    """How to make a profile with this request: a command, or the Python call for a module that no SPEC names."""
    if not is_spec(record.source):
        return f"Profile the module again in Python: cspprof.profile({record.model}(), …).save('x.profile.json')"
    words = ["cspprof", "profile", shlex.quote(record.source)]
    if request.inputs is not None:
        words += _input_options(request.inputs, request.dtype or "float32")
    for option, value in (("--dtype", request.dtype), ("--device", request.device)):
        words += [option, value] if value else []
    words += ["--train"] * request.train
    words += ["--deploy"] * (request.deploy or (record.deployed and not request.train))
    return "Trace the model again: " + " ".join([*words, "--save", "x.profile.json"])


def _input_options(inputs: Inputs, dtype: str) -> list[str]:
    """`--input` options for the inputs; `--input …` for a container, which the command line cannot express."""

    def text(leaf: TensorSpec) -> str:
        shape = "x".join(map(str, leaf.shape)) or "scalar"
        return shape if _dtype(leaf) in ("", dtype) else f"{shape}:{_dtype(leaf)}"

    positional, named = arguments(inputs, text, lambda value: f":={value.value!r}")
    values = [(value, value) for value in positional] + [
        (value, f"{name}{'' if str(value).startswith(':=') else '='}{value}") for name, value in named.items()
    ]
    return [
        word for value, shown in values for word in ("--input", shlex.quote(shown) if isinstance(value, str) else "…")
    ]
