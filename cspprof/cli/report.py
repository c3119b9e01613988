"""The command `report`: an HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cspprof.analysis.headline import headline
from cspprof.cli import options as o
from cspprof.cli.output import ReportWriter
from cspprof.cli.specs import profile_specs
from cspprof.core.errors import OutputError
from cspprof.report.layer_tables import Breakdown
from cspprof.report.profile import profile_report

DEFAULT_PATH = Path("report.html")


def report_command(
    specs: o.Specs,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="An .html file. Default: report.html. A file "
                                  "of another program is not replaced.")
    ] = None,
    input: o.Input = None, dtype: o.Dtype = None, device: o.Device = None, train: o.Train = False,
    strict: o.Strict = False,
) -> None:  # fmt: skip
    """Write one HTML page with every metric, chart and layer of the models. It needs no network and no other file.

    Changes are relative to the first model.
    """
    output = output or DEFAULT_PATH
    if output.suffix.lower() not in (".html", ".htm"):
        raise OutputError(
            f"a report is an HTML page, and the name {output.name} does not end in .html",
            f"Write: -o {output.with_suffix('.html').name}. For other formats: cspprof compare SPEC… -o FILE",
        )
    writer = ReportWriter("html", output)
    profiles = profile_specs(specs, input, dtype, device, train, strict)
    writer.write(profile_report("report", profiles, [], headline(profiles), Breakdown()))
