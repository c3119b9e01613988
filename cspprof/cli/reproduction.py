"""The command that holds published figures against our own: reproduce."""

from __future__ import annotations

from typing import Annotated

import typer

from cspprof.cli import options as o
from cspprof.cli.output import Outlet, tracked
from cspprof.profiles import profile_spec


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
    """Every published cost figure computed again, beside what is printed; exit code 1 where one no longer comes out."""
    from cspprof.papers.figures import chosen
    from cspprof.papers.reproduction import reproduced, subjects
    from cspprof.report.reproduction import reproduction_report
    from cspprof.sources import Request

    outlet, tables = Outlet(format, output), chosen(name)
    profiles = {s: profile_spec(s.spec, Request(inputs=s.input), cache=True) for s in tracked(subjects(tables))}
    found = reproduced(tables, profiles)
    outlet.emit(reproduction_report(found))
    if found.broken:
        raise typer.Exit(1)
