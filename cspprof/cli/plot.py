"""The command that draws: plot."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cspprof.cli import options as o
from cspprof.cli.output import Outlet
from cspprof.cli.profile import measure
from cspprof.core.units import shape
from cspprof.render import asked_by
from cspprof.render.figure import check_picture, inches, save
from cspprof.report.bottleneck import picture
from cspprof.report.charts import CHARTS, draw

Kind = Annotated[str, typer.Argument(metavar="KIND", help="One of: " + ", ".join(CHARTS) + ".", show_default=False)]
Specs = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SPEC...]", help="Models, as for every command. Unless named: those of the paper.",
                   show_default=False),
]  # fmt: skip
Width = Annotated[
    str, typer.Option("--width", metavar="INCHES", help="Of a picture: inches, or column (3.4), page (7).")
]
Hardware = Annotated[
    list[str] | None,
    typer.Option("--hardware", metavar="NAME", help="Of roofline: gtx1080ti, i9-9900k, jetson-tx2 … or "
                 "name:peak_gmacs:gb_per_s; repeat for more roofs."),
]  # fmt: skip


def plot_command(
    kind: Kind, specs: Specs = None, format: o.Format = None, output: o.Output = None, width: Width = "column",
    input: o.Input = None, dtype: o.Dtype = None, device: o.Device = None, train: o.Train = False,
    strict: o.Strict = False,
    metric: Annotated[str | None, typer.Option("--metric", help="The number that is drawn.")] = None,
    top: Annotated[int | None, typer.Option("--top", min=1, metavar="N", help="Of bottleneck: so many layers.")] = None,
    x: Annotated[str | None, typer.Option("--x", metavar="METRIC", help="Of pareto: a number, top1 or top5.")] = None,
    y: Annotated[str | None, typer.Option("--y", metavar="METRIC", help="Of pareto: a number, top1 or top5.")] = None,
    hardware: Hardware = None,
    c: Annotated[int | None, typer.Option("--c", help="Of closed-form: channels of the base layer.")] = None,
    m: Annotated[int | None, typer.Option("--m", help="Of closed-form: dense layers.")] = None,
    d: Annotated[int | None, typer.Option("--d", help="Of closed-form: growth rate.")] = None,
) -> None:  # fmt: skip
    """A picture (-o x.png, .svg or .pdf, with x.csv of what it shows beside it), or bars in the terminal."""
    entry = CHARTS.get(kind)
    given = {"metric": metric, "top": top, "x": x, "y": y, "hardware": hardware, "c": c, "m": m, "d": d}
    options = {name: value for name, value in given.items() if value}
    chosen = entry.specs(specs or ())
    entry.check(len(chosen), options)
    inches(width)
    drawn = output is not None and format is None and asked_by(output) is None
    if output is not None and drawn:
        check_picture(output)
    outlet = None if drawn else Outlet(format, output)
    native = [shape(entry.traced_on)] if entry.traced_on and not specs else None
    with entry.tried(specs or ()):
        profiles = measure(chosen, input or native, dtype, device, train, strict)
    chart = draw(kind, profiles, **options)
    if outlet is not None:
        outlet.emit(picture(chart, profiles))
    elif output is not None:
        save(chart, output, width)
        for note in picture(chart, profiles).notes:
            print(f"note: {note}", file=sys.stderr)


plot_command.__doc__ = "\n\n".join(
    [str(plot_command.__doc__), *(f"    {kind}: {entry.summary}" for kind, entry in CHARTS.items())]
)
