"""The command `convert`: the cross stage partial form of a network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cspprof.analysis.constraints import Constraint, parse_constraint
from cspprof.cli import options as o
from cspprof.cli.completion import complete_metric
from cspprof.cli.output import ReportWriter, print_notes, print_written, write_bytes, writing
from cspprof.cli.profile import check_profile_path
from cspprof.core.errors import CspprofError
from cspprof.core.files import check_replaceable, check_writable
from cspprof.core.inputs import SHOWN, Inputs, parse_inputs
from cspprof.core.literals import is_number
from cspprof.core.units import shortened
from cspprof.csp.conversion.plan import Options
from cspprof.metrics.names import check_metric, resolve_metric
from cspprof.render.matplotlib_chart import check_image_path, save_image
from cspprof.render.registry import IMAGE_SUFFIXES
from cspprof.report.tables import Report, sort_key

if TYPE_CHECKING:
    from cspprof.results import Conversion

MOST_CONVERSIONS = 100


class NoConversionError(CspprofError):
    """No conversion meets a constraint."""

    exit_code = 1


def convert_command(
    spec: o.Spec,
    stages: Annotated[
        str | None, typer.Option("--stages", metavar="A,B", help="Only these stages or modules. Default: all.")
    ] = None,
    gamma: Annotated[
        str, typer.Option("--gamma", metavar="γ", help="The fraction that bypasses the blocks; or 0.25:0.75:0.125.")
    ] = "0.5",
    fusion: Annotated[str, typer.Option("--fusion", metavar="NAMES", help="csp, first, last, or several.")] = "csp",
    split: Annotated[str | None, typer.Option("--split", help="slice or conv. Default: slice.")] = None,
    recipe: Annotated[
        str, typer.Option("--recipe", help="keep leaves the first block of a stage; paper replaces it.")
    ] = "keep",
    multiple: Annotated[
        int, typer.Option("--round", metavar="N", help="Round widths to multiples of N; 1 keeps γ exact.")
    ] = 8,
    where: Annotated[
        list[str] | None, typer.Option("--where", metavar="METRIC<=N", help='A constraint: "macs<=2 G"; repeatable.')
    ] = None,
    minimize: Annotated[
        str,
        typer.Option(
            "--minimize", metavar="METRIC", help="The number by which the best conversion is chosen.",
            autocompletion=complete_metric,
        ),
    ] = "cio_cspnet",
    save: Annotated[
        tuple[Path, Path] | None, typer.Option("--save", metavar="BEFORE AFTER", help="Save both profiles.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE",
            help="net.py: code without cspprof; net.onnx: the graph; x.png: the chart of several γ; or a report.",
        ),
    ] = None,
    format: o.Format = None, input: o.Input = None, dtype: o.Dtype = None, device: o.Device = None,
) -> None:  # fmt: skip
    """Make the stages of a network cross stage partial, and print what that changes.

    Several γ or fusions are compared, and the best one under the constraints is used. Exit code 1: none meets them.
    """
    from cspprof.api import convert
    from cspprof.report.conversion import choice_report, conversion_report

    suffix = output.suffix.lower() if output is not None else ""
    own_file = output if suffix in (".py", ".onnx", *IMAGE_SUFFIXES) else None
    writer = ReportWriter(format, None if own_file else output)
    if own_file is not None and suffix in (".py", ".onnx"):
        _check_network_file(own_file)
    for path in save or ():
        check_profile_path(path)
    constraints = [parse_constraint(text) for text in where or ()]
    minimized = resolve_metric(check_metric(minimize))
    gammas, fusions = _gammas(gamma), [f.strip() for f in fusion.split(",") if f.strip()] or [fusion]
    for options in ((g, f) for f in fusions for g in gammas):  # an error is found before the first conversion
        Options(*options, recipe, split or "", multiple)
    if suffix in IMAGE_SUFFIXES and output is not None:
        _check_picture(output, len(gammas) * len(fusions))
    inputs = parse_inputs(input or (), dtype or "float32")
    names = [s.strip() for s in (stages or "").split(",") if s.strip()]
    if stages is not None and not names:
        raise CspprofError("--stages names no stage", "Write for example: --stages layer2,layer3")
    conversions = [
        convert(spec, inputs, stages=names, gamma=g, fusion=f, split=split, recipe=recipe, multiple=multiple,
                device=device, dtype=dtype)
        for f in fusions for g in gammas
    ]  # fmt: skip
    best = _best(conversions, constraints, minimized)
    several = len(conversions) > 1 and bool(best.converted)
    report = choice_report(conversions, best, minimized, constraints) if several else conversion_report(best)
    writer.write(report)
    if not best.converted:
        print_notes(f"{path} is not written: no stage was converted" for path in (own_file, *(save or ())) if path)
        raise typer.Exit(1)
    if own_file is not None:
        _write_file(best, report, own_file, inputs or best.before.inputs)
    for profile, path in zip((best.before, best.after), save or (), strict=False):
        written = writing(path)
        profile.save(path)
        print_written(written)


def _gammas(text: str) -> list[float]:
    """`0.5`, `0.25,0.5` or `0.25:0.75:0.125`, both ends included. Raises CspprofError."""
    try:
        if not all(is_number(part.strip()) for part in re.split("[:,]", text)):
            raise ValueError
        parts = [float(part) for part in text.split(":")] if ":" in text else []
        if len(parts) in (2, 3):
            first, last, step = (*parts, 0.125)[:3]
            if step <= 0 or last < first or (last - first) / step > MOST_CONVERSIONS:
                raise ValueError
            return [round(first + i * step, 9) for i in range(int((last - first) / step + 1e-9) + 1)]
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise CspprofError(
            f"cannot read --gamma {shortened(text, SHOWN)!r}",
            "Write one value, several or a range: 0.5 or 0.25,0.5 or 0.25:0.75:0.125",
        ) from None


def _check_network_file(path: Path) -> None:
    """Raise OutputError if the code or the graph cannot be written, or would replace a file of another program."""
    check_writable(path)
    if path.suffix.lower() == ".py":
        from cspprof.csp.conversion.source_code import is_own_code as is_own
    else:
        from cspprof.csp.conversion.onnx_export import is_own_onnx as is_own
    check_replaceable(path, is_own)


def _check_picture(path: Path, conversions: int) -> None:
    """Raise CspprofError if there is nothing to compare, and OutputError if the picture cannot be written."""
    if conversions < 2:
        raise CspprofError(
            f"{path.name} would show one conversion only",
            f"Give several γ: --gamma 0.25:0.75:0.125 -o {path.name}; or write a report: -o {path.stem}.html",
        )
    check_image_path(path)


def _best(conversions: list[Conversion], constraints: list[Constraint], minimized: str) -> Conversion:
    """The conversion with the least value that meets all constraints. Raises NoConversionError if none does."""
    converted = [c for c in conversions if c.converted] or conversions
    meeting = [c for c in converted if all(limit.holds(c.after) for limit in constraints)]
    if meeting:
        return min(meeting, key=lambda c: sort_key(c.after.total(minimized), ascending=True))
    nearest = min(converted, key=lambda c: max(limit.excess(c.after) for limit in constraints))
    plan = next((s.plan for s in nearest.stages if s.plan is not None), None)
    options = f" with --gamma {plan.options.gamma:g} --fusion {plan.options.fusion}" if plan else ""
    met = " ".join(f'--where "{limit.met_by(nearest.after)}"' for limit in constraints)
    raise NoConversionError(
        f"no conversion of {nearest.before.model} meets {' and '.join(map(str, constraints))}",
        f"The nearest that is met{options}: {met}",
    )


def _write_file(conversion: Conversion, report: Report, path: Path, inputs: Inputs) -> None:
    """Write the converted network as code or as an ONNX graph, or the chart of the report. Raises OutputError."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        if not report.charts:
            return
        written = writing(path, path.with_suffix(".csv"))
        save_image(report.charts[0], path)
        print_written(written)
    elif path.suffix.lower() == ".py":
        write_bytes(conversion.source().encode(), path)
    else:
        from cspprof.csp.conversion.onnx_export import onnx_graph

        graph = onnx_graph(conversion.model, inputs)
        write_bytes(graph.data, path)
        if graph.not_compared:
            print_notes([f"the outputs of {path} were not compared with those of torch: {graph.not_compared}"])
