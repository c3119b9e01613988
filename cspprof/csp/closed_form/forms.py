"""What a closed form is, and the registry of them.

To add one, write a function of m (the number of layers) that returns a `Layout`, decorate it with `form`, and give
`cspprof.zoo.form_blocks` the module that it describes. It then has a row in `cspprof closed-form --list`, its costs
are derived by summation, and `--check` holds it against the trace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

import sympy
from sympy import Expr, Symbol
from sympy.core.relational import Relational

from cspprof.core.errors import CspprofError
from cspprof.core.registry import Registry
from cspprof.csp.closed_form.layers import Layout, a, b, c, d, g, gamma, h, m, o, q, s, t, w

MULTIPLIER = Symbol("r", positive=True)
PARAMETERS: dict[str, tuple[Symbol, str]] = {
    "c": (c, "channels of the base layer"),
    "m": (m, "layers (or blocks) in a row"),
    "d": (d, "growth rate: channels that a layer adds"),
    "a": (a, "channels that the first block of a stage reads"),
    "b": (b, "width of the bottleneck"),
    "g": (g, "groups of the 3×3 convolutions"),
    "q": (q, "width of a two-way layer's 1×1 convolutions, in halves of d"),
    "r": (MULTIPLIER, "multiplier of a harmonic layer's width (the paper's m)"),
    "s": (s, "stride"),
    "t": (t, "channels of the dense path's transition"),
    "o": (o, "channels of the last transition"),
    "gamma": (gamma, "bypassed fraction of the base layer, 0 < γ < 1"),
    "h": (h, "height of the map that is read"),
    "w": (w, "width of the map that is read"),
}
"""Every parameter by the name of its option: its symbol and what it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """A block whose costs have a closed form."""

    name: str
    summary: str
    paper: str
    takes: tuple[str, ...]
    """Names of its parameters."""
    layout: Callable[[Expr], Layout]
    """Its layers, given m: the symbol or a number."""
    defaults: Mapping[str, Expr] = field(default_factory=dict)
    """Parameters that need not be given, as expressions of the others."""
    holds: tuple[Relational, ...] = ()
    """What the parameters must satisfy."""
    widths: Callable[[int, float], dict[Symbol, int]] | None = None
    """Widths that follow from d and r by a rule that is no polynomial."""
    base: str | None = None
    """Of a partial form: the plain one."""
    twin: str | None = None
    """Of a plain form: the partial one."""

    @property
    def by_number(self) -> bool:
        """Whether the layers depend on the digits of m, so that there is a form for each m and none for all."""
        return self.widths is not None


FORMS: Registry[Form] = Registry("closed form", "cspprof closed-form --list")
COMMON = {"h": sympy.Integer(1), "w": sympy.Integer(1)}
HALF = sympy.Rational(1, 2)


def form(
    name: str, *, takes: str, paper: str, partial: str | None = None, defaults: Mapping[str, Expr] | None = None,
    holds: tuple[Relational, ...] = (), widths: Callable[[int, float], dict[Symbol, int]] | None = None,
) -> Callable[[Callable[[Expr], Layout]], Callable[[Expr], Layout]]:  # fmt: skip
    """Register the decorated layout under `name`; its docstring's first line is the summary.

    With `partial`, its cross-stage-partial twin is registered under that name: the same layers on (1 − γ)·c channels.
    """

    def register(layout: Callable[[Expr], Layout]) -> Callable[[Expr], Layout]:
        summary = " ".join((layout.__doc__ or "").split()).rstrip(".")
        names = (*takes.split(), "h", "w")
        given = {**(defaults or {}), **COMMON}
        FORMS.add(name, Form(name, summary, paper, names, layout, given, holds, widths, twin=partial))
        if partial is not None:
            FORMS.add(partial, Form(
                partial, f"{summary}; γ·c of the c channels bypass it", paper, (*takes.split(), "gamma", "h", "w"),
                lambda depth: layout(depth).at({c: (1 - gamma) * c}), given | {"gamma": HALF},
                tuple(r.subs(c, (1 - gamma) * c) for r in holds), widths, base=name,
            ))  # fmt: skip
        return layout

    return register


def pair(found: Form) -> tuple[Form, Form] | None:
    """A form and its partial twin, whichever of them was named; None where there is no twin."""
    if found.base:
        return FORMS.get(found.base), found
    return (found, FORMS.get(found.twin)) if found.twin else None


def symbolic(found: Form, depth: int | None = None) -> Layout:
    """Its layers in symbols; `depth` puts a number in for m, which harmonic forms must have.

    Raises CspprofError where such a form has none.
    """
    if found.by_number and depth is None:
        raise CspprofError(
            f"{found.name} has a form for each m: its links depend on the binary digits of the layers' numbers",
            f"Give m: cspprof closed-form {found.name} --m 8",
        )
    return found.layout(m if depth is None or not found.by_number else sympy.Integer(depth))


@cache
def total(found: Form, quantity: str, depth: int | None = None) -> Expr:
    """The closed form of one of its quantities: the sum over its layers."""
    return symbolic(found, depth).total(quantity)
