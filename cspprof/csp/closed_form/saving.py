"""The part of a block's CIO that its partial twin saves: as an expression, its limits, along a curve, and for the
stages of real networks.

"Up to one half" for γ = 1/2 (CSPNet, Wang et al. 2019, section 3) is the limit for c ≫ m·d.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, Literal, get_args

import sympy
from sympy import Expr, Symbol

from cspprof.core.errors import CspprofError
from cspprof.csp.closed_form.forms import CLOSED_FORMS, PARAMETERS, ClosedForm, plain_and_partial, total_cost
from cspprof.csp.closed_form.layers import c, d, m, rho
from cspprof.csp.closed_form.sized_block import (
    Numbers,
    SizedBlock,
    check_range,
    is_valid,
    nearest_valid,
    parse_gamma,
    sized_block,
    with_defaults,
)
from cspprof.csp.dense_networks import NETWORKS

CurveAxis = Literal["gamma", "ratio", "m"]
RATIOS = tuple(Fraction(n) for n in ("1/16", "1/8", "1/4", "1/2", "1", "2", "4", "8", "16", "32", "64"))
POINTS = 16
"""Steps of a curve over γ or m."""


def twins(form: ClosedForm) -> tuple[ClosedForm, ClosedForm]:
    """The plain form and its partial twin. Raises CspprofError if there is no twin."""
    pair = plain_and_partial(form)
    if pair is None:
        raise CspprofError(
            f"{form.name} has no partial twin, so there is no saving", "Forms with a twin: cspprof closed-form --list"
        )
    return pair


@cache
def saving(form: ClosedForm, depth: int | None = None) -> Expr:
    """1 − CIO(partial) / CIO(plain) in symbols. `depth` is m, for a form that needs it."""
    plain, partial = (total_cost(f, "cio_cspnet", depth) for f in twins(form))
    return sympy.cancel(1 - partial / plain)


def saving_at(gamma: float, *, form: str = "dense", **numbers: float) -> float:
    """The formula of the saving evaluated at any real γ, c, m and d, also where no such block exists."""
    values = {PARAMETERS[name][0]: sympy.sympify(value) for name, value in {**numbers, "gamma": gamma}.items()}
    return float(saving(CLOSED_FORMS.get(form)).xreplace(values))


@dataclass(frozen=True, slots=True)
class Limit:
    """The limit of the saving as a symbol goes to infinity."""

    symbol: Symbol
    value: Expr


def limits(expr: Expr) -> list[Limit]:
    """The limits of a saving for c → ∞, d → ∞ and m → ∞. Symbols that it does not contain are left out."""
    return [Limit(x, sympy.limit(expr, x, sympy.oo)) for x in (c, d, m) if expr.has(x)]


def saving_by_ratio(expr: Expr) -> Expr | None:
    """A saving as a function of γ, ρ = c/(m·d) and m; None if it depends on anything else."""
    if not expr.has(d):
        return None
    by_ratio = sympy.cancel(expr.subs(c, rho * m * d))
    return None if by_ratio.has(d) else by_ratio


def saving_curve(over: CurveAxis, *, form: str = "dense", **numbers: Any) -> list[dict[str, Any]]:
    """The saving over γ, over c/(m·d) or over m: one record for each point, in ascending order.

    `numbers` are the parameters of the form by name (c, m, d, gamma, …). The parameter that varies is optional; if it
    is given, its value is one of the points. γ defaults to 1/2. Every point is a block that exists: if γ·c is not a
    whole number of channels, the point moves to the nearest valid γ (over γ) or c (over the ratio).

    A record holds `gamma`, `c`, `m`, `d`, `ratio` (None for a form without d), the exact CIO `plain` and `partial` in
    elements, `saving` (a fraction), and `given` (whether `numbers` named this point).

    Raises CspprofError for an unknown axis or form, for a form without a twin, and for invalid numbers.
    """
    plain, partial = twins(CLOSED_FORMS.get(form))
    if over not in get_args(CurveAxis):
        raise CspprofError(f"cannot vary {over}", f"Vary one of: {', '.join(get_args(CurveAxis))}")
    if over == "ratio" and "d" not in plain.parameters:
        raise CspprofError(f"{plain.name} has no growth rate, so no c/(m·d)", "Vary one of: gamma, m")
    numbers = {name: value for name, value in numbers.items() if value is not None}
    varied = "c" if over == "ratio" else over
    own_value = numbers.get(varied)
    start = _start(partial, over, varied, numbers)
    check_range(start)
    points = {_valid_point(start, varied, value) for value in _wanted_points(over, start, own_value)}
    valid = sorted(p for p in points if p is not None)
    # sized_block raises its error if no point is valid
    given = sized_block(partial, start.numbers).numbers[varied] if own_value is not None or not valid else None
    records = []
    for value in valid:
        block = SizedBlock(partial, {**start.numbers, varied: sympy.sympify(value)})
        records.append({"form": plain.name, "over": over, **_record(block, plain), "given": value == given})
    return records


def _start(partial: ClosedForm, over: CurveAxis, varied: str, numbers: Numbers) -> SizedBlock:
    """The block whose parameter `varied` changes along the curve."""
    placeholder = {"gamma": "1/2", "m": 32, "ratio": 1}[over]
    return SizedBlock(partial, with_defaults(partial, {varied: placeholder, **numbers}))


def _wanted_points(over: CurveAxis, start: SizedBlock, own_value: Any) -> list[int | Fraction]:
    own = [] if own_value is None else [own_value]
    if over == "gamma":
        return [*(Fraction(n, POINTS) for n in range(1, POINTS)), *map(parse_gamma, own)]
    depth = int(start.numbers["m"])
    if over == "ratio":
        return [max(round(r * depth * int(start.numbers["d"])), 1) for r in RATIOS] + own
    last = max(depth, POINTS)
    return [max(round(Fraction(last * n, POINTS)), 1) for n in range(POINTS + 1)] + own


def _valid_point(start: SizedBlock, varied: str, wanted: int | Fraction) -> int | Fraction | None:
    """The valid value at or nearest to `wanted`; None if there is none. A value of m is not moved."""
    if varied == "m":
        block = SizedBlock(start.form, {**start.numbers, varied: sympy.Integer(int(wanted))})
        return wanted if is_valid(block) else None
    nearest = nearest_valid(start, varied, wanted if varied == "gamma" else int(wanted))
    return nearest[0] if nearest else None


def _record(block: SizedBlock, plain: ClosedForm) -> dict[str, Any]:
    numbers = block.numbers
    plain_cio = SizedBlock(plain, {name: numbers[name] for name in plain.parameters}).total("cio_cspnet")
    partial_cio = block.total("cio_cspnet")
    sizes = {name: int(numbers[name]) if name in numbers else None for name in ("c", "m", "d")}
    return {
        "gamma": float(numbers["gamma"]),
        "gamma_exact": str(numbers["gamma"]),
        **sizes,
        "ratio": int(numbers["c"]) / (int(numbers["m"]) * int(numbers["d"])) if "d" in numbers else None,
        "plain": plain_cio,
        "partial": partial_cio,
        "saving": float(1 - Fraction(partial_cio, plain_cio)),
    }


def network_savings(gamma: Any = "1/2") -> list[dict[str, Any]]:
    """The savings in the stages of real dense networks, one record for each stage.

    `saving` is by the paper's form, which counts one convolution for each layer; `own_saving` is by the form of the
    network's own layers. A saving is None if γ·c is not a whole number or the closed form does not apply.
    """
    parse_gamma(gamma)
    records = []
    for network in NETWORKS.values():
        for n, stage in enumerate(network.stages(), 1):
            sizes = {"c": stage.c, "m": stage.m, "d": stage.d}
            own_sizes = sizes if stage.q is None else {**sizes, "q": stage.q}
            records.append({
                "network": network.name, "stage": n, **sizes, "ratio": stage.c / (stage.m * stage.d),
                "saving": _stage_saving("dense", sizes, gamma), "own_form": network.form,
                "own_saving": _stage_saving(network.form, own_sizes, gamma),
            })  # fmt: skip
    return records


def _stage_saving(form: str, sizes: dict[str, int], gamma: Any) -> float | None:
    plain, partial = twins(CLOSED_FORMS.get(form))
    block = SizedBlock(partial, with_defaults(partial, {**sizes, "gamma": gamma}))
    return _record(block, plain)["saving"] if is_valid(block) else None
