"""Walk over a graph in execution order, also over the functions that it calls."""

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
    shape_text,
    sparse_spec,
    subgraphs,
    tensor_spec,
)
from cspprof.sources.onnx_graph.recording import Recording
from cspprof.sources.onnx_graph.shape_inference import WINDOW_ATTRIBUTES, ShapeInference, operator_name
from cspprof.sources.onnx_graph.values import MAX_DEPTH, Origin, Scope, Value
from cspprof.sources.onnx_graph.weights import is_data

MAX_REPEATED = 30_000
"""How many nodes of functions and of graphs in nodes are visited. Each call and each round visits them again. A
thousand bytes of names and attributes count as one more node."""
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
        self.repeated_left = MAX_REPEATED
        self.inner_names: dict[str, tuple[Mapping[str, TensorSpec], frozenset[str]]] = {}
        """What a function or a graph in a node declares and reads, by its place."""

    def record(self, source: str, notes: tuple[str, ...]) -> Record:
        """The record of the whole graph. Raises SourceError with the name of the node that contradicts its inputs."""
        graph = self.model.graph
        opsets = {o.domain: o.version for o in self.model.opset_import}
        scope = Scope("", opsets, ChainMap(), declared_specs((*graph.value_info, *graph.output)), values_read(graph))
        for name, spec in self.inputs.items():
            scope.values[name] = self.recording.input(name, spec)
        if self._expanded(graph, {}, 0) - sum(map(_weight, graph.node)) > MAX_REPEATED:
            raise self._too_many_nodes()
        self.walk(graph, scope)
        self._check_outputs(scope)
        outputs = [scope.values[output.name] for output in graph.output]
        return self.recording.record(self.path, source, self.inputs, outputs, notes)

    def _expanded(self, graph: GraphProto | FunctionProto, sizes: dict[tuple[str, str, str], int], depth: int) -> int:
        """The weight of the nodes with those of all functions that they call. `sizes` remembers it for each
        function."""
        self._check_depth(depth)
        count = sum(map(_weight, graph.node))
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
            f"{self.path.name}: its functions and loops expand to more than {MAX_REPEATED:,} nodes",
            "Export the model without local functions, or write them out: onnx.inliner.inline_local_functions(model).",
        )

    def walk(self, graph: GraphProto | FunctionProto, scope: Scope) -> None:
        """Visit the nodes of a graph or a function whose inputs are in the scope."""
        self._check_depth(scope.depth)
        if isinstance(graph, GraphProto):
            self.add_initializers(graph, scope)
        for node in graph.node:
            if scope.depth:
                self.repeated_left -= _weight(node)
            if self.repeated_left < 0:
                raise self._too_many_nodes()
            self._visit(node, scope)

    def add_initializers(self, graph: GraphProto, scope: Scope) -> None:
        for tensor in graph.initializer:
            array = constant_array(tensor, self.path.parent)
            scope.values[tensor.name] = self.recording.store(
                scope.place, tensor.name, tensor_spec(tensor), Origin.INITIALIZER, array, tensor
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
                self.add_constant(node, scope)
            else:
                self._add_node(node, scope)
        except (SourceError, UncountableError):
            raise
        except Exception as error:  # the library raises errors of several classes
            what = (str(error).splitlines() or ["its shapes do not fit"])[-1].strip()
            raise self.shapes.error(node, what, "Export it again, or simplify the graph (onnxsim).") from None

    def add_constant(self, node: NodeProto, scope: Scope) -> None:
        """A stored tensor, in one of the forms that the node `Constant` has."""
        attrs = attributes_of(node)
        value = next((attrs[name] for name in _VALUE_ATTRIBUTES if name in attrs), None)
        if isinstance(value, TensorProto):
            spec, array = tensor_spec(value), constant_array(value, self.path.parent)
        elif value is not None:
            is_tuple = isinstance(value, tuple)
            is_float = any("float" in name for name in _VALUE_ATTRIBUTES if name in attrs)
            spec = TensorSpec((len(value),) if is_tuple else (), "float32" if is_float else "int64")
            array = small_array(value, spec)
        elif "sparse_value" in attrs:
            spec, array = sparse_spec(attrs["sparse_value"]), None
        else:
            spec, array = TensorSpec((len(attrs["value_strings"]),) if "value_strings" in attrs else (), "string"), None
        (name,) = node.output
        tensor = value if isinstance(value, TensorProto) else None
        scope.values[name] = self.recording.store(scope.place, name, spec, Origin.NODE, array, tensor)

    def _add_node(self, node: NodeProto, scope: Scope) -> None:
        """Record the call of an operator, or compute a constant from constants."""
        attrs, name = attributes_of(node), operator_name(node)
        inputs = [scope.values[i] for i in node.input if i]
        if name in ("Shape", "Size"):
            array = self.folder.shape_of(node, attrs, inputs[0].spec)
            self._bind_constant(node.output[0], _spec_of_array(array), node, scope, array)
            return
        if all(value.constant for value in inputs) and name not in RANDOM:
            self._add_computed_constants(node, attrs, scope, inputs)
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

    def _add_computed_constants(
        self, node: NodeProto, attrs: dict[str, Any], scope: Scope, inputs: Sequence[Value]
    ) -> None:
        """A value computed from weights only is a weight. It is no operation, because engines compute it once, when
        they load the model. A product of constants is an operation, as in torch, and so is a node of unknown cost."""
        arrays = [value.array for value in inputs]
        outputs: dict[str, TensorSpec] = {}
        try:
            outputs, facts = self._outputs_and_cost(node, attrs, scope)
        except Exception:  # the size may follow from the elements
            results = self.folder.fold(node, scope.opsets, arrays, None)
            if results is None:
                raise
        else:
            results = self.folder.fold(node, scope.opsets, arrays, list(outputs.values()))
            if results is None and (facts.macs is None or facts.macs > 0):
                self._add_call(node, attrs, outputs, facts, scope)
                return
        if results is not None:
            for name, array in zip(node.output, results, strict=False):
                if name:
                    self._bind_constant(name, _spec_of_array(array), node, scope, array)
        else:
            for name, spec in outputs.items():
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
        if values and all(value.constant for _, value in values):  # the first one takes the place of the activation
            values[0] = values[0][0], self.as_activation(values[0][1])
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
        self.recording.call(node, self.layer_of(node, scope), op, storages)

    def as_activation(self, value: Value) -> Value:
        """A constant as an operand that is computed with, and not only read as a weight."""
        self.recording.read_weight("Identity", Kind.DATA, 0, value)
        return Value(value.spec, value.storage)

    def layer_of(self, node: NodeProto, scope: Scope) -> int:
        return self.recording.paths.layer_of(node) or scope.layer

    # -- functions ----------------------------------------------------------------------------------

    def _call_function(self, node: NodeProto, function: FunctionProto, scope: Scope) -> None:
        """Visit the nodes of a function with the operands of this call."""
        if len(node.input) > len(function.input) or len(node.output) > len(function.output):
            raise ValueError("it has more inputs or outputs than its function")
        arguments = {a.name: a for a in function.attribute_proto} | {a.name: a for a in node.attribute}
        place = f"{function.domain}.{function.name}.{function.overload}"
        if place not in self.inner_names:
            self.inner_names[place] = declared_specs(function.value_info), values_read(function)
        inner = Scope(
            place, {o.domain: o.version for o in function.opset_import} or scope.opsets, ChainMap(),
            *self.inner_names[place], arguments,
            frozenset(function.input) - {f for f, n in zip(function.input, node.input, strict=False) if n},
            scope.depth + 1, self.layer_of(node, scope),
        )  # fmt: skip
        for formal, name in zip(function.input, node.input, strict=False):
            if name:
                inner.values[formal] = scope.values[name]
        self.walk(function, inner)
        self.bind_outputs(node, [inner.values.get(name) for name in function.output], scope)

    def bind_outputs(self, node: NodeProto, results: Sequence[Value | None], scope: Scope) -> None:
        for name, value in zip(node.output, results, strict=False):
            if not name:
                continue
            if value is None:
                raise ValueError(f"no node inside it computes the output {name!r}")
            scope.values[name] = value

    def _control_flow(self, node: NodeProto, scope: Scope) -> None:
        """Record what a node with graphs does; see `control_flow`."""
        raise NotImplementedError

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


def _weight(node: NodeProto) -> int:
    """How many nodes a visit of this one takes as long as: more than 1 if it has long names or attributes."""
    if node.op_type == "Constant" and any(a.HasField("t") for a in node.attribute):
        return 1
    return 1 + int(node.ByteSize()) // 1000


def values_read(graph: GraphProto | FunctionProto) -> frozenset[str]:
    """The names of all values that a node of the graph or of a graph inside it reads, and of all outputs."""
    names = set(graph.output) if isinstance(graph, FunctionProto) else {output.name for output in graph.output}
    for node in graph.node:
        names.update(node.input)
        for _, inner in subgraphs(node):
            names |= values_read(inner)
    return frozenset(names)


def attributes_of(node: NodeProto) -> dict[str, Any]:
    return {a.name: _attribute_value(helper.get_attribute_value(a)) for a in node.attribute}


def _attribute_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (list, tuple)):
        return tuple(_attribute_value(v) for v in value)
    return value


def small_array(value: Any, spec: TensorSpec) -> Any:
    return numpy.array(value, dtype=spec.dtype) if is_small(spec) else None


def _spec_of_array(array: Any) -> TensorSpec:
    return TensorSpec(array.shape, dtype_of(helper.np_dtype_to_tensor_dtype(array.dtype)))
