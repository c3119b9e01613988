"""Expressions as people write them: areas in front, then channels, then what counts repetitions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

import sympy
from sympy import Add, Dummy, Expr, Mul, Poly, ceiling

from cspprof.csp.closed_form.layers import LINKS, a, b, c, d, g, gamma, h, link_width, m, o, q, rho, s, t, w

CHANNELS = (rho, a, c, b, *map(link_width, range(1, LINKS + 1)), t, o, q, d)
_ORDER = (w, h, *CHANNELS, m, g, s)
_PROCESSED = Dummy("processed", positive=True)
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_SUBSCRIPT = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


@cache
def tidy(expr: Expr) -> Expr:
    """A sum of products, written area·(Σ channels·coefficient): the form in which the paper prints it.

    Equal to `expr`, and not evaluated, so that a printer leaves its order alone.
    """
    rounded = {x: Dummy(f"d{n}") for n, x in enumerate(sorted(expr.atoms(ceiling), key=str))}
    back = {dummy: x for x, dummy in rounded.items()}
    flat = sympy.expand(expr.xreplace(rounded).subs(gamma, 1 - _PROCESSED))
    sizes = [x for x in (h, w, *back) if flat.has(x)]
    if not sizes:
        return _sum(_terms(flat))
    made = []
    for powers, rest in Poly(flat, *sizes).terms():
        area = [back.get(x, x) for x, power in zip(sizes, powers, strict=True) if power]
        made.append(_product([*reversed(area), _sum(_terms(rest))]))
    return _sum(made)


def tidy_ratio(expr: Expr) -> Expr:
    """A quotient with both halves tidy."""
    above, below = sympy.fraction(expr)
    if below == 1:
        return tidy(above)
    return Mul(*Mul.make_args(tidy(above)), sympy.Pow(tidy(below), -1, evaluate=False), evaluate=False)


def _terms(flat: Expr) -> list[Expr]:
    """The products in a sum, grouped by the channels in them."""
    channels = [x for x in CHANNELS if flat.has(x)]
    if not channels:
        return [_coefficient(flat)]
    found = Poly(flat, *channels).terms()
    return [
        _product([*(x**n for x, n in zip(channels, powers, strict=True) if n), _coefficient(k)]) for powers, k in found
    ]


def _coefficient(k: Expr) -> Expr:
    k = sympy.factor_terms(sympy.expand(k)) if k.has(_PROCESSED) else sympy.expand(k)
    number, rest = k.primitive() if isinstance(k, Add) else k.as_coeff_Mul()
    rest = rest.subs(_PROCESSED, 1 - gamma)
    return _product([number, _sum(rest.as_ordered_terms()) if isinstance(rest, Add) else rest])


def _product(factors: Iterable[Expr]) -> Expr:
    flat = [x for factor in factors for x in Mul.make_args(factor) if x != 1]
    numbers = [x for x in flat if x.is_Number]
    rest = sorted((x for x in flat if not x.is_Number), key=_rank)
    number = sympy.prod(numbers)
    return Mul(*([] if number == 1 else [number]), *rest, evaluate=False)


def _rank(factor: Expr) -> tuple[bool, int]:
    base = factor.as_base_exp()[0]
    return isinstance(base, Add), _ORDER.index(base) if base in _ORDER else -1 if base.has(w, h) else len(_ORDER)


def _sum(terms: list[Expr]) -> Expr:
    flat = [x for term in terms for x in Add.make_args(term)]
    return flat[0] if len(flat) == 1 else Add(*flat, evaluate=False)


def text(expr: Expr) -> str:
    """One line of Unicode: w·h·(c·m + d·(m² + m)/2)."""
    if isinstance(expr, sympy.Sum):
        index, first, last = expr.limits[0]
        return f"Σ[{index}={first}…{last}] {text(tidy(expr.function))}"
    plain = sympy.sstr(expr, order="none").replace("gamma", "γ").replace("rho", "ρ").replace("<=", "≤")
    plain = re.sub(r"ceiling\(([^()]*)\)", r"⌈\1⌉", plain)
    plain = re.sub(r"\*\*(\d+)", lambda power: power[1].translate(_SUPERSCRIPT), plain)
    plain = re.sub(r"k_(\d+)", lambda width: "k" + width[1].translate(_SUBSCRIPT), plain)
    return plain.replace("*", "·").replace(" - ", " − ")


def latex(expr: Expr) -> str:
    r"""LaTeX source: w h \left(c m + \frac{d \left(m^{2} + m\right)}{2}\right)."""
    if isinstance(expr, sympy.Sum):
        index, first, last = expr.limits[0]
        return rf"\sum_{{{index}={first}}}^{{{latex(last)}}} {latex(tidy(expr.function))}"
    return str(sympy.latex(expr, order="none"))
