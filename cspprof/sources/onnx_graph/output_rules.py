"""Output shapes of standard ONNX operators that the library `onnx` does not infer.

Some operators are defined by a function of other operators. The first versions of old operators broadcast and reshape
by attributes. Others have outputs that the library leaves open. To add one, decorate one function with `output_rule`:
it takes an `OnnxNode` and returns the outputs. An output that it does not return is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from onnx import TensorProto

from cspprof.core import formulas as f
from cspprof.core.registry import Registry
from cspprof.core.tensors import TensorSpec
from cspprof.sources.onnx_graph.operators import OnnxNode, attention_operands
from cspprof.sources.onnx_graph.protos import dtype_of

OnnxOutputRule = Callable[[OnnxNode], list[TensorSpec]]
OUTPUT_RULES: Registry[OnnxOutputRule] = Registry("ONNX output rule")


def output_rule(*operators: str) -> Callable[[OnnxOutputRule], OnnxOutputRule]:
    """Register the output rule of these operators."""

    def register(rule: OnnxOutputRule) -> OnnxOutputRule:
        for operator in operators:
            OUTPUT_RULES.add(operator, rule)
        return rule

    return register


# -- elementwise operators and norms ------------------------------------------------------------------


@output_rule(
    "Abs", "Ceil", "Clip", "Elu", "Exp", "Floor", "HardSigmoid", "LeakyRelu", "Log", "Neg", "PRelu", "Reciprocal",
    "Relu", "Selu", "Sigmoid", "Sqrt", "Tanh", "GroupNormalization", "InstanceNormalization",
    "MeanVarianceNormalization", "ai.onnx.ml.Imputer", "ai.onnx.ml.Scaler",
)  # fmt: skip
def like_input(node: OnnxNode) -> list[TensorSpec]:
    return [node[0]]


@output_rule("Add", "Sub", "Mul", "Div", "Max", "Mean", "Min", "Sum")
def arithmetic(node: OnnxNode) -> list[TensorSpec]:
    """Before opset 7, `broadcast` and `axis` place the second operand along the first one, which has the shape of the
    output."""
    if "axis" in node.attrs:
        return [node[0]]
    return [TensorSpec(f.broadcast(*(node[i].shape for i in range(len(node.inputs)))), node[0].dtype)]


@output_rule("GreaterOrEqual", "LessOrEqual")
def comparison(node: OnnxNode) -> list[TensorSpec]:
    return [TensorSpec(f.broadcast(node[0].shape, node[1].shape), "bool")]


@output_rule("BatchNormalization")
def batch_norm(node: OnnxNode) -> list[TensorSpec]:
    """Before opset 14, the training form has the outputs mean, variance, saved mean and saved variance."""
    return [node[0], node[3], node[4], node[3], node[4]]


@output_rule("Dropout")
def dropout(node: OnnxNode) -> list[TensorSpec]:
    """The mask has the dtype of the input before opset 10."""
    return [node[0], node[0]]


@output_rule("Cast")
def cast(node: OnnxNode) -> list[TensorSpec]:
    """In opset 1, the attribute is the name of the type."""
    return [TensorSpec(node[0].shape, dtype_of(TensorProto.DataType.Value(node.attr("to"))))]


# -- new shapes ---------------------------------------------------------------------------------------


@output_rule("Reshape")
def reshape(node: OnnxNode) -> list[TensorSpec]:
    """In opset 1, the shape is an attribute. 0 keeps a dimension, -1 follows from the others."""
    requested = node.attrs.get("shape") or ()
    shape = [node[0].shape[i] if n == 0 else n for i, n in enumerate(requested)]
    if not requested and node.has(1):
        return []
    if -1 in shape:
        shape[shape.index(-1)] = node[0].numel // -prod(shape)
    return [TensorSpec(tuple(shape), node[0].dtype)]


@output_rule("Concat")
def concat(node: OnnxNode) -> list[TensorSpec]:
    """In opset 1, the axis is 1 by default."""
    parts = [node[i] for i in range(len(node.inputs))]
    shape, axis = list(parts[0].shape), int(node.attrs.get("axis", 1))
    shape[axis] = sum(part.shape[axis] for part in parts)
    return [TensorSpec(tuple(shape), parts[0].dtype)]


@output_rule("Split")
def split(node: OnnxNode) -> list[TensorSpec]:
    """In opset 1, the lengths are an attribute or an input; by default they are equal."""
    axis, n = int(node.attrs.get("axis", 0)), node.output_count
    lengths = node.attrs.get("split") or node.constants.get(1)
    if lengths is None:
        if node.has(1):
            return []
        lengths = [node[0].shape[axis] // n] * n
    shape = node[0].shape
    before, after = shape[:axis], shape[axis:][1:]
    return [TensorSpec((*before, int(length), *after), node[0].dtype) for length in lengths]


@output_rule("Pad")
def pad(node: OnnxNode) -> list[TensorSpec]:
    """In opset 1, the attribute is `paddings`: the beginnings of all dimensions, then the ends."""
    pads = node.attrs.get("paddings")
    if pads is None:
        return []
    rank = len(node[0].shape)
    return [TensorSpec(tuple(n + pads[i] + pads[i + rank] for i, n in enumerate(node[0].shape)), node[0].dtype)]


@output_rule("Tile")
def tile(node: OnnxNode) -> list[TensorSpec]:
    """In opset 1, the inputs are the number of tiles and one axis."""
    if not node.constants.keys() >= {1, 2}:
        return []
    shape = list(node[0].shape)
    shape[int(node.constants[2][0])] *= int(node.constants[1][0])
    return [TensorSpec(tuple(shape), node[0].dtype)]


@output_rule("Upsample")
def upsample(node: OnnxNode) -> list[TensorSpec]:
    """In opset 1, height and width have one scale each. Later, the scales of all dimensions are an attribute or an
    input."""
    scales = node.attrs.get("scales") or node.constants.get(1) or []
    if "height_scale" in node.attrs:
        scales = [*(1 for _ in node[0].shape[2:]), node.attr("height_scale"), node.attr("width_scale")]
    if not scales:
        return []
    return [TensorSpec(tuple(int(n * s) for n, s in zip(node[0].shape, scales, strict=True)), node[0].dtype)]


@output_rule("Compress")
def compress(node: OnnxNode) -> list[TensorSpec]:
    """The slices, or without an axis the elements, at which a constant condition holds."""
    if 1 not in node.constants:
        return []
    kept = sum(map(bool, node.constants[1]))
    if "axis" not in node.attrs:
        return [TensorSpec((kept,), node[0].dtype)]
    shape = list(node[0].shape)
    shape[int(node.attr("axis"))] = kept
    return [TensorSpec(tuple(shape), node[0].dtype)]


# -- matrix products, recurrent layers and attention ----------------------------------------------------


@output_rule("Gemm")
def gemm(node: OnnxNode) -> list[TensorSpec]:
    rows = node[0].shape[1 if node.attrs.get("transA") else 0]
    return [TensorSpec((rows, node[1].shape[0 if node.attrs.get("transB") else 1]), node[0].dtype)]


@output_rule("LSTM", "GRU", "RNN")
def recurrent(node: OnnxNode) -> list[TensorSpec]:
    """The steps (L, D, B, H), then the last states (D, B, H); with `layout` the batch comes first. The weight of the
    recurrence, (D, …, H), has the length H of the state."""
    first, second = node[0].shape[:2]
    directions, hidden = node[2].shape[0], node[2].shape[-1]
    steps, state = (first, directions, second, hidden), (directions, second, hidden)
    if node.attrs.get("layout"):
        steps, state = (first, second, directions, hidden), (first, directions, hidden)
    return [TensorSpec(shape, node[0].dtype) for shape in (steps, state, state)]


@output_rule("Attention")
def attention(node: OnnxNode) -> list[TensorSpec]:
    """Output (as the queries), keys and values with the past ones, and the products of queries and keys."""
    q, k, v = attention_operands(node)
    out = (*q[:3], v[3]) if len(node[0].shape) == 4 else (q[0], q[2], q[1] * v[3])
    shapes = [out, k, v, (*q[:3], k[2])]
    return [TensorSpec(shape, node[i].dtype) for shape, i in zip(shapes, (0, 1, 2, 0), strict=True)]


# -- pooling ------------------------------------------------------------------------------------------


@output_rule("LpPool")
def window_pool(node: OnnxNode) -> list[TensorSpec]:
    x = node[0]
    return [TensorSpec((*x.shape[:2], *sliding_window(node, x.shape[2:], node.attr("kernel_shape"))), x.dtype)]


@output_rule("GlobalLpPool")
def global_pool(node: OnnxNode) -> list[TensorSpec]:
    return [TensorSpec((*node[0].shape[:2], *(1 for _ in node[0].shape[2:])), node[0].dtype)]


def sliding_window(node: OnnxNode, sizes: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """The spatial sizes of the output of a convolution or pool over a map of these spatial sizes."""
    n = len(kernel)
    strides = node.attrs.get("strides") or [1] * n
    dilations = node.attrs.get("dilations") or [1] * n
    pads, auto_pad = node.attrs.get("pads") or [0] * 2 * n, node.attrs.get("auto_pad", "NOTSET")
    spatial = []
    for i, (size, k) in enumerate(zip(sizes, kernel, strict=True)):
        if auto_pad.startswith("SAME"):
            spatial.append(-(-size // strides[i]))
            continue
        last = size - dilations[i] * (k - 1) - 1 + (0 if auto_pad == "VALID" else pads[i] + pads[i + n])
        spatial.append((-(-last // strides[i]) if node.attrs.get("ceil_mode") else last // strides[i]) + 1)
    return spatial


# -- classical machine learning and training -------------------------------------------------------------


@output_rule("ai.onnx.ml.Normalizer")
def normalizer(node: OnnxNode) -> list[TensorSpec]:
    return [TensorSpec(node[0].shape)]


@output_rule("ai.onnx.ml.FeatureVectorizer")
def feature_vectorizer(node: OnnxNode) -> list[TensorSpec]:
    return [TensorSpec((node[0].shape[0], sum(map(int, node.attr("inputdimensions")))))]


@output_rule("ai.onnx.ml.LinearRegressor")
def linear_regressor(node: OnnxNode) -> list[TensorSpec]:
    return [TensorSpec((node[0].shape[0], int(node.attrs.get("targets", 1))))]


@output_rule("ai.onnx.ml.SVMRegressor")
def svm_regressor(node: OnnxNode) -> list[TensorSpec]:
    return [TensorSpec((node[0].shape[0], 1))]


@output_rule("ai.onnx.ml.TreeEnsembleRegressor")
def tree_regressor(node: OnnxNode) -> list[TensorSpec]:
    return [TensorSpec((node[0].shape[0], int(node.attrs.get("n_targets", 1))))]


@output_rule("ai.onnx.preview.training.Gradient")
def gradient(node: OnnxNode) -> list[TensorSpec]:
    """The gradient of `y` for each of the inputs `xs`, which are the first ones."""
    return [node[i] for i in range(len(node.attr("xs")))]
