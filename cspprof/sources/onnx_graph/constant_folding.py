"""The elements of small constants, which shapes may depend on.

A graph is data, so no part of it may run for long. Only the operators of a list are evaluated, on tensors of few
elements, and the results of a whole file may take a limited number of bytes. Anything else stays without elements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy
from onnx import NodeProto
from onnx.reference import ReferenceEvaluator

from cspprof.core.tensors import TensorSpec

MAX_INTEGERS = 1024
"""Elements of the largest tensor of integers that is evaluated."""
MAX_FLOATS = 16
"""Elements of the largest tensor of other numbers that is evaluated: factors of sizes."""
MAX_OPERANDS = 64
MAX_BYTES = 2**24
"""Bytes of all results."""
MIN_BYTES = 2**10
"""As which a smaller result counts: an evaluation takes time too."""

FOLDED = frozenset({
    "Abs", "Add", "And", "Cast", "Ceil", "Compress", "Concat", "ConstantOfShape", "Cos", "CumSum", "Div", "Equal",
    "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Greater", "GreaterOrEqual",
    "Identity", "Less", "LessOrEqual", "Log", "Max", "Min", "Mod", "Mul", "Neg", "NonZero", "Not", "Or", "Pad",
    "Pow", "Range", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape",
    "Round", "ScatterElements", "ScatterND", "Sign", "Sin", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Sum",
    "Tile", "TopK", "Transpose", "Unsqueeze", "Where", "Xor",
})  # fmt: skip
"""Standard operators whose evaluation takes a time that is bounded by the elements of inputs and outputs."""

NOT_LARGER = frozenset({"NonZero", "Compress"})
"""Those whose output has a size by values, of at most as many elements as the input has, times its dimensions."""


class ConstantFolder:
    """Evaluates nodes and counts the bytes of the results."""

    def __init__(self) -> None:
        self.bytes_left = MAX_BYTES

    def shape_of(self, node: NodeProto, attrs: Mapping[str, Any], spec: TensorSpec) -> Any:
        """The output of `Shape` or `Size`."""
        shape = numpy.array(spec.shape, dtype=numpy.int64)
        if node.op_type == "Size":
            return numpy.array(spec.numel, dtype=numpy.int64)
        return shape[attrs.get("start", 0) : attrs.get("end", len(shape))]

    def fold(
        self, node: NodeProto, opsets: Mapping[str, int], arrays: Sequence[Any], outputs: Sequence[TensorSpec] | None
    ) -> list[Any] | None:
        """The outputs of a node whose inputs are these arrays; None if it is not evaluated.

        `outputs` are the inferred specs of the outputs, or None if they depend on the elements of the inputs.
        """
        if node.domain or node.op_type not in FOLDED or not 0 < len(arrays) <= MAX_OPERANDS:
            return None
        if self.bytes_left < 0 or any(array is None for array in arrays):
            return None
        if outputs is None and node.op_type not in NOT_LARGER:
            return None
        if outputs is not None and not all(is_small(spec) for spec in outputs):
            return None
        names = [name for name in node.input if name]
        try:
            with numpy.errstate(all="ignore"):
                evaluator = ReferenceEvaluator(node, opsets=dict(opsets))
                results = evaluator.run(None, dict(zip(names, arrays, strict=True)))
            results = [numpy.asarray(result) for result in results]
        except Exception:  # the library cannot evaluate it; what depends on the elements says so
            return None
        self.bytes_left -= sum(max(result.nbytes, MIN_BYTES) for result in results)
        if any(result.dtype.kind not in "biuf" for result in results):
            return None
        return results


def is_small(spec: TensorSpec) -> bool:
    """Whether the elements of a constant are read or evaluated."""
    if spec.dtype in ("string", "undefined"):
        return False
    return spec.numel <= (MAX_INTEGERS if spec.dtype == "bool" or "int" in spec.dtype else MAX_FLOATS)
