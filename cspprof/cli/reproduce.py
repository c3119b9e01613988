"""The command `reproduce`: published figures, computed again."""

from __future__ import annotations

from typing import Annotated

import typer

from cspprof.cli import options as o
from cspprof.cli.output import ReportWriter, with_progress_bar
from cspprof.papers.published import tables_named
from cspprof.papers.reproduction import networks_of, reproduce_tables
from cspprof.profiles import profile_spec
from cspprof.report.reproduction import reproduction_report
from cspprof.sources import Request


def reproduce_command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="TABLE|FIGURE|all",
            help="table1, table3, fig7, fig8, hardnet-table4, prn, closed-form or memory.",
        ),
    ] = "all",
    format: o.Format = None,
    output: o.Output = None,
) -> None:
    """Compute every published cost figure and print it beside the published value.

    The exit code is 1 if a figure that reproduced before no longer does, or if the reason of a difference is unknown.
    """
    writer, tables = ReportWriter(format, output), tables_named(name)
    networks = with_progress_bar(networks_of(tables))
    records = {n: profile_spec(n.spec, Request(inputs=n.input), cache=True) for n in networks}
    reproduction = reproduce_tables(tables, records)
    writer.write(reproduction_report(reproduction))
    if reproduction.broken:
        raise typer.Exit(1)
