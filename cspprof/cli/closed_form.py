"""The command about formulas: closed-form."""

from __future__ import annotations

from typing import Annotated

import typer

from cspprof.cli import options as o
from cspprof.cli.output import Outlet
from cspprof.core.errors import CspprofError


def _size(name: str, help: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(f"--{name}", min=1, metavar="N", help=help)
    return option


def closed_form_command(
    form: Annotated[
        str, typer.Argument(metavar="FORM", help="A form, as in `cspprof closed-form --list`.")
    ] = "dense",
    format: o.Format = None, output: o.Output = None,
    every: Annotated[bool, typer.Option("--list", help="List the forms and their parameters.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Write formulas as LaTeX source.")] = False,
    over: Annotated[
        str | None, typer.Option("--over", metavar="gamma|ratio|m", help="The saving along γ, c/(m·d) or m.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Build that block, trace it, compare layer by layer; exit 1 if they differ.")
    ] = False,
    c: Annotated[int | None, _size("c", "Channels of the base layer.")] = None,
    m: Annotated[int | None, _size("m", "Layers or blocks.")] = None,
    d: Annotated[int | None, _size("d", "Growth rate.")] = None,
    h: Annotated[int | None, _size("h", "Height of the map. Default: as --w, else 1.")] = None,
    w: Annotated[int | None, _size("w", "Width of the map. Default: as --h, else 1.")] = None,
    gamma: Annotated[
        str | None, typer.Option("--gamma", metavar="FRACTION", help="Bypassed fraction: 0.25 or 1/4. Default: 1/2.")
    ] = None,
    a: Annotated[int | None, _size("a", "Channels that the first block of a stage reads.")] = None,
    b: Annotated[int | None, _size("b", "Width of the bottleneck.")] = None,
    g: Annotated[int | None, _size("g", "Groups.")] = None,
    q: Annotated[int | None, _size("q", "Width of a two-way layer's 1×1, in halves of d.")] = None,
    r: Annotated[float | None, typer.Option("--r", metavar="X", help="Multiplier of harmonic widths.")] = None,
    s: Annotated[int | None, _size("s", "Stride.")] = None,
    t: Annotated[int | None, _size("t", "Channels of the dense path's transition.")] = None,
    o_: Annotated[int | None, _size("o", "Channels of the last transition.")] = None,
) -> None:  # fmt: skip
    """CIO, MACs and weights of a block as a formula, derived layer by layer, and what its partial twin saves.

    In symbols; with numbers (--c 256 --m 24 --d 32) their value; --over draws the saving as a curve; --check holds the
    formula against the trace of that block.
    """
    from cspprof.api import check_closed_form
    from cspprof.csp.closed_form import FORMS
    from cspprof.csp.closed_form.numbers import block
    from cspprof.report import closed_form, closed_form_numbers

    outlet = Outlet(format, output)
    numbers = {
        "c": c, "m": m, "d": d, "h": h, "w": w, "gamma": gamma, "a": a, "b": b, "g": g, "q": q, "r": r, "s": s, "t": t,
        "o": o_,
    }  # fmt: skip
    given = {name: value for name, value in numbers.items() if value is not None}
    if every:
        outlet.emit(closed_form.form_list())
        return
    found = FORMS.get(form)
    if check and over:
        raise CspprofError("--check is of one block, --over of many", "Give one of them.")
    if latex and (over or check or set(given) - {"gamma", "m"}):
        raise CspprofError("--latex writes formulas, and these are numbers", "Leave the numbers out.")
    if over:
        outlet.emit(closed_form_numbers.curve_report(over, found, given))  # type: ignore[arg-type]
    elif check:
        result = check_closed_form(block(found, given))
        outlet.emit(closed_form_numbers.check_report(result))
        if not result.agrees:
            raise typer.Exit(1)
    elif set(given) - {"gamma"} - ({"m"} if found.by_number else set()):
        outlet.emit(closed_form_numbers.block_report(found, given))
    else:
        outlet.emit(closed_form.derivation_report(found, m, gamma or "1/2", latex))
