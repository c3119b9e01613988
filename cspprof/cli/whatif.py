"""The command `whatif`: one model on other inputs."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from cspprof.analysis.whatif import VariationResult, input_variations
from cspprof.cli import options as o
from cspprof.cli.output import ReportWriter
from cspprof.cli.specs import profile_specs
from cspprof.core.errors import CspprofError, SourceError
from cspprof.core.record import TensorSpec
from cspprof.profiles import Profile, profile_each
from cspprof.report.whatif import metrics_or_default, whatif_report
from cspprof.sources import Request, parse, source_of
from cspprof.sources.saved_profile import check_request, is_spec

Size = Annotated[str | None, typer.Option("--size", metavar="SIZES", help="Heights and widths: 224,256,320x384.")]
Batch = Annotated[str | None, typer.Option("--batch", metavar="BATCHES", help="Batch sizes: 1,8.")]
Dtypes = Annotated[str | None, typer.Option("--dtype", metavar="DTYPES", help="Floating dtypes: float32,float16.")]
Metric = Annotated[list[str] | None, typer.Option("--metric", metavar="METRIC", help="A metric; repeat for more.")]


def whatif_command(
    spec: o.Spec, size: Size = None, batch: Batch = None, dtype: Dtypes = None, metric: Metric = None,
    format: o.Format = None, output: o.Output = None, strict: o.Strict = False,
) -> None:  # fmt: skip
    """Trace one model at other sizes, batch sizes and dtypes, and print its totals for each.

    The exit code is 2 if the model fails on an input.
    """
    writer, metrics = ReportWriter(format, output), metrics_or_default(metric or ())
    profile = profile_specs([spec], strict=strict)[0]
    inputs = input_variations(profile, size, batch, dtype)
    if source_of(parse(spec)).name == "saved profile":
        _refuse_other_inputs(spec, profile, inputs, {"--size": size, "--batch": batch, "--dtype": dtype})
    profiles = profile_each(spec, map(_request, inputs))
    results = [
        VariationResult(tensor, None, found.message)
        if isinstance(found, CspprofError)
        else VariationResult(tensor, found)
        for tensor, found in zip(inputs, profiles, strict=True)
    ]
    writer.write(whatif_report(profile.label, results, metrics))
    if any(result.problem for result in results):
        raise typer.Exit(2)


def _request(tensor: TensorSpec) -> Request:
    return Request(inputs=[tensor], dtype=tensor.dtype)


def _refuse_other_inputs(file: str, profile: Profile, inputs: list[TensorSpec], options: dict[str, str | None]) -> None:
    """Raise SourceError if the saved profile was traced on another input than one of these."""
    try:
        for tensor in inputs:
            check_request(profile, _request(tensor), file)
    except SourceError as error:
        if not is_spec(profile.source):
            raise
        words = [word for option, value in options.items() if value is not None for word in (option, value)]
        command = shlex.join(["cspprof", "whatif", profile.source, *words])
        raise SourceError(f"{file} is a saved profile of one input", f"Trace the model again: {command}") from error
