"""The command that asks what a network would do on other inputs: whatif."""

from __future__ import annotations

from typing import Annotated

import typer

from cspprof.analysis.whatif import VariationResult, input_variations
from cspprof.cli import options as o
from cspprof.cli.output import Outlet
from cspprof.cli.profile import measure
from cspprof.core.errors import CspprofError
from cspprof.core.record import TensorSpec
from cspprof.profiles import profile_spec
from cspprof.report.whatif import metrics_or_default, whatif_report
from cspprof.sources import Request

Spec = Annotated[str, typer.Argument(metavar="SPEC", help="A model or a saved profile, as for every command.",
                                     show_default=False)]  # fmt: skip
Size = Annotated[str | None, typer.Option("--size", metavar="SIZES", help="Heights and widths: 224,256,320x384.")]
Batch = Annotated[str | None, typer.Option("--batch", metavar="BATCHES", help="Batch sizes: 1,8.")]
Dtypes = Annotated[str | None, typer.Option("--dtype", metavar="DTYPES", help="Floating dtypes: float32,float16.")]
Metric = Annotated[list[str] | None, typer.Option("--metric", metavar="METRIC", help="A number; repeat for more.")]


def whatif_command(
    spec: Spec, size: Size = None, batch: Batch = None, dtype: Dtypes = None, metric: Metric = None,
    format: o.Format = None, output: o.Output = None, strict: o.Strict = False,
) -> None:  # fmt: skip
    """One model on inputs of other sizes, batches and dtypes; it is traced on each.

    The exit code is 2 if the model fails on one of them.
    """
    outlet, metrics = Outlet(format, output), metrics_or_default(metric or ())
    profile = measure([spec], None, None, None, False, strict)[0]
    results = [_profile_on(spec, given) for given in input_variations(profile, size, batch, dtype)]
    outlet.emit(whatif_report(profile.label, results, metrics))
    if any(result.problem for result in results):
        raise typer.Exit(2)


def _profile_on(spec: str, given: TensorSpec) -> VariationResult:
    try:
        return VariationResult(given, profile_spec(spec, Request(inputs=[given], dtype=given.dtype), cache=True))
    except CspprofError as error:
        return VariationResult(given, None, error.message)
