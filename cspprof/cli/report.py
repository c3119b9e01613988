"""The command that makes a page to be opened in a browser: report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cspprof.cli import options as o
from cspprof.cli.output import Outlet
from cspprof.cli.profile import measure
from cspprof.core.errors import OutputError
from cspprof.render.page import is_page
from cspprof.report.profile import Breakdown, analysis

USUAL = Path("report.html")


def report_command(
    specs: o.Specs,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to: an .html file. Unless given: "
                                  "report.html, if that is not somebody else's.")
    ] = None,
    input: o.Input = None, dtype: o.Dtype = None, device: o.Device = None, train: o.Train = False,
    strict: o.Strict = False,
) -> None:  # fmt: skip
    """One page with every number, chart and layer of the models, for a browser; it needs no network and no other file.

    The first model is the base of all changes.
    """
    if output is None:
        output = USUAL
        if output.exists() and not is_page(output):
            raise OutputError(f"{output} is there and is no report of cspprof", "Say where to: -o FILE")
    if output.suffix.lower() not in (".html", ".htm"):
        raise OutputError(
            f"a report is a page of HTML, {output.name} does not end so",
            f"Write: -o {output.with_suffix('.html').name}. For other formats: cspprof compare SPEC… -o FILE",
        )
    outlet = Outlet("html", output)
    profiles = measure(specs, input, dtype, device, train, strict)
    again = output.exists()
    outlet.emit(analysis("report", profiles, [], "cio_cspnet", Breakdown()))
    print(f"{'wrote over' if again else 'wrote'} {output}", file=sys.stderr)
