"""Commands that tell what cspprof knows: models, metrics, explain."""

from __future__ import annotations

from typing import Annotated

import typer

from cspprof.cli import options as o
from cspprof.cli.output import Outlet
from cspprof.metrics import METRICS
from cspprof.reference import explain, metric_list, model_list


def models_command(
    format: o.Format = None,
    output: o.Output = None,
    family: Annotated[str | None, typer.Option("--family", help="Only this family.")] = None,
) -> None:
    """The zoo: every network with its native input, paper and status."""
    Outlet(format, output).emit(model_list(family))


def metrics_command(format: o.Format = None, output: o.Output = None) -> None:
    """Every registered number with its unit."""
    Outlet(format, output).emit(metric_list())


def explain_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A number, as in `cspprof metrics`.")],
    format: o.Format = None,
    output: o.Output = None,
) -> None:
    """What a number is, and what it is not."""
    METRICS.get(name)
    Outlet(format, output).emit(explain(name))
