"""The command `plot`: charts as image files, or as bars in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from cspprof.cli import options as o
from cspprof.cli.completion import complete_axis, complete_hardware, complete_kind, complete_metric, complete_spec
from cspprof.cli.output import ReportWriter, print_notes, print_written, writing
from cspprof.cli.specs import profile_specs
from cspprof.core.units import shape
from cspprof.render import format_of
from cspprof.render.matplotlib_chart import check_image_path, save_image, width_in_inches
from cspprof.report.charts import CHARTS, chart_report, draw

Kind = Annotated[
    str,
    typer.Argument(
        metavar="KIND", help="One of: " + ", ".join(CHARTS) + ".", show_default=False, autocompletion=complete_kind
    ),
]
Specs = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SPEC...]", help="Models, as in cspprof profile SPEC. Default: those of the paper.",
                   autocompletion=complete_spec,
                   show_default=False),
]  # fmt: skip
Width = Annotated[str, typer.Option("--width", metavar="INCHES", help="Inches, or column (3.4), or page (7).")]
Hardware = Annotated[
    list[str] | None,
    typer.Option("--hardware", metavar="NAME", help="For roofline: gtx1080ti, i9-9900k, jetson-tx2 … or "
                 "name:peak_gmacs:gb_per_s; repeat for more.", autocompletion=complete_hardware),
]  # fmt: skip


def plot_command(
    kind: Kind, specs: Specs = None, format: o.Format = None, output: o.Output = None, width: Width = "column",
    input: o.Input = None, dtype: o.Dtype = None, device: o.Device = None, train: o.Train = False,
    strict: o.Strict = False,
    metric: Annotated[
        str | None, typer.Option("--metric", help="The metric to draw.", autocompletion=complete_metric)
    ] = None,
    top: Annotated[
        int | None, typer.Option("--top", min=1, metavar="N", help="For bottleneck: the number of layers.")
    ] = None,
    x: Annotated[
        str | None,
        typer.Option(
            "--x", metavar="METRIC", help="For pareto: a metric, top1 or top5.", autocompletion=complete_axis
        ),
    ] = None,
    y: Annotated[
        str | None,
        typer.Option(
            "--y", metavar="METRIC", help="For pareto: a metric, top1 or top5.", autocompletion=complete_axis
        ),
    ] = None,
    hardware: Hardware = None,
    c: Annotated[int | None, typer.Option("--c", help="For closed-form: channels of the base layer.")] = None,
    m: Annotated[int | None, typer.Option("--m", help="For closed-form: dense layers.")] = None,
    d: Annotated[int | None, typer.Option("--d", help="For closed-form: growth rate.")] = None,
    training: Annotated[
        bool, typer.Option("--training", help="For memory: forward and backward pass of a training step.")
    ] = False,
    optimizer: o.Optimizer = None,
) -> None:  # fmt: skip
    """Draw a chart: an image (-o x.png, .svg or .pdf) with its data beside it in x.csv, or bars in the terminal."""
    entry = CHARTS.get(kind)
    values = {"metric": metric, "top": top, "x": x, "y": y, "hardware": hardware, "c": c, "m": m, "d": d,
              "training": training, "optimizer": optimizer}  # fmt: skip
    options = {name: value for name, value in values.items() if value}
    chosen = entry.specs(specs or ())
    entry.check(len(chosen), options)
    width_in_inches(width)
    is_image = output is not None and format is None and format_of(output) is None
    if output is not None and is_image:
        check_image_path(output)
    writer = None if is_image else ReportWriter(format, output)
    default_input = [shape(entry.traced_on)] if entry.traced_on and not specs else None
    with entry.explain_variants(specs or ()):
        profiles = profile_specs(chosen, input or default_input, dtype, device, train, strict, training)
    chart = draw(kind, profiles, **options)
    if writer is not None:
        writer.write(chart_report(chart, profiles))
    elif output is not None:
        written = writing(output, output.with_suffix(".csv"))
        save_image(chart, output, width)
        print_written(written)
        print_notes(chart_report(chart, profiles).notes)


plot_command.__doc__ = "\n\n".join(
    [str(plot_command.__doc__), *(f"    {kind}: {entry.summary}" for kind, entry in CHARTS.items())]
)
