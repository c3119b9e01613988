"""The arguments and results of an exported program: their nesting, their default values, and which sizes fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from cspprof.core.errors import SourceError, TraceError
from cspprof.core.inputs import ModelArguments
from cspprof.core.tensors import TensorSpec
from cspprof.operands.tensor_meta import dtype_name
from cspprof.sources.exported_program.expressions import SymbolicSize, symbols_in
from cspprof.sources.exported_program.graph import MAX_DEPTH, Program, Size, TensorValue
from cspprof.sources.exported_program.json_values import MalformedError, as_kind, field, parse_json, shorten

SEQUENCES = frozenset({"builtins.tuple", "builtins.list", "collections.deque", "collections.namedtuple"})
MAPPINGS = frozenset({"builtins.dict", "collections.OrderedDict", "collections.defaultdict"})


@dataclass(frozen=True, slots=True)
class Constant:
    """A plain argument with the value that it had during the export. It is no tuple, which could look like a shape."""

    value: Any


class Tree(NamedTuple):
    """The nesting of values: a leaf has the type None."""

    type: str | None
    keys: tuple[Any, ...]
    children: tuple[Tree, ...]


def parse_tree(text: str, what: str) -> Tree:
    """The nesting that the JSON of torch's pytrees describes. Raises MalformedError."""
    document = parse_json(text, what)
    if not isinstance(document, list) or len(document) != 2 or document[0] != 1:
        raise MalformedError(f"{what} has an unknown version")
    return _tree(document[1], what, 0)


def _tree(data: Any, what: str, depth: int) -> Tree:
    if depth > MAX_DEPTH:
        raise MalformedError(f"{what} is nested more than {MAX_DEPTH} times")
    kind = as_kind(data, dict, what).get("type")
    if kind is None:
        return Tree(None, (), ())
    children = tuple(_tree(child, what, depth + 1) for child in field(data, "children_spec", list, what))
    keys: tuple[Any, ...] = tuple(range(len(children)))
    if as_kind(kind, str, what) in MAPPINGS:
        context = parse_json(field(data, "context", str, what), what)
        if kind == "collections.defaultdict" and isinstance(context, dict):
            context = context.get("dict_context")
        keys = tuple(as_kind(context, list, what))
        for key in keys:
            if not isinstance(key, (str, int)):
                raise MalformedError(f"{what} has a dict with the key {shorten(key)}, which is no text or number")
    if len(keys) != len(children):
        raise MalformedError(f"{what} has {len(children)} values for {len(keys)} keys")
    return Tree(kind, keys, children)


def count_leaves(tree: Tree) -> int:
    return 1 if tree.type is None else sum(map(count_leaves, tree.children))


def nest(tree: Tree, leaves: Iterator[Any]) -> Any:
    """The leaves in their containers. A container of another class becomes a tuple."""
    if tree.type is None:
        return next(leaves)
    children = [nest(child, leaves) for child in tree.children]
    if tree.type in MAPPINGS:
        return dict(zip(tree.keys, children, strict=True))
    return children if tree.type == "builtins.list" else tuple(children)


def misfit(file: str, reason: str, hint: str) -> TraceError:
    """The error to raise for an input that the program in `file` does not take."""
    return TraceError(f"{file}: the input does not fit the exported program: {reason}", hint)


class CallArguments:
    """The arguments of the forward of one program."""

    def __init__(self, program: Program, file: str) -> None:
        """`file` is its name in messages. Raises MalformedError if the nesting does not fit the arguments, or has a
        class that is not built in."""
        self.program = program
        self.file = file
        self.tree = parse_tree(program.in_spec, "in_spec")
        root = [child.type for child in self.tree.children]
        if self.tree.type != "builtins.tuple" or root != ["builtins.tuple", "builtins.dict"]:
            raise MalformedError("in_spec does not describe positional and keyword arguments")
        if count_leaves(self.tree) != len(program.arguments):
            raise MalformedError(f"in_spec has {count_leaves(self.tree)} values for {len(program.arguments)} arguments")
        stack = [self.tree]
        while stack:
            tree = stack.pop()
            stack += tree.children
            if tree.type is not None and tree.type not in SEQUENCES | MAPPINGS:
                raise MalformedError(
                    f"an argument is a {shorten(tree.type)}, a class that is not built in",
                    "Export a wrapper of the model that takes tensors, lists and dicts.",
                )

    # -- default values -------------------------------------------------------------------------------

    def defaults(self) -> ModelArguments | None:
        """The arguments of the export: specs of tensors, and constants. None if a size of them is not stated."""
        leaves: list[Any] = []
        for name, value in self.program.arguments:
            leaf = Constant(value) if name is None else self._default(name)
            if leaf is None:
                return None
            leaves.append(leaf)
        args, kwargs = nest(self.tree, iter(leaves))
        return ModelArguments(args, kwargs)

    def _default(self, name: str) -> Any:
        tensor = self.program.tensors.get(name)
        if tensor is None:
            hint = self.program.numbers[name].hint if name in self.program.numbers else None
            return None if hint is None else Constant(hint)
        sizes = [size.hint if isinstance(size, SymbolicSize) else size for size in tensor.sizes]
        if any(size is None for size in sizes):
            return None
        return TensorSpec(tuple(size for size in sizes if size is not None), dtype_name(tensor.dtype))

    # -- the arguments of a call ----------------------------------------------------------------------

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The value of each input of the graph. Raises TraceError if the arguments do not fit the program."""
        names = self._names()
        positional, named = (list(child.children) for child in self.tree.children)
        if len(args) > len(positional):
            raise self._misfit(f"{len(args)} positional arguments are given, and it takes {len(positional)}")
        given = dict(enumerate(args))
        rest = dict(kwargs)
        for i in range(len(args), len(positional)):
            if i < len(names) and names[i] in rest:
                given[i] = rest.pop(names[i])
        trees = [(i, tree, given.get(i, self)) for i, tree in enumerate(positional)]
        trees += [(key, tree, rest.pop(key, self)) for key, tree in zip(self.tree.children[1].keys, named, strict=True)]
        if rest:
            raise self._misfit(f"it has no argument {next(iter(rest))!r}")
        leaves: list[Any] = []
        for label, tree, value in trees:
            arguments = self.program.arguments[len(leaves) : len(leaves) + count_leaves(tree)]
            if value is self:
                if any(name is not None for name, _ in arguments):
                    shown = names[label] if isinstance(label, int) and label < len(names) else label
                    raise self._misfit(f"the argument {shown!r} is missing")
                leaves += [Constant(constant) for _, constant in arguments]
            else:
                self._flatten(tree, value, leaves)
        values = {}
        for (name, constant), leaf in zip(self.program.arguments, leaves, strict=True):
            plain = leaf.value if isinstance(leaf, Constant) else leaf
            if name is not None:
                values[name] = plain
            elif type(plain) is not type(constant) or (plain != constant and plain == plain):
                raise self._misfit(f"it was exported with {shorten(constant)} where {shorten(plain)} is given")
        self._check_sizes(values)
        return values

    def _names(self) -> list[str]:
        count = len(self.tree.children[0].children)
        return self.program.argument_names[:count]

    def _flatten(self, tree: Tree, value: Any, leaves: list[Any]) -> None:
        if tree.type is None:
            leaves.append(value)
            return
        if tree.type in MAPPINGS:
            if not isinstance(value, Mapping) or set(value) != set(tree.keys):
                raise self._misfit(f"it takes a dict with the keys {', '.join(map(str, tree.keys))}")
            items = [value[key] for key in tree.keys]
        else:
            if not isinstance(value, (list, tuple)) or len(value) != len(tree.children):
                raise self._misfit(f"it takes a sequence of {len(tree.children)} values where one is given")
            items = list(value)
        for child, item in zip(tree.children, items, strict=True):
            self._flatten(child, item, leaves)

    # -- sizes ----------------------------------------------------------------------------------------

    def _check_sizes(self, values: dict[str, Any]) -> None:
        """Raise TraceError if a size differs from the exported one, or two uses of a symbol disagree."""
        symbols: dict[str, int] = {}
        dependent: list[tuple[str, SymbolicSize, int]] = []
        for name, value in values.items():
            tensor = self.program.tensors.get(name)
            if tensor is None:
                expected: Size | None = self.program.numbers.get(name)
                if isinstance(expected, SymbolicSize) and type(value) is int:
                    self._match(name, expected, value, symbols, dependent)
                elif not isinstance(value, (int, float)):
                    raise self._misfit(f"the argument {name} is a number")
                continue
            if not isinstance(value, torch.Tensor) or value.dim() != len(tensor.sizes):
                raise self._misfit(f"the argument {name} is a tensor with {len(tensor.sizes)} dimensions")
            if value.dtype != tensor.dtype:
                raise self._misfit(
                    f"the argument {name} has the dtype {dtype_name(tensor.dtype)}, not {dtype_name(value.dtype)}"
                )
            for expected, size in zip(tensor.sizes, value.shape, strict=True):
                self._match(name, expected, size, symbols, dependent)
        for name, expected, size in dependent:
            if expected.value(symbols) is None:
                solution = expected.solve(size, symbols)
                if solution == {}:
                    raise self._misfit(f"a size of {name} is {size}, which is not {expected} for any integer")
                symbols.update(solution or {})
            if expected.value(symbols) not in (size, None):
                raise self._misfit(f"a size of {name} is {size} where {expected} is {expected.value(symbols)}")
        for symbol, size in symbols.items():
            low, high = self.program.ranges.get(symbol, (None, None))
            if (low is not None and size < low) or (high is not None and size > high):
                raise self._misfit(f"the size {symbol} is {size}, and it may be from {low} to {high}")

    def _match(
        self, name: str, expected: Size, size: int, symbols: dict[str, int],
        dependent: list[tuple[str, SymbolicSize, int]],
    ) -> None:  # fmt: skip
        if isinstance(expected, int):
            if size != expected:
                raise self._misfit(f"a size of {name} is {size}, and the program was exported for {expected}")
        elif isinstance(expected.tree, str):
            if symbols.setdefault(expected.tree, size) != size:
                raise self._misfit(f"two sizes that must be equal ({expected}) are {symbols[expected.tree]} and {size}")
        else:
            dependent.append((name, expected, size))

    def _misfit(self, reason: str) -> TraceError:
        return misfit(self.file, reason, f"It takes {self.describe()}.")

    def describe(self) -> str:
        """The arguments in one line: `x: 1×3×s0×s0, scale: 1; s0 from 4 to 64`."""
        parts = []
        used: set[str] = set()
        for name, _ in self.program.arguments:
            tensor = self.program.tensors.get(name or "")
            if name is None or tensor is None:
                continue
            parts.append(f"{name}: {_shape(tensor)}")
            used |= {s for size in tensor.sizes if isinstance(size, SymbolicSize) for s in symbols_in(size.tree)}
        limits = [
            f"{symbol} from {low} to {'any size' if high is None else high}"
            for symbol, (low, high) in self.program.ranges.items()
            if symbol in used
        ]
        return "; ".join([", ".join(parts) or "no tensors", *limits])

    def missing_sizes(self, target: str) -> SourceError:
        """The error to raise if the file does not state the sizes of its example inputs."""
        inputs = (name for name, _ in self.program.arguments if name in self.program.tensors)
        options = " ".join(f"--input {_shape(self.program.tensors[name])}" for name in inputs if name is not None)
        return SourceError(
            f"{target} states no example sizes for its inputs ({self.describe()})",
            f"Give each input with numbers for the letters: {options or '--input 1x3x224x224'}",
        )


def _shape(tensor: TensorValue) -> str:
    return "x".join(map(str, tensor.sizes)) or "scalar"
