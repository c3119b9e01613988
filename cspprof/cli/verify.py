"""The command `verify`: our MACs beside the counts of other tools."""

from __future__ import annotations

from typing import Annotated

import typer

from cspprof.api import verify
from cspprof.cli import options as o
from cspprof.cli.output import ReportWriter
from cspprof.cli.specs import check_complete, parse_request
from cspprof.report.verification import verification_report


def verify_command(
    spec: o.Spec, format: o.Format = None, output: o.Output = None, input: o.Input = None, dtype: o.Dtype = None,
    device: o.Device = None, train: o.Train = False, strict: o.Strict = False,
    every: Annotated[bool, typer.Option("--all", help="List every layer, not the reasons of differences.")] = False,
) -> None:  # fmt: skip
    """Compare our MACs with fvcore and torch's FlopCounterMode, layer by layer.

    The exit code is 1 if a difference is not explained by a counter's rules. fvcore runs the forward pass, so the model
    is built a second time on the CPU, with weights.
    """
    writer = ReportWriter(format, output)
    verification = verify(spec, parse_request(input, dtype, device, train))
    if strict:
        check_complete(verification.record)
    writer.write(verification_report(verification, every))
    if verification.unexplained:
        raise typer.Exit(1)
