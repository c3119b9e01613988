"""Recipes: ways to compute a published number. The keys of an entry in the data file select the recipe."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

from cspprof.core.errors import CspprofError, IncompleteError
from cspprof.core.record import Kind, Record
from cspprof.metrics import METRICS
from cspprof.papers.printed_value import UNITS


class Network(NamedTuple):
    """A network to trace: its SPEC, and an input shape if it is not the native one."""

    spec: str
    input: tuple[int, ...] | None = None

    def __str__(self) -> str:
        return self.spec if self.input is None else f"{self.spec} --input {'x'.join(map(str, self.input))}"


Records = Mapping[Network, Record]


class Recipe(Protocol):
    """A way to compute a number."""

    @property
    def rule(self) -> str:
        """What is counted: the name of a metric, or what stands in its place."""

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks to trace: the one that is measured, then the one that it is compared with."""

    @property
    def how(self) -> str:
        """What to trace or to calculate, as text."""

    def value(self, unit: str, records: Records) -> Fraction:
        """The exact value in the printed unit. Raises IncompleteError if a network has operations without a rule."""


@dataclass(frozen=True, slots=True)
class MetricTotal:
    """A metric of a network, plus the value of an arithmetic expression."""

    metric: str
    network: Network
    added: str = ""

    @property
    def rule(self) -> str:
        return f"{self.metric} + arithmetic" if self.added else self.metric

    @property
    def networks(self) -> tuple[Network, ...]:
        return (self.network,)

    @property
    def how(self) -> str:
        return f"{self.network} + {self.added}" if self.added else str(self.network)

    def value(self, unit: str, records: Records) -> Fraction:
        total = _total(records[self.network], self.metric) * UNITS[unit][METRICS.get(self.metric).unit]
        return total + evaluate(self.added) * UNITS[unit]["number"] if self.added else total


@dataclass(frozen=True, slots=True)
class MetricChange:
    """The relative change of a metric from one network to another."""

    metric: str
    network: Network
    base: Network

    @property
    def rule(self) -> str:
        return self.metric

    @property
    def networks(self) -> tuple[Network, ...]:
        return (self.network, self.base)

    @property
    def how(self) -> str:
        return f"{self.network} against {self.base}"

    def value(self, unit: str, records: Records) -> Fraction:
        base = _total(records[self.base], self.metric)
        return (_total(records[self.network], self.metric) / base - 1) * UNITS[unit]["fraction"]


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """An arithmetic expression in whole numbers."""

    how: str
    rule: str = "arithmetic"
    networks: tuple[Network, ...] = ()

    def value(self, unit: str, records: Records) -> Fraction:
        return evaluate(self.how) * UNITS[unit]["number"]


@dataclass(frozen=True, slots=True)
class LayerCompression:
    """The relative change from the elements that all layers of a class read to the elements that they write."""

    layer_class: str
    network: Network

    @property
    def rule(self) -> str:
        return "elements"

    @property
    def networks(self) -> tuple[Network, ...]:
        return (self.network,)

    @property
    def how(self) -> str:
        return f"elements that {self.layer_class} writes against elements that it reads, in {self.network}"

    def value(self, unit: str, records: Records) -> Fraction:
        record, read, written = records[self.network], 0, 0
        for spec, layer in zip(record.calls.spec, record.calls.layer, strict=True):
            op = record.specs[spec]
            if op.kind is not Kind.VIEW and record.layers[layer].class_name.endswith(f".{self.layer_class}"):
                read += op.reads[0].numel
                written += op.writes[0].numel
        if not read:
            raise CspprofError(
                f"{self.network} has no layer of class {self.layer_class}", f"cspprof profile {self.network}"
            )
        return (Fraction(written, read) - 1) * UNITS[unit]["fraction"]


@dataclass(frozen=True, slots=True)
class DenseBlockSaving:
    """The part of a dense block's CIO that its partial twin saves, by the closed form. Without c it is the limit for
    c ≫ m·d."""

    numbers: tuple[tuple[str, int | str], ...]
    rule: str = "closed form"
    networks: tuple[Network, ...] = ()

    @property
    def how(self) -> str:
        options = " ".join(f"--{name} {number}" for name, number in self.numbers)
        return f"cspprof closed-form dense {options}" + ("" if "c" in dict(self.numbers) else ", c → ∞")

    def value(self, unit: str, records: Records) -> Fraction:
        from cspprof.csp.closed_form import CLOSED_FORMS
        from cspprof.csp.closed_form.forms import PARAMETERS
        from cspprof.csp.closed_form.saving import limits, saving

        part = saving(CLOSED_FORMS.get("dense"))
        if "c" not in dict(self.numbers):
            part = next(limit.value for limit in limits(part) if limit.symbol.name == "c")
        return Fraction(str(part.subs({PARAMETERS[name][0]: n for name, n in self.numbers}))) * UNITS[unit]["fraction"]


def _total(record: Record, metric: str) -> Fraction:
    if not record.complete:
        raise IncompleteError(f"{record.model} has operations without a rule", f"cspprof profile {record.model}")
    total = METRICS.get(metric).total(record).exact
    if total is None:
        raise IncompleteError(f"{metric} of {record.model} has no value", f"cspprof profile {record.model}")
    return total


# -- arithmetic expressions ------------------------------------------------------------------------

_OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def evaluate(expression: str) -> Fraction:
    """The exact value of an expression such as `2 * 3*3*128*128 * 26*26`: whole numbers, + - * / and parentheses.
    Raises CspprofError for anything else."""
    try:
        return _evaluate_node(ast.parse(expression, mode="eval").body)
    except (SyntaxError, ZeroDivisionError, TypeError, KeyError):
        raise CspprofError(
            f"cannot evaluate {expression!r}", "Write whole numbers, + - * / and parentheses: 1 - 5/8"
        ) from None


def _evaluate_node(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return Fraction(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluate_node(node.operand)
    if isinstance(node, ast.BinOp):
        return _OPERATIONS[type(node.op)](_evaluate_node(node.left), _evaluate_node(node.right))
    raise TypeError(ast.dump(node))


# -- from an entry of the data file ----------------------------------------------------------------

KEYS = ("spec", "input", "metric", "base", "arithmetic", "layers", "saving")
"""The keys of an entry that select and describe its recipe."""


def parse_recipe(entry: Mapping[str, Any], unit: str) -> Recipe | None:
    """The recipe of an entry; None if it has none.

    Raises CspprofError for an unknown combination of keys, and for a number that cannot be printed in `unit`.
    """
    if unit not in UNITS:
        raise CspprofError(f"unknown unit {unit!r}", f"Units: {', '.join(UNITS)}")
    keys = {key for key in KEYS if key in entry} - {"input"}
    shape = tuple(entry["input"]) if "input" in entry else None
    if "arithmetic" in keys:
        evaluate(entry["arithmetic"])
    if not keys:
        return None
    if keys == {"arithmetic"}:
        return Arithmetic(entry["arithmetic"])
    if keys == {"saving"}:
        _check_percentage(unit)
        return DenseBlockSaving(tuple(entry["saving"].items()))
    if keys == {"spec", "layers"}:
        _check_percentage(unit)
        return LayerCompression(entry["layers"], Network(entry["spec"], shape))
    if keys == {"spec", "metric", "base"}:
        METRICS.get(entry["metric"])
        _check_percentage(unit)
        return MetricChange(entry["metric"], Network(entry["spec"], shape), Network(entry["base"], shape))
    if keys in ({"spec", "metric"}, {"spec", "metric", "arithmetic"}):
        _check_unit(entry["metric"], unit)
        return MetricTotal(entry["metric"], Network(entry["spec"], shape), entry.get("arithmetic", ""))
    raise CspprofError(
        f"the keys {', '.join(sorted(keys))} are not a recipe",
        "Give spec and metric (with base or arithmetic), spec and layers, saving, or arithmetic.",
    )


def _check_percentage(unit: str) -> None:
    if unit != "%":
        raise CspprofError("a change is a percentage", f"Print it in %, not in {unit}.")


def _check_unit(metric: str, unit: str) -> None:
    metric_unit = METRICS.get(metric).unit
    if metric_unit not in UNITS[unit]:
        raise CspprofError(
            f"{metric} has the unit {metric_unit}, which is not printed in {unit}",
            f"{unit} prints: {', '.join(UNITS[unit])}",
        )
