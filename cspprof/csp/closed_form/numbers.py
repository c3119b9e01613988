"""Numbers for the symbols: completed, refused where no such block exists, with the nearest that does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import sympy
from sympy import Expr

from cspprof.core.errors import CspprofError
from cspprof.csp.closed_form.algebra import text, tidy
from cspprof.csp.closed_form.forms import PARAMETERS, Form, symbolic, total
from cspprof.csp.closed_form.layers import QUANTITIES, Exprs, Layer, Layout, i

Given = Mapping[str, Any]
"""Parameters by name: integers, γ as text or a Fraction, r as a float. None stands for one that is not given."""
REACH = 128
"""How far a valid neighbour is looked for."""
MOVABLE = ("gamma", "d", "q", "b", "g", "c")
"""Parameters for which neighbours are named, in this order."""


@dataclass(frozen=True)
class Block:
    """A form with a number for each of its parameters."""

    form: Form
    numbers: Mapping[str, Expr]

    @property
    def values(self) -> Exprs:
        """What to put in for the symbols."""
        found = {PARAMETERS[name][0]: value for name, value in self.numbers.items()}
        if self.form.widths:
            rule = self.form.widths(int(self.numbers["d"]), float(self.numbers["r"]))
            found |= {symbol: sympy.Integer(n) for symbol, n in rule.items()}
        return found

    @property
    def depth(self) -> int | None:
        """m, where the form has one."""
        return int(self.numbers["m"]) if "m" in self.numbers else None

    @property
    def layout(self) -> Layout:
        return symbolic(self.form, self.depth)

    @property
    def c_out(self) -> int:
        return int(self.layout.c_out.xreplace(self.values))

    def total(self, quantity: str) -> int:
        """By the closed form: the sum over all layers as an expression, the numbers put into that."""
        return int(total(self.form, quantity, self.depth if self.form.by_number else None).xreplace(self.values))

    def totals(self) -> dict[str, int]:
        return {quantity: self.total(quantity) for quantity in QUANTITIES}

    def layers(self) -> list[Layer]:
        """Every layer in numbers, in the order in which they run."""
        return list(self.layout.expanded(self.values))

    def integers(self) -> dict[str, int]:
        """The whole-numbered parameters by name."""
        return {name: int(value) for name, value in self.numbers.items() if name not in ("gamma", "r")}


def block(form: Form, given: Given) -> Block:
    """The block of these numbers.

    Raises CspprofError for a parameter that is missing, unknown or out of range, and where a layer would have no whole
    number of channels; the hint names the nearest values that give it one.
    """
    made = Block(form, completed(form, given))
    check_range(made)
    if wrong := _out_of_form(made):
        raise CspprofError(*wrong)
    if misfit := _misfit(made):
        raise CspprofError(misfit, _neighbours(made))
    return made


def check_range(made: Block) -> None:
    """Raise CspprofError for a number that no block has."""
    if wrong := _out_of_range(made):
        raise CspprofError(*wrong)


def completed(form: Form, given: Given) -> dict[str, Expr]:
    """A number for every parameter: defaults put in; one side of the map stands for both."""
    known = {name: _number(name, value) for name, value in given.items() if value is not None}
    for here, other in (("h", "w"), ("w", "h")):
        if here not in known and other in known:
            known[here] = known[other]
    for name in known:
        if name not in form.takes:
            also = f"\nIts partial twin has one: {form.twin}" if name == "gamma" and form.twin else ""
            raise CspprofError(f"{form.name} has no {name}", f"It takes: {', '.join(form.takes)}{also}")
    missing = [name for name in form.takes if name not in known and name not in form.defaults]
    if missing:
        meanings = "\n".join(f"--{name} N: {PARAMETERS[name][1]}" for name in missing)
        raise CspprofError(f"{form.name} needs {', '.join(missing)}", meanings)
    for name, default in form.defaults.items():
        if name not in known:
            known[name] = default.subs({PARAMETERS[k][0]: value for k, value in known.items()})
    return {name: known[name] for name in form.takes}


def fits(made: Block) -> bool:
    """Whether there is such a block."""
    return not (_out_of_range(made) or _out_of_form(made) or _misfit(made))


def nearest(made: Block, name: str, wanted: int | Fraction) -> list[int | Fraction]:
    """The values on either side of `wanted` with which the block exists, or `wanted` alone; the nearest comes first.
    γ is looked for among the fractions of c."""
    parts = int(made.numbers["c"]) if name == "gamma" else None
    at = round(wanted * (parts or 1))

    def first(numbers: Iterable[int]) -> Iterator[int | Fraction]:
        for n in numbers:
            value = Fraction(n, parts) if parts else n
            if 0 < n < (parts or n + 1) and fits(Block(made.form, {**made.numbers, name: _number(name, value)})):
                yield value
                return

    below, above = list(first(range(at, at - REACH, -1))), list(first(range(at + 1, at + REACH)))
    return below if below == [wanted] else sorted(below + above, key=lambda value: abs(Fraction(value) - wanted))


def gamma_of(value: Any) -> Fraction:
    """γ exactly as it is written: 0.3 is 3/10. Raises CspprofError unless 0 < γ < 1."""
    try:
        gamma = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise CspprofError(f"γ = {value} is not a fraction", "Write --gamma 0.25 or --gamma 1/4") from None
    if not 0 < gamma < 1:
        raise CspprofError(f"γ = {value} is not between 0 and 1", "It is the bypassed fraction: --gamma 1/2")
    return gamma


def _number(name: str, value: Any) -> Expr:
    if name == "gamma":
        fraction = gamma_of(value)
        return sympy.Rational(fraction.numerator, fraction.denominator)
    try:
        return sympy.Float(value) if name == "r" else sympy.sympify(value, strict=True)  # text is not evaluated
    except (ValueError, sympy.SympifyError):
        raise CspprofError(f"{name} = {value!r} is no number", f"{PARAMETERS[name][1]}: --{name} N") from None


def _out_of_range(made: Block) -> tuple[str, str] | None:
    for name, value in made.numbers.items():
        if name == "r" and value < 1:
            return f"r = {_shown(value)} narrows layers that read more", "Give at least 1: --r 1.7"
        if name not in ("gamma", "r") and not (value.is_Integer and value > 0):
            return f"{name} = {_shown(value)} is no whole number of at least 1", f"{PARAMETERS[name][1]}: --{name} N"
    return None


def _out_of_form(made: Block) -> tuple[str, str] | None:
    for relation in made.form.holds:
        if relation.xreplace(made.values) != sympy.true:
            left, right = (_shown(side.xreplace(made.values)) for side in relation.args)
            return (
                f"the closed form of {made.form.name} holds where {text(relation)}: here {left} > {right}",
                f"Change one of: {', '.join(f'--{n}' for n, (x, _) in PARAMETERS.items() if relation.has(x))}",
            )
    return None


def _misfit(made: Block) -> str | None:
    """A layer that would not have a whole number of channels, or of channels in a group."""
    values, layout = made.values, made.layout
    for part in layout.parts:
        for n in dict.fromkeys((1, int(part.count.xreplace(values)))):
            for layer in part.layers:
                at = layer.at({**values, i: sympy.Integer(n)})
                for verb, expr, channels in (("read", layer.c_in, at.c_in), ("write", layer.c_out, at.c_out)):
                    if not (channels.is_Integer and channels > 0):
                        return f"layer {layer.name} would {verb} {text(tidy(expr))} = {_shown(channels)} channels"
                    if channels % at.groups:
                        return f"layer {layer.name} would {verb} {channels} channels in {at.groups} groups"
    return None


def _neighbours(made: Block) -> str | None:
    """What to type instead, changing one parameter."""
    found = []
    for name in (name for name in MOVABLE if name in made.numbers):
        wanted = made.numbers[name]
        values = nearest(made, name, Fraction(int(wanted.p), int(wanted.q)) if name == "gamma" else int(wanted))
        if values:
            found.append(" or ".join(f"--{name} {value}" for value in values))
    return f"Nearest: {'; '.join(found[:2])}" if found else None


def _shown(value: Expr) -> str:
    if value.is_Rational and not value.is_Integer:
        return f"{value} = {float(value):.4g}"
    return f"{float(value):g}" if value.is_Float else str(value)
