"""The command that makes a page to be opened in a browser: report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cspprof.cli import options as o
from cspprof.cli.analyse import measure
from cspprof.cli.output import Outlet
from cspprof.errors import OutputError
from cspprof.views import Breakdown, analysis


def report_command(
    specs: o.Specs,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to: an .html file.")
    ] = Path("report.html"),
    input: o.Input = None, dtype: o.Dtype = None, device: o.Device = None, train: o.Train = False,
    strict: o.Strict = False,
) -> None:  # fmt: skip
    """One page with every number, chart and layer of the models, for a browser; it needs no network and no other file.

    The first model is the base of all changes.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise OutputError(
            f"a report is a page of HTML, {output.name} does not end so",
            f"Write: -o {output.with_suffix('.html').name}. For other formats: cspprof compare SPEC… -o FILE",
        )
    outlet = Outlet("html", output)
    profiles = measure(specs, input, dtype, device, train, strict)
    outlet.emit(analysis("report", profiles, [], "cio_cspnet", Breakdown()))
