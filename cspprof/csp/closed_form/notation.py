"""Write expressions in the order of the papers (area, then channels, then numbers of repetitions), as text or LaTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

import sympy
from sympy import Add, Dummy, Expr, Mul, Poly, ceiling

from cspprof.csp.closed_form.layers import MAX_LINKS, a, b, c, d, g, gamma, h, link_width, m, o, q, rho, s, t, w

CHANNELS = (rho, a, c, b, *map(link_width, range(1, MAX_LINKS + 1)), t, o, q, d)
_ORDER = (w, h, *CHANNELS, m, g, s)
_PROCESSED = Dummy("processed", positive=True)
"""1 − γ, kept together while an expression is expanded."""
_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_SUBSCRIPT = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


@cache
def arrange(expr: Expr) -> Expr:
    """`expr` as a sum of products area·(Σ channels·coefficient), as the paper prints it.

    The result is not evaluated, so that a printer keeps the order.
    """
    dummies = {x: Dummy(f"d{n}") for n, x in enumerate(sorted(expr.atoms(ceiling), key=str))}
    ceilings = {dummy: x for x, dummy in dummies.items()}
    flat = sympy.expand(expr.xreplace(dummies).subs(gamma, 1 - _PROCESSED))
    sizes = [x for x in (h, w, *ceilings) if flat.has(x)]
    if not sizes:
        return _sum(_terms(flat))
    products = []
    for powers, rest in Poly(flat, *sizes).terms():
        area = [ceilings.get(x, x) for x, power in zip(sizes, powers, strict=True) if power]
        products.append(_product([*reversed(area), _sum(_terms(rest))]))
    return _sum(products)


def arrange_ratio(expr: Expr) -> Expr:
    """A quotient whose numerator and denominator are arranged."""
    numerator, denominator = sympy.fraction(expr)
    if denominator == 1:
        return arrange(numerator)
    return Mul(*Mul.make_args(arrange(numerator)), sympy.Pow(arrange(denominator), -1, evaluate=False), evaluate=False)


def _terms(flat: Expr) -> list[Expr]:
    """The products of a sum, grouped by their channels."""
    channels = [x for x in CHANNELS if flat.has(x)]
    if not channels:
        return [_coefficient(flat)]
    return [
        _product([*(x**n for x, n in zip(channels, powers, strict=True) if n), _coefficient(k)])
        for powers, k in Poly(flat, *channels).terms()
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
    return Add(*flat, evaluate=False)


def text(expr: Expr) -> str:
    """The expression as one line of Unicode: w·h·(c·m + d·(m² + m)/2)."""
    if isinstance(expr, sympy.Sum):
        index, first, last = expr.limits[0]
        return f"Σ[{index}={first}…{last}] {text(arrange(expr.function))}"
    line = sympy.sstr(expr, order="none").replace("gamma", "γ").replace("rho", "ρ").replace("<=", "≤")
    line = re.sub(r"ceiling\(([^()]*)\)", r"⌈\1⌉", line)
    line = re.sub(r"\*\*(\d+)", lambda power: power[1].translate(_SUPERSCRIPT), line)
    line = re.sub(r"k_(\d+)", lambda width: "k" + width[1].translate(_SUBSCRIPT), line)
    return line.replace("*", "·").replace(" - ", " − ")


def latex(expr: Expr) -> str:
    r"""The expression as LaTeX source: w h \left(c m + \frac{d \left(m^{2} + m\right)}{2}\right)."""
    if isinstance(expr, sympy.Sum):
        index, first, last = expr.limits[0]
        return rf"\sum_{{{index}={first}}}^{{{latex(last)}}} {latex(arrange(expr.function))}"
    return str(sympy.latex(expr, order="none"))
