"""Integer arithmetic that a reader can follow, `2 * 3*3*128*128 * 26*26`, worked out exactly."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from fractions import Fraction

from cspprof.core.errors import CspprofError

_OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def worked_out(text: str) -> Fraction:
    """The value of whole numbers, + − * / and brackets. Raises CspprofError for anything else."""
    try:
        return _value(ast.parse(text, mode="eval").body)
    except (SyntaxError, ZeroDivisionError, TypeError, KeyError):
        raise CspprofError(
            f"cannot work out {text!r}", "Arithmetic is whole numbers, + - * / and brackets: 1 - 5/8"
        ) from None


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return Fraction(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp):
        return _OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    raise TypeError(ast.dump(node))
