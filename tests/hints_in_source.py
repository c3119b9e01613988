"""The hints in the source of the package, found by reading its syntax trees.

A hint is an expression that reaches a parameter or a field named `hint`: `SomeError(message, hint)`,
`Problem(where, message, hint)`, `section.error(what, hint)`; or the second item that a
function for "Message and hint" returns. A name stands for what is assigned to it in the same
function, or for the constant of that name; a call of a function of the package whose name has `hint` in it stands for
what that function returns.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from conftest import CHECKOUT

PACKAGE = CHECKOUT / "cspprof"
NOT_OURS = ("OSError", "ChildDiedError", "PydanticCustomError", "JSONDecodeError", "SymbolicSize")
"""Callables with a parameter of that place that is no hint of an error."""


@dataclass(frozen=True)
class Hint:
    """A hint in the source: its file, its text with {} for values, and a pattern of what is printed."""

    file: str
    text: str
    pattern: str


@cache
def hints() -> tuple[Hint, ...]:
    """The hints of the package that have fixed words, in the order of the source."""
    source = _Source()
    found = [
        Hint(path.relative_to(PACKAGE).as_posix(), *_template(expression))
        for path, function, given in source.given_hints()
        for expression in source.alternatives(path, function, given)
    ]
    return tuple(dict.fromkeys(hint for hint in found if re.search("[A-Za-z]{2}", hint.text) and hint.text != "None"))


class _Source:
    """The syntax trees of the package, and the callables that take a hint."""

    def __init__(self) -> None:
        self.trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
        self.places: dict[tuple[Path, str], int] = {}
        self.functions: dict[str, list[ast.FunctionDef]] = {}
        self.constants: dict[str, ast.expr] = {}
        for path, tree in self.trees.items():
            for node in tree.body:
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    self.constants[node.targets[0].id] = node.value
            for owner in ast.walk(tree):
                for node in ast.iter_child_nodes(owner):
                    if isinstance(node, ast.FunctionDef):
                        self._add_function(path, owner, node)
                if isinstance(owner, ast.ClassDef):
                    fields = [f.target.id for f in owner.body if isinstance(f, ast.AnnAssign) and _is_name(f.target)]
                    if "hint" in fields:
                        self.places[path.parent, owner.name] = fields.index("hint")

    def _add_function(self, path: Path, owner: ast.AST, node: ast.FunctionDef) -> None:
        self.functions.setdefault(node.name, []).append(node)
        names = [a.arg for a in node.args.args if a.arg != "self"]
        if "hint" in names:
            name = owner.name if isinstance(owner, ast.ClassDef) and node.name == "__init__" else node.name
            self.places[path.parent, name] = names.index("hint")

    def given_hints(self) -> Iterator[tuple[Path, ast.AST, ast.expr]]:
        """The expressions given as a hint, with their file and the function that they are in."""
        for path, tree in self.trees.items():
            for function in [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)] + [tree]:
                for call in _own_calls(function):
                    place = self._place(path.parent, ast.unparse(call.func).split(".")[-1])
                    given = [] if place is None else call.args[place : place + 1]
                    for expression in [*given, *(k.value for k in call.keywords if k.arg == "hint")]:
                        yield path, function, expression
        yield from self._returned_hints()

    def _returned_hints(self) -> Iterator[tuple[Path, ast.AST, ast.expr]]:
        """The second item of what a function returns whose docstring begins with "Message and hint"."""
        for path, tree in self.trees.items():
            for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
                if (ast.get_docstring(function) or "").startswith("Message and hint"):
                    for node in ast.walk(function):
                        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
                            yield path, function, node.value.elts[1]

    def _place(self, folder: Path, name: str) -> int | None:
        """The place of the parameter `hint` of the callable `name`, as code in `folder` calls it."""
        if name in NOT_OURS:
            return None
        if (folder, name) in self.places:
            return self.places[folder, name]
        elsewhere = {place for (_, n), place in self.places.items() if n == name and name[:1].isupper()}
        return elsewhere.pop() if elsewhere else 1 if name.endswith("Error") else None

    def alternatives(self, path: Path, function: ast.AST, node: ast.expr, depth: int = 0) -> Iterator[ast.expr]:
        """The expressions that `node` can be."""
        parts: list[ast.expr] = []
        if isinstance(node, ast.IfExp):
            parts = [node.body, node.orelse]
        elif isinstance(node, ast.BoolOp):
            parts = node.values
        elif isinstance(node, ast.Name):
            parts = [*_assigned(function, node.id)] or [self.constants[n] for n in [node.id] if n in self.constants]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func).split(".")[-1]
            for made in self.functions.get(name, []) if "hint" in name else []:
                for value in (n.value for n in ast.walk(made) if isinstance(n, ast.Return) and n.value is not None):
                    if depth < 5:
                        yield from self.alternatives(path, made, value, depth + 1)
            if "hint" in name:
                return
        if not parts or depth >= 5:
            yield node
        for part in parts if depth < 5 else ():
            yield from self.alternatives(path, function, part, depth + 1)


def _is_name(node: ast.expr) -> bool:
    return isinstance(node, ast.Name)


def _own_calls(function: ast.AST) -> Iterator[ast.Call]:
    """The calls in a function or module, without those in the functions that it defines."""
    for node in ast.iter_child_nodes(function):
        if isinstance(node, ast.Call):
            yield node
        if not isinstance(node, ast.FunctionDef):
            yield from _own_calls(node)


def _assigned(function: ast.AST, name: str) -> Iterator[ast.expr]:
    """The expressions that a function assigns to the variable `name`."""
    if not isinstance(function, ast.FunctionDef):
        return
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id == name:
                    yield node.value
                elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    names = [ast.unparse(t) for t in target.elts]
                    if name in names:
                        yield node.value.elts[names.index(name)]


def _template(node: ast.expr) -> tuple[str, str]:
    """The text of an expression with {} for values, and a regular expression for its results."""
    if isinstance(node, ast.Constant):
        return str(node.value), re.escape(str(node.value))
    if isinstance(node, ast.JoinedStr):
        parts = [_template(value) for value in node.values]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [_template(node.left), _template(node.right)]
    else:
        return "{}", ".*"
    return "".join(text for text, _ in parts), "".join(pattern for _, pattern in parts)
