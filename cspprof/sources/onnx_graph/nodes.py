"""One node of a graph: a call of an operator, a stored tensor, or arithmetic on constants."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from cspprof.core.kinds import Kind
from cspprof.core.record import OpSpec
from cspprof.core.tensors import TensorSpec
from cspprof.core.validation import LARGEST
from cspprof.ops import Facts
from cspprof.sources.onnx_graph.constant_folding import ConstantFolder, is_small
from cspprof.sources.onnx_graph.model_file import constant_array
from cspprof.sources.onnx_graph.protos import dtype_of, sparse_spec, tensor_spec
from cspprof.sources.onnx_graph.recording import Recording
from cspprof.sources.onnx_graph.shape_inference import WINDOW_ATTRIBUTES, ShapeInference, operator_name
from cspprof.sources.onnx_graph.values import Origin, Scope, Value
from cspprof.sources.onnx_graph.weights import is_data

RANDOM = frozenset({
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial",
})  # fmt: skip
"""Operators whose output is an activation in any case."""

_VALUE_ATTRIBUTES = ("value", "value_float", "value_floats", "value_int", "value_ints")


class NodeRecorder:
    """Records nodes and binds their outputs in the scope."""

    def __init__(self, path: Path, model: ModelProto) -> None:
        self.folder = path.parent
        self.shapes = ShapeInference(path, model)
        self.constants = ConstantFolder()
        self.recording = Recording()
        self.costs: dict[tuple[Any, ...], tuple[list[TensorSpec], Facts]] = {}
        """The outputs and the cost of nodes by everything that they depend on."""

    def add_initializers(self, graph: GraphProto, scope: Scope) -> None:
        for tensor in graph.initializer:
            array = constant_array(tensor, self.folder)
            scope.values[tensor.name] = self.recording.store(
                scope.place, tensor.name, tensor_spec(tensor), Origin.INITIALIZER, array, tensor
            )
        for sparse in graph.sparse_initializer:
            name = sparse.values.name
            scope.values[name] = self.recording.store(scope.place, name, sparse_spec(sparse), Origin.INITIALIZER)

    def add_constant(self, node: NodeProto, scope: Scope) -> None:
        """A stored tensor, in one of the forms that the node `Constant` has."""
        attrs = attributes_of(node)
        value = next((attrs[name] for name in _VALUE_ATTRIBUTES if name in attrs), None)
        if isinstance(value, TensorProto):
            spec, array = tensor_spec(value), constant_array(value, self.folder)
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

    def add_node(self, node: NodeProto, scope: Scope) -> None:
        """Record the call of an operator, or compute a constant from constants."""
        attrs, name = attributes_of(node), operator_name(node)
        inputs = [scope.values[i] for i in node.input if i]
        if name in ("Shape", "Size"):
            array = self.constants.shape_of(node, attrs, inputs[0].spec)
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
            if not (0 <= (facts.macs or 0) <= LARGEST and 0 <= facts.elementwise <= LARGEST):
                raise ValueError("its attributes give an impossible number of operations")
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
            results = self.constants.fold(node, scope.opsets, arrays, None)
            if results is None:
                raise
        else:
            results = self.constants.fold(node, scope.opsets, arrays, list(outputs.values()))
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

    def as_activation(self, value: Value, operator: str = "Identity") -> Value:
        """A constant as an operand that is computed with, and not only read as a weight."""
        self.recording.read_weight(operator, Kind.DATA, 0, value)
        return Value(value.spec, value.storage)

    def layer_of(self, node: NodeProto, scope: Scope) -> int:
        return self.recording.paths.layer_of(node) or scope.layer


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
