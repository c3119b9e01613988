"""Record a graph: one walk over its nodes, in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, helper

from cspprof._version import __version__
from cspprof.core.errors import SourceError
from cspprof.core.kinds import Kind
from cspprof.core.record import Calls, OpSpec, Record, Storage
from cspprof.core.tensors import TensorSpec
from cspprof.ops import Facts
from cspprof.sources.onnx_graph.model_file import MAX_CONSTANT, constant_value, dtype_of, shape_text
from cspprof.sources.onnx_graph.module_paths import ModulePaths
from cspprof.sources.onnx_graph.shape_inference import WINDOW_ATTRIBUTES, ShapeInference, operator_name

MAX_OPERAND = 8
"""A constant vector of at most so many integers is a shape, a list of axes or a scalar, not a weight."""


class GraphRecorder:
    """Collects the storages and the calls of a graph while it walks over the nodes."""

    def __init__(self, path: Path, model: ModelProto, inputs: dict[str, TensorSpec]) -> None:
        self.path, self.model, self.inputs = path, model, inputs
        self.shapes = ShapeInference(path, model)
        self.constant: set[str] = set()
        """The values that depend on no input of the graph: weights, and values computed from weights only."""
        self.stored_specs: dict[str, TensorSpec] = {}
        """Specs of dequantized weights as they are stored."""
        self.storage: dict[str, int] = {}
        """The storage of each value."""
        self.next_storage = 0
        self.storages: list[Storage] = []
        self.paths = ModulePaths()
        self.op_specs: dict[OpSpec, int] = {}
        self.call_specs: list[int] = []
        self.call_layers: list[int] = []
        self.call_storages: list[int] = []
        self.call_names: list[str] = []
        self.weights_read: set[int] = set()
        """Storages that a call reads as a weight."""
        self.values_read = values_read(model.graph)
        """The values that a node reads or the graph returns."""

    def record(self, source: str, notes: tuple[str, ...]) -> Record:
        """The record of the whole graph. Raises SourceError with the name of the node that contradicts its inputs."""
        for name, spec in self.inputs.items():
            self._add_storage(name, spec, "input")
        self._add_weights(self.model.graph)
        for node in self.model.graph.node:
            self._add_node(node)
        self._check_outputs()
        touched = {*self.call_storages}
        weights = [s for s in self.storages if s.id in self.weights_read and s.role == "parameter"]
        return Record(
            model=self.path.name, source=source, inputs=tuple(self.inputs.values()), layers=self.paths.layers(),
            specs=tuple(self.op_specs),
            calls=Calls(self.call_specs, self.call_layers, self.call_storages, self.call_names),
            storages=tuple(s for s in self.storages if s.role == "input" or s.id in touched),
            params=sum(s.spec.numel for s in weights),
            outputs=tuple(self.storage[o.name] for o in self.model.graph.output),
            notes=notes, tool={"cspprof": __version__, "onnx": onnx.__version__},
        )  # fmt: skip

    # -- storages -----------------------------------------------------------------------------------

    def _new_storage(self) -> int:
        self.next_storage += 1
        return self.next_storage - 1

    def _add_storage(self, name: str, spec: TensorSpec, role: str) -> None:
        self.shapes.specs[name] = spec
        self.storage[name] = self._new_storage()
        self.storages.append(Storage(self.storage[name], name, role, spec))
        if role != "input":
            self.constant.add(name)

    def _add_weights(self, graph: GraphProto) -> None:
        for tensor in graph.initializer:
            self._add_storage(tensor.name, TensorSpec(tuple(tensor.dims), dtype_of(tensor.data_type)), "parameter")
            value = constant_value(tensor, self.path.parent)
            if value is not None:
                self.shapes.constants[tensor.name] = value

    def _add_constant(self, name: str, array: Any) -> None:
        dtype = dtype_of(helper.np_dtype_to_tensor_dtype(array.dtype))
        self._add_storage(name, TensorSpec(array.shape, dtype), "constant")
        if array.nbytes <= MAX_CONSTANT:
            self.shapes.constants[name] = array

    # -- nodes --------------------------------------------------------------------------------------

    def _add_node(self, node: NodeProto) -> None:
        missing = [i for i in node.input if i and i not in self.shapes.specs]
        if missing:
            raise self.shapes.error(
                node,
                f"reads {missing[0]!r}, which no earlier node computes",
                "Sort the nodes topologically, or export the model again.",
            )
        attrs = {a.name: _attribute_value(helper.get_attribute_value(a)) for a in node.attribute}
        if node.op_type == "If" and node.input[0] in self.shapes.constants:
            condition = bool(self.shapes.constants[node.input[0]].all())
            self._add_branch(node, attrs["then_branch" if condition else "else_branch"])
            return
        arrays = self.shapes.fold(node, attrs)
        if arrays is not None:
            for name, array in arrays.items():
                self._add_constant(name, array)
            return
        is_constant = all(name in self.constant for name in node.input if name)
        try:
            outputs, facts = self.shapes.infer(node, attrs)
            if facts is None and not is_constant:
                facts = self.shapes.cost(node, attrs, outputs)
        except SourceError:
            raise
        except Exception as error:  # the library raises errors of several classes
            what = (str(error).splitlines() or ["its shapes do not fit"])[-1].strip()
            raise self.shapes.error(node, what, "Export it again, or simplify the graph (onnxsim).") from None
        self.shapes.specs.update(outputs)
        if is_constant or facts is None:
            self._add_derived_weights(node, outputs)
        else:
            self._add_call(node, attrs, outputs, facts)

    def _add_branch(self, node: NodeProto, branch: GraphProto) -> None:
        """Walk over the branch that a constant condition selects."""
        self._add_weights(branch)
        for inner in branch.node:
            self._add_node(inner)
        for name, result in zip(node.output, branch.output, strict=True):
            self.shapes.specs[name], self.storage[name] = self.shapes.specs[result.name], self.storage[result.name]
            if result.name in self.constant:
                self.constant.add(name)
            if result.name in self.shapes.constants:
                self.shapes.constants[name] = self.shapes.constants[result.name]

    def _add_derived_weights(self, node: NodeProto, outputs: dict[str, TensorSpec]) -> None:
        """A value computed from weights only is a weight in the storage of the first one. It is no operation, because
        engines compute it once, when they load the model."""
        source = next((n for n in node.input if n), None)
        for name, spec in outputs.items():
            if source is None:
                self._add_storage(name, spec, "constant")
                continue
            self.constant.add(name)
            self.storage[name] = self.storage[source]
            if node.op_type == "DequantizeLinear" or source in self.stored_specs:
                stored = self.stored_specs.get(source, self.shapes.specs[source])
                self.stored_specs[name] = TensorSpec(spec.shape, stored.dtype)

    def _add_call(self, node: NodeProto, attrs: dict[str, Any], outputs: dict[str, TensorSpec], facts: Facts) -> None:
        is_view = facts.kind == Kind.VIEW
        inputs = [n for n in node.input if n and not self._is_shape_operand(n)]
        reads = [n for n in inputs if n not in self.constant]
        weights = [n for n in inputs if n in self.constant and not is_view]
        results = range(len(outputs))[: facts.outputs]
        writes = [n for i, n in enumerate(outputs) if i in results or n in self.values_read]
        for name in outputs:
            self.storage[name] = self.storage[reads[0]] if is_view else self._new_storage()
        simple = {
            k: v for k, v in attrs.items() if isinstance(v, (int, float, str, tuple)) and k not in WINDOW_ATTRIBUTES
        }
        name = operator_name(node)
        spec = OpSpec(
            name if node.domain else f"onnx.{name}", Kind(facts.kind),
            tuple(self.shapes.specs[n] for n in reads),
            tuple(self.stored_specs.get(n, self.shapes.specs[n]) for n in weights),
            tuple(outputs[n] for n in writes), simple | dict(facts.attrs), facts.macs, facts.elementwise,
        )  # fmt: skip
        self.weights_read.update(self.storage[n] for n in weights)
        self.call_specs.append(self.op_specs.setdefault(spec, len(self.op_specs)))
        self.call_layers.append(self.paths.layer_of(node))
        self.call_names.append(node.name)
        self.call_storages += [self.storage[n] for n in (*reads, *weights, *writes)]

    def _is_shape_operand(self, name: str) -> bool:
        spec = self.shapes.specs[name]
        return name in self.constant and spec.dtype in ("int64", "int32", "bool") and spec.numel <= MAX_OPERAND

    def _check_outputs(self) -> None:
        for value in self.model.graph.output:
            if value.name not in self.shapes.specs:
                raise SourceError(
                    f"{self.path.name}: no node computes the output {value.name!r}", "Export the model again."
                )
            declared = [d.dim_value for d in value.type.tensor_type.shape.dim]  # 0: open
            shape = self.shapes.specs[value.name].shape
            fits = len(declared) == len(shape) and all(d in (0, n) for d, n in zip(declared, shape, strict=True))
            if declared and not fits:
                raise SourceError(
                    f"{self.path.name}: the output {value.name!r} is declared as {shape_text(declared)}, but its node "
                    f"computes {shape_text(shape)}",
                    "Export it again. If you changed dimensions in the file, leave them open.",
                )


def values_read(graph: GraphProto) -> set[str]:
    """The names of all values that a node of the graph or of a graph inside it reads, and of all outputs."""
    names = {output.name for output in graph.output}
    for node in graph.node:
        names.update(node.input)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                names |= values_read(inner)
    return names


def _attribute_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (list, tuple)):
        return tuple(_attribute_value(v) for v in value)
    return value
