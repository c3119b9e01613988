"""From the nodes of a graph to a `Record`: shapes node by node, constants folded, layers from the nodes' names."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy
import onnx
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from cspprof._version import __version__
from cspprof.core.errors import SourceError
from cspprof.core.record import Calls, Kind, Layer, OpSpec, Record, Storage, TensorSpec
from cspprof.ops import Facts
from cspprof.sources.onnx_graph.contributed import AS
from cspprof.sources.onnx_graph.reading import SMALL, dtype_of, value_of
from cspprof.sources.onnx_graph.rules import SHAPES, VIEWS, Node, facts_of

SHAPING = frozenset({"kernel_shape", "strides", "pads", "dilations", "group", "auto_pad", "ceil_mode"})
"""The attributes that such a shape depends on."""

AS_THEY_ARE = frozenset({"DequantizeLinear", "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"})
"""Not worked out: a quantised weight stays as it is kept, a random value is none."""

HEADERS = 8
"""A vector of so few integers is a shape, axes or a number, not a weight."""


class Graph:
    """One walk over the nodes: what is known of each value, and the columns of the profile in the making."""

    def __init__(self, file: str, folder: Path, model: ModelProto, inputs: dict[str, TensorSpec]) -> None:
        self.file, self.folder, self.model = file, folder, model
        self.opsets = {o.domain: o.version for o in model.opset_import}
        self.specs: dict[str, TensorSpec] = {}
        self.values: dict[str, Any] = {}
        """Small constants, as arrays."""
        self.storage: dict[str, int] = {}
        self.small: dict[str, TensorSpec] = {}
        """Dequantised weights as they are kept."""
        self.constant: set[str] = set()
        """Values that no input reaches: weights, and what is made of weights alone."""
        self.storages: list[Storage] = []
        self.next_storage = 0
        self.used: set[int] = set()
        self.layers = Layers()
        self.declared = _declared(model)
        self.columns: dict[OpSpec, int] = {}
        self.call_spec: list[int] = []
        self.call_layer: list[int] = []
        self.call_storage: list[int] = []
        self.call_name: list[str] = []
        for name, spec in inputs.items():
            self._hold(name, spec, "input")
        for tensor in model.graph.initializer:
            self._hold(tensor.name, TensorSpec(tuple(tensor.dims), dtype_of(tensor.data_type)), "parameter")
            self.constant.add(tensor.name)
            value = value_of(tensor, folder)
            if value is not None:
                self.values[tensor.name] = value

    def _hold(self, name: str, spec: TensorSpec, role: str) -> None:
        self.specs[name] = spec
        self.storage[name] = self._new_storage()
        self.storages.append(Storage(self.storage[name], name, role, spec))

    def _new_storage(self) -> int:
        self.next_storage += 1
        return self.next_storage - 1

    def run(self, node: NodeProto) -> None:
        """Take in one node. Raises SourceError with its name where it contradicts what it is given."""
        missing = [i for i in node.input if i and i not in self.specs]
        if missing:
            raise self.error(node, f"reads {missing[0]!r}, which nothing before it gives", "Is the graph sorted?")
        attrs = {a.name: _plain(helper.get_attribute_value(a)) for a in node.attribute}
        if node.op_type == "If" and node.input[0] in self.values:
            self._branch(node, attrs["then_branch" if bool(self.values[node.input[0]].all()) else "else_branch"])
            return
        if self._folded(node, attrs):
            return
        try:
            outputs = self._outputs(node, attrs)
        except SourceError:
            raise
        except Exception as error:  # the library has several kinds, our rules raise their own
            what = (str(error).splitlines() or ["its shapes contradict"])[-1].strip()
            raise self.error(node, what, "Export it again, or simplify the graph (onnxsim).") from None
        self.specs.update(outputs)
        if all(name in self.constant for name in node.input if name):
            self._of_weights(node, outputs)
        else:
            self._record(node, attrs, outputs)

    def _branch(self, node: NodeProto, branch: onnx.GraphProto) -> None:
        """The branch that a constant condition takes."""
        for tensor in branch.initializer:
            self._hold(tensor.name, TensorSpec(tuple(tensor.dims), dtype_of(tensor.data_type)), "parameter")
            self.constant.add(tensor.name)
        for inner in branch.node:
            self.run(inner)
        for outer, value in zip(node.output, branch.output, strict=True):
            self._same(outer, value.name)

    def _same(self, name: str, other: str) -> None:
        self.specs[name], self.storage[name] = self.specs[other], self.storage[other]
        if other in self.constant:
            self.constant.add(name)
        if other in self.values:
            self.values[name] = self.values[other]

    def error(self, node: NodeProto, what: str, hint: str) -> SourceError:
        name = node.name or (node.output[0] if node.output else "?")
        return SourceError(f"{self.file}: node {name!r} ({node.op_type}): {what}", hint)

    # -- values and shapes -------------------------------------------------------------------------

    def _large(self, node: NodeProto, attrs: dict[str, Any]) -> bool:
        """Whether working the node out would take memory that no shape is worth: a few bytes can ask for terabytes."""
        try:
            return any(spec.numel > SMALL for spec in self._outputs(node, attrs).values())
        except Exception:  # inference does not say, or the node is wrong: its own turn comes
            return node.op_type in ("Range", "ConstantOfShape", "Tile", "Expand", "EyeLike", "OneHot", "Pad", "Resize")

    def _external(self, node: NodeProto) -> bool:
        """Whether the node is a constant whose data lies beside the file."""
        return node.op_type == "Constant" and any(a.t.data_location == TensorProto.EXTERNAL for a in node.attribute)

    def _folded(self, node: NodeProto, attrs: dict[str, Any]) -> bool:
        """Work out a small constant: shape arithmetic leaves no operation behind."""
        made: list[Any]
        if node.op_type in ("Shape", "Size") and not node.domain:
            shape = numpy.array(self.specs[node.input[0]].shape, dtype=numpy.int64)
            if node.op_type == "Size":
                made = [numpy.array(shape.prod(), dtype=numpy.int64)]
            else:
                ends = {a.name: a.i for a in node.attribute}
                made = [shape[ends.get("start", 0) : ends.get("end", len(shape))]]
        elif (
            node.domain
            or any(name and name not in self.values for name in node.input)
            or node.op_type in AS_THEY_ARE
            or self._external(node)
            or self._large(node, attrs)
        ):
            return False
        else:
            try:
                evaluator = ReferenceEvaluator(node, opsets=self.opsets)
                made = list(evaluator.run(None, {name: self.values[name] for name in node.input if name}))
            except Exception:  # one that the library cannot work out is an operation like any other
                return False
        for name, value in zip(node.output, made, strict=False):
            array = numpy.asarray(value)
            spec = TensorSpec(array.shape, dtype_of(helper.np_dtype_to_tensor_dtype(array.dtype)))
            self._hold(name, spec, "constant")
            self.constant.add(name)
            if array.nbytes <= SMALL:
                self.values[name] = array
        return True

    def _outputs(self, node: NodeProto, attrs: dict[str, Any]) -> dict[str, TensorSpec]:
        """The specs of the outputs, by the library's inference, or by ours for contributed operators."""
        target = _target(node)
        if target in SHAPES:
            view = self._view(node, attrs, ())
            made = SHAPES.get(target)(view)
            names = [name for name in node.output if name]
            return dict(zip(names, made + [made[0]] * (len(names) - len(made)), strict=False))
        schema_name, domain = AS.get(target, node.op_type), "" if target in AS else node.domain
        version = self.opsets.get(domain, onnx.defs.onnx_opset_version())
        if not onnx.defs.has(schema_name, version, domain):
            return self._as_declared(node)
        asked = node
        if target in AS:
            asked = helper.make_node(schema_name, list(node.input[: 2 if "Conv" in schema_name else 1]), node.output)
            asked.attribute.extend(a for a in node.attribute if a.name in SHAPING)
        found = shape_inference.infer_node_outputs(
            onnx.defs.get_schema(schema_name, version, domain), asked,
            {n: _type(self.specs[n]) for n in asked.input if n},
            {n: numpy_helper.from_array(self.values[n], n) for n in asked.input if n in self.values},
            opset_imports=list(self.model.opset_import), ir_version=self.model.ir_version,
        )  # fmt: skip
        specs = {}
        for name in node.output:
            if not name:
                continue
            tensor = found[name].tensor_type if name in found else None
            dims = list(tensor.shape.dim) if tensor is not None and tensor.HasField("shape") else None
            if tensor is None or dims is None or not all(d.HasField("dim_value") for d in dims):
                raise ValueError("its output has no shape that follows from the inputs")
            specs[name] = TensorSpec(tuple(d.dim_value for d in dims), dtype_of(tensor.elem_type))
        self._check(node, list(specs.values()))
        return specs

    def _check(self, node: NodeProto, made: list[TensorSpec]) -> None:
        """What the library's inference lets pass. Raises ValueError."""
        given = [self.specs[name] for name in node.input if name]
        if node.op_type == "Reshape" and made[0].numel != given[0].numel:
            raise ValueError(f"{given[0]} has not as many elements as {made[0]}")
        windows = "Conv" in node.op_type or ("Pool" in node.op_type and "Roi" not in node.op_type)
        if windows and min(made[0].shape, default=1) < 1 <= min(given[0].shape, default=1):
            raise ValueError(f"its window does not fit a map of {given[0]}")

    def _as_declared(self, node: NodeProto) -> dict[str, TensorSpec]:
        """The specs that the file states of an operator that is not known."""
        names = [name for name in node.output if name]
        if not all(name in self.declared for name in names):
            raise self.error(
                node, f"cspprof does not know {_target(node)}, and the file does not state the shape of what it gives",
                "State it (value_info) to have everything else counted, or export without this operator.",
            )  # fmt: skip
        return {name: self.declared[name] for name in names}

    def _view(self, node: NodeProto, attrs: dict[str, Any], outputs: tuple[TensorSpec, ...]) -> Node:
        inputs = tuple(self.specs[n] if n else None for n in node.input)
        values = {i: self.values[n].ravel().tolist() for i, n in enumerate(node.input) if n in self.values}
        return Node(_target(node), inputs, outputs, attrs, values)

    # -- writing it down ---------------------------------------------------------------------------

    def _of_weights(self, node: NodeProto, outputs: dict[str, TensorSpec]) -> None:
        """What is made of weights alone is a weight, where its source lies; a dequantised one stays as small."""
        source = next((n for n in node.input if n), None)
        for name, spec in outputs.items():
            self.constant.add(name)
            if source is None:
                self._hold(name, spec, "constant")
                continue
            self.storage[name] = self.storage[source]
            if node.op_type == "DequantizeLinear" or source in self.small:
                self.small[name] = TensorSpec(spec.shape, self.small.get(source, self.specs[source]).dtype)

    def _record(self, node: NodeProto, attrs: dict[str, Any], outputs: dict[str, TensorSpec]) -> None:
        view = node.op_type in VIEWS and not node.domain
        try:
            facts = Facts(Kind.VIEW) if view else facts_of(self._view(node, attrs, tuple(outputs.values())))
        except (ValueError, IndexError, KeyError, AssertionError) as error:
            raise self.error(node, str(error), "Export it again.") from None
        given = [n for n in node.input if n and not self._header(n)]
        reads = [n for n in given if n not in self.constant]
        weights = [n for n in given if n in self.constant and not view]
        names = list(outputs)[: facts.outputs]
        for name in outputs:
            self.storage[name] = self.storage[reads[0]] if view else self._new_storage()
        plain = {k: v for k, v in attrs.items() if isinstance(v, (int, float, str, tuple)) and k not in DROPPED}
        target = f"onnx.{node.op_type}" if not node.domain else _target(node)
        spec = OpSpec(
            target, Kind(facts.kind), tuple(self.specs[n] for n in reads),
            tuple(self.small.get(n, self.specs[n]) for n in weights),
            tuple(outputs[n] for n in names), plain | dict(facts.attrs), facts.macs, facts.elementwise,
        )  # fmt: skip
        self.used.update(self.storage[n] for n in weights)
        self.call_spec.append(self.columns.setdefault(spec, len(self.columns)))
        self.call_layer.append(self.layers.of(node))
        self.call_name.append(node.name)
        self.call_storage += [self.storage[n] for n in (*reads, *weights, *names)]

    def _header(self, name: str) -> bool:
        spec = self.specs[name]
        return name in self.constant and spec.dtype in ("int64", "int32", "bool") and spec.numel <= HEADERS

    def profile(self, source: str, inputs: dict[str, TensorSpec], notes: tuple[str, ...]) -> Record:
        held = {s.id: s for s in self.storages}
        weights = [held[i] for i in self.used if i in held and held[i].role == "parameter"]
        touched = {*self.call_storage}
        return Record(
            model=self.file, source=source, inputs=tuple(inputs.values()), layers=self.layers.table(),
            specs=tuple(self.columns),
            calls=Calls(self.call_spec, self.call_layer, self.call_storage, self.call_name),
            storages=tuple(s for s in self.storages if s.role == "input" or s.id in touched),
            params=sum(s.spec.numel for s in weights),
            outputs=tuple(self.storage[o.name] for o in self.model.graph.output),
            notes=notes, tool={"cspprof": __version__, "onnx": onnx.__version__},
        )  # fmt: skip


def _declared(model: ModelProto) -> dict[str, TensorSpec]:
    """Shapes that the file states of values between nodes and of outputs, where they are numbers throughout."""
    specs = {}
    for value in (*model.graph.value_info, *model.graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            specs[value.name] = TensorSpec(tuple(d.dim_value for d in tensor.shape.dim), dtype_of(tensor.elem_type))
    return specs


DROPPED = frozenset({"kernel_shape", "strides", "pads", "dilations", "group"})
"""Attributes that a rule gives by the names that all profiles use."""


class Layers:
    """The module paths that exporters leave in the nodes, as a layer table."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {"": 0}
        self.classes: dict[str, str] = {}

    def of(self, node: NodeProto) -> int:
        path = _path(node, self.classes)
        if path not in self.index:
            parts = path.split(".")
            for i in range(1, len(parts) + 1):
                self.index.setdefault(".".join(parts[:i]), len(self.index))
        return self.index[path]

    def table(self) -> tuple[Layer, ...]:
        return tuple(
            Layer(path, self.classes.get(path, ""), path.count(".") + 1 if path else 0, 1, 0) for path in self.index
        )


def _path(node: NodeProto, classes: dict[str, str]) -> str:
    """`layer1.0.conv1` of a node named `/layer1/layer1.0/conv1/Conv`, or of the exporter's own record of scopes."""
    metadata = {p.key: p.value for p in node.metadata_props}
    if "pkg.torch.onnx.name_scopes" in metadata:
        scopes, names = (_listed(metadata.get(f"pkg.torch.onnx.{k}", "")) for k in ("name_scopes", "class_hierarchy"))
        for scope, name in zip(scopes[:-1], names, strict=False):
            classes[scope] = name
        return scopes[-2] if len(scopes) > 1 else ""
    if not node.name.startswith("/"):
        return ""
    path: list[str] = []
    for part in node.name.split("/")[1:-1]:
        if path and part.startswith(f"{path[-1]}."):
            path[-1] = part
        else:
            path.append(part)
    return ".".join(path)


def _listed(text: str) -> list[str]:
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return []
    return [str(part) for part in found] if isinstance(found, list) else []


def _target(node: NodeProto) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (list, tuple)):
        return tuple(_plain(v) for v in value)
    return value


def _type(spec: TensorSpec) -> TypeProto:
    return helper.make_tensor_type_proto(_ELEMENT[spec.dtype], spec.shape)


_ELEMENT = {dtype_of(number): number for name, number in reversed(TensorProto.DataType.items()) if name != "UNDEFINED"}
