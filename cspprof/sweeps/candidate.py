"""One candidate of a design space: its model is built, traced, and reduced to a row of numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from cspprof.core.errors import BuildError, CspprofError, TraceError
from cspprof.core.inputs import Inputs, parse_inputs
from cspprof.core.record import Record
from cspprof.core.registry import suggestion
from cspprof.core.tensors import TensorSpec
from cspprof.csp.conversion.plan import Options
from cspprof.metrics import METRICS
from cspprof.papers.accuracy import ACCURACIES, published_accuracy
from cspprof.sources import Request, source_of
from cspprof.sources.spec import LoadedModel, parse
from cspprof.sweeps.space import Candidate

if TYPE_CHECKING:
    from torch import nn

Status = str
"""`ok`; `refused`, if the SPEC names no model or its factory does not accept an axis; `failed`, if building or running
the model raised an error; `timeout`, `memory` or `crashed`, if its process was ended, or ended itself."""
FAILURES: tuple[Status, ...] = ("refused", "failed", "timeout", "memory", "crashed")
"""The statuses of rows without numbers. Candidates with the last three are quarantined: they may harm their machine."""


def retried_statuses(texts: Iterable[str]) -> frozenset[Status]:
    """The statuses in `failed,timeout` or `all`. Raises CspprofError for an unknown one."""
    names = [name.strip() for text in texts for name in text.split(",")]
    for name in names:
        if name not in (*FAILURES, "all"):
            raise CspprofError(f"no row has the status {name!r}", suggestion(name, [*FAILURES, "all"]))
    return frozenset(FAILURES if "all" in names else names)


class Row(NamedTuple):
    """The result of one candidate."""

    key: bytes
    position: int
    spec: str
    axes: Mapping[str, Any]
    input: str
    """The shapes of the inputs, `1x3x224x224`; empty if the model did not run."""
    status: Status
    values: Mapping[str, int | float]
    """The metrics and published accuracies that are known."""
    at_least: tuple[str, ...]
    """The metrics whose values are lower bounds."""
    error: str
    seconds: float
    versions: str
    """The versions of the code that made the row."""


def trace_candidate(candidate: Candidate, versions: str) -> Row:
    """The row of a candidate, traced in this process. An error of the model becomes part of the row."""
    return _row(candidate, versions, lambda: _record(candidate))


def trace_module(position: int, module: nn.Module, inputs: Inputs, device: str | None, versions: str) -> Row:
    """The row of a module of a user's generator. An error of the module becomes part of the row."""
    from cspprof.trace import trace

    candidate = Candidate(position, f"{type(module).__name__} {position}")
    return _row(candidate, versions, lambda: trace(module, inputs, name=type(module).__name__, device=device))


def _row(candidate: Candidate, versions: str, record_of: Callable[[], Record]) -> Row:
    started = time.perf_counter()
    values: dict[str, int | float] = {}
    at_least: tuple[str, ...] = ()
    shapes = error = ""
    status = "ok"
    try:
        record = record_of()
        shapes = ",".join("x".join(map(str, tensor.shape)) for tensor in record.inputs)
        values, at_least = numbers(record)
    except MemoryError:
        status, error = "memory", "it needs more memory than --memory allows"
    except (BuildError, TraceError) as raised:
        status, error = "failed", raised.message
        if "allocate memory" in error or "MemoryError" in error:
            status = "memory"
    except CspprofError as raised:
        status, error = "refused", str(raised)
    except Exception as raised:  # a fault of cspprof in one candidate does not end a sweep
        status, error = "failed", f"{type(raised).__name__}: {raised}"
    row = failed_row(candidate, versions, status, error, time.perf_counter() - started)
    return row._replace(input=shapes, values=values, at_least=at_least)


def failed_row(candidate: Candidate, versions: str, status: Status, error: str, seconds: float) -> Row:
    """The row of a candidate without numbers."""
    axes, key = dict(candidate.axes), candidate.key(versions)
    return Row(key, candidate.position, candidate.spec, axes, "", status, {}, (), error, round(seconds, 4), versions)


def numbers(record: Record) -> tuple[dict[str, int | float], tuple[str, ...]]:
    """The known totals of a record with its published accuracies, and the names of those that are lower bounds."""
    totals = {name: METRICS.get(name).total(record) for name in METRICS.names()}
    values = {name: total.value for name, total in totals.items() if total.value is not None}
    at_least = tuple(name for name in values if totals[name].missed)
    accuracy = published_accuracy(record)
    for name in ACCURACIES if accuracy else ():
        if (value := getattr(accuracy, name)) is not None:
            values[name] = value
    return values, at_least


def _record(candidate: Candidate) -> Record:
    """The record of the candidate's model, converted if the candidate says so. Raises CspprofError."""
    spec = parse(candidate.spec)
    source = source_of(spec)
    dtype = candidate.dtype
    inputs = parse_inputs(candidate.inputs, dtype or "float32") if candidate.inputs else None
    request = Request(inputs=inputs, device=candidate.device, dtype=dtype)
    if not source.takes_other_inputs and not candidate.conversion:
        return source.record(spec, request)
    from cspprof.sources.build import trace_loaded

    with source.open_model(spec, request) as loaded:
        if candidate.size is not None or candidate.batch is not None:
            request = request._replace(inputs=_resized(loaded, candidate))
        record = trace_loaded(loaded, request, partial(source.open_model, spec))
        return _converted(loaded, record, candidate, request) if candidate.conversion else record


def _resized(loaded: LoadedModel, candidate: Candidate) -> tuple[int, ...]:
    """The native input of the model with the size and batch of the candidate. Raises CspprofError."""
    native = loaded.inputs.shape if isinstance(loaded.inputs, TensorSpec) else loaded.inputs
    if not (isinstance(native, tuple) and len(native) == 4 and all(isinstance(n, int) for n in native)):
        message = f"the input of {candidate.spec} is not one batch of images"
        raise CspprofError(message, "Use --input instead of --size.")
    batch, channels, height, width = native
    return (candidate.batch or batch, channels, *(candidate.size or (height, width)))


def _converted(loaded: LoadedModel, record: Record, candidate: Candidate, request: Request) -> Record:
    """The record of the cross stage partial form. Raises CspprofError if no stage can be converted."""
    from cspprof.csp.conversion.convert import convert_model
    from cspprof.trace import trace

    options = dict(candidate.conversion)
    stages = options.pop("stages", ())
    names = stages.split("+") if isinstance(stages, str) else list(stages)
    if "round" in options:
        options["multiple"] = options.pop("round")
    inputs = loaded.inputs if request.inputs is None else request.inputs

    def trace_again(model: nn.Module) -> Record:
        device = request.device or loaded.device
        return trace(model, inputs, name=record.model, source=record.source, device=device, dtype=request.dtype)

    result = convert_model(loaded.module, record, trace_again, Options(**options), names)
    if not result.edits:
        raise CspprofError(f"no stage can be converted: {result.stages[0].reason}")
    return result.record
