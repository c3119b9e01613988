"""`SizedBlock`: a closed form with a number for each parameter. Numbers without a block are refused, with the nearest
numbers that have one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import sympy
from sympy import Expr

from cspprof.core.errors import CspprofError
from cspprof.core.literals import is_number
from cspprof.core.units import shortened
from cspprof.csp.closed_form.forms import PARAMETERS, ClosedForm, total_cost
from cspprof.csp.closed_form.layers import COSTS, BlockLayers, SymbolicLayer, Values, i
from cspprof.csp.closed_form.notation import arrange, text

Numbers = Mapping[str, Any]
"""Parameters by name: integers, γ as text or a Fraction, r as a float. None means that the default applies."""
MOST_LISTED = 1_000
"""The largest m of a block whose closed form is a sum over its layers."""
MOST = 10**9
"""The largest of the other numbers."""
SEARCH_RADIUS = 128
"""Valid neighbors of a number are searched up to this distance."""
ADJUSTABLE = ("gamma", "d", "q", "b", "g", "c")
"""Parameters for which hints name valid neighbors, in this order."""


@dataclass(frozen=True)
class SizedBlock:
    """A closed form with a number for each of its parameters. See `sized_block` for one that is checked."""

    form: ClosedForm
    numbers: Mapping[str, Expr]

    @property
    def values(self) -> Values:
        """The number of every symbol."""
        values = {PARAMETERS[name][0]: value for name, value in self.numbers.items()}
        if self.form.harmonic_widths:
            widths = self.form.harmonic_widths(int(self.numbers["d"]), float(self.numbers["r"]))
            values |= {symbol: sympy.Integer(n) for symbol, n in widths.items()}
        return values

    @property
    def depth(self) -> int | None:
        """m, if the form has it."""
        return int(self.numbers["m"]) if "m" in self.numbers else None

    @property
    def symbolic_layers(self) -> BlockLayers:
        return self.form.symbolic_layers(self.depth)

    @property
    def c_out(self) -> int:
        return int(self.symbolic_layers.c_out.xreplace(self.values))

    def total(self, cost: str) -> int:
        """The closed form of a cost, evaluated at the numbers of this block."""
        return int(total_cost(self.form, cost, self.depth if self.form.needs_depth else None).xreplace(self.values))

    def totals(self) -> dict[str, int]:
        return {cost: self.total(cost) for cost in COSTS}

    def layer_count(self) -> int:
        return self.symbolic_layers.layer_count(self.values)

    def layers(self) -> list[SymbolicLayer]:
        """Every layer in execution order, in numbers."""
        return list(self.symbolic_layers.in_numbers(self.values))

    def python_numbers(self) -> dict[str, int | float | Fraction]:
        """The parameters by name without sympy: γ is a Fraction, r a float, every other an int."""
        return {name: _python_number(name, value) for name, value in self.numbers.items()}


def sized_block(form: ClosedForm, numbers: Numbers) -> SizedBlock:
    """The block with these parameters.

    Raises CspprofError for a parameter that is missing, unknown or out of range, and if a layer would not have a whole
    number of channels. The hint names the nearest values that are valid.
    """
    block = SizedBlock(form, with_defaults(form, numbers))
    check_range(block)
    if error := _violated_condition(block):
        raise CspprofError(*error)
    if message := _fractional_channels(block):
        raise CspprofError(message, _nearest_hint(block))
    return block


def check_range(block: SizedBlock) -> None:
    """Raise CspprofError for a number out of its range."""
    if error := _out_of_range(block):
        raise CspprofError(*error)


def with_defaults(form: ClosedForm, numbers: Numbers) -> dict[str, Expr]:
    """A number for every parameter of the form. If only one of h and w is given, it applies to both.

    Raises CspprofError for a parameter that is missing, unknown or not a number.
    """
    known = {name: _sympy_number(name, value) for name, value in numbers.items() if value is not None}
    for side, other in (("h", "w"), ("w", "h")):
        if side not in known and other in known:
            known[side] = known[other]
    for name in known:
        if name not in form.parameters:
            twin = f"\nIts partial twin has it: {form.twin}" if name == "gamma" and form.twin else ""
            raise CspprofError(
                f"{form.name} has no parameter {name}", f"Its parameters: {', '.join(form.parameters)}{twin}"
            )
    missing = [name for name in form.parameters if name not in known and name not in form.defaults]
    if missing:
        meanings = "\n".join(f"--{name} N: {PARAMETERS[name][1]}" for name in missing)
        raise CspprofError(f"{form.name} needs {', '.join(missing)}", meanings)
    for name, default in form.defaults.items():
        if name not in known:
            known[name] = default.subs({PARAMETERS[k][0]: value for k, value in known.items()})
    return {name: known[name] for name in form.parameters}


def is_valid(block: SizedBlock) -> bool:
    """Whether every number is in range, the closed form applies, and all layers have whole numbers of channels."""
    return not (_out_of_range(block) or _violated_condition(block) or _fractional_channels(block))


def nearest_valid(block: SizedBlock, name: str, wanted: int | Fraction) -> list[int | Fraction]:
    """`wanted` alone if the block is valid with it as the parameter `name`, else the nearest valid values below and
    above it, the nearer one first. Values of γ are fractions of c."""
    steps = int(block.numbers["c"]) if name == "gamma" else None
    start = round(wanted * (steps or 1))

    def first_valid(candidates: Iterable[int]) -> Iterator[int | Fraction]:
        for n in candidates:
            value = Fraction(n, steps) if steps else n
            if 0 < n < (steps or n + 1):
                candidate = SizedBlock(block.form, {**block.numbers, name: _sympy_number(name, value)})
                if is_valid(candidate):
                    yield value
                    return

    below = list(first_valid(range(start, start - SEARCH_RADIUS, -1)))
    above = list(first_valid(range(start + 1, start + SEARCH_RADIUS)))
    return below if below == [wanted] else sorted(below + above, key=lambda value: abs(Fraction(value) - wanted))


def parse_gamma(value: Any) -> Fraction:
    """γ as an exact fraction: 0.3 is 3/10. Raises CspprofError unless 0 < γ < 1."""
    shown = str(value).strip()
    if not is_number(shown) and re.fullmatch("-?[0-9]{1,20}/[0-9]{0,19}[1-9][0-9]{0,19}", shown) is None:
        raise CspprofError(f"γ = {shortened(shown, 40)} is not a fraction", "Write --gamma 0.25 or --gamma 1/4")
    gamma = Fraction(shown)
    if not 0 < gamma < 1:
        raise CspprofError(f"γ = {value} is not between 0 and 1", "It is the bypassed fraction: --gamma 1/2")
    return gamma


def _sympy_number(name: str, value: Any) -> Expr:
    if name == "gamma":
        fraction = parse_gamma(value)
        return sympy.Rational(fraction.numerator, fraction.denominator)
    try:
        return sympy.Float(value) if name == "r" else sympy.sympify(value, strict=True)  # strict: text is not evaluated
    except (ValueError, sympy.SympifyError):
        raise CspprofError(f"{name} = {value!r} is not a number", f"{PARAMETERS[name][1]}: --{name} N") from None


def _python_number(name: str, value: Expr) -> int | float | Fraction:
    if name == "gamma":
        return Fraction(int(value.p), int(value.q))
    return float(value) if name == "r" else int(value)


# -- why a block is invalid ------------------------------------------------------------------------


def _out_of_range(block: SizedBlock) -> tuple[str, str] | None:
    for name, value in block.numbers.items():
        if name == "r" and value < 1:
            return f"r = {_as_text(value)} makes layers that read more narrower", "Give at least 1: --r 1.7"
        most = MOST_LISTED if name == "m" and block.form.needs_depth else MOST
        if name not in ("gamma", "r") and not (value.is_Integer and 0 < value <= most):
            what = (
                f"is more than {most:,}" if value.is_Integer and value > most else "is not a whole number of at least 1"
            )
            return (
                f"{name} = {shortened(_as_text(value), 40)} {what}",
                f"{PARAMETERS[name][1]}: --{name} N",
            )
    return None


def _violated_condition(block: SizedBlock) -> tuple[str, str] | None:
    for condition in block.form.conditions:
        if condition.xreplace(block.values) != sympy.true:
            left, right = (_as_text(side.xreplace(block.values)) for side in condition.args)
            return (
                f"the closed form of {block.form.name} is valid only if {text(condition)}, but {left} > {right}",
                f"Change one of: {', '.join(f'--{n}' for n, (x, _) in PARAMETERS.items() if condition.has(x))}",
            )
    return None


def _fractional_channels(block: SizedBlock) -> str | None:
    """A layer without a whole number of channels, or of channels in each group. Widths change linearly with the
    repetition, so the first and the last one suffice."""
    values = block.values
    for part in block.symbolic_layers.parts:
        for n in dict.fromkeys((1, int(part.count.xreplace(values)))):
            for layer in part.layers:
                sized = layer.substitute({**values, i: sympy.Integer(n)})
                for verb, expr, channels in (("read", layer.c_in, sized.c_in), ("write", layer.c_out, sized.c_out)):
                    if not (channels.is_Integer and channels > 0):
                        return f"layer {layer.name} would {verb} {text(arrange(expr))} = {_as_text(channels)} channels"
                    if channels % sized.groups:
                        return f"layer {layer.name} would {verb} {channels} channels in {sized.groups} groups"
    return None


def _nearest_hint(block: SizedBlock) -> str | None:
    """Options that make the block valid by changing one parameter."""
    hints = []
    for name in (name for name in ADJUSTABLE if name in block.numbers):
        value = block.numbers[name]
        if values := nearest_valid(block, name, Fraction(int(value.p), int(value.q))):
            hints.append(" or ".join(f"--{name} {valid}" for valid in values))
    return f"Nearest: {'; '.join(hints[:2])}" if hints else None


def _as_text(value: Expr) -> str:
    if value.is_Rational and not value.is_Integer:
        return f"{value} = {float(value):.4g}"
    return f"{float(value):g}" if value.is_Float else str(value)
