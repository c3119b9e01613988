"""The program of an archive as plain data: nodes with their arguments, inputs, outputs and modules.

It follows the schema of `torch._export.serde.schema`, version 8. What the schema has and a profile cannot use (objects
of other classes, gradients, tokens) is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from cspprof.sources.exported_program.arguments import (
    ARGUMENTS,
    CONSTANTS,
    DTYPES,
    LARGEST,
    Ref,
    integer,
    one_of,
    tensor_ref,
)
from cspprof.sources.exported_program.expressions import SymbolicSize, parse_expression
from cspprof.sources.exported_program.json_values import MalformedError, as_kind, field, shorten, variant

MAJOR_VERSION = 8
"""The version of the schema that torch 2.13 and 2.14 write."""

MAX_DEPTH = 60
"""The depth of module paths and of graphs within graphs."""

MAX_EXPRESSIONS = 1_000_000
"""Characters of all different expressions for sizes."""

Size = int | SymbolicSize


class TensorValue(NamedTuple):
    """The shape of a tensor. Its sizes may depend on the input."""

    dtype: torch.dtype
    sizes: tuple[Size, ...]
    strides: tuple[Size, ...]
    offset: Size
    requires_grad: bool


class ModuleCall(NamedTuple):
    """A module that runs: its path, and which of its calls this is."""

    path: str
    call: int


@dataclass(slots=True)
class Node:
    """One call of an operator. `outputs` has the form of its result: a name, or a list of names."""

    target: str
    args: list[tuple[str, Any]]
    """Name and value of each argument."""
    outputs: Any
    stack: tuple[ModuleCall, ...] | None
    """The modules that run, outermost first; None if the file does not say."""


@dataclass(slots=True)
class Graph:
    """Nodes in order. Each reads values that an input or an earlier node defines."""

    inputs: list[str]
    nodes: list[Node]
    outputs: list[Any]
    single: bool
    """Whether a graph within a graph returns its only output itself, and no tuple."""


@dataclass(slots=True)
class Program:
    """An exported program."""

    graph: Graph
    tensors: dict[str, TensorValue]
    """The shapes of the inputs of the graph."""
    numbers: dict[str, SymbolicSize]
    """The inputs that are numbers and may change."""
    weights: dict[str, tuple[str, str]]
    """Inputs of the graph that belong to the model: (`parameter`, `buffer` or `constant`, path)."""
    temporary: set[str]
    """Paths of buffers that are not in the state dict."""
    arguments: list[tuple[str | None, Any]]
    """The arguments of the forward in order: (name of an input of the graph, None), or (None, constant)."""
    results: list[Any]
    """The values that the forward returns, in order: a `Ref` or a constant."""
    mutations: list[tuple[str, str]]
    """(value, input of the graph into which it is written)."""
    ranges: dict[str, tuple[int | None, int | None]]
    in_spec: str
    out_spec: str
    argument_names: list[str]
    modules: list[str]
    """Paths of all modules, in the order of the model."""
    classes: dict[str, str]
    """The class of each module that runs, by path."""
    aliases: dict[str, str]
    """Paths of modules that are the same object as another one, by path."""


def read_program(data: Any) -> Program:
    """The program in the parsed JSON of an archive. Raises MalformedError."""
    version = field(field(data, "schema_version", dict, "the program"), "major", int, "schema_version")
    if version != MAJOR_VERSION:
        raise MalformedError(
            f"its schema has version {version}, and only version {MAJOR_VERSION} is known",
            "Export the model with torch 2.13 or 2.14.",
        )
    return _ProgramReader(data).read()


class _ProgramReader:
    """Collects the modules that the nodes name while it reads the graph."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.classes: dict[str, str] = {}
        self.paths_by_key: dict[str, str] = {}
        self.aliases: dict[str, str] = {}

    def read(self) -> Program:
        module = field(self.data, "graph_module", dict, "the program")
        graph_data = field(module, "graph", dict, "graph_module")
        _check_expressions(graph_data)
        entries = field(module, "module_call_graph", list, "graph_module")
        modules = list(dict.fromkeys(without_call(field(e, "fqn", str, "module_call_graph")) for e in entries))
        for path in modules:
            check_path(path)
        if not entries or modules[0] != "":
            raise MalformedError("module_call_graph does not begin with the model itself")
        graph = self.graph(graph_data, 0)
        signature = field(module, "signature", dict, "graph_module")
        weights, temporary, arguments = _input_specs(field(signature, "input_specs", list, "signature"))
        results, mutations = _output_specs(field(signature, "output_specs", list, "signature"), weights)
        _check_signature(graph, weights, arguments, results, mutations)
        call = field(entries[0], "signature", dict, "module_call_graph")
        names = call.get("forward_arg_names") or []
        tensor_values = field(graph_data, "tensor_values", dict, "graph")
        numbers = field(graph_data, "sym_int_values", dict, "graph")
        return Program(
            graph=graph,
            tensors={n: tensor_value(tensor_values[n], n) for n in graph.inputs if n in tensor_values},
            numbers={n: size for n in graph.inputs if isinstance(size := _size(numbers.get(n), n), SymbolicSize)},
            weights=weights,
            temporary=temporary,
            arguments=arguments,
            results=results,
            mutations=mutations,
            ranges=_ranges(field(self.data, "range_constraints", dict, "the program")),
            in_spec=field(call, "in_spec", str, "signature"),
            out_spec=field(call, "out_spec", str, "signature"),
            argument_names=[as_kind(name, str, "forward_arg_names") for name in as_kind(names, list, "signature")],
            modules=modules,
            classes=self.classes,
            aliases=self.aliases,
        )

    # -- the graph ------------------------------------------------------------------------------------

    def graph(self, data: Any, depth: int) -> Graph:
        """A graph, also one within a graph. Raises MalformedError if a node reads an undefined value."""
        if depth > MAX_DEPTH:
            raise MalformedError(f"graphs are nested more than {MAX_DEPTH} times")
        inputs = []
        for i, item in enumerate(field(data, "inputs", list, "graph")):
            tag, value = variant(item, f"graph.inputs[{i}]")
            inputs.append(_input_name(tag, value, i))
        defined = set(inputs)
        if len(defined) != len(inputs):
            raise MalformedError("two inputs of the graph have the same name")
        nodes = []
        for i, item in enumerate(field(data, "nodes", list, "graph")):
            node = self.node(item, i, depth)
            _check_names(node, defined)
            nodes.append(node)
        outputs = [self.argument(o, "graph.outputs", depth) for o in field(data, "outputs", list, "graph")]
        for name in references(outputs):
            if name not in defined:
                raise MalformedError(f"the graph returns {shorten(name)}, which no node defines")
        return Graph(inputs, nodes, outputs, data.get("is_single_tensor_return") is True)

    def node(self, data: Any, index: int, depth: int) -> Node:
        target = field(data, "target", str, f"nodes[{index}]")
        where = f"nodes[{index}] ({shorten(target)})"
        args = []
        for item in field(data, "inputs", list, where):
            name = field(item, "name", str, where)
            value = self.argument(item.get("arg"), f"{where}, argument {shorten(name)},", depth)
            args.append((name, value))
        outputs = [_output(item, where) for item in field(data, "outputs", list, where)]
        single = len(outputs) == 1 and data.get("is_hop_single_tensor_return") is not False
        stack = self.stack(field(data, "metadata", dict, where).get("nn_module_stack"), where)
        return Node(target, args, outputs[0] if single else outputs, stack)

    def stack(self, text: Any, where: str) -> tuple[ModuleCall, ...] | None:
        """The modules in the text `key,path,class;…`, in which `key` is `name@2` for the third call of a module."""
        if not text:
            return None
        calls = []
        for item in as_kind(text, str, where).split(";"):
            parts = item.split(",", 2)
            if len(parts) != 3:
                raise MalformedError(f"{where} belongs to {shorten(item)}, which is no module")
            key, path, class_name = parts
            if key == "_empty_nn_module_stack_from_metadata_hook":
                return None
            path = without_call(path)
            check_path(path)
            key, _, number = key.partition("@")
            self.classes.setdefault(path, class_name[:200])
            first = self.paths_by_key.setdefault(key, path) if path else path
            if first != path:
                self.aliases[path] = first
            calls.append(ModuleCall(path, int(number) if number.isdecimal() and len(number) < 9 else 0))
        return tuple(calls)

    def argument(self, data: Any, where: str, depth: int) -> Any:
        """An argument as a Python value, in which `Ref` stands for the value of another node."""
        tag, value = variant(data, where)
        if tag == "as_graph":
            return self.graph(field(value, "graph", dict, where), depth + 1)
        if tag not in ARGUMENTS:
            raise MalformedError(
                f"{where} is of the kind {shorten(tag)}, which is not read",
                "It is not loaded, because that could run code. Export the model without it.",
            )
        return ARGUMENTS[tag](value, where)


def _input_name(tag: str, value: Any, index: int) -> str:
    if tag == "as_tensor":
        return field(value, "name", str, "graph.inputs")
    if tag in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        return field(value, "as_name", str, "graph.inputs")
    if tag in ("as_int", "as_float", "as_bool", "as_none", "as_string"):
        return f"{index} constant"  # no other name has a space
    raise MalformedError(f"input {index} of the graph is of the kind {shorten(tag)}, which is not read")


def _check_names(node: Node, defined: set[str]) -> None:
    """Raise MalformedError unless the node reads values that are defined and defines new ones."""
    for name in references([value for _, value in node.args]):
        if name not in defined:
            raise MalformedError(f"{shorten(node.target)} reads {shorten(name)}, which no earlier node defines")
    for name in names_in(node.outputs):
        if name in defined:
            raise MalformedError(f"two nodes define {shorten(name)}")
        defined.add(name)


def references(value: Any) -> Iterator[str]:
    """The names that an argument refers to."""
    if isinstance(value, Ref):
        yield value.name
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from references(item)


def names_in(outputs: Any) -> Iterator[str]:
    """The names in the outputs of a node."""
    if isinstance(outputs, str):
        yield outputs
    elif isinstance(outputs, list):
        for item in outputs:
            yield from names_in(item)


def _output(data: Any, where: str) -> Any:
    tag, value = variant(data, where)
    if tag == "as_none":
        return None
    if tag == "as_tensor":
        return field(value, "name", str, where)
    if tag in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        return field(value, "as_name", str, where)
    if tag == "as_tensors":
        return [field(item, "name", str, where) for item in as_kind(value, list, where)]
    raise MalformedError(f"{where} has an output of the kind {shorten(tag)}, which is not read")


# -- sizes and tensors --------------------------------------------------------------------------------


def _size(data: Any, where: str) -> Size | None:
    if data is None:
        return None
    tag, value = variant(data, where)
    if tag == "as_int":
        return integer(value, where)
    if tag != "as_expr":
        raise MalformedError(f"a size of {shorten(where)} is of the kind {shorten(tag)}, which is not read")
    hint = value.get("hint") if isinstance(value, dict) else None
    number = None if hint is None else hint.get("as_int") if isinstance(hint, dict) else None
    return SymbolicSize(
        parse_expression(field(value, "expr_str", str, where)), None if number is None else integer(number, where)
    )


def tensor_value(data: Any, where: str) -> TensorValue:
    """The shape of a tensor. Raises MalformedError if it cannot exist."""
    name = f"the tensor {shorten(where)}"
    sizes, strides = (_sizes(field(data, key, list, name), name) for key in ("sizes", "strides"))
    if field(data, "layout", int, name) != 7:
        raise MalformedError(f"{name} is sparse: only dense tensors are read")
    dtype = one_of(DTYPES)(data.get("dtype"), name)
    numel, steps = dtype.itemsize, 0
    for size in sizes:
        numel *= size if isinstance(size, int) else 1
    if len(sizes) != len(strides) or numel >= LARGEST or len(sizes) > 64:
        raise MalformedError(f"{name} has an impossible shape: {'×'.join(map(str, sizes))[:80]}")
    for size, stride in zip(sizes, strides, strict=True):
        if isinstance(size, int) and isinstance(stride, int):
            steps += max(size - 1, 0) * stride
    if steps * dtype.itemsize >= LARGEST:
        raise MalformedError(f"{name} has impossible strides: {'×'.join(map(str, strides))[:80]}")
    offset = _size(data.get("storage_offset"), name)
    return TensorValue(dtype, sizes, strides, 0 if offset is None else offset, data.get("requires_grad") is True)


def _sizes(items: list[Any], where: str) -> tuple[Size, ...]:
    sizes = []
    for item in items:
        size = _size(item, where)
        if size is None or (isinstance(size, int) and size < 0):
            raise MalformedError(f"{where} has the size {shorten(size)}")
        sizes.append(size)
    return tuple(sizes)


def _check_expressions(data: Any) -> None:
    """Parse every expression in the graph, also those that a profile does not use. Raises MalformedError."""
    stack = [data]
    seen: set[str] = set()
    characters = 0
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            text = value.get("expr_str")
            if text is not None and as_kind(text, str, "expr_str") not in seen:
                seen.add(text)
                characters += len(text)
                if characters > MAX_EXPRESSIONS:
                    raise MalformedError(f"its expressions for sizes have more than {MAX_EXPRESSIONS:,} characters")
                parse_expression(text)
            stack += [item for item in value.values() if isinstance(item, (dict, list))]
        else:
            stack += [item for item in value if isinstance(item, (dict, list))]


def _ranges(data: dict[str, Any]) -> dict[str, tuple[int | None, int | None]]:
    found = {}
    for name, limits in data.items():
        low, high = (as_kind(limits, dict, "range_constraints").get(key) for key in ("min_val", "max_val"))
        found[name] = (low if type(low) is int else None, high if type(high) is int else None)
        if type(low) is int and type(high) is int and low > high:
            raise MalformedError(f"the range of the size {shorten(name)} is empty: from {low} to {high}")
    return found


# -- signature ----------------------------------------------------------------------------------------


def _input_specs(items: list[Any]) -> tuple[dict[str, tuple[str, str]], set[str], list[tuple[str | None, Any]]]:
    """The inputs of the graph by their role: tensors of the model, and arguments of the forward."""
    weights: dict[str, tuple[str, str]] = {}
    temporary: set[str] = set()
    arguments: list[tuple[str | None, Any]] = []
    targets = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}
    for i, item in enumerate(items):
        where = f"input_specs[{i}]"
        tag, spec = variant(item, where)
        if tag in targets:
            target = field(spec, targets[tag], str, where)
            check_path(target)
            weights[tensor_ref(spec.get("arg"), where).name] = (tag.removeprefix("tensor_"), target)
            if tag == "buffer" and spec.get("persistent") is False:
                temporary.add(target)
        elif tag == "user_input":
            kind, value = variant(field(spec, "arg", dict, where), where)
            if kind in CONSTANTS:
                arguments.append((None, CONSTANTS[kind](value, where)))
            else:
                arguments.append((_input_name(kind, value, i), None))
        elif tag == "constant_input":
            kind, value = variant(field(spec, "value", dict, where), where)
            if kind not in CONSTANTS:
                raise MalformedError(f"{where} is a constant of the kind {shorten(kind)}, which is not read")
            arguments.append((None, CONSTANTS[kind](value, where)))
        else:
            raise MalformedError(
                f"{where} is of the kind {shorten(tag)}: only tensors and numbers are read",
                "It is not loaded, because that could run code. Export the model without it.",
            )
    return weights, temporary, arguments


def _output_specs(items: list[Any], weights: dict[str, tuple[str, str]]) -> tuple[list[Any], list[tuple[str, str]]]:
    """The results of the forward, and what is written into inputs of the graph."""
    results: list[Any] = []
    mutations: list[tuple[str, str]] = []
    by_target = {target: name for name, target in weights.items()}
    for i, item in enumerate(items):
        where = f"output_specs[{i}]"
        tag, spec = variant(item, where)
        if tag in ("user_output", "loss_output"):
            argument = field(spec, "arg", dict, where)
            if tag == "loss_output":
                results.append(tensor_ref(argument, where))
                continue
            kind, value = variant(argument, where)
            if kind not in ARGUMENTS:
                raise MalformedError(f"{where} is of the kind {shorten(kind)}, which is not read")
            results.append(ARGUMENTS[kind](value, where))
        elif tag in ("buffer_mutation", "parameter_mutation"):
            kind = tag.removesuffix("_mutation")
            target = field(spec, f"{kind}_name", str, where)
            if (kind, target) not in by_target:
                raise MalformedError(f"{where} writes {shorten(target)}, which is not an input of the graph")
            mutations.append((tensor_ref(spec.get("arg"), where).name, by_target[kind, target]))
        elif tag == "user_input_mutation":
            mutations.append((tensor_ref(spec.get("arg"), where).name, field(spec, "user_input_name", str, where)))
        else:
            raise MalformedError(f"{where} is of the kind {shorten(tag)}: only a forward pass can be profiled")
    return results, mutations


def _check_signature(
    graph: Graph, weights: dict[str, tuple[str, str]], arguments: list[tuple[str | None, Any]], results: list[Any],
    mutations: list[tuple[str, str]],
) -> None:  # fmt: skip
    """Raise MalformedError unless the signature and the graph have the same inputs and outputs."""
    described = weights.keys() | {name for name, _ in arguments if name is not None}
    for name in graph.inputs:
        if name not in described and not name.endswith(" constant"):
            raise MalformedError(f"the signature does not describe the input {shorten(name)} of the graph")
    inputs = set(graph.inputs)
    for name in (*described, *(written for _, written in mutations)):
        if name not in inputs:
            raise MalformedError(f"the signature describes {shorten(name)}, which is not an input of the graph")
    returned = set(references(graph.outputs))
    for name in (*references(results), *(value for value, _ in mutations)):
        if name not in returned:
            raise MalformedError(f"the signature describes {shorten(name)}, which is not an output of the graph")


def without_call(path: str) -> str:
    """The path of a module without the numbers of its calls: `layers@1.0` -> `layers.0`."""
    return ".".join(part.partition("@")[0] for part in path.split(".")) if "@" in path else path


def check_path(path: str) -> None:
    """Raise MalformedError for a path that no module or parameter can have."""
    parts = path.split(".")
    if len(parts) > MAX_DEPTH or len(path) > 2000 or (path and not all(parts)):
        raise MalformedError(f"{shorten(path)} is no path of a module")
