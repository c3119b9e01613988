"""What a constant operand of a node is: a parameter, a buffer, another constant, or an argument.

`nn.Module.parameters` of the exported network decides: it holds weights and biases, also quantized ones. It does not
hold running statistics, indices, the scales of quantization, or the numbers of a program.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from cspprof.core.kinds import CONVOLUTIONS, Kind
from cspprof.core.tensors import TensorSpec
from cspprof.sources.onnx_graph.values import Origin, Stored

MAX_ARGUMENT = 8
"""A constant vector of at most so many integers is a shape, a list of axes or a scalar."""

WITH_MATRICES = CONVOLUTIONS | {Kind.LINEAR, Kind.MATMUL, Kind.RECURRENT}
"""Kinds of operations whose constant operands of two or more dimensions are weights."""


class Role(Enum):
    """What a constant operand is."""

    PARAMETER = "parameter"
    BUFFER = "buffer"
    CONSTANT = "constant"
    ARGUMENT = "argument"
    """A shape, a list of axes, and the like: it is not recorded."""


ARGUMENTS_AFTER_FIRST = frozenset({
    "Reshape", "Squeeze", "Unsqueeze", "Slice", "Split", "Expand", "Tile", "Pad", "Gather", "GatherElements",
    "GatherND", "Resize", "Upsample", "Clip", "Dropout", "TopK", "Trilu", "CumSum", "CumProd", "CenterCropPad",
    "CastLike", "Col2Im", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "NonMaxSuppression", "com.microsoft.Trilu",
})  # fmt: skip
"""Operators whose first input is data, while the others say what to do with it."""

GENERATORS = frozenset({
    "ConstantOfShape", "Range", "EyeLike", "OneHot", "Shape", "Size", "HannWindow", "HammingWindow", "BlackmanWindow",
    "MelWeightMatrix",
})  # fmt: skip
"""Operators that create elements. Their inputs are sizes and the like."""

_OPERANDS: dict[str, tuple[Role, tuple[int, ...]]] = {
    "BatchNormalization": (Role.BUFFER, (3, 4)),
    "SpatialBN": (Role.BUFFER, (3, 4)),
    "QuantizeLinear": (Role.CONSTANT, (1, 2)),
    "DequantizeLinear": (Role.CONSTANT, (1, 2)),
    "com.microsoft.QuantizeLinear": (Role.CONSTANT, (1, 2)),
    "com.microsoft.DequantizeLinear": (Role.CONSTANT, (1, 2)),
    "QLinearConv": (Role.CONSTANT, (1, 2, 4, 5, 6, 7)),
    "com.microsoft.QLinearConv": (Role.CONSTANT, (1, 2, 4, 5, 6, 7)),
    "QLinearMatMul": (Role.CONSTANT, (1, 2, 4, 5, 6, 7)),
    "ConvInteger": (Role.CONSTANT, (2, 3)),
    "MatMulInteger": (Role.CONSTANT, (2, 3)),
    "com.microsoft.MatMulIntegerToFloat": (Role.CONSTANT, (2, 3, 4, 5)),
    "com.microsoft.DynamicQuantizeMatMul": (Role.CONSTANT, (2, 3)),
    "com.microsoft.QGemm": (Role.CONSTANT, (1, 2, 4, 5, 7, 8)),
    "com.microsoft.QAttention": (Role.CONSTANT, (3, 4, 5, 6, 7)),
    "com.microsoft.QLinearAdd": (Role.CONSTANT, (1, 2, 4, 5, 6, 7)),
    "com.microsoft.QLinearMul": (Role.CONSTANT, (1, 2, 4, 5, 6, 7)),
}
"""Inputs that are no parameters: running statistics, scales and zero points."""

_BIASES = {"Gemm": 2, "LSTM": 3, "GRU": 3, "RNN": 3, "com.microsoft.FusedGemm": 2, "com.microsoft.QGemm": 6}
"""Biases that may have two dimensions."""

FIRST_STATE = "state of a loop"
"""In place of the name of an operator: what a loop carries into its first round."""

_FIRST_STATES = {"LSTM": (4, 5, 6), "GRU": (4, 5), "RNN": (4, 5), "com.microsoft.DynamicQuantizeLSTM": (4, 5, 6),
                 FIRST_STATE: (0,)}  # fmt: skip
"""The lengths of the sequences and the states before the first step. Zeros are the states that a layer has by default,
so they are no parameters."""


def is_data(operator: str, i: int) -> bool:
    """Whether elements of input i become elements of the output."""
    if operator in GENERATORS or (operator in ARGUMENTS_AFTER_FIRST and i > 0):
        return False
    role, positions = _OPERANDS.get(operator, (Role.PARAMETER, ()))
    return i not in positions or role is Role.BUFFER


def operand_role(operator: str, kind: Kind, i: int, spec: TensorSpec, sources: Iterable[Stored]) -> Role:
    """The role of the constant input i of a node, computed from these stored tensors."""
    role, positions = _OPERANDS.get(operator, (Role.PARAMETER, ()))
    if i in positions:
        return role
    if i in _FIRST_STATES.get(operator, ()):
        default = "int" in spec.dtype or all(s.origin is Origin.GENERATED or s.is_zero for s in sources)
        return Role.CONSTANT if default else Role.PARAMETER
    computes = kind in WITH_MATRICES or kind is Kind.ATTENTION
    is_matrix = kind in WITH_MATRICES and len(spec.shape) > 1
    if spec.dtype in ("int64", "bool", "uint64", "string") or (spec.dtype == "int32" and not computes):
        if is_matrix:
            return Role.PARAMETER
        return Role.ARGUMENT if spec.numel <= MAX_ARGUMENT else Role.CONSTANT
    if not is_data(operator, i):
        return Role.CONSTANT
    if is_matrix:
        return Role.PARAMETER
    origins = {s.origin for s in sources}
    if origins <= {Origin.GENERATED}:
        return Role.PARAMETER if computes or kind is Kind.NORM else Role.CONSTANT
    is_number = spec.numel == 1 and Origin.INITIALIZER not in origins
    if is_number and not (computes or kind is Kind.NORM or operator == "PRelu"):
        return Role.CONSTANT  # a number of the program: exporters write parameters as initializers
    return Role.PARAMETER


def recorded_spec(operator: str, kind: Kind, i: int, role: Role, spec: TensorSpec) -> TensorSpec:
    """The spec of a constant input as it is recorded. In an operation with matrices, anything else is a vector, as in
    torch, so that only matrices count as such."""
    if kind not in WITH_MATRICES or (role is Role.PARAMETER and _BIASES.get(operator) != i):
        return spec
    return TensorSpec((spec.numel,), spec.dtype)
