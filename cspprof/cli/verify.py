"""The command that asks other tools: verify."""

from __future__ import annotations

from typing import Annotated

import typer

from cspprof.api import verify
from cspprof.cli import options as o
from cspprof.cli.output import Outlet
from cspprof.core.errors import IncompleteError
from cspprof.core.inputs import known_device, known_float, parse_inputs
from cspprof.report.notes import incomplete
from cspprof.report.verify import second_opinion


def verify_command(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="A model, as for every command.", show_default=False)],
    format: o.Format = None, output: o.Output = None, input: o.Input = None, dtype: o.Dtype = None,
    device: o.Device = None, train: o.Train = False, strict: o.Strict = False,
    every: Annotated[bool, typer.Option("--all", help="List the layers on which all agree, too.")] = False,
) -> None:  # fmt: skip
    """Our MACs beside fvcore's and torch's own counter, layer by layer; exit code 1 where a difference is unexplained.

    fvcore computes the forward for real, so the model is built a second time with weights, on the CPU.
    """
    from cspprof.sources import Request

    outlet = Outlet(format, output)
    dtype = known_float(dtype) if dtype else None
    inputs = parse_inputs(input or (), dtype or "float32")
    found = verify(
        spec, Request(inputs=inputs, device=known_device(device) if device else None, dtype=dtype, train=train)
    )
    if strict and not found.profile.complete:
        raise IncompleteError(incomplete(found.profile), "Teach cspprof the operation: see cspprof.op_rule.")
    outlet.emit(second_opinion(found, every))
    if found.unexplained:
        raise typer.Exit(1)
