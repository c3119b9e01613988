"""Commands that tell what cspprof knows: models, metrics, explain."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Annotated, Any

import typer

from cspprof.cli import options as o
from cspprof.cli.output import Outlet, tracked
from cspprof.cli.profile import measure
from cspprof.core.errors import CspprofError, UnknownNameError
from cspprof.metrics import METRICS
from cspprof.report.catalog import (
    example,
    explain,
    explain_conventions,
    explain_gamma,
    metric_list,
    model_list,
    model_totals,
    network_record,
    zoo_networks,
)
from cspprof.report.tables import Report


def models_command(
    format: o.Format = None,
    output: o.Output = None,
    family: Annotated[str | None, typer.Option("--family", help="Only this family.")] = None,
    sort: o.Sort = None,
    papers: Annotated[bool, typer.Option("--papers", help="Where each comes from; nothing is traced.")] = False,
) -> None:
    """The zoo: every network with its totals at its native input and its status, or with its paper."""
    outlet = Outlet(format, output)
    if sort is not None:
        METRICS.get(sort)
    if papers:
        if sort is not None:
            raise CspprofError("--papers traces nothing that --sort could compare", "Give one of them.")
        outlet.emit(model_list(_listed(family)))
        return
    outlet.emit(model_totals(_traced(family), sort))


def _listed(family: str | None) -> list[dict[str, Any]]:
    return [network_record(e) for e in zoo_networks(family)]


def _traced(family: str | None) -> list[dict[str, Any]]:
    from cspprof.profiles import profile_spec

    return [network_record(e, profile_spec(e.name, cache=True)) for e in tracked(zoo_networks(family))]


def metrics_command(format: o.Format = None, output: o.Output = None) -> None:
    """Every registered number with its unit."""
    Outlet(format, output).emit(metric_list())


def explain_command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A number (cspprof metrics), conventions, closed-form or gamma.", show_default=False
        ),
    ],
    format: o.Format = None,
    output: o.Output = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="SPEC", help="With conventions: of this model, not of ResNet-50.")
    ] = None,
    input: o.Input = None,
) -> None:
    """What a number is, and what it is not; `explain conventions`: why tools differ; `explain gamma`: the split."""
    if name == "conventions":
        outlet = Outlet(format, output)
        profile = example() if model is None else measure([model], input, None, "meta", False, False)[0]
        outlet.emit(explain_conventions(profile))
        return
    if name not in TOPICS:
        _check_number(name)
    if model is not None or input:
        raise CspprofError(
            f"the definition of {name} is of no model", "Write: cspprof explain conventions --model SPEC"
        )
    outlet = Outlet(format, output)
    outlet.emit(TOPICS[name]() if name in TOPICS else explain(name))


def _check_number(name: str) -> None:
    """Raise UnknownNameError for what is no number; a name near a topic's is led there."""
    try:
        METRICS.get(name)
    except UnknownNameError as error:
        near = get_close_matches(name, [*TOPICS, "conventions"], n=1, cutoff=0.75)
        if not near:
            raise
        raise UnknownNameError(error.message, f"Did you mean: {near[0]}?") from None


def _explain_closed_form() -> Report:
    from cspprof.report.closed_form import explain_closed_form

    return explain_closed_form()


TOPICS: dict[str, Callable[[], Report]] = {"closed-form": _explain_closed_form, "gamma": explain_gamma}
"""What `explain` knows besides the numbers."""
