"""The command `audit`: how the printed numbers of a paper's table were counted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cspprof.api import audit_paper_table
from cspprof.cli import options as o
from cspprof.cli.output import ReportWriter, with_progress_bar
from cspprof.core.errors import OutputError
from cspprof.papers.paper_table import read_paper_table
from cspprof.report.audit import audit_report


def audit_command(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE.csv|example",
            help="A CSV file with a line per network: model or spec, input, and printed costs, such as params (M), "
            "FLOPs (G), CIO (M), memory (MB). example: a part of Table 3 of the CSPNet paper.",
            show_default=False,
        ),
    ],
    size: Annotated[
        str | None, typer.Option("--size", metavar="SIZE", help="The input size of rows without one: 224, 224x320.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", metavar="COLUMN", help="Leave out this column; repeat for more.")
    ] = None,
    format: o.Format = None,
    output: o.Output = None,
) -> None:
    """Find the rule and the input size under which each printed number of a paper's table comes out.

    A number that no rule explains is shown with the nearest one. Notes name the rows and columns that mix rules or
    input sizes. The exit code is 0 if every number comes out, 1 if one does not, and 2 if one cannot be computed.
    """
    writer = ReportWriter(format, output)
    if output is not None and output.exists() and table.exists() and output.samefile(table):
        raise OutputError(f"{output} is the table itself", "Name another file: -o audit.csv")
    result = audit_paper_table(read_paper_table(table, size, ignore or ()), with_progress_bar)
    writer.write(audit_report(result))
    if not result.explained:
        raise typer.Exit(2 if result.unknown else 1)
