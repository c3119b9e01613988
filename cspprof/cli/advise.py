"""The command `advise`: what to change in a network."""

from __future__ import annotations

from typing import Annotated

import typer

from cspprof.cli import options as o
from cspprof.cli.completion import complete_metric
from cspprof.cli.output import ReportWriter
from cspprof.core.inputs import parse_inputs
from cspprof.metrics.names import check_metric, resolve_metric
from cspprof.report.advice import advice_report


def advise_command(
    spec: o.Spec,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric", metavar="METRIC", help="Only what improves this metric, ranked by it. Default: the number of "
            "each suggestion.", autocompletion=complete_metric,
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, metavar="N", help="The number of suggestions.")] = 10,
    format: o.Format = None, output: o.Output = None, input: o.Input = None, dtype: o.Dtype = None,
    device: o.Device = None,
) -> None:  # fmt: skip
    """Say what to change in a network: each suggestion is applied to a copy and traced again, and the number that it
    changes is printed before and after.

    A profile or an ONNX graph has no module to change: its numbers are computed from shapes.
    """
    from cspprof.api import advise

    writer = ReportWriter(format, output)
    chosen = None if metric is None else resolve_metric(check_metric(metric))
    inputs = parse_inputs(input or (), dtype or "float32")
    advice = advise(spec, inputs, metric=chosen, device=device, dtype=dtype)
    writer.write(advice_report(advice.profile, advice.suggestions, top))
