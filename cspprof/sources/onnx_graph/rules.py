"""What a standard ONNX operator costs: thin adapters over the same formulas as for torch's operations.

A rule takes a `Node` and returns `Facts`. To add an operator, decorate a function with `onnx_rule`. One that the
library cannot infer shapes for also gives them: see `contributed`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from cspprof.core import formulas as f
from cspprof.core.record import Kind, TensorSpec
from cspprof.core.registry import Registry
from cspprof.ops import Facts

Spec = TensorSpec


@dataclass(frozen=True, slots=True)
class Node:
    """An operator with its tensors: None stands for an optional input that is left out."""

    op: str
    """`Conv`, or with its domain: `com.microsoft.FusedConv`."""
    inputs: tuple[Spec | None, ...]
    outputs: tuple[Spec, ...]
    attrs: Mapping[str, Any]
    values: Mapping[int, list[Any]]
    """Small constant inputs, flat, by their position."""

    def __getitem__(self, i: int) -> Spec:
        spec = self.inputs[i]
        assert spec is not None, f"{self.op} has no input {i}"
        return spec

    @property
    def out(self) -> Spec:
        return self.outputs[0]

    def has(self, i: int) -> bool:
        return i < len(self.inputs) and self.inputs[i] is not None


Rule = Callable[[Node], Facts]
ONNX_RULES: Registry[Rule] = Registry("ONNX operator rule")
SHAPES: Registry[Callable[[Node], list[Spec]]] = Registry("ONNX shape rule")
VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"})
"""A new shape over the same elements. Dropout is for inference here."""


def onnx_rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule under the names of its operators."""

    def register(rule: Rule) -> Rule:
        for name in names:
            ONNX_RULES.add(name, rule)
        return rule

    return register


# -- convolutions -------------------------------------------------------------------------------------


def window(node: Node, weight: Spec, groups: int) -> dict[str, Any]:
    n = len(weight.shape) - 2
    pads = node.attrs.get("pads") or [0] * 2 * n
    return {
        "kernel": weight.shape[2:],
        "stride": tuple(node.attrs.get("strides") or [1] * n),
        "padding": tuple(pads[:n]) if list(pads[:n]) == list(pads[n:]) else tuple(pads),
        "dilation": tuple(node.attrs.get("dilations") or [1] * n),
        "groups": groups,
    }


def conv_facts(node: Node, weight: Spec) -> Facts:
    groups = int(node.attrs.get("group", 1))
    if node[0].shape[1] != weight.shape[1] * groups:
        raise ValueError(
            f"a weight of {weight} in {groups} groups reads {weight.shape[1] * groups} channels, the map has {node[0]}"
        )
    return Facts(Kind.CONV, f.conv_macs(weight.shape, node.out.shape), attrs=window(node, weight, groups))


@onnx_rule("Conv", "ConvInteger", "DeformConv")
def conv(node: Node) -> Facts:
    return conv_facts(node, node[1])


@onnx_rule("QLinearConv")
def quantised_conv(node: Node) -> Facts:
    """(x, scale, zero point, weight, …)."""
    return conv_facts(node, node[3])


@onnx_rule("ConvTranspose")
def conv_transpose(node: Node) -> Facts:
    attrs = window(node, node[1], int(node.attrs.get("group", 1)))
    return Facts(Kind.CONV_TRANSPOSE, f.conv_transpose_macs(node[1].shape, node[0].shape), attrs=attrs)


# -- matrix products ----------------------------------------------------------------------------------


@onnx_rule("Gemm")
def gemm(node: Node) -> Facts:
    inner = node[0].shape[0 if node.attrs.get("transA") else 1]
    return Facts(Kind.LINEAR, inner * node.out.numel)


@onnx_rule("MatMul", "MatMulInteger", "QLinearMatMul")
def matmul(node: Node) -> Facts:
    return Facts(Kind.MATMUL, node[0].shape[-1] * node.out.numel)


@onnx_rule("Einsum")
def einsum(node: Node) -> Facts:
    """Of two operands one product for every combination of letters; what more operands cost depends on the order."""
    operands, _, _ = str(node.attrs["equation"]).replace(" ", "").partition("->")
    terms = operands.split(",")
    if len(terms) == 1:
        return Facts(Kind.REDUCTION, elementwise=node[0].numel)
    if len(terms) != 2:
        return Facts(Kind.UNKNOWN, None)
    sizes: dict[str | int, int] = {}
    for term, spec in zip(terms, (node[0], node[1]), strict=True):
        before, dots, after = term.partition("...")
        rest = len(spec.shape) - len(before) - len(after)  # dimensions under the dots count from their end
        letters = [*before, *(range(-rest, 0) if dots else ()), *after]
        for letter, n in zip(letters, spec.shape, strict=True):
            sizes[letter] = max(sizes.get(letter, 1), n)
    return Facts(Kind.MATMUL, prod(sizes.values()))


@onnx_rule("Attention")
def attention(node: Node) -> Facts:
    """Queries (B, H, L, E), or (B, L, H·E) with the number of heads as an attribute; a mask saves nothing."""
    q, k, v = node[0].shape, node[1].shape, node[2].shape
    if len(q) == 3:
        heads, kv = int(node.attrs["q_num_heads"]), int(node.attrs["kv_num_heads"])
        queries, keys, size, value = q[0] * q[1] * heads, k[1], q[2] // heads, v[2] // kv
    else:
        queries, keys, size, value = prod(q[:-1]), k[-2], q[-1], v[-1]
    past = node[4].shape[-2] if node.has(4) else 0
    keys += past
    return Facts(Kind.ATTENTION, f.attention_macs(queries, keys, size, value), queries * keys, outputs=1)


@onnx_rule("LSTM", "GRU", "RNN")
def recurrent(node: Node) -> Facts:
    """Every element of W and R meets every step (L, B, …)."""
    length, batch = node[0].shape[:2]
    return Facts(Kind.RECURRENT, (node[1].numel + node[2].numel) * length * batch)


# -- pooling ------------------------------------------------------------------------------------------


def pool(kind: Kind, kernel: Sequence[int], out: Spec, **attrs: Any) -> Facts:
    return Facts(kind, 0, f.pool_elementwise(kernel, out.shape), {"kernel": tuple(kernel), **attrs}, outputs=1)


@onnx_rule("MaxPool")
def max_pool(node: Node) -> Facts:
    return pool(Kind.MAX_POOL, node.attrs["kernel_shape"], node.out)


@onnx_rule("AveragePool", "LpPool")
def average_pool(node: Node) -> Facts:
    return pool(Kind.AVG_POOL, node.attrs["kernel_shape"], node.out)


@onnx_rule("GlobalAveragePool", "GlobalLpPool")
def global_average_pool(node: Node) -> Facts:
    return pool(Kind.AVG_POOL, node[0].shape[2:], node.out, **{"global": True})


@onnx_rule("GlobalMaxPool")
def global_max_pool(node: Node) -> Facts:
    return pool(Kind.MAX_POOL, node[0].shape[2:], node.out, **{"global": True})


@onnx_rule("MaxRoiPool", "RoiAlign")
def of_regions(node: Node) -> Facts:
    return Facts(Kind.RESIZE, elementwise=node.out.numel)


@onnx_rule("ReduceMean")
def mean(node: Node) -> Facts:
    """A mean over exactly the spatial dimensions of (N, C, H, W) is global average pooling by another name."""
    rank = len(node[0].shape)
    axes = node.values.get(1, node.attrs.get("axes")) or []
    if rank == 4 and {int(a) % rank for a in axes} == {2, 3}:
        return global_average_pool(node)
    return Facts(Kind.REDUCTION, elementwise=node[0].numel)


# -- what multiplies nothing --------------------------------------------------------------------------


def plain(kind: Kind, names: str, cost: Callable[[Node], int] = lambda node: 0, outputs: int | None = None) -> None:
    for name in names.split():
        ONNX_RULES.add(name, lambda node: Facts(kind, elementwise=cost(node), outputs=outputs))


def out_numel(node: Node) -> int:
    return node.out.numel


def in_numel(node: Node) -> int:
    return node[0].numel


plain(
    Kind.NORM,
    "BatchNormalization LayerNormalization InstanceNormalization GroupNormalization RMSNormalization LRN "
    "LpNormalization MeanVarianceNormalization SimplifiedLayerNormalization",
    lambda node: 2 * node[0].numel,
    1,
)
plain(
    Kind.ACTIVATION,
    "Relu LeakyRelu PRelu Elu Selu Celu Sigmoid HardSigmoid HardSwish Tanh Softplus Softsign Gelu Mish Swish SwiGLU "
    "ThresholdedRelu Shrink Clip",
    out_numel,
)
plain(
    Kind.ELEMENTWISE,
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Cos Cosh "
    "Div Equal Erf Exp Floor Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Log Max Mean Min Mod Mul Neg Not Or "
    "Pow Reciprocal Round Sign Sin Sinh Sqrt Sub Sum Tan Where Xor RotaryEmbedding QuantizeLinear DequantizeLinear "
    "DynamicQuantizeLinear",
    out_numel,
)
plain(Kind.SOFTMAX, "Softmax LogSoftmax Hardmax", out_numel)
plain(
    Kind.REDUCTION,
    "ArgMax ArgMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMin ReduceProd ReduceSum "
    "ReduceSumSquare CumSum CumProd NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss",
    in_numel,
)
plain(Kind.RESIZE, "Resize Upsample GridSample", out_numel)
plain(Kind.CONCAT, "Concat")
plain(
    Kind.DATA,
    "Transpose Cast CastLike BitCast Pad Slice Split Gather GatherElements GatherND Scatter ScatterElements ScatterND "
    "TensorScatter Expand Tile DepthToSpace SpaceToDepth ReverseSequence Trilu OneHot NonZero TopK Compress Unique "
    "CenterCropPad Col2Im MaxUnpool EyeLike ConstantOfShape Constant Range Shape Size RandomNormal RandomNormalLike "
    "RandomUniform RandomUniformLike Bernoulli Multinomial BlackmanWindow HannWindow HammingWindow MelWeightMatrix "
    "NonMaxSuppression AffineGrid " + " ".join(sorted(VIEWS)),
)

UNKNOWN = {
    "Det": "a factorisation", "DFT": "a transform", "STFT": "a transform", "If": "a branch", "Loop": "a loop",
    "Scan": "a loop", "SequenceMap": "a loop", "ImageDecoder": "a file format", "LinearAttention": "not settled",
    "CausalConvWithState": "not settled", "RegexFullMatch": "text", "StringConcat": "text", "StringSplit": "text",
    "StringNormalizer": "text", "TfIdfVectorizer": "text", "Optional": "no tensor", "OptionalGetElement": "no tensor",
    "OptionalHasElement": "no tensor", "SequenceAt": "no tensor", "SequenceConstruct": "no tensor",
    "SequenceEmpty": "no tensor", "SequenceErase": "no tensor", "SequenceInsert": "no tensor",
    "SequenceLength": "no tensor", "SplitToSequence": "no tensor", "ConcatFromSequence": "no tensor",
}  # fmt: skip
"""Standard operators without a rule, and why: they are reported."""


def facts_of(node: Node) -> Facts:
    """What the operator's rule says; an operator without one is unknown, which is not zero."""
    return ONNX_RULES.get(node.op)(node) if node.op in ONNX_RULES else Facts(Kind.UNKNOWN, None)
