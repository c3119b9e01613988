"""The command `gradients`: which gradients update which layers."""

from __future__ import annotations

from typing import Annotated

import typer

from cspprof.cli import options as o
from cspprof.cli.output import ReportWriter
from cspprof.cli.specs import profile_specs
from cspprof.report.gradient_reuse import gradients_report


def gradients_command(
    specs: o.Specs, format: o.Format = None, output: o.Output = None, input: o.Input = None, dtype: o.Dtype = None,
    device: o.Device = None, train: o.Train = False, strict: o.Strict = False, layers: o.Layers = False,
    top: Annotated[
        int, typer.Option("--top", min=0, metavar="N", help="The number of gradients to list; 0 for none.")
    ] = 10,
) -> None:  # fmt: skip
    """Count how many layers each gradient of the backward pass updates (CSPNet, Eq. 1 to 4), from the recorded forward
    pass.

    A gradient reaches a layer unchanged through concatenations, additions, slices and copies. `uses` counts the pairs
    of a layer and a gradient that reaches it. `shared` counts the gradients of a block that reach its bypass as well as
    its layers.
    """
    writer = ReportWriter(format, output)
    writer.write(gradients_report(profile_specs(specs, input, dtype, device, train, strict), top, layers))
