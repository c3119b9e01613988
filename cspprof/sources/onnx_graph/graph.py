"""Walk over a graph in execution order, also over the functions that it calls and the graphs in its nodes."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from cspprof.core.errors import SourceError
from cspprof.core.kinds import Kind
from cspprof.core.record import OpSpec, Record
from cspprof.core.tensors import TensorSpec
from cspprof.ops import Facts
from cspprof.sources.onnx_graph.constant_folding import ConstantFolder, is_small
from cspprof.sources.onnx_graph.model_file import (
    constant_array,
    declared_specs,
    dtype_of,
    is_possible,
    shape_text,
    sparse_spec,
    subgraphs,
    tensor_spec,
)
from cspprof.sources.onnx_graph.recording import Recording
from cspprof.sources.onnx_graph.shape_inference import WINDOW_ATTRIBUTES, ShapeInference, operator_name
from cspprof.sources.onnx_graph.values import MAX_DEPTH, Origin, Scope, Value
from cspprof.sources.onnx_graph.weights import is_data

MAX_REPEATED = 100_000
"""How many nodes of functions and of graphs in nodes are visited. Each call and each round visits them again."""
MAX_UNROLLED = 20_000
"""How many nodes the rounds of loops visit. A longer loop is not counted."""

RANDOM = frozenset({
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial",
})  # fmt: skip
"""Operators whose output is an activation in any case."""

_VALUE_ATTRIBUTES = ("value", "value_float", "value_floats", "value_int", "value_ints")


class UncountableError(Exception):
    """The work of a node depends on values that are known only when the graph runs, or is too long to be listed."""


class GraphWalker:
    """Visits the nodes of a model and records what they do."""

    def __init__(self, path: Path, model: ModelProto, inputs: Mapping[str, TensorSpec]) -> None:
        self.path, self.model, self.inputs = path, model, inputs
        self.shapes = ShapeInference(path, model)
        self.folder = ConstantFolder()
        self.recording = Recording()
        self.functions: dict[tuple[str, str, str], FunctionProto] = {
            (f.domain, f.name, f.overload): f for f in model.functions
        }
        self.costs: dict[tuple[Any, ...], tuple[list[TensorSpec], Facts]] = {}
        """The outputs and the cost of nodes by everything that they depend on."""
        self.inner_names: dict[str, tuple[dict[str, TensorSpec], frozenset[str]]] = {}
        """What a graph in a node declares and reads."""
        self.repeated_left = MAX_REPEATED
        self.unrolled_left = MAX_UNROLLED

    def record(self, source: str, notes: tuple[str, ...]) -> Record:
        """The record of the whole graph. Raises SourceError with the name of the node that contradicts its inputs."""
        graph = self.model.graph
        opsets = {o.domain: o.version for o in self.model.opset_import}
        scope = Scope("", opsets, ChainMap(), declared_specs((*graph.value_info, *graph.output)), values_read(graph))
        for name, spec in self.inputs.items():
            scope.values[name] = self.recording.input(name, spec)
        if self._expanded(graph, {}, 0) - len(graph.node) > MAX_REPEATED:
            raise self._too_many_nodes()
        self.walk(graph, scope)
        self._check_outputs(scope)
        outputs = [scope.values[output.name] for output in graph.output]
        return self.recording.record(self.path, source, self.inputs, outputs, notes)

    def _expanded(self, graph: GraphProto | FunctionProto, sizes: dict[tuple[str, str, str], int], depth: int) -> int:
        """The number of nodes with those of all functions that they call. `sizes` remembers it for each function."""
        self._check_depth(depth)
        count = len(graph.node)
        for node in graph.node:
            count += sum(self._expanded(inner, sizes, depth + 1) for _, inner in subgraphs(node))
            key = node.domain, node.op_type, node.overload
            if key in self.functions:
                if key not in sizes:
                    sizes[key] = self._expanded(self.functions[key], sizes, depth + 1)
                count += sizes[key]
        return count

    def _check_depth(self, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise SourceError(
                f"{self.path.name}: functions and graphs in nodes nest deeper than {MAX_DEPTH}", "Simplify the graph."
            )

    def _too_many_nodes(self) -> SourceError:
        return SourceError(
            f"{self.path.name}: its functions expand to more than {MAX_REPEATED:,} nodes",
            "Export the model without local functions.",
        )

    def walk(self, graph: GraphProto | FunctionProto, scope: Scope) -> None:
        """Visit the nodes of a graph or a function whose inputs are in the scope."""
        self._check_depth(scope.depth)
        if isinstance(graph, GraphProto):
            self._add_initializers(graph, scope)
        for node in graph.node:
            if scope.depth:
                self.repeated_left -= 1
            if self.repeated_left < 0:
                raise self._too_many_nodes()
            self._visit(node, scope)

    def _add_initializers(self, graph: GraphProto, scope: Scope) -> None:
        for tensor in graph.initializer:
            array = constant_array(tensor, self.path.parent)
            scope.values[tensor.name] = self.recording.store(
                scope.place, tensor.name, tensor_spec(tensor), Origin.INITIALIZER, array
            )
        for sparse in graph.sparse_initializer:
            name = sparse.values.name
            scope.values[name] = self.recording.store(scope.place, name, sparse_spec(sparse), Origin.INITIALIZER)

    # -- nodes --------------------------------------------------------------------------------------

    def _visit(self, node: NodeProto, scope: Scope) -> None:
        try:
            node = scope.resolve(node)
            missing = [name for name in node.input if name and name not in scope.values]
            if missing:
                raise self.shapes.error(
                    node, f"reads {missing[0]!r}, which no earlier node computes",
                    "Sort the nodes topologically, or export the model again.",
                )  # fmt: skip
            function = self.functions.get((node.domain, node.op_type, node.overload))
            if function is not None:
                self._call_function(node, function, scope)
            elif not node.domain and node.op_type in ("If", "Loop", "Scan"):
                self._control_flow(node, scope)
            elif not node.domain and node.op_type == "Constant":
                self._add_constant(node, scope)
            else:
                self._add_node(node, scope)
        except (SourceError, UncountableError):
            raise
        except Exception as error:  # the library raises errors of several classes
            what = (str(error).splitlines() or ["its shapes do not fit"])[-1].strip()
            raise self.shapes.error(node, what, "Export it again, or simplify the graph (onnxsim).") from None

    def _add_constant(self, node: NodeProto, scope: Scope) -> None:
        """A stored tensor, in one of the forms that the node `Constant` has."""
        attrs = _attributes(node)
        value = next((attrs[name] for name in _VALUE_ATTRIBUTES if name in attrs), None)
        if isinstance(value, TensorProto):
            spec, array = tensor_spec(value), constant_array(value, self.path.parent)
        elif value is not None:
            is_tuple = isinstance(value, tuple)
            is_float = any("float" in name for name in _VALUE_ATTRIBUTES if name in attrs)
            spec = TensorSpec((len(value),) if is_tuple else (), "float32" if is_float else "int64")
            array = _small_array(value, spec)
        elif "sparse_value" in attrs:
            spec, array = sparse_spec(attrs["sparse_value"]), None
        else:
            spec, array = TensorSpec((len(attrs["value_strings"]),) if "value_strings" in attrs else (), "string"), None
        (name,) = node.output
        scope.values[name] = self.recording.store(scope.place, name, spec, Origin.NODE, array)

    def _add_node(self, node: NodeProto, scope: Scope) -> None:
        """Record the call of an operator, or compute a constant from constants."""
        attrs, name = _attributes(node), operator_name(node)
        inputs = [scope.values[i] for i in node.input if i]
        if name in ("Shape", "Size"):
            array = self.folder.shape_of(node, attrs, inputs[0].spec)
            self._bind_constant(node.output[0], _spec_of_array(array), node, scope, array)
            return
        if all(value.constant for value in inputs) and name not in RANDOM:
            self._add_computed_constants(node, attrs, scope, [value.array for value in inputs])
            return
        outputs, facts = self._outputs_and_cost(node, attrs, scope)
        self._add_call(node, attrs, outputs, facts, scope)

    def _outputs_and_cost(
        self, node: NodeProto, attrs: dict[str, Any], scope: Scope
    ) -> tuple[dict[str, TensorSpec], Facts]:
        """The outputs and the cost of a node. Equal nodes, such as those of a loop, have equal ones."""
        values = [scope.values[name] if name else None for name in node.input]
        names = [name for name in node.output if name]
        key = (
            operator_name(node), scope.opsets.get(node.domain), *(a.SerializeToString() for a in node.attribute), None,
            *(v and (v.spec, None if v.array is None else v.array.tobytes()) for v in values), None,
            *(name and scope.declared.get(name, True) for name in node.output),
        )  # fmt: skip
        if key not in self.costs:
            outputs, facts = self.shapes.infer(node, attrs, scope)
            if facts is None:
                facts = self.shapes.cost(node, attrs, scope, outputs)
            self.costs[key] = list(outputs.values()), facts
        specs, facts = self.costs[key]
        return dict(zip(names, specs, strict=True)), facts

    def _add_computed_constants(self, node: NodeProto, attrs: dict[str, Any], scope: Scope, arrays: list[Any]) -> None:
        """A value computed from weights only is a weight. It is no operation, because engines compute it once, when
        they load the model."""
        outputs: dict[str, TensorSpec] | None = None
        try:
            outputs, _ = self.shapes.infer(node, attrs, scope)
        except Exception:  # the size may follow from the elements
            results = self.folder.fold(node, scope.opsets, arrays, None)
            if results is None:
                raise
        else:
            results = self.folder.fold(node, scope.opsets, arrays, list(outputs.values()))
        if results is not None:
            for name, array in zip(node.output, results, strict=False):
                if name:
                    self._bind_constant(name, _spec_of_array(array), node, scope, array)
        else:
            for name, spec in (outputs or {}).items():
                self._bind_constant(name, spec, node, scope)

    def _bind_constant(self, name: str, spec: TensorSpec, node: NodeProto, scope: Scope, array: Any = None) -> None:
        operator = operator_name(node)
        inputs = [(i, scope.values[n]) for i, n in enumerate(node.input) if n]
        data = [value for i, value in inputs if is_data(operator, i)]
        stored_dtype = next((value.stored_dtype for value in data if value.stored_dtype), "")
        if node.op_type == "DequantizeLinear" and data and not stored_dtype:
            stored_dtype = data[0].spec.dtype
        scope.values[name] = self.recording.derive(scope.place, name, spec, data, array, stored_dtype)

    def _add_call(
        self, node: NodeProto, attrs: dict[str, Any], outputs: dict[str, TensorSpec], facts: Facts, scope: Scope
    ) -> None:
        operator, kind = operator_name(node), Kind(facts.kind)
        values = [(i, scope.values[name]) for i, name in enumerate(node.input) if name]
        reads = [value for _, value in values if not value.constant]
        weights: list[tuple[TensorSpec, int]] = []
        if kind is not Kind.VIEW:
            for i, value in values:
                spec = self.recording.read_weight(operator, kind, i, value) if value.constant else None
                if spec is not None:
                    weights.append((spec, value.storage))
        results = range(len(outputs))[: facts.outputs]
        writes = []
        for i, (name, spec) in enumerate(outputs.items()):
            value = Value(spec, reads[0].storage) if kind is Kind.VIEW and reads else self.recording.activation(spec)
            scope.values[name] = value
            if i in results or name in scope.read:
                writes.append(value)
        simple = {
            k: v for k, v in attrs.items() if isinstance(v, (int, float, str, tuple)) and k not in WINDOW_ATTRIBUTES
        }
        op = OpSpec(
            operator if node.domain else f"onnx.{operator}", kind, tuple(value.spec for value in reads),
            tuple(spec for spec, _ in weights), tuple(value.spec for value in writes), simple | dict(facts.attrs),
            facts.macs, facts.elementwise,
        )  # fmt: skip
        storages = [*(v.storage for v in reads), *(storage for _, storage in weights), *(v.storage for v in writes)]
        self.recording.call(node, self._layer(node, scope), op, storages)

    def _layer(self, node: NodeProto, scope: Scope) -> int:
        return self.recording.paths.layer_of(node) or scope.layer

    # -- functions ----------------------------------------------------------------------------------

    def _call_function(self, node: NodeProto, function: FunctionProto, scope: Scope) -> None:
        """Visit the nodes of a function with the operands of this call."""
        if len(node.input) > len(function.input) or len(node.output) > len(function.output):
            raise ValueError("it has more inputs or outputs than its function")
        arguments = {a.name: a for a in function.attribute_proto} | {a.name: a for a in node.attribute}
        place = f"{function.domain}.{function.name}.{function.overload}"
        inner = Scope(
            place, {o.domain: o.version for o in function.opset_import} or scope.opsets, ChainMap(),
            declared_specs(function.value_info), values_read(function), arguments,
            frozenset(function.input) - {f for f, n in zip(function.input, node.input, strict=False) if n},
            scope.depth + 1, self._layer(node, scope),
        )  # fmt: skip
        for formal, name in zip(function.input, node.input, strict=False):
            if name:
                inner.values[formal] = scope.values[name]
        self.walk(function, inner)
        self._bind_outputs(node, [inner.values.get(name) for name in function.output], scope)

    def _bind_outputs(self, node: NodeProto, results: Sequence[Value | None], scope: Scope) -> None:
        for name, value in zip(node.output, results, strict=False):
            if not name:
                continue
            if value is None:
                raise ValueError(f"no node inside it computes the output {name!r}")
            scope.values[name] = value

    # -- graphs in nodes ----------------------------------------------------------------------------

    def _control_flow(self, node: NodeProto, scope: Scope) -> None:
        """Record every round of a loop and the branch that runs, if that is known; else one call of unknown cost."""
        start = self.recording.checkpoint()
        try:
            results = {"If": self._branch, "Loop": self._loop, "Scan": self._scan}[node.op_type](node, scope)
        except UncountableError:
            self.recording.restore(start)
            self._add_uncounted(node, scope)
        else:
            self._bind_outputs(node, results, scope)

    def _run(self, node: NodeProto, attribute: str, inputs: Sequence[Value], scope: Scope) -> list[Value]:
        """The outputs of a graph in a node, after a walk over it."""
        graph = _graph(node, attribute)
        if len(inputs) != len(graph.input):
            raise ValueError(f"its graph {attribute} has {len(graph.input)} inputs instead of {len(inputs)}")
        inner = self._inside(node, attribute, graph, scope)
        inner.values.update(zip((v.name for v in graph.input), inputs, strict=True))
        self.walk(graph, inner)
        missing = [v.name for v in graph.output if v.name not in inner.values]
        if missing:
            raise ValueError(f"its graph {attribute} does not compute its output {missing[0]!r}")
        return [inner.values[v.name] for v in graph.output]

    def _inside(self, node: NodeProto, attribute: str, graph: GraphProto, scope: Scope) -> Scope:
        place = f"{scope.place}/{node.name or next(iter(node.output), '')}.{attribute}"
        if place not in self.inner_names:
            self.inner_names[place] = declared_specs((*graph.value_info, *graph.output)), values_read(graph)
        return scope.inside(place, *self.inner_names[place], self._layer(node, scope))

    def _branch(self, node: NodeProto, scope: Scope) -> list[Value]:
        condition = scope.values[node.input[0]].array
        if condition is None:
            raise UncountableError
        return self._run(node, "then_branch" if condition.all() else "else_branch", (), scope)

    def _loop(self, node: NodeProto, scope: Scope) -> list[Value]:
        """All rounds of a Loop. After each round its condition must be known."""
        body, limit, goes_on = _graph(node, "body"), self._limit(node, scope), self._condition(node, scope)
        carried = [self._carried(scope.values[name]) for name in node.input[2:]]
        nodes = _node_count(body)
        if limit is not None and _runs_to_its_limit(body) and limit * nodes > self.unrolled_left:
            raise UncountableError
        rounds: list[list[Value]] = []
        while goes_on and (limit is None or len(rounds) < limit):
            self._take_round(nodes)
            counters = (self._number(node, body, scope, len(rounds)), self._number(node, body, scope, True))
            flag, *results = self._run(node, "body", (*counters, *carried), scope)
            if flag.array is None:
                raise UncountableError
            goes_on = bool(flag.array.all())
            carried = [self._carried(value) for value in results[: len(carried)]]
            rounds.append(results[len(carried) :])
        slices = len(body.output) - 1 - len(carried)
        return [*carried, *self._stacks(node, rounds, (0,) * slices, scope)]

    def _limit(self, node: NodeProto, scope: Scope) -> int | None:
        """The number of rounds of a Loop; None: no limit."""
        if not node.input or not node.input[0]:
            return None
        array = scope.values[node.input[0]].array
        if array is None:
            raise UncountableError
        return int(array.item())

    def _condition(self, node: NodeProto, scope: Scope) -> bool:
        """Whether the first round of a Loop runs."""
        if len(node.input) < 2 or not node.input[1]:
            return True
        array = scope.values[node.input[1]].array
        if array is None:
            raise UncountableError
        return bool(array.all())

    def _scan(self, node: NodeProto, scope: Scope) -> list[Value]:
        """All rounds of a Scan: one for each slice of its last inputs."""
        states, slices, length = self._scanned(node, scope)
        body, attrs = _graph(node, "body"), _attributes(node)
        nodes = _node_count(body)
        if length * nodes > self.unrolled_left:
            raise UncountableError
        rounds: list[list[Value]] = []
        for _ in range(length):
            self._take_round(nodes)
            results = self._run(node, "body", (*states, *slices), scope)
            states = [self._carried(value) for value in results[: len(states)]]
            rounds.append(results[len(states) :])
        count = len(body.output) - len(states)
        return [*states, *self._stacks(node, rounds, attrs.get("scan_output_axes") or (0,) * count, scope)]

    def _scanned(self, node: NodeProto, scope: Scope) -> tuple[list[Value], list[Value], int]:
        """The first states of a Scan, a slice of each of its other inputs, and the number of slices."""
        if scope.opsets.get("", 9) < 9:  # has a batch dimension and lengths of sequences
            raise UncountableError
        attrs = _attributes(node)
        count = int(attrs["num_scan_inputs"])
        values = [scope.values[name] for name in node.input]
        if not 0 < count <= len(values):
            raise ValueError(f"num_scan_inputs is {count}")
        axes = attrs.get("scan_input_axes") or (0,) * count
        states, slices, lengths = [self._carried(value) for value in values[:-count]], [], set()
        for value, axis in zip(values[-count:], axes, strict=True):
            dims = list(value.spec.shape)
            lengths.add(dims.pop(axis))
            slices.append(Value(TensorSpec(tuple(dims), value.spec.dtype), value.storage))
        (length,) = lengths
        return states, slices, length

    def _take_round(self, nodes: int) -> None:
        self.unrolled_left -= nodes
        if self.unrolled_left < 0:
            raise UncountableError

    def _carried(self, value: Value) -> Value:
        """A value that a round passes to the next one. Only a small integer is still a constant there: an engine
        computes everything else in each round."""
        if not value.constant or (value.array is not None and "float" not in value.spec.dtype):
            return value
        self.recording.read_weight("Identity", Kind.DATA, 0, value)
        return Value(value.spec, value.storage)

    def _number(self, node: NodeProto, body: GraphProto, scope: Scope, number: int | bool) -> Value:
        """The number of the round, or the condition, as inputs of the body of a Loop."""
        spec = TensorSpec((), "bool" if isinstance(number, bool) else "int64")
        place = f"{scope.place}/{node.name or node.output[0]}"
        name = body.input[0 if spec.dtype == "int64" else 1].name
        return self.recording.store(place, name, spec, Origin.GENERATED, _small_array(number, spec))

    def _stacks(self, node: NodeProto, rounds: list[list[Value]], axes: Sequence[int], scope: Scope) -> list[Value]:
        """The outputs that have one slice from each round."""
        if axes and not rounds:
            raise UncountableError
        return [self._stack(node, [r[i] for r in rounds], axis, scope) for i, axis in enumerate(axes)]

    def _stack(self, node: NodeProto, slices: list[Value], axis: int, scope: Scope) -> Value:
        spec = _stacked(slices[0].spec, len(slices), axis)
        if any(value.spec != slices[0].spec for value in slices):
            raise UncountableError
        out, reads = self.recording.activation(spec), [value for value in slices if not value.constant]
        op = OpSpec(f"onnx.{node.op_type}", Kind.CONCAT, tuple(value.spec for value in reads), (), (spec,))
        self.recording.call(node, self._layer(node, scope), op, [value.storage for value in (*reads, out)])
        return out

    # -- graphs in nodes whose work is unknown --------------------------------------------------------

    def _add_uncounted(self, node: NodeProto, scope: Scope) -> None:
        """One call of unknown cost, which reads everything that the graphs of the node read."""
        start, specs = self.recording.checkpoint(), None
        try:
            specs = self._unknown_outputs(node, scope)
            parameters = self.recording.parameters - start.parameters
        except (UncountableError, SourceError, ValueError, LookupError):
            parameters = self._all_constants(node, scope)
        self.recording.restore(start)
        self.recording.parameters |= parameters
        captured = sorted({n for _, graph in subgraphs(node) for n in values_read(graph) if n in scope.values})
        names = dict.fromkeys([name for name in node.input if name] + captured)
        reads = [scope.values[name] for name in names if not scope.values[name].constant]
        writes = []
        for i, name in enumerate(node.output):
            spec = scope.declared.get(name) or (specs[i] if specs and i < len(specs) else None)
            if not name:
                continue
            if spec is None:
                raise self.shapes.error(
                    node, f"the shape of its output {name!r} is known only when it runs",
                    "Declare it in the file (value_info) to count everything else.",
                )  # fmt: skip
            scope.values[name] = self.recording.activation(spec)
            writes.append(scope.values[name])
        weights = sorted(parameters)
        op = OpSpec(
            f"onnx.{node.op_type}", Kind.UNKNOWN, tuple(value.spec for value in reads),
            tuple(self.recording.stored[w].spec for w in weights), tuple(value.spec for value in writes), {}, None,
        )  # fmt: skip
        storages = [*(value.storage for value in reads), *weights, *(value.storage for value in writes)]
        self.recording.call(node, self._layer(node, scope), op, storages)

    def _unknown_outputs(self, node: NodeProto, scope: Scope) -> list[TensorSpec | None]:
        """The specs of the outputs as far as they do not depend on values."""
        if node.op_type == "If":
            branches = [self._run(node, name, (), scope) for name in ("then_branch", "else_branch")]
            return [a.spec if a.spec == b.spec else None for a, b in zip(*branches, strict=True)]
        attrs, body = _attributes(node), _graph(node, "body")
        rounds: int | None
        if node.op_type == "Scan":
            states, slices, rounds = self._scanned(node, scope)
            inputs = [*states, *slices]
            axes = attrs.get("scan_output_axes") or (0,) * (len(body.output) - len(states))
        else:
            states = [self._carried(scope.values[name]) for name in node.input[2:]]
            counters = [TensorSpec((), "int64"), TensorSpec((), "bool")]
            inputs = [*map(self.recording.activation, counters), *states]
            rounds = self._known_rounds(node, body, scope)
            axes = (0,) * (len(body.output) - 1 - len(states))
        results = self._run(node, "body", [Value(value.spec, value.storage) for value in inputs], scope)
        results = results[node.op_type == "Loop" :]
        specs = [a.spec if a.spec == b.spec else None for a, b in zip(states, results, strict=False)]
        for value, axis in zip(results[len(states) :], axes, strict=True):
            specs.append(None if rounds is None else _stacked(value.spec, rounds, axis))
        return specs

    def _known_rounds(self, node: NodeProto, body: GraphProto, scope: Scope) -> int | None:
        try:
            runs = self._condition(node, scope) and _runs_to_its_limit(body)
            return self._limit(node, scope) if runs else None
        except UncountableError:
            return None

    def _all_constants(self, node: NodeProto, scope: Scope) -> set[int]:
        """The stored tensors of floating point in the graphs of a node, and those around it that they read."""
        found: set[int] = set()
        for attribute, graph in subgraphs(node):
            inner = self._inside(node, attribute, graph, scope)
            self._add_initializers(graph, inner)
            for child in graph.node:
                if child.op_type == "Constant" and not child.domain:
                    self._add_constant(scope.resolve(child), inner)
                found |= self._all_constants(child, inner)
            for name in inner.read & inner.values.keys():
                value = inner.values[name]
                if value.constant and "float" in value.spec.dtype and value.spec.numel > 1:
                    found |= value.sources or set()
        return found

    # -- outputs ------------------------------------------------------------------------------------

    def _check_outputs(self, scope: Scope) -> None:
        for output in self.model.graph.output:
            if output.name not in scope.values:
                raise SourceError(
                    f"{self.path.name}: no node computes the output {output.name!r}", "Export the model again."
                )
            declared = [d.dim_value for d in output.type.tensor_type.shape.dim]  # 0: open
            shape = scope.values[output.name].spec.shape
            fits = len(declared) == len(shape) and all(d in (0, n) for d, n in zip(declared, shape, strict=True))
            if declared and not fits:
                raise SourceError(
                    f"{self.path.name}: the output {output.name!r} is declared as {shape_text(declared)}, but its node "
                    f"computes {shape_text(shape)}",
                    "Export it again. If you changed dimensions in the file, leave them open.",
                )


def values_read(graph: GraphProto | FunctionProto) -> frozenset[str]:
    """The names of all values that a node of the graph or of a graph inside it reads, and of all outputs."""
    names = set(graph.output) if isinstance(graph, FunctionProto) else {output.name for output in graph.output}
    for node in graph.node:
        names.update(node.input)
        for _, inner in subgraphs(node):
            names |= values_read(inner)
    return frozenset(names)


def _node_count(graph: GraphProto) -> int:
    """How many nodes a round visits, at least one."""
    return max(1, sum(1 + sum(_node_count(inner) for _, inner in subgraphs(node)) for node in graph.node))


def _runs_to_its_limit(body: GraphProto) -> bool:
    """Whether the body of a Loop passes its condition on, so that only the number of rounds ends it."""
    copies = {n.output[0]: n.input[0] for n in body.node if n.op_type == "Identity" and n.input and n.output}
    condition = body.output[0].name
    for _ in copies:
        condition = copies.get(condition, condition)
    constants = {n.output[0] for n in body.node if n.op_type == "Constant" and n.output}
    return condition in {body.input[1].name, *constants, *(t.name for t in body.initializer)}


def _stacked(spec: TensorSpec, count: int, axis: int) -> TensorSpec:
    """The spec of `count` slices along a new dimension."""
    dims = list(spec.shape)
    dims.insert(axis + len(dims) + 1 if axis < 0 else axis, count)
    stacked = TensorSpec(tuple(dims), spec.dtype)
    if not is_possible(stacked):
        raise ValueError(f"its output {stacked} is impossible")
    return stacked


def _graph(node: NodeProto, name: str) -> GraphProto:
    for attribute, graph in subgraphs(node):
        if attribute == name:
            return graph
    raise ValueError(f"the attribute {name} is absent")


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {a.name: _attribute_value(helper.get_attribute_value(a)) for a in node.attribute}


def _attribute_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (list, tuple)):
        return tuple(_attribute_value(v) for v in value)
    return value


def _small_array(value: Any, spec: TensorSpec) -> Any:
    return numpy.array(value, dtype=spec.dtype) if is_small(spec) else None


def _spec_of_array(array: Any) -> TensorSpec:
    return TensorSpec(array.shape, dtype_of(helper.np_dtype_to_tensor_dtype(array.dtype)))
