"""The command `reproduce`: published figures, computed again."""

from __future__ import annotations

from typing import Annotated

import typer

from cspprof.cli import options as o
from cspprof.cli.output import ReportWriter, with_progress_bar
from cspprof.papers.figures import chosen
from cspprof.papers.reproduction import reproduced, subjects
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

    The exit code is 1 if a figure no longer comes out as recorded, or does not come out and no reason is known.
    """
    writer, tables = ReportWriter(format, output), chosen(name)
    needed = with_progress_bar(subjects(tables))
    records = {s: profile_spec(s.spec, Request(inputs=s.input), cache=True) for s in needed}
    reproduction = reproduced(tables, records)
    writer.write(reproduction_report(reproduction))
    if reproduction.broken:
        raise typer.Exit(1)
