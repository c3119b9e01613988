"""The command `bottleneck`: the largest layers."""

from __future__ import annotations

from typing import Annotated

import typer

from cspprof.cli import options as o
from cspprof.cli.completion import complete_metric
from cspprof.cli.output import ReportWriter
from cspprof.cli.specs import check_layer_metric, profile_specs
from cspprof.metrics.names import resolve_metric
from cspprof.report.bottleneck import bottleneck_report


def bottleneck_command(
    specs: o.Specs, format: o.Format = None, output: o.Output = None, input: o.Input = None, dtype: o.Dtype = None,
    device: o.Device = None, train: o.Train = False, strict: o.Strict = False,
    metric: Annotated[
        str, typer.Option("--metric", "--sort", help="The metric that ranks layers.", autocompletion=complete_metric)
    ] = "macs",
    ascending: Annotated[bool, typer.Option("--ascending", help="Print the smallest layers.")] = False,
    top: Annotated[int, typer.Option("--top", min=1, metavar="N", help="The number of layers.")] = 10,
) -> None:  # fmt: skip
    """Print the largest layers of each model, their share and the cumulative share. With --metric peak_bytes: the
    operations during which most memory is alive."""
    metric = resolve_metric(metric)
    if metric != "peak_bytes":
        check_layer_metric(metric)
    writer = ReportWriter(format, output)
    profiles = profile_specs(specs, input, dtype, device, train, strict)
    writer.write(bottleneck_report(profiles, metric, top, ascending))
