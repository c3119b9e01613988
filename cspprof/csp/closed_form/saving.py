"""What the partial twin of a block saves: as an expression, in its limits, along a curve, and on real stages.

The saving is the part of the plain block's CIO that its twin does not move. In the paper's words it is "up to one
half" for γ = 1/2 (CSPNet, Wang et al. 2019, section 3): that is the limit for c ≫ m·d.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, Literal, get_args

import sympy
from sympy import Expr, Symbol

from cspprof.core.errors import CspprofError
from cspprof.csp.closed_form.forms import FORMS, PARAMETERS, Form, pair, total
from cspprof.csp.closed_form.layers import c, d, m, rho
from cspprof.csp.closed_form.numbers import Block, Given, block, check_range, completed, fits, gamma_of, nearest
from cspprof.papers.dense_networks import NETWORKS

Axis = Literal["gamma", "ratio", "m"]
RATIOS = tuple(Fraction(n) for n in ("1/16", "1/8", "1/4", "1/2", "1", "2", "4", "8", "16", "32", "64"))
POINTS = 16


def twins(form: Form) -> tuple[Form, Form]:
    """The plain form and the partial one. Raises CspprofError where there is no pair."""
    found = pair(form)
    if found is None:
        raise CspprofError(
            f"{form.name} has no partial twin to save against", "Forms with one: cspprof closed-form --list"
        )
    return found


@cache
def saving(form: Form, depth: int | None = None) -> Expr:
    """1 − CIO(partial) / CIO(plain), in the symbols of the form; `depth` is needed where the form is of one m."""
    plain, partial = (total(f, "cio_cspnet", depth) for f in twins(form))
    return sympy.cancel(1 - partial / plain)


def saved(gamma: float, *, form: str = "dense", **numbers: float) -> float:
    """The saving as the formula alone gives it: any real γ, c, m and d, whether such a block exists or not."""
    values = {PARAMETERS[name][0]: sympy.sympify(value) for name, value in {**numbers, "gamma": gamma}.items()}
    return float(saving(FORMS.get(form)).xreplace(values))


@dataclass(frozen=True, slots=True)
class Limit:
    """Where the saving tends to."""

    symbol: Symbol
    value: Expr


def limits(expr: Expr) -> list[Limit]:
    """The saving for c → ∞, for d → ∞ and for m → ∞, of these the ones that it depends on."""
    return [Limit(x, sympy.limit(expr, x, sympy.oo)) for x in (c, d, m) if expr.has(x)]


def by_ratio(expr: Expr) -> Expr | None:
    """The saving with c = ρ·m·d put in; None where it is no function of γ, ρ and m alone."""
    if not expr.has(d):
        return None
    found = sympy.cancel(expr.subs(c, rho * m * d))
    return None if found.has(d) else found


def saving_curve(over: Axis, *, form: str = "dense", **given: Any) -> list[dict[str, Any]]:
    """The saving over γ, over c/(m·d) or over m: one record a point, in rising order.

    `given` are the form's parameters by name (c, m, d, gamma, …); the one varied need not be among them, and is a point
    of its own where it is. γ is 1/2 unless given. Every point is a block that exists: where γ·c would be no whole
    number of channels, the nearest γ (over γ) or c (over the ratio) is taken, and the record says which.

    A record holds `gamma`, `c`, `m`, `d`, `ratio` (None for a form without d), the exact CIO `plain` and `partial` in
    elements, `saving` (a fraction), and `given` (whether it is the point asked for).

    Raises CspprofError for an unknown axis or form, for a form without a twin, and for numbers that no block has.
    """
    plain, partial = twins(FORMS.get(form))
    if over not in get_args(Axis):
        raise CspprofError(f"cannot vary {over}", f"Vary one of: {', '.join(get_args(Axis))}")
    if over == "ratio" and "d" not in plain.takes:
        raise CspprofError(f"{plain.name} has no growth rate, so no c/(m·d)", "Vary one of: gamma, m")
    given = {name: value for name, value in given.items() if value is not None}
    name = "c" if over == "ratio" else over
    asked = given.get(name)
    start = _start(partial, over, given)
    check_range(start)
    points = {_point(start, name, value) for value in _targets(over, start, asked)}
    exist = sorted(p for p in points if p is not None)
    asked_for = block(partial, start.numbers).numbers[name] if asked is not None or not exist else None
    records = []
    for value in exist:
        made = Block(partial, {**start.numbers, name: sympy.sympify(value)})
        records.append({"form": plain.name, "over": over, **_record(made, plain), "given": value == asked_for})
    return records


def _start(partial: Form, over: Axis, given: Given) -> Block:
    """The block whose one parameter is varied."""
    stand_in = {"gamma": "1/2", "m": 32, "ratio": 1}[over]
    name = "c" if over == "ratio" else over
    return Block(partial, completed(partial, {name: stand_in, **given}))


def _targets(over: Axis, start: Block, asked: Any) -> list[int | Fraction]:
    own = [] if asked is None else [asked]
    if over == "gamma":
        return [*(Fraction(n, POINTS) for n in range(1, POINTS)), *map(gamma_of, own)]
    size = int(start.numbers["m"])
    if over == "ratio":
        return [max(round(r * size * int(start.numbers["d"])), 1) for r in RATIOS] + own
    last = max(size, POINTS)
    return [max(round(Fraction(last * n, POINTS)), 1) for n in range(POINTS + 1)] + own


def _point(start: Block, name: str, wanted: int | Fraction) -> int | Fraction | None:
    """The value that takes the place of `wanted`: channels and their fractions may have to move, m never."""
    if name == "m":
        at = Block(start.form, {**start.numbers, name: sympy.Integer(int(wanted))})
        return wanted if fits(at) else None
    found = nearest(start, name, wanted if name == "gamma" else int(wanted))
    return found[0] if found else None


def _record(made: Block, plain: Form) -> dict[str, Any]:
    numbers = made.numbers
    whole = Block(plain, {name: numbers[name] for name in plain.takes}).total("cio_cspnet")
    partial = made.total("cio_cspnet")
    whole_numbers = {name: int(numbers[name]) if name in numbers else None for name in ("c", "m", "d")}
    return {
        "gamma": float(numbers["gamma"]),
        "gamma_exact": str(numbers["gamma"]),
        **whole_numbers,
        "ratio": int(numbers["c"]) / (int(numbers["m"]) * int(numbers["d"])) if "d" in numbers else None,
        "plain": whole,
        "partial": partial,
        "saving": float(1 - Fraction(partial, whole)),
    }


def real_stages(gamma_value: Any = "1/2") -> list[dict[str, Any]]:
    """What the stages of real networks would save: by the paper's form, which counts one convolution a layer, and with
    all convolutions that their layers have. One record a stage; None where the stage cannot be split so, or where the
    form of its layers does not hold."""
    gamma_of(gamma_value)
    records = []
    for network in NETWORKS.values():
        for n, stage in enumerate(network.stages(), 1):
            size = {"c": stage.c, "m": stage.m, "d": stage.d}
            own = size if stage.q is None else {**size, "q": stage.q}
            records.append({
                "network": network.name, "stage": n, **size, "ratio": stage.c / (stage.m * stage.d),
                "saving": _saved("dense", size, gamma_value), "own_form": network.form,
                "own_saving": _saved(network.form, own, gamma_value),
            })  # fmt: skip
    return records


def _saved(name: str, numbers: dict[str, int], gamma_value: Any) -> float | None:
    plain, partial = twins(FORMS.get(name))
    made = Block(partial, completed(partial, {**numbers, "gamma": gamma_value}))
    return _record(made, plain)["saving"] if fits(made) else None
