"""What standard ONNX operators cost, by the cost rules and formulas of torch's operations.

To add an operator, decorate one function with `onnx_rule`. It takes an `OnnxNode` and returns the cost as `Facts`. The
library `onnx` infers the output shapes of standard operators; for others see `contrib_operators`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from cspprof.core import formulas as f
from cspprof.core.kinds import Kind
from cspprof.core.registry import Registry
from cspprof.core.tensors import TensorSpec
from cspprof.ops import Facts, convolution, linalg, matrix, normalization, reduction
from cspprof.ops.attention import attention_facts
from cspprof.ops.indexing import lookup_facts, scatter_facts
from cspprof.ops.pooling import pool_facts


@dataclass(frozen=True, slots=True)
class OnnxNode:
    """A node as a rule sees it: specs in place of tensors."""

    operator: str
    """`Conv`, or with a domain: `com.microsoft.FusedConv`."""
    inputs: tuple[TensorSpec | None, ...]
    """None: an optional input that is absent."""
    outputs: tuple[TensorSpec, ...]
    """Empty for a rule that returns them."""
    attrs: Mapping[str, Any]
    constants: Mapping[int, list[Any]]
    """The elements of small constant inputs, by the position of the input."""
    output_count: int = 1
    """Also counts an output that is omitted before another one."""
    opset: int = 0
    """The version of the operator set. The meaning of attributes and inputs depends on it."""
    declared: tuple[TensorSpec | None, ...] = ()
    """The specs that the file declares for the outputs."""
    weights: frozenset[int] = frozenset()
    """The positions of the inputs that depend on no input of the graph."""

    def __getitem__(self, i: int) -> TensorSpec:
        """Input i. Raises ValueError if it is absent."""
        spec = self.inputs[i] if i < len(self.inputs) else None
        if spec is None:
            raise ValueError(f"input {i} is absent")
        return spec

    def has(self, i: int) -> bool:
        return i < len(self.inputs) and self.inputs[i] is not None

    def attr(self, name: str) -> Any:
        """A required attribute. Raises ValueError if it is absent."""
        if name not in self.attrs:
            raise ValueError(f"the attribute {name} is absent")
        return self.attrs[name]

    @property
    def out(self) -> TensorSpec:
        return self.outputs[0]


OnnxRule = Callable[[OnnxNode], Facts]
ONNX_RULES: Registry[OnnxRule] = Registry("ONNX operator rule")


def onnx_rule(*operators: str) -> Callable[[OnnxRule], OnnxRule]:
    """Register the cost rule of these operators."""

    def register(rule: OnnxRule) -> OnnxRule:
        for operator in operators:
            ONNX_RULES.add(operator, rule)
        return rule

    return register


# -- convolutions -----------------------------------------------------------------------------------


WINDOW = ("stride", "padding", "dilation")


def _window(node: OnnxNode) -> dict[str, Any]:
    """The arguments of a convolution as torch names them; `padding` lists both ends only if they differ."""
    pads = tuple(node.attrs.get("pads") or (0,))
    half = len(pads) // 2
    return {
        "stride": node.attrs.get("strides") or 1,
        "padding": pads[:half] if half and pads[:half] == pads[half:] else pads,
        "dilation": node.attrs.get("dilations") or 1,
        "groups": int(node.attrs.get("group", 1)),
    }


def conv_facts(node: OnnxNode, weight: TensorSpec, out: TensorSpec) -> Facts:
    """A convolution; `weight` is (c_out, c_in/groups, *kernel), `out` (N, c_out, *spatial)."""
    return convolution.conv(node[0], weight, **_window(node), out=out)


@onnx_rule("Conv", "ConvInteger", "DeformConv")
def conv(node: OnnxNode) -> Facts:
    return conv_facts(node, node[1], node.out)


@onnx_rule("QLinearConv")
def quantized_conv(node: OnnxNode) -> Facts:
    """Inputs: x, its scale and zero point, weight, …"""
    return conv_facts(node, node[3], node.out)


@onnx_rule("ConvTranspose")
def conv_transpose(node: OnnxNode) -> Facts:
    return convolution.conv_transpose(node[0], node[1], **_window(node), out=node.out)


# -- matrix products and recurrent layers -------------------------------------------------------------


@onnx_rule("Gemm")
def gemm(node: OnnxNode) -> Facts:
    left = node[0].shape[::-1] if node.attrs.get("transA") else node[0].shape
    return matrix.linear(TensorSpec(left), out=node.out)


@onnx_rule("MatMul", "MatMulInteger", "QLinearMatMul")
def matmul(node: OnnxNode) -> Facts:
    return matrix.matmul(node[0], node[1], out=node.out)


@onnx_rule("Einsum")
def einsum(node: OnnxNode) -> Facts:
    """With two operands, one MAC for each combination of subscripts. With more, the cost depends on the order of the
    products, so it is unknown."""
    operands, _, _ = str(node.attr("equation")).replace(" ", "").partition("->")
    terms = operands.split(",")
    if len(terms) == 1:
        return Facts(Kind.REDUCTION, elementwise=node[0].numel)
    if len(terms) != 2:
        return Facts(Kind.UNKNOWN, None)
    sizes: dict[str | int, int] = {}
    for term, spec in zip(terms, (node[0], node[1]), strict=True):
        before, dots, after = term.partition("...")
        rest = len(spec.shape) - len(before) - len(after)  # the dimensions of the dots are numbered from the last
        subscripts = [*before, *(range(-rest, 0) if dots else ()), *after]
        for subscript, n in zip(subscripts, spec.shape, strict=True):
            sizes[subscript] = max(sizes.get(subscript, 1), n)
    return Facts(Kind.MATMUL, prod(sizes.values()))


def attention_operands(node: OnnxNode) -> list[tuple[int, int, int, int]]:
    """The shapes (B, H, L, E) of the queries, and of keys and values with the past ones, inputs 4 and 5.

    A node may have them as (B, L, H·E), with the number of heads as an attribute.
    """
    past = node[4].shape[-2] if node.has(4) else 0
    shapes = []
    for i, heads in enumerate(("q_num_heads", "kv_num_heads", "kv_num_heads")):
        shape = node[i].shape
        if len(shape) == 3:
            n = int(node.attr(heads))
            shape = (shape[0], n, shape[1], shape[2] // n)
        batch, n, length, size = shape
        shapes.append((batch, n, length + past if i else length, size))
    return shapes


@onnx_rule("Attention")
def attention(node: OnnxNode) -> Facts:
    q, k, v = attention_operands(node)
    return attention_facts(prod(q[:3]), k[2], q[3], v[3])


@onnx_rule("LSTM", "GRU", "RNN")
def recurrent(node: OnnxNode) -> Facts:
    """The weights W and R are (directions, rows, columns). x is (L, B, …) or (B, L, …)."""
    directions, rows, _ = node[1].shape
    return recurrent_facts(node[1].numel + node[2].numel, 2 * directions * rows, prod(node[0].shape[:2]))


def recurrent_facts(elements: int, rows: int, steps: int) -> Facts:
    """Each of the `elements` of the weights takes part in one MAC for each step of each sequence. Each of their rows
    yields one element of a gate, which is one scalar operation."""
    return Facts(Kind.RECURRENT, elements * steps, elementwise=rows * steps)


# -- transforms and factorizations ----------------------------------------------------------------------


@onnx_rule("DFT")
def fourier_transform(node: OnnxNode) -> Facts:
    """The last dimension has one real or two complex components. Input 1 is the length of the transform; by default
    it follows from the shapes."""
    *shape, components = node[0].shape
    from_frequencies = bool(node.attrs.get("inverse") and node.attrs.get("onesided"))
    axis = _transform_axis(node)
    length = node.constants[1][0] if 1 in node.constants else None
    if not node.has(1) and axis is not None:
        length = 2 * (shape[axis] - 1) if from_frequencies else shape[axis]
    if axis is None or length is None:
        return Facts(Kind.UNKNOWN, None)
    shape[axis] = int(length)
    return _transform(shape, int(length), is_real=components == 1 or from_frequencies)


def _transform_axis(node: OnnxNode) -> int | None:
    """The dimension of a Fourier transform; None if it is known only when the graph runs."""
    if node.opset < 20:
        axis = int(node.attrs.get("axis", 1))
    elif not node.has(2):
        axis = -2
    elif 2 in node.constants:
        axis = int(node.constants[2][0])
    else:
        return None
    return axis % len(node[0].shape)


@onnx_rule("STFT")
def short_time_fourier_transform(node: OnnxNode) -> Facts:
    """A transform of each frame, after one multiplication of each of its elements with the window. The output is
    (B, frames, frequencies, 2)."""
    batch, samples, components = node[0].shape
    if node.has(2):
        length = node[2].numel
    elif node.has(3):
        if 3 not in node.constants:
            return Facts(Kind.UNKNOWN, None)
        length = int(node.constants[3][0])
    else:
        length = samples
    frames = [batch, node.out.shape[1], length]
    facts = _transform(frames, length, is_real=components == 1)
    return facts._replace(elementwise=facts.elementwise + (prod(frames) if node.has(2) else 0))


def _transform(shape: list[int], length: int, is_real: bool) -> Facts:
    """Fourier transforms of this length over an array of this shape. From or to real values, half of the
    operations."""
    operations = f.fft_operations(prod(shape), [length])
    return Facts(Kind.FFT, elementwise=(operations + 1) // 2 if is_real else operations)


@onnx_rule("Det")
def determinant(node: OnnxNode) -> Facts:
    return linalg.lu(node[0], out=node.out)


# -- pooling ----------------------------------------------------------------------------------------


@onnx_rule("MaxPool")
def max_pool(node: OnnxNode) -> Facts:
    return pool_facts(Kind.MAX_POOL, node.attr("kernel_shape"), node.out, outputs=1, **_pool_window(node))


@onnx_rule("AveragePool", "LpPool")
def average_pool(node: OnnxNode) -> Facts:
    return pool_facts(Kind.AVG_POOL, node.attr("kernel_shape"), node.out, **_pool_window(node))


def _pool_window(node: OnnxNode) -> dict[str, Any]:
    """The arguments of a pooling layer as torch names them."""
    window = _window(node)
    n = len(node.attr("kernel_shape"))
    return {name: f.pair(window[name], n) if name != "padding" else window[name] for name in WINDOW}


@onnx_rule("GlobalAveragePool", "GlobalLpPool")
def global_average_pool(node: OnnxNode) -> Facts:
    return pool_facts(Kind.AVG_POOL, node[0].shape[2:], node.out, **{"global": True})


@onnx_rule("GlobalMaxPool")
def global_max_pool(node: OnnxNode) -> Facts:
    return pool_facts(Kind.MAX_POOL, node[0].shape[2:], node.out, **{"global": True})


@onnx_rule("ReduceMean")
def reduce_mean(node: OnnxNode) -> Facts:
    return reduction.mean(node[0], node.constants.get(1, node.attrs.get("axes")), out=node.out)


@onnx_rule("Gather")
def gather(node: OnnxNode) -> Facts:
    """Rows of a weight matrix are an embedding."""
    is_embedding = 0 in node.weights and len(node[0].shape) == 2 and not node.attrs.get("axis")
    return lookup_facts(Kind.EMBEDDING if is_embedding else Kind.DATA, node[0], node.out.numel)


@onnx_rule("Slice")
def slice_(node: OnnxNode) -> Facts:
    """Each element of the output is one element of the first input. Constant bounds are recorded."""
    facts = lookup_facts(Kind.DATA, node[0], node.out.numel)
    return facts._replace(attrs={**facts.attrs, **_constants(node, {1: "starts", 2: "ends", 3: "axes", 4: "steps"})})


@onnx_rule("Pad")
def pad(node: OnnxNode) -> Facts:
    """A copy. Constant amounts of padding are recorded."""
    return Facts(Kind.DATA, attrs=_constants(node, {1: "pads", 3: "axes"}))


def _constants(node: OnnxNode, names: Mapping[int, str]) -> dict[str, Any]:
    """The elements of constant inputs, which older versions have as attributes of the same name."""
    return {name: tuple(node.constants[i]) for i, name in names.items() if node.constants.get(i)}


@onnx_rule("GatherElements", "GatherND")
def gather_elements(node: OnnxNode) -> Facts:
    """Each element of the output is one element of the first input."""
    return lookup_facts(Kind.DATA, node[0], node.out.numel)


@onnx_rule("Scatter", "ScatterElements", "ScatterND", "TensorScatter")
def scatter(node: OnnxNode) -> Facts:
    """The updates are written into the first input, as engines do if nothing else reads that."""
    updates = node[1 if node.operator == "TensorScatter" else 2]
    return scatter_facts(node[0], updates.numel, node.attrs.get("reduction", "none") != "none")


@onnx_rule("Dropout")
def dropout(node: OnnxNode) -> Facts:
    """No operation, except in the training mode (input 2). With a mask, a copy and a mask of ones."""
    if any(node.constants.get(2, ())):
        return Facts(Kind.ELEMENTWISE, elementwise=node.out.numel)
    return Facts(Kind.VIEW if len(node.outputs) == 1 else Kind.DATA)


# -- operators without MACs -------------------------------------------------------------------------


@onnx_rule(
    "BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization",
    "LRN", "LpNormalization", "MeanVarianceNormalization", "SimplifiedLayerNormalization",
)  # fmt: skip
def norm(node: OnnxNode) -> Facts:
    return normalization.norm(node[0], out=node.out)


def _output_numel(node: OnnxNode) -> int:
    return node.out.numel


def _input_numel(node: OnnxNode) -> int:
    return node[0].numel


def register_without_macs(kind: Kind, operators: str, elementwise: Callable[[OnnxNode], int] | None = None) -> None:
    """Register one rule for many operators that have no MACs; `elementwise` counts their scalar operations."""

    @onnx_rule(*operators.split())
    def rule(node: OnnxNode) -> Facts:
        return Facts(kind, elementwise=elementwise(node) if elementwise else 0)


register_without_macs(
    Kind.ACTIVATION,
    "Relu LeakyRelu PRelu Elu Selu Celu Sigmoid HardSigmoid HardSwish Tanh Softplus Softsign Gelu Mish Swish SwiGLU "
    "ThresholdedRelu Shrink Clip",
    _output_numel,
)
register_without_macs(
    Kind.ELEMENTWISE,
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Cos Cosh "
    "Div Equal Erf Exp Floor Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Log Max Mean Min Mod Mul Neg Not Or "
    "Pow Reciprocal Round Sign Sin Sinh Sqrt Sub Sum Tan Where Xor RotaryEmbedding QuantizeLinear DequantizeLinear "
    "DynamicQuantizeLinear",
    _output_numel,
)
register_without_macs(Kind.SOFTMAX, "Softmax LogSoftmax Hardmax", _output_numel)
register_without_macs(
    Kind.REDUCTION,
    "ArgMax ArgMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMin ReduceProd ReduceSum "
    "ReduceSumSquare CumSum CumProd NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss",
    _input_numel,
)
register_without_macs(Kind.RESIZE, "Resize Upsample GridSample MaxRoiPool RoiAlign", _output_numel)
register_without_macs(Kind.CONCAT, "Concat")
register_without_macs(Kind.VIEW, "Reshape Flatten Squeeze Unsqueeze Identity OptionalGetElement")
register_without_macs(
    Kind.DATA,
    "Transpose Cast CastLike BitCast Split Expand Tile DepthToSpace SpaceToDepth ReverseSequence Trilu OneHot "
    "NonZero TopK Compress Unique CenterCropPad Col2Im MaxUnpool EyeLike ConstantOfShape Constant Range Shape Size "
    "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Bernoulli Multinomial BlackmanWindow HannWindow "
    "HammingWindow MelWeightMatrix "
    "NonMaxSuppression AffineGrid OptionalHasElement",
)

WITHOUT_RULE = {
    "If": "its graphs are visited", "Loop": "its graphs are visited", "Scan": "its graphs are visited",
    "ImageDecoder": "a file format", "LinearAttention": "not final", "CausalConvWithState": "not final",
    "RegexFullMatch": "text", "StringConcat": "text", "StringSplit": "text", "StringNormalizer": "text",
    "TfIdfVectorizer": "text", "Optional": "no tensor", "ConcatFromSequence": "no tensor", "SequenceAt": "no tensor",
    "SequenceConstruct": "no tensor", "SequenceEmpty": "no tensor", "SequenceErase": "no tensor",
    "SequenceInsert": "no tensor", "SequenceLength": "no tensor", "SequenceMap": "no tensor",
    "SplitToSequence": "no tensor",
}  # fmt: skip
"""Standard operators without a rule, and the reason. A graph with sequences is refused; the others are uncounted."""
