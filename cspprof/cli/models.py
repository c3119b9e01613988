"""The commands `models`, `metrics` and `explain`: the zoo, and the definitions of metrics."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Annotated

import typer

from cspprof.cli import options as o
from cspprof.cli.completion import complete_explained, complete_spec
from cspprof.cli.output import ReportWriter, with_progress_bar
from cspprof.cli.specs import profile_one
from cspprof.core.errors import CspprofError, UnknownNameError
from cspprof.metrics import METRICS
from cspprof.profiles import profile_spec
from cspprof.report.catalog import (
    explain_conventions,
    explain_gamma,
    explain_metric,
    metrics_report,
    network_papers_report,
    network_record,
    network_totals_report,
)
from cspprof.report.tables import Report
from cspprof.storage.profile_file import packaged_resnet50
from cspprof.zoo import ModelEntry, catalog


def models_command(
    format: o.Format = None,
    output: o.Output = None,
    family: Annotated[str | None, typer.Option("--family", help="Only this family.")] = None,
    sort: o.Sort = None,
    ascending: o.Ascending = False,
    papers: Annotated[
        bool, typer.Option("--papers", help="Show the paper of each network instead of totals; no network is traced.")
    ] = False,
) -> None:
    """List the zoo: every network with its status and its totals at its native input, or with its paper."""
    writer = ReportWriter(format, output)
    if sort is not None:
        sort = METRICS.get(sort).name
    elif ascending:
        raise CspprofError("--ascending needs a metric to sort by", "Write for example: --sort moc --ascending")
    if papers and sort is not None:
        raise CspprofError("--papers traces no network, so --sort has no values", "Use one of them.")
    networks = _networks(family)
    if papers:
        writer.write(network_papers_report([network_record(e) for e in networks]))
        return
    traced = [
        network_record(e, profile_spec(e.name, cache=True), [sort] if sort else []) for e in with_progress_bar(networks)
    ]
    writer.write(network_totals_report(traced, sort, ascending))


def _networks(family: str | None) -> list[ModelEntry]:
    """The networks of the zoo, or of one family, by family and name. Raises UnknownNameError."""
    entries = sorted((e for _, e in catalog().items()), key=lambda e: (e.family, e.name))
    families = sorted({e.family for e in entries})
    if family is not None and family not in families:
        raise UnknownNameError(f"no family named {family!r}", f"Families: {', '.join(families)}")
    return [e for e in entries if family in (None, e.family)]


def metrics_command(format: o.Format = None, output: o.Output = None) -> None:
    """List every metric with its unit and definition."""
    ReportWriter(format, output).write(metrics_report())


def explain_command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A metric (cspprof metrics), a convention, or: conventions, closed-form, gamma.",
            show_default=False,
            autocompletion=complete_explained,
        ),
    ],
    format: o.Format = None,
    output: o.Output = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="SPEC",
            help="For conventions: the model to count. Default: ResNet-50.",
            autocompletion=complete_spec,
        ),
    ] = None,
    input: o.Input = None,
    device: o.Device = None,
) -> None:
    """Define a metric. `explain conventions` shows why tools differ, `explain gamma` what a CSP network splits."""
    writer = ReportWriter(format, output)
    if name == "conventions":
        profile = packaged_resnet50() if model is None else profile_one(model, input, device)
        writer.write(explain_conventions(profile))
        return
    if name not in TOPICS:
        _check_metric(name)
    if model is not None or input or device is not None:
        raise CspprofError(
            f"the definition of {name} does not depend on a model", "Write: cspprof explain conventions --model SPEC"
        )
    writer.write(TOPICS[name]() if name in TOPICS else explain_metric(name))


def _check_metric(name: str) -> None:
    """Raise UnknownNameError for an unknown metric. The hint names a topic if one is closer than any metric."""
    try:
        METRICS.get(name)
    except UnknownNameError as error:
        near = get_close_matches(name, [*TOPICS, "conventions"], n=1, cutoff=0.75)
        if not near:
            raise
        raise UnknownNameError(error.message, f"Did you mean: {near[0]}?") from None


def _explain_closed_form() -> Report:
    from cspprof.report.closed_form import explain_closed_form  # imports sympy

    return explain_closed_form()


TOPICS: dict[str, Callable[[], Report]] = {"closed-form": _explain_closed_form, "gamma": explain_gamma}
"""Names besides metrics and conventions that `explain` accepts."""
