"""The functions that a graph may call: torch's operators on tensors, and arithmetic on sizes.

A name of the file is looked up only in the tables of this module and among torch's registered operators. It never
becomes an import, an attribute of another object, or code.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from cspprof.sources.exported_program.json_values import MalformedError, shorten

NAMESPACES: dict[str, str | None] = {
    "aten": None,
    "prims": "torch._prims",
    "quantized_decomposed": "torch.ao.quantization.fx._decomposed",
    "torchvision": "torchvision",
}
"""The libraries of operators, each with the installed module that registers them. Operators of other libraries are code
that somebody registered in this process."""

NAME = re.compile(r"torch\.ops\.(\w+)\.(\w+)(?:\.(\w+))?")

FILES = frozenset({"aten.from_file", "aten.save"})
"""Operators that read or write files."""

CHECKS = frozenset({"aten._assert_async", "aten._assert_tensor_metadata", "aten.sym_constrain_range",
                    "aten.sym_constrain_range_for_size"})  # fmt: skip
"""Operators that only check values: they are not run. `aten._assert_scalar` is checked without torch."""

ASSERT_SCALAR = "aten._assert_scalar"

HIGHER_ORDER = {
    "wrap_with_set_grad_enabled": "value graph *",
    "wrap_with_autocast": "value value value value graph *",
    "cond": "value graph graph list",
    "while_loop": "graph graph list list",
    "scan": "graph list list list",
    "map_impl": "graph list list",
}
"""Operators that run graphs, each with the kinds of its arguments."""

LARGEST = 2**63


def _power(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int) and b > 64 and abs(a) > 1:
        raise MalformedError("a power of sizes is too large")
    return a**b


def _shift(a: int, b: int) -> int:
    if b > 63:
        raise MalformedError("a shifted size is too large")
    return a << b


NUMBERS: dict[str, Callable[..., Any]] = {
    "_operator.eq": operator.eq, "_operator.ne": operator.ne, "_operator.le": operator.le, "_operator.ge": operator.ge,
    "_operator.lt": operator.lt, "_operator.gt": operator.gt, "_operator.neg": operator.neg,
    "_operator.pos": operator.pos, "_operator.mul": operator.mul, "_operator.add": operator.add,
    "_operator.sub": operator.sub, "_operator.floordiv": operator.floordiv, "_operator.mod": operator.mod,
    "_operator.pow": _power, "_operator.truediv": operator.truediv, "_operator.and_": operator.and_,
    "_operator.or_": operator.or_, "_operator.lshift": _shift, "_operator.rshift": operator.rshift,
    "math.trunc": math.trunc, "math.floor": math.floor, "math.ceil": math.ceil, "math.sqrt": math.sqrt,
    "torch.sym_not": operator.not_, "torch.sym_int": int, "torch.sym_float": float, "torch.sym_max": max,
    "torch.sym_min": min, "torch.sym_sqrt": math.sqrt, "torch._sym_sqrt": math.sqrt,
    "torch.sym_ite": lambda condition, a, b: a if condition else b,
    "torch.sym_sum": lambda *values: sum(values[0] if len(values) == 1 and isinstance(values[0], list) else values),
}  # fmt: skip
"""The functions on sizes that torch.export.save writes."""


def apply_to_numbers(target: str, values: list[Any]) -> Any:
    """The result of a function of `NUMBERS`. Raises MalformedError for other arguments and results."""
    for value in values:
        if not isinstance(value, (int, float, list)):
            raise MalformedError(f"{target} has an argument that is no number: {shorten(type(value).__name__)}")
    try:
        result = NUMBERS[target](*values)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise MalformedError(f"{target} fails on {shorten(values)}: {error}") from None
    if isinstance(result, int) and abs(result) >= LARGEST:
        raise MalformedError(f"{target} gives a size of more than 63 bits")
    return result


def find_operator(target: str) -> torch._ops.OpOverload:
    """The operator that the name in a node refers to. Raises MalformedError if a graph may not call it."""
    match = NAME.fullmatch(target)
    if match is None:
        raise _refused(target, "is not an operator of torch")
    namespace, name, overload = match[1], match[2], match[3] or "default"
    if namespace == "higher_order":
        raise MalformedError(
            f"the higher-order operator {name} cannot be traced", "Profile the module from which the file was exported."
        )
    if namespace not in NAMESPACES:
        raise _refused(target, f"belongs to the library {namespace!r}, which is not torch's")
    module = NAMESPACES[namespace]
    if module is not None:
        try:
            import_module(module)
        except ImportError:
            raise MalformedError(f"the operator {target} needs {module}", f"Install {module.split('.')[0]}.") from None
    packet = getattr(getattr(torch.ops, namespace), name, None)
    if not isinstance(packet, torch._ops.OpOverloadPacket) or overload not in packet.overloads():
        raise _refused(target, "is not an operator of this torch")
    found: torch._ops.OpOverload = getattr(packet, overload)
    plain = f"{namespace}.{name}"
    if not torch._C._dispatch_has_kernel(found.name()) or plain in FILES:
        raise _refused(target, "may read or write files")
    if not found._schema.returns and plain not in CHECKS and plain != ASSERT_SCALAR:
        raise _refused(target, "returns nothing, so it may only act on something outside the graph")
    return found


def _refused(target: str, reason: str) -> MalformedError:
    return MalformedError(
        f"its graph calls {shorten(target)}, which {reason}",
        "It is not run, because that could run code. Export the model with torch's operators only.",
    )
