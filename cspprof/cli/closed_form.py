"""The command `closed-form`: the cost of a block as a formula."""

from __future__ import annotations

from typing import Annotated

import typer

from cspprof.api import check_closed_form
from cspprof.cli import options as o
from cspprof.cli.output import ReportWriter
from cspprof.core.errors import CspprofError


def _size(name: str, help: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(f"--{name}", min=1, metavar="N", help=help)
    return option


def closed_form_command(
    form: Annotated[
        str | None,
        typer.Argument(metavar="FORM", help="A block, as in cspprof closed-form --list. Default: dense, which is shown "
                       "with its partial twin.", show_default=False),
    ] = None,
    format: o.Format = None, output: o.Output = None,
    every: Annotated[bool, typer.Option("--list", help="List the blocks and their parameters.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Write formulas as LaTeX source.")] = False,
    over: Annotated[
        str | None, typer.Option("--over", metavar="gamma|ratio|m", help="Draw the saving over γ, c/(m·d) or m.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare the formula with a trace of the block; exit 1 if a layer differs.")
    ] = False,
    c: Annotated[int | None, _size("c", "Channels of the base layer.")] = None,
    m: Annotated[int | None, _size("m", "Layers or blocks.")] = None,
    d: Annotated[int | None, _size("d", "Growth rate.")] = None,
    h: Annotated[int | None, _size("h", "Height of the feature map. Default: --w, or 1.")] = None,
    w: Annotated[int | None, _size("w", "Width of the feature map. Default: --h, or 1.")] = None,
    gamma: Annotated[
        str | None, typer.Option("--gamma", metavar="FRACTION", help="Bypassed fraction: 0.25 or 1/4. Default: 1/2.")
    ] = None,
    a: Annotated[int | None, _size("a", "Input channels of the first block of a stage.")] = None,
    b: Annotated[int | None, _size("b", "Channels of the bottleneck.")] = None,
    g: Annotated[int | None, _size("g", "Groups.")] = None,
    q: Annotated[int | None, _size("q", "Channels of a two-way layer's 1×1 convolution, in units of d/2.")] = None,
    r: Annotated[float | None, typer.Option("--r", metavar="X", help="Channel multiplier of harmonic layers.")] = None,
    s: Annotated[int | None, _size("s", "Stride.")] = None,
    t: Annotated[int | None, _size("t", "Output channels of the dense path's transition.")] = None,
    o_: Annotated[int | None, _size("o", "Output channels of the last transition.")] = None,
) -> None:  # fmt: skip
    """Derive the CIO, MACs and weights of a block as formulas, layer by layer, and what its partial twin saves.

    Without numbers the result is symbolic; with numbers (--c 256 --m 24 --d 32) it is their value. --over draws the
    saving as a curve. --check compares the formula with a trace of the block.
    """
    from cspprof.csp.closed_form import CLOSED_FORMS, sized_block  # imports sympy
    from cspprof.report import closed_form, closed_form_numbers

    writer = ReportWriter(format, output)
    options = {
        "c": c, "m": m, "d": d, "h": h, "w": w, "gamma": gamma, "a": a, "b": b, "g": g, "q": q, "r": r, "s": s, "t": t,
        "o": o_,
    }  # fmt: skip
    numbers = {name: value for name, value in options.items() if value is not None}
    if every:
        writer.write(closed_form.form_list())
        return
    block_form = CLOSED_FORMS.get(form or "dense")
    if check and over:
        raise CspprofError("--check needs one block, --over draws many", "Use one of them.")
    if latex and (over or check or set(numbers) - {"gamma", "m"}):
        raise CspprofError("--latex writes formulas, not values", "Remove the numbers, --over and --check.")
    if over:
        writer.write(closed_form_numbers.curve_report(over, block_form, numbers))  # type: ignore[arg-type]
    elif check:
        if form is None and "gamma" in numbers:
            block_form = CLOSED_FORMS.get("partial")
        result = check_closed_form(sized_block(block_form, numbers))
        writer.write(closed_form_numbers.check_report(result))
        if not result.agrees:
            raise typer.Exit(1)
    elif set(numbers) - {"gamma"} - ({"m"} if block_form.needs_depth else set()):
        writer.write(closed_form_numbers.block_report(block_form, numbers))
    else:
        writer.write(closed_form.derivation_report(block_form, m, gamma or "1/2", latex))
