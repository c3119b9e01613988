"""The command `whatif`: one model on other inputs."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from cspprof.analysis.whatif import Variation, VariationResult, image_variations, input_variations
from cspprof.cli import options as o
from cspprof.cli.completion import complete_metrics
from cspprof.cli.output import ReportWriter
from cspprof.cli.specs import check_complete, profile_one
from cspprof.core.errors import CspprofError, SourceError
from cspprof.core.inputs import parse_device
from cspprof.metrics.names import split_metrics
from cspprof.profiles import Profile, profile_each
from cspprof.report.whatif import default_metrics, whatif_report
from cspprof.sources import Request, parse, source_of
from cspprof.sources.saved_profile import check_request, is_spec

Size = Annotated[str | None, typer.Option("--size", metavar="SIZES", help="Heights and widths: 224,256,320x384.")]
Batch = Annotated[str | None, typer.Option("--batch", metavar="BATCHES", help="Batch sizes: 1,8.")]
Dtypes = Annotated[
    str | None,
    typer.Option(
        "--dtype", metavar="DTYPES", help="Floating dtypes, and int8 for bytes at 8 bits: float32,float16,int8."
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input", metavar="[NAME=]SHAPES", help="Whole shapes, such as sequence lengths: 1x128:int64,1x512:int64. "
        "A further input has a name: mask=1x128,1x512.",
    ),
]  # fmt: skip
Metric = Annotated[
    list[str] | None,
    typer.Option("--metric", metavar="METRICS", help="Metrics: macs,cio,peak_bytes.", autocompletion=complete_metrics),
]


def whatif_command(
    spec: o.Spec, size: Size = None, batch: Batch = None, dtype: Dtypes = None, inputs: Inputs = None,
    device: o.Device = None, metric: Metric = None, format: o.Format = None, output: o.Output = None,
    strict: o.Strict = False,
) -> None:  # fmt: skip
    """Trace one model at other sizes, batch sizes, dtypes and shapes, and print its totals for each.

    The exit code is 2 if the model fails on an input.
    """
    if size is not None and inputs:
        raise CspprofError(
            "--size and --input exclude each other", "Write whole shapes: --input 1x3x224x224,1x3x256x256"
        )
    writer, metrics = ReportWriter(format, output), split_metrics(metric)
    variations = input_variations(inputs, batch, dtype) if inputs else []
    base = None
    if not variations or _is_record(spec):
        base = profile_one(spec, device=device)
        variations = variations or image_variations(base, size, batch, dtype)
        options = [("--size", size), ("--batch", batch), ("--dtype", dtype), *(("--input", x) for x in inputs or ())]
        _refuse_other_inputs(spec, base, variations, options)
    requests = [_request(variation, parse_device(device) if device else None) for variation in variations]
    results = [
        VariationResult(variation, None, found.message, _other_shapes(found.hint))
        if isinstance(found, CspprofError)
        else VariationResult(variation, found)
        for variation, found in zip(variations, profile_each(spec, requests), strict=True)
    ]
    traced = [result.record for result in results if result.record is not None]
    if strict:
        check_complete(*([base] if base else []), *traced)
    label = next((record.label for record in [base, *traced] if record is not None), spec)
    writer.write(whatif_report(label, results, metrics or default_metrics(traced)))
    if len(traced) < len(results):
        raise typer.Exit(2)


def _other_shapes(hint: str | None) -> str:
    """The hint of a failed trace, if it names an input: `whatif` accepts the same `--input`."""
    return hint if hint is not None and "--input" in hint else ""


def _is_record(spec: str) -> bool:
    """Whether the SPEC is a file of records, which were traced on one input."""
    return source_of(parse(spec)).name in ("saved profile", "measurement")


def _request(variation: Variation, device: str | None = None) -> Request:
    return Request(inputs=variation.arguments, device=device, dtype=variation.dtype)


def _refuse_other_inputs(
    file: str, profile: Profile, variations: list[Variation], options: list[tuple[str, str | None]]
) -> None:
    """Raise SourceError if the file is a saved profile that was traced on another input than one of these."""
    if not _is_record(file):
        return
    try:
        for variation in variations:
            check_request(profile, _request(variation), file)
    except SourceError as error:
        if not is_spec(profile.source):
            raise
        words = [word for option, value in options if value is not None for word in (option, value)]
        command = shlex.join(["cspprof", "whatif", profile.source, *words])
        raise SourceError(f"{file} is a saved profile of one input", f"Trace the model again: {command}") from error
