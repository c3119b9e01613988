"""The outputs of a node, from the specs of its inputs and the elements of small constants."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from cspprof.core.errors import SourceError
from cspprof.core.kinds import Kind
from cspprof.core.printable import printable
from cspprof.core.tensors import TensorSpec, is_possible
from cspprof.core.units import shortened
from cspprof.ops import Facts
from cspprof.sources.onnx_graph.contrib_operators import CONTRIB_RULES, SAME_AS
from cspprof.sources.onnx_graph.operators import ONNX_RULES, OnnxNode
from cspprof.sources.onnx_graph.output_rules import OUTPUT_RULES
from cspprof.sources.onnx_graph.protos import dtype_of, not_a_tensor, spec_of
from cspprof.sources.onnx_graph.validation import check_attributes
from cspprof.sources.onnx_graph.values import Scope

WINDOW_ATTRIBUTES = frozenset({"kernel_shape", "strides", "pads", "dilations", "group"})
"""The attributes of a sliding window. Cost rules record them by the names of torch: `kernel`, `stride`, …"""

SIZE_BY_VALUE = frozenset({"NonMaxSuppression", "NonZero", "Unique", "Compress"})
"""Operators whose output has a size that the elements of the inputs decide. The file may declare one."""

PLAIN_CONVS = frozenset({"Conv", "ConvInteger", "DeformConv", "QLinearConv", "com.microsoft.FusedConv"})
"""Convolutions whose weight must fit the channels of the map. A blocked convolution may pad either."""


def operator_name(node: NodeProto) -> str:
    """`Conv`, or with a domain: `com.microsoft.FusedConv`."""
    return f"{node.domain}.{node.op_type}" if node.domain else str(node.op_type)


class ShapeInference:
    """Infers the outputs of one node after another.

    The specs of a standard operator's outputs come from the library `onnx`, else from its output rule, else from the
    file; those of a contrib operator come from its rule, those of an unknown operator from the file.
    """

    def __init__(self, path: Path, model: ModelProto) -> None:
        self.file = path.name
        self.ir_version = model.ir_version

    def error(self, node: NodeProto, what: str, hint: str) -> SourceError:
        name = node.name or (node.output[0] if node.output else "?")
        return SourceError(printable(f"{self.file}: node {name!r} ({node.op_type}): {what}"), hint)

    def infer(self, node: NodeProto, attrs: dict[str, Any], scope: Scope) -> tuple[dict[str, TensorSpec], Facts | None]:
        """The outputs of a node, and its cost unless the rule of a standard operator gives it. Raises SourceError or
        ValueError."""
        name = operator_name(node)
        check_attributes(node, attrs)
        if name in CONTRIB_RULES:
            specs, cost = CONTRIB_RULES.get(name)(_rule_node(node, attrs, scope, ()))
            by_rule = {out: specs[i] if i < len(specs) else specs[0] for i, out in enumerate(node.output) if out}
            return _checked(by_rule), cost
        if name in SAME_AS:
            standard = helper.make_node(SAME_AS[name], node.input[: 2 if "Conv" in name else 1], node.output)
            names = WINDOW_ATTRIBUTES | {"auto_pad", "ceil_mode"}
            standard.attribute.extend(a for a in node.attribute if a.name in names)
        else:
            standard = node
        version = scope.opsets.get(standard.domain, onnx.defs.onnx_opset_version())
        if not onnx.defs.has(standard.op_type, version, standard.domain):
            return _checked(self._declared_outputs(node, scope)), None
        schema = onnx.defs.get_schema(standard.op_type, version, standard.domain)
        inferred = self._infer_standard(standard, schema, attrs, scope)
        outputs: dict[str, TensorSpec] = {}
        facts: Facts | None = None
        for output in filter(None, node.output):
            spec = inferred.get(output)
            if spec is None and name in SIZE_BY_VALUE:
                facts = Facts(Kind.UNKNOWN, None)
            spec = spec or scope.declared.get(output)
            if spec is None:
                raise self.error(
                    node, f"the shape of its output {output!r} does not follow from the shapes of its inputs",
                    "Declare it in the file (value_info), or simplify the graph (onnxsim).",
                )  # fmt: skip
            outputs[output] = spec
        if outputs:
            _check(node, next(iter(outputs.values())), scope)
        return _checked(outputs), facts

    def cost(self, node: NodeProto, attrs: dict[str, Any], scope: Scope, outputs: dict[str, TensorSpec]) -> Facts:
        """The cost of a standard operator. One without a rule is unknown, which is not zero."""
        name = operator_name(node)
        name = SAME_AS.get(name, name)
        if name not in ONNX_RULES:
            return Facts(Kind.UNKNOWN, None)
        return ONNX_RULES.get(name)(_rule_node(node, attrs, scope, tuple(outputs.values())))

    def _infer_standard(
        self, node: NodeProto, schema: onnx.defs.OpSchema, attrs: dict[str, Any], scope: Scope
    ) -> dict[str, TensorSpec | None]:
        """The outputs by the library, else by an output rule."""
        values = {name: scope.values[name] for name in node.input if name}
        types = {} if schema.deprecated else shape_inference.infer_node_outputs(
            schema, node,
            {n: helper.make_tensor_type_proto(ELEMENT_TYPES[v.spec.dtype], v.spec.shape) for n, v in values.items()},
            {n: numpy_helper.from_array(v.array, n) for n, v in values.items() if v.array is not None},
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in scope.opsets.items()],
            ir_version=self.ir_version,
        )  # fmt: skip
        for name in node.output:
            kind = not_a_tensor(types[name]) if name in types else ""
            if kind:
                raise self.error(
                    node, f"its output {name!r} is {kind}, not a tensor",
                    "Export the model without sequences, optional values and maps.",
                )  # fmt: skip
        inferred = {name: spec_of(types[name]) for name in node.output if name in types}
        operator = operator_name(node)
        if any(name and inferred.get(name) is None for name in node.output) and operator in OUTPUT_RULES:
            by_rule = OUTPUT_RULES.get(operator)(_rule_node(node, attrs, scope, ()))
            inferred |= {n: s for n, s in zip(node.output, by_rule, strict=False) if inferred.get(n) is None}
        return inferred

    def _declared_outputs(self, node: NodeProto, scope: Scope) -> dict[str, TensorSpec]:
        """The specs that the file declares for the outputs of an unknown operator. Raises SourceError without them."""
        names = [name for name in node.output if name]
        if not all(name in scope.declared for name in names):
            raise self.error(
                node, f"cspprof does not know {operator_name(node)}, and the file does not declare its output shape",
                "Declare it (value_info) to count everything else, or export without this operator.",
            )  # fmt: skip
        return {name: scope.declared[name] for name in names}


def _rule_node(node: NodeProto, attrs: dict[str, Any], scope: Scope, outputs: tuple[TensorSpec, ...]) -> OnnxNode:
    values = [scope.values[name] if name else None for name in node.input]
    constants = {i: v.array.ravel().tolist() for i, v in enumerate(values) if v is not None and v.array is not None}
    inputs = tuple(v.spec if v is not None else None for v in values)
    version = scope.opsets.get(node.domain, 0)
    weights = frozenset(i for i, v in enumerate(values) if v is not None and v.constant)
    declared = tuple(scope.declared.get(name) for name in node.output)
    return OnnxNode(
        operator_name(node), inputs, outputs, attrs, constants, len(node.output), version, declared, weights
    )


def _checked(outputs: dict[str, TensorSpec]) -> dict[str, TensorSpec]:
    """The outputs. Raises ValueError if one has a negative size, or more elements than a tensor can have."""
    for spec in outputs.values():
        if not is_possible(spec):
            raise ValueError(f"its output {spec} is impossible")
    return outputs


def _check(node: NodeProto, out: TensorSpec, scope: Scope) -> None:
    """Check what the library accepts though no engine can run it. Raises ValueError."""
    inputs = [scope.values[name].spec for name in node.input if name]
    if node.op_type == "Reshape" and out.numel != inputs[0].numel:
        raise ValueError(f"{inputs[0]} and {out} differ in their number of elements")
    if operator_name(node) == "Range":
        _check_range(out, [scope.values[name].array for name in node.input])
    if operator_name(node) in PLAIN_CONVS:
        x, weight = inputs[0], inputs[3 if node.op_type == "QLinearConv" else 1]
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        channels = weight.shape[1] * groups
        if x.shape[1] != channels:
            raise ValueError(f"a weight of {weight} in {groups} groups needs {channels} channels, but the map is {x}")
    has_window = "Conv" in node.op_type or ("Pool" in node.op_type and "Roi" not in node.op_type)
    if has_window and min(out.shape, default=1) < 1 <= min(inputs[0].shape, default=1):
        raise ValueError(f"its window does not fit a map of {inputs[0]}")


def _check_range(out: TensorSpec, arrays: list[Any]) -> None:
    """Raise ValueError if the number of elements is not the exact one: the library computes it in floating point."""
    if any(array is None or array.size != 1 for array in arrays):
        return
    start, limit, step = (Fraction(array.item()) for array in arrays)
    count = max(0, ceil((limit - start) / step))
    if out.shape != (count,):
        raise ValueError(f"its output of {shortened(str(count), 80)} elements is impossible")


ELEMENT_TYPES = {
    dtype_of(number): number for name, number in reversed(TensorProto.DataType.items()) if name != "UNDEFINED"
}
