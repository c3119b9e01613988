"""Sizes that depend on the input: a small grammar for the expressions in a program, evaluated with integers only.

torch writes them as sympy prints them: `Mul(Integer(2), Symbol('s0', positive=True))`, in older files `2*s0`. Here they
are parsed into trees; no text of the file becomes code. An expression outside the grammar is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

from cspprof.sources.exported_program.json_values import MalformedError, shorten

TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)|'(?P<text>[\w.+-]*)'"
    r"|(?P<sign>\*\*|//|<=|>=|==|!=|[-+*/%(),<>=]))"
)
MAX_LENGTH = 20_000
MAX_DEPTH = 100
LARGEST = 2**63

FUNCTIONS = frozenset({
    "Integer", "Float", "Rational", "Symbol", "Dummy", "Add", "Mul", "Pow", "Mod", "Max", "Min", "Abs", "floor",
    "ceiling", "sqrt", "sign", "FloorDiv", "CeilDiv", "CleanDiv", "PythonMod", "ModularIndexing", "Where",
    "CeilToInt", "FloorToInt", "LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv",
    "IsNonOverlappingAndDenseIndicator", "TruncToFloat", "TruncToInt", "RoundToInt", "RoundDecimal", "ToFloat",
    "Identity", "BitwiseFn_bitwise_and", "BitwiseFn_bitwise_or", "BitwiseFn_bitwise_xor", "OpaqueUnaryFn_sqrt",
    "OpaqueUnaryFn_cos", "OpaqueUnaryFn_cosh", "OpaqueUnaryFn_sin", "OpaqueUnaryFn_sinh", "OpaqueUnaryFn_tan",
    "OpaqueUnaryFn_tanh", "OpaqueUnaryFn_asin", "OpaqueUnaryFn_acos", "OpaqueUnaryFn_atan", "OpaqueUnaryFn_exp",
    "OpaqueUnaryFn_log", "OpaqueUnaryFn_log2", "OpaqueUnaryFn_asinh", "Equality", "Unequality", "Eq", "Ne",
    "GreaterThan", "LessThan", "StrictGreaterThan", "StrictLessThan", "Ge", "Le", "Gt", "Lt", "And", "Or", "Not",
    "Xor", "Piecewise", "ExprCondPair", "BooleanTrue", "BooleanFalse",
})  # fmt: skip
"""The functions that torch and sympy print in sizes."""

NAMES = frozenset({"true", "false", "oo", "int_oo", "zoo", "nan", "pi", "E", "I"})
"""Names that are constants. Every other name without parentheses is a symbol."""

Tree = int | str | tuple[Any, ...]
"""An integer, the name of a symbol, or a function's name followed by its arguments. A real number or a constant that
is no integer is the tuple `("constant",)`."""


@dataclass(frozen=True, slots=True)
class SymbolicSize:
    """A size that depends on the input, and its value for the example input of the export."""

    tree: Tree
    hint: int | None

    def value(self, symbols: Mapping[str, int]) -> int | None:
        """The size for these values of the symbols; None if it cannot be computed from them."""
        try:
            return _evaluate(self.tree, symbols)
        except (ArithmeticError, ValueError):
            return None

    def solve(self, size: int, symbols: Mapping[str, int]) -> dict[str, int] | None:
        """The value of the only symbol without a value with which this size is `size`; {} if no integer is.

        None if several symbols have no value, or the size is not linear in it.
        """
        open_symbols = symbols_in(self.tree) - symbols.keys()
        if len(open_symbols) != 1:
            return None
        (name,) = open_symbols
        values = [self.value({**symbols, name: n}) for n in (0, 1, 2)]
        if None in values:
            return None
        at_0, at_1, at_2 = (value for value in values if value is not None)
        step = at_1 - at_0
        if step == 0 or at_2 - at_1 != step:
            return None
        found = {name: (size - at_0) // step}
        return found if self.value({**symbols, **found}) == size else {}

    def __str__(self) -> str:
        return _text(self.tree)


def symbols_in(tree: Tree) -> set[str]:
    """The names of the symbols in an expression."""
    if isinstance(tree, str):
        return {tree}
    return set().union(*map(symbols_in, tree[1:])) if isinstance(tree, tuple) else set()


@lru_cache(maxsize=10_000)
def parse_expression(text: str) -> Tree:
    """The tree of an expression. Raises MalformedError, with the part that is refused."""
    if len(text) > MAX_LENGTH:
        raise MalformedError(f"an expression for a size has {len(text):,} characters")
    tokens: list[tuple[str, str]] = []
    position = 0
    end = len(text.rstrip())
    while position < end:
        match = TOKEN.match(text, position)
        if match is None:
            tokens.append(("unknown", text[position:].strip()[:20]))
            break
        tokens.append((match.lastgroup or "", match[match.lastgroup or 0]))
        position = match.end()
    parser = _Parser(text, tokens)
    tree = parser.comparison(0)
    if parser.position != len(tokens):
        raise _refused(text, f"{parser.next()[1]!r}")
    return tree


def _refused(text: str, part: str) -> MalformedError:
    return MalformedError(
        f"a size is the expression {shorten(text)}, in which {part} is not arithmetic of torch",
        "It is not evaluated, because that could run code. Export the model with torch.export.save.",
    )


CONSTANT = ("constant",)


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str, tokens: list[tuple[str, str]]) -> None:
        self.text = text
        self.tokens = tokens
        self.position = 0

    def next(self) -> tuple[str, str]:
        return self.tokens[self.position] if self.position < len(self.tokens) else ("end", "its end")

    def take(self, *signs: str) -> str | None:
        """Consume the next token if it is one of `signs`."""
        kind, value = self.next()
        if kind != "sign" or value not in signs:
            return None
        self.position += 1
        return value

    def expect(self, sign: str) -> None:
        if self.take(sign) is None:
            raise _refused(self.text, f"{self.next()[1]!r}")

    def nested(self, depth: int) -> int:
        """One level deeper. Raises MalformedError if that is too deep."""
        if depth >= MAX_DEPTH:
            raise MalformedError(f"an expression for a size is nested more than {MAX_DEPTH} times")
        return depth + 1

    def comparison(self, depth: int) -> Tree:
        tree = self.sum(depth)
        while self.take("<", ">", "<=", ">=", "==", "!="):
            depth = self.nested(depth)
            tree = ("compare", tree, self.sum(depth))
        return tree

    def sum(self, depth: int) -> Tree:
        terms = [self.product(depth)]
        while sign := self.take("+", "-"):
            term = self.product(depth)
            terms.append(term if sign == "+" else ("Mul", -1, term))
        return ("Add", *terms) if len(terms) > 1 else terms[0]

    def product(self, depth: int) -> Tree:
        tree = self.factor(depth)
        while sign := self.take("*", "/", "//", "%"):
            depth = self.nested(depth)
            name = {"*": "Mul", "/": "divide", "//": "FloorDiv", "%": "Mod"}[sign]
            tree = (name, tree, self.factor(depth))
        return tree

    def factor(self, depth: int) -> Tree:
        if self.take("-"):
            return ("Mul", -1, self.factor(self.nested(depth)))
        tree = self.atom(self.nested(depth))
        return ("Pow", tree, self.factor(self.nested(depth))) if self.take("**") else tree

    def atom(self, depth: int) -> Tree:
        kind, value = self.next()
        self.position += 1
        if kind == "number":
            return self.number(value)
        if kind == "sign" and value == "(":
            tree = self.comparison(depth)
            self.expect(")")
            return tree
        if kind != "name":
            raise _refused(self.text, f"{value!r}")
        if self.take("("):
            return self.call(value, depth)
        return CONSTANT if value in NAMES else value

    def number(self, digits: str) -> Tree:
        if not digits.isdigit():
            return CONSTANT
        if len(digits) > 19:
            raise MalformedError(f"an expression for a size has a number of {len(digits):,} digits")
        return int(digits)

    def call(self, name: str, depth: int) -> Tree:
        if name not in FUNCTIONS:
            raise _refused(self.text, f"the function {shorten(name)}")
        arguments: list[Tree] = []
        texts: list[str] = []
        while not self.take(")"):
            kind, value = self.next()
            if kind == "text":
                self.position += 1
                texts.append(value)
            elif kind == "name" and self.tokens[self.position + 1 : self.position + 2] == [("sign", "=")]:
                self.position += 2
                if self.next()[0] not in ("name", "number"):  # positive=True, precision=53
                    raise _refused(self.text, f"{self.next()[1]!r}")
                self.position += 1
            else:
                arguments.append(self.comparison(depth))
            if self.next() != ("sign", ")"):
                self.expect(",")
        if name in ("Symbol", "Dummy"):
            if len(texts) != 1 or not texts[0].isidentifier():
                raise _refused(self.text, f"a {name} without a name")
            return texts[0]
        if name == "Float":
            return CONSTANT
        if texts:
            raise _refused(self.text, f"the text {texts[0]!r}")
        if name == "Integer":
            return arguments[0] if len(arguments) == 1 else (name, *arguments)
        return (name, *arguments)


def _evaluate(tree: Tree, symbols: Mapping[str, int]) -> int | None:
    if isinstance(tree, int):
        return tree
    if isinstance(tree, str):
        return symbols.get(tree)
    values = [_evaluate(argument, symbols) for argument in tree[1:]]
    if not values or any(value is None for value in values):
        return None
    known = [value for value in values if value is not None]
    result = _apply(tree[0], known)
    return result if result is not None and abs(result) < LARGEST else None


def _apply(name: str, values: list[int]) -> int | None:
    if name == "Add":
        return sum(values)
    if name == "Mul":
        return prod(values)
    if name in ("Max", "Min"):
        return max(values) if name == "Max" else min(values)
    if name == "Identity":
        return values[0]
    if len(values) != 2:
        return None
    a, b = values
    if name in ("FloorDiv", "CleanDiv"):
        return a // b
    if name == "CeilDiv":
        return -(-a // b)
    if name in ("Mod", "PythonMod"):
        return a % b
    if name in ("Pow", "PowByNatural"):
        return a**b if 0 <= b <= 64 and abs(a) < 2**32 else None
    return None


def _text(tree: Tree) -> str:
    """The expression for an error message: `2*s0`."""
    if not isinstance(tree, tuple):
        return str(tree)
    parts = [_text(argument) for argument in tree[1:]]
    signs = {"Add": " + ", "Mul": "*", "Pow": "**", "FloorDiv": "//", "Mod": "%"}
    if tree[0] in signs:
        joined = signs[tree[0]].join(parts)
        return f"({joined})" if tree[0] in ("Add", "FloorDiv", "Mod") else joined
    return f"{tree[0]}({', '.join(parts)})"
