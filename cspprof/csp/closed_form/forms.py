"""`ClosedForm`, and the registry of closed forms.

To add one, write a function of m (the number of layers) that returns a `BlockLayers`, decorate it with `closed_form`,
and register the module that it describes in `cspprof.zoo.form_blocks`. It then has a row in
`cspprof closed-form --list`, its costs are derived by summation, and `--check` compares it with a trace of the module.
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
from cspprof.csp.closed_form.layers import BlockLayers, a, b, c, d, g, gamma, h, m, o, q, s, t, w

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
    "h": (h, "height of the input map"),
    "w": (w, "width of the input map"),
}
"""The symbol and the meaning of every parameter, by the name of its option."""


@dataclass(frozen=True, slots=True, eq=False)
class ClosedForm:
    """A block whose costs have a closed form."""

    name: str
    summary: str
    paper: str
    parameters: tuple[str, ...]
    layers_for: Callable[[Expr], BlockLayers]
    """The layers as a function of m, which is a symbol or a number."""
    defaults: Mapping[str, Expr] = field(default_factory=dict)
    """Values of optional parameters, as expressions of the other parameters."""
    conditions: tuple[Relational, ...] = ()
    """The closed form is valid only where the parameters satisfy all of these."""
    harmonic_widths: Callable[[int, float], dict[Symbol, int]] | None = None
    """Layer widths that follow from d and r by a rule that is not a polynomial."""
    plain: str | None = None
    """The name of the plain form, if this is a partial one."""
    twin: str | None = None
    """The name of the partial form, if this is a plain one that has one."""

    @property
    def needs_depth(self) -> bool:
        """Whether there is a formula for each number m but none for the symbol m, because the layers depend on the
        binary digits of m."""
        return self.harmonic_widths is not None

    def symbolic_layers(self, depth: int | None = None) -> BlockLayers:
        """The layers in symbols. `depth` is a number for m; without it m is a symbol.

        Raises CspprofError if the form needs a depth and there is none.
        """
        if self.needs_depth and depth is None:
            raise CspprofError(
                f"{self.name} has a separate formula for each m: the links depend on the binary digits of the layer "
                "numbers",
                f"Give m: cspprof closed-form {self.name} --m 8",
            )
        return self.layers_for(m if depth is None or not self.needs_depth else sympy.Integer(depth))


CLOSED_FORMS: Registry[ClosedForm] = Registry("closed form", "cspprof closed-form --list")
HALF = sympy.Rational(1, 2)
ONE_PIXEL = {"h": sympy.Integer(1), "w": sympy.Integer(1)}


def closed_form(
    name: str, *, parameters: str, paper: str, partial: str | None = None, defaults: Mapping[str, Expr] | None = None,
    conditions: tuple[Relational, ...] = (),
    harmonic_widths: Callable[[int, float], dict[Symbol, int]] | None = None,
) -> Callable[[Callable[[Expr], BlockLayers]], Callable[[Expr], BlockLayers]]:  # fmt: skip
    """Register the decorated function under `name`. The first line of its docstring is the summary.

    With `partial`, the cross-stage-partial twin is registered under that name: the same layers on (1 − γ)·c channels.
    """

    def register(layers_for: Callable[[Expr], BlockLayers]) -> Callable[[Expr], BlockLayers]:
        summary = " ".join((layers_for.__doc__ or "").split()).rstrip(".")
        values = {**(defaults or {}), **ONE_PIXEL}
        CLOSED_FORMS.add(
            name,
            ClosedForm(
                name, summary, paper, (*parameters.split(), "h", "w"), layers_for, values, conditions,
                harmonic_widths, twin=partial,
            ),
        )  # fmt: skip
        if partial is not None:
            processed = {c: (1 - gamma) * c}
            CLOSED_FORMS.add(
                partial,
                ClosedForm(
                    partial, f"{summary}; γ·c of the c channels bypass it", paper,
                    (*parameters.split(), "gamma", "h", "w"),
                    lambda depth: layers_for(depth).substitute(processed), values | {"gamma": HALF},
                    tuple(condition.subs(processed) for condition in conditions), harmonic_widths, plain=name,
                ),
            )  # fmt: skip
        return layers_for

    return register


def plain_and_partial(form: ClosedForm) -> tuple[ClosedForm, ClosedForm] | None:
    """The pair that `form` belongs to, the plain form first; None if it has no twin."""
    if form.plain:
        return CLOSED_FORMS.get(form.plain), form
    return (form, CLOSED_FORMS.get(form.twin)) if form.twin else None


@cache
def total_cost(form: ClosedForm, cost: str, depth: int | None = None) -> Expr:
    """The closed form of one cost: the sum over the layers of the block."""
    return form.symbolic_layers(depth).total(cost)
