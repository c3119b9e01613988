"""An exported program as a tree of modules that run its nodes.

The paths and classes come from the metadata of the nodes. A module does not know its inputs: all values of a run are in
one table, and the modules run their part of the nodes in order, so that hooks see which module runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from cspprof.modules.module_tree import CLASS
from cspprof.sources.exported_program.arguments import Device, Ref
from cspprof.sources.exported_program.call_arguments import CallArguments, misfit, nest, parse_tree
from cspprof.sources.exported_program.graph import Graph, ModuleCall, Node, Program, names_in, references
from cspprof.sources.exported_program.json_values import MalformedError, shorten
from cspprof.sources.exported_program.memory_limits import (
    LiveLimit,
    RepeatLimit,
    ValueBudget,
    check_count,
    check_steps,
)
from cspprof.sources.exported_program.operators import (
    ASSERT_SCALAR,
    CHECKS,
    HIGHER_ORDER,
    NUMBERS,
    apply_to_numbers,
    find_operator,
)
from cspprof.sources.exported_program.weights import HeldTensor

ROOT = ModuleCall("", 0)


@dataclass(slots=True)
class Operation:
    """A node that is ready to run."""

    target: str
    func: Any
    args: list[Any]
    kwargs: dict[str, Any]
    outputs: Any
    last_reads: list[str] = field(default_factory=list)
    """The values that no later operation reads."""


@dataclass(slots=True)
class Body:
    """A graph that an operation runs, such as a branch or the body of a loop."""

    inputs: list[str]
    results: list[Any]
    single: bool
    steps: list[Step]


@dataclass(slots=True)
class HigherOrder:
    """An operation on graphs: in another mode, by a condition, or repeatedly."""

    kind: str
    args: list[Any]
    outputs: Any


@dataclass(slots=True)
class Call:
    """The part of the steps that a module runs."""

    path: str
    steps: list[Step]


Step = Operation | HigherOrder | Call


@dataclass(slots=True)
class Run:
    """The values of one forward pass, or of one run of a graph within the graph."""

    modules: dict[str, nn.Module]
    values: dict[str, Any]
    device: str
    limit: ValueBudget | LiveLimit
    """Limits what operations compute with values."""
    repeats: RepeatLimit
    file: str
    """Its name in messages."""
    is_inner: bool = False

    def execute(self, steps: list[Step]) -> None:
        for step in steps:
            if self.is_inner:
                self.repeats.take()
            if isinstance(step, Call):
                self.modules[step.path](step, self)
            elif isinstance(step, Operation):
                self.operate(step)
            else:
                self.run_graphs(step)

    def operate(self, step: Operation) -> None:
        args = [self.resolve(a) for a in step.args]
        kwargs = {k: self.resolve(a) for k, a in step.kwargs.items()}
        if step.func is None:
            result = self.compute(step.target, args)
        else:
            check_count(step.target, step.outputs, kwargs)
            check_steps(step.target, kwargs)
            if kwargs:  # only the writes of mutations have none
                kwargs = self.limit.limited(step.func, kwargs, self.values)
            result = step.func(*args, **kwargs)
        self.assign(step.outputs, result, step.target)
        for name in step.last_reads:
            self.values.pop(name, None)

    def compute(self, target: str, args: list[Any]) -> Any:
        """The result of a function that is not an operator on tensors."""
        if target in NUMBERS:
            return apply_to_numbers(target, args)
        if args and not isinstance(args[0], torch.Tensor) and not args[0]:
            message = args[1] if len(args) > 1 else "a condition of the program"
            raise misfit(self.file, shorten(message), "Give another --input.")
        return None

    def run_graphs(self, step: HigherOrder) -> None:
        """Run an operation on graphs. torch runs loops and branches with the graphs as Python functions, as in the
        trace of a module."""
        args: list[Any] = [self.function(a) if isinstance(a, Body) else self.resolve(a) for a in step.args]
        if step.kind == "wrap_with_set_grad_enabled":
            enabled, function, *operands = args
            with torch.set_grad_enabled(enabled is True):
                result = function(*operands)
        elif step.kind == "wrap_with_autocast":
            device, dtype, enabled, cache, function, *operands = args
            with torch.autocast(device, dtype=dtype, enabled=enabled is True, cache_enabled=cache):
                result = function(*operands)
        else:
            if step.kind in ("scan", "map_impl"):
                self.repeats.check_length(args[-2])
            operands = [tuple(a) if isinstance(a, list) and step.kind != "scan" else a for a in args]
            result = getattr(torch.ops.higher_order, step.kind)(*operands)
        if not isinstance(step.outputs, list) and isinstance(result, (list, tuple)):
            (result,) = result
        self.assign(step.outputs, result, step.kind)

    def function(self, body: Body) -> Callable[..., Any]:
        """A graph as a function of its operands."""

        def call(*operands: Any) -> Any:
            values = dict(zip(body.inputs, operands, strict=True))
            inner = Run(self.modules, values, self.device, self.limit, self.repeats, self.file, is_inner=True)
            inner.execute(body.steps)
            results = [inner.resolve(r) for r in body.results]
            return results[0] if body.single and len(results) == 1 else tuple(results)

        return call

    def resolve(self, argument: Any) -> Any:
        """The value of an argument."""
        if isinstance(argument, Ref):
            return self.values[argument.name]
        if isinstance(argument, list):
            return [self.resolve(item) for item in argument]
        if isinstance(argument, Device):
            return torch.device(argument.type if argument.type == "meta" else self.device)
        return argument

    def assign(self, outputs: Any, result: Any, target: str) -> None:
        """Store a result under the names that the program gives it."""
        if isinstance(outputs, str):
            self.values[outputs] = result
        elif isinstance(outputs, list) and outputs:
            if not isinstance(result, (list, tuple)) or len(result) != len(outputs):
                raise MalformedError(f"{target} does not return {len(outputs)} values, as the program says")
            for name, item in zip(outputs, result, strict=True):
                self.assign(name, item, target)


class Submodule(nn.Module):
    """A module of the exported model."""

    def forward(self, call: Call, run: Run) -> None:
        run.execute(call.steps)


class ExportedModel(nn.Module):
    """The exported model. Its forward takes the arguments of the export and returns its results."""

    def __init__(self, program: Program, tensors: list[HeldTensor], file: str) -> None:
        """`file` is its name in messages."""
        super().__init__()
        self.program = program
        self.arguments = CallArguments(program, file)
        self.out_tree = parse_tree(program.out_spec, "out_spec")
        self.constants: dict[str, torch.Tensor] = {}
        _add_modules(self, program, tensors)
        for kind, path, tensor in tensors:
            if kind == "constant":
                self.constants[path] = tensor
                continue
            *parents, name = path.split(".")
            owner = find_module(self, parents)
            table: dict[str, Any] = owner._parameters if kind == "parameter" else owner._buffers
            table[name] = tensor
        held = {(kind, path) for kind, path, _ in tensors}
        for kind, path in program.weights.values():
            if (kind, path) not in held:
                raise MalformedError(f"the {kind} {shorten(path)} is missing")
        self.steps = build_steps(program)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        values = self.arguments.bind(args, kwargs)
        tensors = [value for value in values.values() if isinstance(value, torch.Tensor)]
        device = next((t.device.type for t in tensors if not t.is_meta), "cpu")
        on_meta = any(t.is_meta for t in tensors) or not tensors
        for name, (kind, path) in self.program.weights.items():
            *parents, last = path.split(".")
            if kind == "constant":
                values[name] = self.constants[path].to(device)
            else:
                owner = find_module(self, parents)
                values[name] = (owner._parameters if kind == "parameter" else owner._buffers)[last]
        modules = {path: find_module(self, path.split(".")) for path in _paths(self.steps)}
        run = Run(
            modules,
            values,
            device,
            ValueBudget() if on_meta else LiveLimit(values[name] for name in self.program.weights),
            RepeatLimit(),
            self.arguments.file,
        )
        run.execute(self.steps)
        return nest(self.out_tree, iter([run.resolve(result) for result in self.program.results]))


def _paths(steps: list[Step]) -> set[str]:
    """The paths of the modules that steps call."""
    found: set[str] = set()
    for step in steps:
        if isinstance(step, Call):
            found |= {step.path} | _paths(step.steps)
        elif isinstance(step, HigherOrder):
            found = found.union(*(_paths(body.steps) for body in step.args if isinstance(body, Body)))
    return found


def find_module(root: nn.Module, parts: list[str]) -> nn.Module:
    """The module at a path. Names of the file are keys of the tables of submodules, not attributes."""
    for part in parts:
        child = root._modules[part]
        assert child is not None, "every path was added"
        root = child
    return root


def _add_modules(root: nn.Module, program: Program, tensors: list[HeldTensor]) -> None:
    """Add the modules of the program in the order of the model, each with its class as `CLASS`."""
    aliases = _simple_aliases(program.aliases)
    shared: dict[str, nn.Module] = {}
    count = 0
    if "" in program.classes:
        vars(root)[CLASS] = program.classes[""]

    def add(path: str) -> nn.Module:
        nonlocal count
        if not path:
            return root
        parent_path, _, name = path.rpartition(".")
        parent = add(parent_path)
        found = parent._modules.get(name)
        if found is None:
            target = aliases.get(path, path)
            found = shared.get(target)
            if found is None:
                count += 1
                if count > MAX_MODULES:
                    raise MalformedError(f"it has more than {MAX_MODULES:,} modules")
                found = Submodule() if path in program.classes else nn.Module()
                if path in program.classes:
                    vars(found)[CLASS] = program.classes[path]
                shared[target] = found
            parent._modules[name] = found
        return found

    for path in (*program.modules, *program.classes):
        add(path)
    for kind, path, _ in tensors:
        if kind != "constant":
            add(path.rpartition(".")[0])


MAX_MODULES = 100_000
MAX_ALIASES = 100


def _simple_aliases(aliases: dict[str, str]) -> dict[str, str]:
    """The modules with a second path, without those within a shared module.

    Shared modules within shared modules have 2**n paths at depth n, and a module within itself has no end.
    """
    found: dict[str, str] = {}
    shared: set[str] = set()
    for path, target in sorted(aliases.items(), key=lambda item: item[0].count(".")):
        around = {*_ancestors(path), *_ancestors(target)}
        if path in around or target in around or not shared.isdisjoint(around) or len(found) == MAX_ALIASES:
            continue
        found[path] = target
        shared |= {path, target}
    return found


def _ancestors(path: str) -> list[str]:
    """The paths of the modules around a module: `a`, `a.b` for `a.b.c`."""
    parts = path.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def build_steps(program: Program) -> list[Step]:
    """The steps of a program's forward, in order. Raises MalformedError if a graph calls what it may not call."""
    mutations: dict[str, list[str]] = {}
    for value, target in program.mutations:
        mutations.setdefault(value, []).append(target)
    steps = _steps(program.graph, (ROOT,), mutations)
    _free_values(steps, set(references(program.results)))
    return steps


def _steps(graph: Graph, base: tuple[ModuleCall, ...], mutations: dict[str, list[str]]) -> list[Step]:
    """The steps of a graph that runs within the module calls `base`."""
    root: list[Step] = []
    running: list[tuple[ModuleCall, list[Step]]] = []
    for node in graph.nodes:
        stack = node.stack
        if stack is not None:
            calls = [call for call in stack if call.path and call not in base]
            depth = 0
            while depth < min(len(calls), len(running)) and running[depth][0] == calls[depth]:
                depth += 1
            del running[depth:]
            for call in calls[depth:]:
                steps: list[Step] = []
                (running[-1][1] if running else root).append(Call(call.path, steps))
                running.append((call, steps))
        current = running[-1][1] if running else root
        step = _step(node, (*base, *(call for call, _ in running)))
        if step is not None:
            current.append(step)
        for name in list(names_in(node.outputs)) if mutations else ():
            for target in mutations.pop(name, ()):
                current.append(_write(target, name))
    for name, targets in mutations.items():
        root += [_write(target, name) for target in targets]
    return root


def _step(node: Node, base: tuple[ModuleCall, ...]) -> Step | None:
    """The step of a node; None if it only checks values. Raises MalformedError if a graph may not call its target."""
    kind = node.target.removeprefix("torch.ops.higher_order.")
    if kind != node.target and kind in HIGHER_ORDER:
        return _higher_order(node, kind, base)
    if any(isinstance(value, Graph) for _, value in node.args):
        find_operator(node.target)  # refuses any other operator on graphs by its name
        raise MalformedError(f"{shorten(node.target)} takes no graph")
    if node.target in NUMBERS:
        return Operation(node.target, None, [value for _, value in node.args], {}, node.outputs)
    func = find_operator(node.target)
    plain = func._schema.name.replace("::", ".")
    if plain in CHECKS:
        return None
    if plain == ASSERT_SCALAR:
        return Operation(node.target, None, [value for _, value in node.args], {}, node.outputs)
    known = {argument.name for argument in func._schema.arguments}
    kwargs: dict[str, Any] = {}
    for name, value in node.args:
        if name not in known or name in kwargs:
            raise MalformedError(f"{shorten(node.target)} has no argument {shorten(name)}, or has it twice")
        kwargs[name] = value
    return Operation(node.target, func, [], kwargs, node.outputs)


def _higher_order(node: Node, kind: str, base: tuple[ModuleCall, ...]) -> HigherOrder:
    values = [value for _, value in node.args]
    expected = HIGHER_ORDER[kind].split()
    kinds = ["graph" if isinstance(v, Graph) else "list" if isinstance(v, list) else "value" for v in values]
    if expected[-1] == "*":
        expected[-1:] = kinds[len(expected) - 1 :]
    if kinds != expected:
        raise MalformedError(f"{kind} has other arguments than {HIGHER_ORDER[kind]}")
    after = values[kinds.index("graph") :]
    operands = sum(len(v) if isinstance(v, list) else 1 for v in after if not isinstance(v, Graph))
    for graph in after:
        if isinstance(graph, Graph) and len(graph.inputs) != operands:
            raise MalformedError(f"{kind} passes {operands} values to a graph of {len(graph.inputs)}")
    return HigherOrder(kind, [_body(v, base) if isinstance(v, Graph) else v for v in values], node.outputs)


def _body(graph: Graph, base: tuple[ModuleCall, ...]) -> Body:
    steps = _steps(graph, base, {})
    _free_values(steps, set(references(graph.outputs)))
    return Body(graph.inputs, graph.outputs, graph.single, steps)


def _write(target: str, value: str) -> Operation:
    """Write a value into an input of the graph. Later operations read the input in place of the value."""
    copy = torch.ops.aten.copy_.default
    return Operation("torch.ops.aten.copy_.default", copy, [Ref(target), Ref(value)], {}, value)


def _operations(steps: list[Step]) -> Iterator[Operation | HigherOrder]:
    for step in steps:
        if isinstance(step, Call):
            yield from _operations(step.steps)
        else:
            yield step


def _free_values(steps: list[Step], kept: set[str]) -> None:
    """Let each operation free the values that it reads last, so that a run holds no more than it needs."""
    operations = list(_operations(steps))
    seen = set(kept)
    for step in reversed(operations):
        args = [*step.args, *(step.kwargs.values() if isinstance(step, Operation) else ())]
        last = [name for name in Counter(references(args)) if name not in seen]
        seen.update(last)
        if isinstance(step, Operation):
            step.last_reads = [name for name in last if name not in set(names_in(step.outputs))]
