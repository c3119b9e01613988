"""The profiles of the models that a command's arguments name."""

from __future__ import annotations

from collections.abc import Sequence

from cspprof.cli.output import with_progress_bar
from cspprof.core.errors import CspprofError, IncompleteError
from cspprof.core.inputs import INT8, parse_device, parse_float_dtype, parse_inputs
from cspprof.core.record import Record
from cspprof.metrics import METRICS
from cspprof.profiles import Profile, profile_spec
from cspprof.report.notes import incomplete_note
from cspprof.sources import Request, parse, source_of
from cspprof.sources.measured_file import each_model, is_measurement


def parse_request(
    inputs: Sequence[str] | None, dtype: str | None = None, device: str | None = None, train: bool = False
) -> Request:
    """The values of `--input`, `--dtype`, `--device` and `--train`, checked. Raises CspprofError."""
    dtype, device = parse_float_dtype(dtype) if dtype else None, parse_device(device) if device else None
    return Request(inputs=parse_inputs(inputs or (), dtype or "float32"), device=device, dtype=dtype, train=train)


def profile_specs(
    specs: Sequence[str], inputs: Sequence[str] | None = None, dtype: str | None = None, device: str | None = None,
    train: bool = False, strict: bool = False, training: bool = False, deploy: bool = False,
) -> list[Profile]:  # fmt: skip
    """The profile of each SPEC, in order; a repeated SPEC is traced once. Raises IncompleteError with `strict`.

    With `training`, modules run in training mode; saved profiles, exported programs and graphs are read as they are.
    """
    if deploy:
        check_deployed(train)
    int8 = dtype == INT8
    request = parse_request(inputs, None if int8 else dtype, device, train)
    request = request._replace(dtype=INT8 if int8 else request.dtype, deploy=deploy)
    specs = each_spec(specs)
    profiles = {
        spec: profile_spec(
            spec, request._replace(train=train or (training and source_of(parse(spec)).can_be_changed)), cache=True
        )
        for spec in with_progress_bar(list(dict.fromkeys(specs)))
    }
    if strict:
        check_complete(*profiles.values())
    return [profiles[spec] for spec in specs]


def check_deployed(train: bool) -> None:
    """Raise CspprofError for --deploy beside --train."""
    if train:
        raise CspprofError(
            "--train and --deploy exclude each other: a deployed network runs in eval mode", "Leave out one of them."
        )


def profile_one(spec: str, inputs: Sequence[str] | None = None, device: str | None = None) -> Profile:
    """The profile of one SPEC. Raises SourceError for a file of several measurements, unless it names a model."""
    return profile_spec(spec, parse_request(inputs, None, device), cache=True)


def each_spec(specs: Sequence[str]) -> list[str]:
    """The SPECs, with one for each model in the place of a file of measurements. Raises CspprofError."""
    parsed = [parse(text) for text in specs]
    return [text for spec in parsed for text in (each_model(spec) if is_measurement(spec) else [spec.text])]


def check_complete(*records: Record) -> None:
    """Raise IncompleteError if an operation of a record has no rule."""
    messages = [incomplete_note(record) for record in records if not record.complete]
    if messages:
        raise IncompleteError("\n".join(messages), "Register a rule for the operation: see cspprof.op_rule.")


def check_layer_metric(name: str) -> None:
    """Raise CspprofError if the name is not one metric, or if the metric has no values for single layers."""
    first, *others = name.split(",")
    if others:
        raise CspprofError(f"layers are ranked by one metric, not by {name!r}", f"Name one: {first}")
    if METRICS.get(name).of_op is None and name != "params":
        raise CspprofError(
            f"{name} is a metric of whole models, not of layers",
            "Metrics of layers: macs, cio_cspnet, traffic_bytes …"
            + ("; memory by layer: cspprof bottleneck SPEC --metric peak_bytes" if name == "peak_bytes" else ""),
        )
