"""The specs of all values of a graph, and the values of small constants, which shapes may depend on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import onnx
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from cspprof.core.errors import SourceError
from cspprof.core.kinds import Kind
from cspprof.core.tensors import TensorSpec
from cspprof.ops import Facts
from cspprof.sources.onnx_graph.contrib_operators import CONTRIB_RULES, SAME_AS
from cspprof.sources.onnx_graph.model_file import MAX_CONSTANT, dtype_of
from cspprof.sources.onnx_graph.operators import ONNX_RULES, OnnxNode
from cspprof.sources.onnx_graph.output_rules import OUTPUT_RULES

WINDOW_ATTRIBUTES = frozenset({"kernel_shape", "strides", "pads", "dilations", "group"})
"""The attributes of a sliding window. Cost rules record them by the names of torch: `kernel`, `stride`, …"""

NOT_FOLDED = frozenset({"DequantizeLinear", "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"})
"""A quantized weight stays as it is stored; a random value is not a constant."""

FREE_OUTPUT_SIZE = frozenset({"Range", "ConstantOfShape", "Tile", "Expand", "EyeLike", "OneHot", "Pad", "Resize"})
"""Operators whose output can have terabytes for a few bytes of input."""

PLAIN_CONVS = frozenset({"Conv", "ConvInteger", "DeformConv", "QLinearConv", "com.microsoft.FusedConv"})
"""Convolutions whose weight must fit the channels of the map. A blocked convolution may pad either."""


def operator_name(node: NodeProto) -> str:
    """`Conv`, or with a domain: `com.microsoft.FusedConv`."""
    return f"{node.domain}.{node.op_type}" if node.domain else str(node.op_type)


class ShapeInference:
    """Specs and constants, completed node by node.

    The specs of a standard operator's outputs come from the library `onnx`, else from its output rule, else from the
    file; those of a contrib operator come from its rule, those of an unknown operator from the file.
    """

    def __init__(self, path: Path, model: ModelProto) -> None:
        self.file = path.name
        self.model = model
        self.opsets = {o.domain: o.version for o in model.opset_import}
        self.specs: dict[str, TensorSpec] = {}
        self.constants: dict[str, Any] = {}
        """The arrays of small constants."""
        self.declared = _declared_specs(model)

    def error(self, node: NodeProto, what: str, hint: str) -> SourceError:
        name = node.name or (node.output[0] if node.output else "?")
        return SourceError(f"{self.file}: node {name!r} ({node.op_type}): {what}", hint)

    def fold(self, node: NodeProto, attrs: dict[str, Any]) -> dict[str, Any] | None:
        """The outputs of a node that computes small constants, as arrays; None for any other node.

        Folding leaves no operation of shape arithmetic in the record.
        """
        if node.op_type in ("Shape", "Size") and not node.domain:
            shape = numpy.array(self.specs[node.input[0]].shape, dtype=numpy.int64)
            if node.op_type == "Size":
                return {node.output[0]: numpy.array(shape.prod(), dtype=numpy.int64)}
            return {node.output[0]: shape[attrs.get("start", 0) : attrs.get("end", len(shape))]}
        inputs = [name for name in node.input if name]
        if node.domain or node.op_type in NOT_FOLDED or not all(name in self.constants for name in inputs):
            return None
        if _has_external_data(node) or self._is_large(node, attrs):
            return None
        try:
            evaluator = ReferenceEvaluator(node, opsets=self.opsets)
            arrays = evaluator.run(None, {name: self.constants[name] for name in inputs})
        except Exception:  # a node that the library cannot evaluate is recorded as an operation
            return None
        return dict(zip(node.output, map(numpy.asarray, arrays), strict=False))

    def _is_large(self, node: NodeProto, attrs: dict[str, Any]) -> bool:
        """Whether an output is too large to be worth computing."""
        try:
            return any(spec.numel > MAX_CONSTANT for spec in self.infer(node, attrs)[0].values())
        except Exception:  # an invalid node raises again when it is recorded
            return node.op_type in FREE_OUTPUT_SIZE

    def infer(self, node: NodeProto, attrs: dict[str, Any]) -> tuple[dict[str, TensorSpec], Facts | None]:
        """The outputs of a node, and its cost if it is a contrib operator. Raises SourceError or ValueError."""
        name = operator_name(node)
        if name in CONTRIB_RULES:
            specs, facts = CONTRIB_RULES.get(name)(self._rule_node(node, attrs, ()))
            outputs = {out: specs[i] if i < len(specs) else specs[0] for i, out in enumerate(node.output) if out}
            return outputs, facts
        if name in SAME_AS:
            standard = helper.make_node(SAME_AS[name], node.input[: 2 if "Conv" in name else 1], node.output)
            names = WINDOW_ATTRIBUTES | {"auto_pad", "ceil_mode"}
            standard.attribute.extend(a for a in node.attribute if a.name in names)
        else:
            standard = node
        version = self.opsets.get(standard.domain, onnx.defs.onnx_opset_version())
        if not onnx.defs.has(standard.op_type, version, standard.domain):
            return self._declared_outputs(node), None
        schema = onnx.defs.get_schema(standard.op_type, version, standard.domain)
        outputs = self._infer_standard(standard, schema, attrs)
        self._check(node, next(iter(outputs.values())))
        return outputs, None

    def cost(self, node: NodeProto, attrs: dict[str, Any], outputs: dict[str, TensorSpec]) -> Facts:
        """The cost of a standard operator. One without a rule is unknown, which is not zero."""
        name = operator_name(node)
        name = SAME_AS.get(name, name)
        if name not in ONNX_RULES:
            return Facts(Kind.UNKNOWN, None)
        return ONNX_RULES.get(name)(self._rule_node(node, attrs, tuple(outputs.values())))

    def _rule_node(self, node: NodeProto, attrs: dict[str, Any], outputs: tuple[TensorSpec, ...]) -> OnnxNode:
        inputs = tuple(self.specs[n] if n else None for n in node.input)
        constants = {i: self.constants[n].ravel().tolist() for i, n in enumerate(node.input) if n in self.constants}
        version = self.opsets.get(node.domain, 0)
        return OnnxNode(operator_name(node), inputs, outputs, attrs, constants, len(node.output), version)

    def _infer_standard(
        self, node: NodeProto, schema: onnx.defs.OpSchema, attrs: dict[str, Any]
    ) -> dict[str, TensorSpec]:
        """The outputs by the library, else by an output rule, else as the file declares them. Raises SourceError."""
        types = {} if schema.deprecated else shape_inference.infer_node_outputs(
            schema, node,
            {n: _type_proto(self.specs[n]) for n in node.input if n},
            {n: numpy_helper.from_array(self.constants[n], n) for n in node.input if n in self.constants},
            opset_imports=list(self.model.opset_import), ir_version=self.model.ir_version,
        )  # fmt: skip
        inferred = {name: _spec_of(types[name]) for name in node.output if name in types}
        operator = operator_name(node)
        if any(name and inferred.get(name) is None for name in node.output) and operator in OUTPUT_RULES:
            by_rule = OUTPUT_RULES.get(operator)(self._rule_node(node, attrs, ()))
            inferred |= {n: s for n, s in zip(node.output, by_rule, strict=False) if inferred.get(n) is None}
        specs = {}
        for name in filter(None, node.output):
            spec = inferred.get(name) or self.declared.get(name)
            if spec is None:
                raise self.error(
                    node, f"the shape of its output {name!r} does not follow from the shapes of its inputs",
                    "Declare it in the file (value_info), or simplify the graph (onnxsim).",
                )  # fmt: skip
            specs[name] = spec
        return specs

    def _check(self, node: NodeProto, out: TensorSpec) -> None:
        """Check what the library accepts though no engine can run it. Raises ValueError."""
        inputs = [self.specs[name] for name in node.input if name]
        if node.op_type == "Reshape" and out.numel != inputs[0].numel:
            raise ValueError(f"{inputs[0]} and {out} differ in their number of elements")
        if operator_name(node) in PLAIN_CONVS:
            x, weight = inputs[0], inputs[3 if node.op_type == "QLinearConv" else 1]
            groups = next((a.i for a in node.attribute if a.name == "group"), 1)
            channels = weight.shape[1] * groups
            if x.shape[1] != channels:
                raise ValueError(
                    f"a weight of {weight} in {groups} groups needs {channels} channels, but the map is {x}"
                )
        has_window = "Conv" in node.op_type or ("Pool" in node.op_type and "Roi" not in node.op_type)
        if has_window and min(out.shape, default=1) < 1 <= min(inputs[0].shape, default=1):
            raise ValueError(f"its window does not fit a map of {inputs[0]}")

    def _declared_outputs(self, node: NodeProto) -> dict[str, TensorSpec]:
        """The specs that the file declares for the outputs of an unknown operator. Raises SourceError without them."""
        names = [name for name in node.output if name]
        if not all(name in self.declared for name in names):
            raise self.error(
                node, f"cspprof does not know {operator_name(node)}, and the file does not declare its output shape",
                "Declare it (value_info) to count everything else, or export without this operator.",
            )  # fmt: skip
        return {name: self.declared[name] for name in names}


def _has_external_data(node: NodeProto) -> bool:
    return any(a.t.data_location == TensorProto.EXTERNAL for a in node.attribute)


def _declared_specs(model: ModelProto) -> dict[str, TensorSpec]:
    """The fully numeric shapes that the file declares for values between nodes and for outputs."""
    specs = {v.name: _spec_of(v.type) for v in (*model.graph.value_info, *model.graph.output)}
    return {name: spec for name, spec in specs.items() if spec is not None}


def _spec_of(type_: TypeProto) -> TensorSpec | None:
    """None unless every dimension is a number."""
    tensor = type_.tensor_type
    if not tensor.HasField("shape") or not all(d.HasField("dim_value") for d in tensor.shape.dim):
        return None
    return TensorSpec(tuple(d.dim_value for d in tensor.shape.dim), dtype_of(tensor.elem_type))


def _type_proto(spec: TensorSpec) -> TypeProto:
    return helper.make_tensor_type_proto(_ELEMENT_TYPES[spec.dtype], spec.shape)


_ELEMENT_TYPES = {
    dtype_of(number): number for name, number in reversed(TensorProto.DataType.items()) if name != "UNDEFINED"
}
