"""What an ONNX operator costs: thin adapters over the same formulas as for torch's operations.

A rule takes a `Node` and returns `Facts`. To add an operator, decorate a function with `onnx_rule`; one that the
library cannot infer shapes for (a contributed one) also gives them, with `shapes_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from cspprof import formulas as f
from cspprof.record import Kind, TensorSpec
from cspprof.registry import Registry
from cspprof.rules import Facts

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


def contrib(names: str) -> tuple[str, ...]:
    """Operators of ONNX Runtime."""
    return tuple(f"com.microsoft.{name}" for name in names.split())


# -- convolutions -------------------------------------------------------------------------------------


def _window(node: Node, weight: Spec, groups: int) -> dict[str, Any]:
    n = len(weight.shape) - 2
    pads = node.attrs.get("pads") or [0] * 2 * n
    return {
        "kernel": weight.shape[2:],
        "stride": tuple(node.attrs.get("strides") or [1] * n),
        "padding": tuple(pads[:n]) if list(pads[:n]) == list(pads[n:]) else tuple(pads),
        "dilation": tuple(node.attrs.get("dilations") or [1] * n),
        "groups": groups,
    }


def _conv(node: Node, weight: Spec) -> Facts:
    groups = int(node.attrs.get("group", 1))
    if node[0].shape[1] != weight.shape[1] * groups:
        raise ValueError(
            f"a weight of {weight} in {groups} groups reads {weight.shape[1] * groups} channels, the map has {node[0]}"
        )
    return Facts(Kind.CONV, f.conv_macs(weight.shape, node.out.shape), attrs=_window(node, weight, groups))


@onnx_rule("Conv", "ConvInteger", "DeformConv", *contrib("FusedConv"))
def conv(node: Node) -> Facts:
    return _conv(node, node[1])


@onnx_rule("QLinearConv")
def quantised_conv(node: Node) -> Facts:
    """(x, scale, zero point, weight, …)."""
    return _conv(node, node[3])


@onnx_rule(*contrib("NhwcConv NhwcFusedConv"))
def channels_last_conv(node: Node) -> Facts:
    """The weight is (c_out, c_in/groups, k…) as ever; maps are (N, H, W, C)."""
    weight, groups = node[1], int(node.attrs.get("group", 1))
    out = (node.out.shape[0], node.out.shape[-1], *node.out.shape[1:-1])
    return Facts(Kind.CONV, f.conv_macs(weight.shape, out), attrs=_window(node, weight, groups))


@onnx_rule("ConvTranspose")
def conv_transpose(node: Node) -> Facts:
    attrs = _window(node, node[1], int(node.attrs.get("group", 1)))
    return Facts(Kind.CONV_TRANSPOSE, f.conv_transpose_macs(node[1].shape, node[0].shape), attrs=attrs)


# -- matrix products ----------------------------------------------------------------------------------


@onnx_rule("Gemm", *contrib("FusedGemm"))
def gemm(node: Node) -> Facts:
    inner = node[0].shape[0 if node.attrs.get("transA") else 1]
    return Facts(Kind.LINEAR, inner * node.out.numel)


@onnx_rule("MatMul", "MatMulInteger", *contrib("DynamicQuantizeMatMul MatMulIntegerToFloat"))
def matmul(node: Node) -> Facts:
    return Facts(Kind.MATMUL, node[0].shape[-1] * node.out.numel)


@onnx_rule("QLinearMatMul")
def quantised_matmul(node: Node) -> Facts:
    return Facts(Kind.MATMUL, node[0].shape[-1] * node.out.numel)


@onnx_rule(*contrib("FusedMatMul"))
def fused_matmul(node: Node) -> Facts:
    return Facts(Kind.MATMUL, node[0].shape[-2 if node.attrs.get("transA") else -1] * node.out.numel)


@onnx_rule(*contrib("MatMulNBits"))
def matmul_of_few_bits(node: Node) -> Facts:
    return Facts(Kind.LINEAR, int(node.attrs["K"]) * node.out.numel)


@onnx_rule("Einsum")
def einsum(node: Node) -> Facts:
    """Of two operands one product for every combination of letters; what more operands cost depends on the order."""
    operands, _, _ = str(node.attrs["equation"]).replace(" ", "").partition("->")
    terms = operands.split(",")
    if len(terms) == 1:
        return Facts(Kind.REDUCTION, elementwise=node[0].numel)
    if len(terms) != 2 or "..." in operands:
        return Facts(Kind.UNKNOWN, None)
    sizes: dict[str, int] = {}
    for term, spec in zip(terms, (node[0], node[1]), strict=True):
        for letter, n in zip(term, spec.shape, strict=True):
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


@onnx_rule(*contrib("Attention"))
def packed_attention(node: Node) -> Facts:
    """One product makes q, k and v of the input (B, L, C) by a weight (C, 3·H·E); then attention."""
    (batch, length, _), weight = node[0].shape, node[1]
    heads, hidden = int(node.attrs["num_heads"]), weight.shape[1] // 3
    scores = batch * heads * length
    macs = batch * length * weight.numel + f.attention_macs(scores, length, hidden // heads, hidden // heads)
    return Facts(Kind.ATTENTION, macs, scores * length, outputs=1)


@onnx_rule(*contrib("MultiHeadAttention GroupQueryAttention"))
def projected_attention(node: Node) -> Facts:
    """Queries, keys and values (B, L, H·E) that were projected before."""
    if not (node.has(1) and node.has(2)) or len(node[0].shape) != 3 or len(node[1].shape) != 3:
        return Facts(Kind.UNKNOWN, None)
    (batch, length, hidden), heads = node[0].shape, int(node.attrs["num_heads"])
    kv = int(node.attrs.get("kv_num_heads", heads))
    past = max((s.shape[2] for i in (3, 4, 6, 7) if node.has(i) and len((s := node[i]).shape) == 4), default=0)
    keys, scores = node[1].shape[1] + past, batch * heads * length
    macs = f.attention_macs(scores, keys, hidden // heads, node[2].shape[2] // kv)
    return Facts(Kind.ATTENTION, macs, scores * keys, outputs=1)


@onnx_rule("LSTM", "GRU", "RNN")
def recurrent(node: Node) -> Facts:
    """Every element of W and R meets every step (L, B, …)."""
    length, batch = node[0].shape[:2]
    return Facts(Kind.RECURRENT, (node[1].numel + node[2].numel) * length * batch)


# -- pooling ------------------------------------------------------------------------------------------


def _pool(kind: Kind, kernel: Sequence[int], out: Spec, **attrs: Any) -> Facts:
    return Facts(kind, 0, f.pool_elementwise(kernel, out.shape), {"kernel": tuple(kernel), **attrs}, outputs=1)


@onnx_rule("MaxPool", *contrib("NhwcMaxPool"))
def max_pool(node: Node) -> Facts:
    return _pool(Kind.MAX_POOL, node.attrs["kernel_shape"], node.out)


@onnx_rule("AveragePool", "LpPool", *contrib("QLinearAveragePool"))
def average_pool(node: Node) -> Facts:
    return _pool(Kind.AVG_POOL, node.attrs["kernel_shape"], node.out)


@onnx_rule("GlobalAveragePool", "GlobalLpPool", *contrib("QLinearGlobalAveragePool"))
def global_average_pool(node: Node) -> Facts:
    return _pool(Kind.AVG_POOL, node[0].shape[2:], node.out, **{"global": True})


@onnx_rule("GlobalMaxPool")
def global_max_pool(node: Node) -> Facts:
    return _pool(Kind.MAX_POOL, node[0].shape[2:], node.out, **{"global": True})


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


def _plain(kind: Kind, names: str, cost: Callable[[Node], int] = lambda node: 0, outputs: int | None = None) -> None:
    for name in names.split():
        ONNX_RULES.add(name, lambda node: Facts(kind, elementwise=cost(node), outputs=outputs))


def _out(node: Node) -> int:
    return node.out.numel


def _in(node: Node) -> int:
    return node[0].numel


_plain(
    Kind.NORM,
    "BatchNormalization LayerNormalization InstanceNormalization GroupNormalization RMSNormalization LRN "
    "LpNormalization MeanVarianceNormalization SimplifiedLayerNormalization "
    + " ".join(
        contrib("SkipLayerNormalization SkipSimplifiedLayerNormalization LayerNormalization GroupNorm SkipGroupNorm")
    ),
    lambda node: 2 * node[0].numel,
    1,
)
_plain(
    Kind.ACTIVATION,
    "Relu LeakyRelu PRelu Elu Selu Celu Sigmoid HardSigmoid HardSwish Tanh Softplus Softsign Gelu Mish Swish SwiGLU "
    "ThresholdedRelu Shrink Clip "
    + " ".join(contrib("BiasGelu FastGelu Gelu QuickGelu QLinearLeakyRelu QLinearSigmoid BiasSplitGelu")),
    _out,
)
_plain(
    Kind.ELEMENTWISE,
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Cos Cosh "
    "Div Equal Erf Exp Floor Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Log Max Mean Min Mod Mul Neg Not Or "
    "Pow Reciprocal Round Sign Sin Sinh Sqrt Sub Sum Tan Where Xor RotaryEmbedding QuantizeLinear DequantizeLinear "
    + " ".join(contrib("QLinearAdd QLinearMul BiasAdd RotaryEmbedding QuantizeLinear DequantizeLinear")),
    _out,
)
_plain(Kind.ELEMENTWISE, "DynamicQuantizeLinear", _out)
_plain(Kind.SOFTMAX, "Softmax LogSoftmax Hardmax", _out)
_plain(
    Kind.REDUCTION,
    "ArgMax ArgMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMin ReduceProd ReduceSum "
    "ReduceSumSquare CumSum CumProd NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss",
    _in,
)
_plain(Kind.RESIZE, "Resize Upsample GridSample", _out)
_plain(Kind.CONCAT, "Concat " + " ".join(contrib("QLinearConcat")))
_plain(
    Kind.DATA,
    "Transpose Cast CastLike BitCast Pad Slice Split Gather GatherElements GatherND Scatter ScatterElements ScatterND "
    "TensorScatter Expand Tile DepthToSpace SpaceToDepth ReverseSequence Trilu OneHot NonZero TopK Compress Unique "
    "CenterCropPad Col2Im MaxUnpool EyeLike ConstantOfShape Constant Range Shape Size RandomNormal RandomNormalLike "
    "RandomUniform RandomUniformLike Bernoulli Multinomial BlackmanWindow HannWindow HammingWindow MelWeightMatrix "
    "NonMaxSuppression AffineGrid " + " ".join(sorted(VIEWS)),
)
_plain(Kind.EMBEDDING, " ".join(contrib("EmbedLayerNormalization")), lambda node: 2 * node.out.numel, 1)

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


# -- shapes of contributed operators ------------------------------------------------------------------


def shapes_of(names: str, shapes: Callable[[Node], list[Spec]]) -> None:
    for name in contrib(names):
        SHAPES.add(name, shapes)


def _like(i: int) -> Callable[[Node], list[Spec]]:
    return lambda node: [node[i]]


shapes_of(
    "BiasGelu FastGelu Gelu QuickGelu QLinearLeakyRelu QLinearSigmoid SkipLayerNormalization GroupNorm SkipGroupNorm "
    "SkipSimplifiedLayerNormalization LayerNormalization BiasAdd RotaryEmbedding MultiHeadAttention "
    "GroupQueryAttention",
    _like(0),
)
shapes_of("QLinearAdd QLinearMul", lambda node: [Spec(_broadcast(node[0].shape, node[3].shape), node[0].dtype)])
shapes_of("BiasSplitGelu", lambda node: [Spec((*node[0].shape[:-1], node[0].shape[-1] // 2), node[0].dtype)])
shapes_of("Attention", lambda node: [Spec((*node[0].shape[:2], node[1].shape[1] // 3), node[0].dtype)])
shapes_of("MatMulNBits", lambda node: [Spec((*node[0].shape[:-1], int(node.attrs["N"])), node[0].dtype)])
shapes_of(
    "DynamicQuantizeMatMul MatMulIntegerToFloat",
    lambda node: [Spec((*node[0].shape[:-1], node[1].shape[-1]), "float32")],
)
shapes_of(
    "EmbedLayerNormalization", lambda node: [Spec((*node[0].shape, node[2].shape[-1]), node[2].dtype)],
)  # fmt: skip
shapes_of("QLinearGlobalAveragePool", lambda node: [Spec((*node[0].shape[:2], 1, 1), node[0].dtype)])
shapes_of("QuantizeLinear", lambda node: [Spec(node[0].shape, node[2].dtype if node.has(2) else "uint8")])
shapes_of("DequantizeLinear", lambda node: [Spec(node[0].shape, node[1].dtype)])


def _broadcast(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    rank = max(len(a), len(b))
    pairs = zip([1] * (rank - len(a)) + list(a), [1] * (rank - len(b)) + list(b), strict=True)
    return tuple(max(x, y) for x, y in pairs)


def _fused_matmul(node: Node) -> list[Spec]:
    a, b = list(node[0].shape), list(node[1].shape)
    a[-2:] = a[:-3:-1] if node.attrs.get("transA") else a[-2:]
    b[-2:] = b[:-3:-1] if node.attrs.get("transB") else b[-2:]
    return [Spec((*_broadcast(a[:-2], b[:-2]), a[-2], b[-1]), node[0].dtype)]


shapes_of("FusedMatMul", _fused_matmul)


def _fused_gemm(node: Node) -> list[Spec]:
    rows = node[0].shape[1 if node.attrs.get("transA") else 0]
    return [Spec((rows, node[1].shape[0 if node.attrs.get("transB") else 1]), node[0].dtype)]


shapes_of("FusedGemm", _fused_gemm)


def _concatenated(node: Node) -> list[Spec]:
    """(scale, zero point, then map, scale, zero point of each input)."""
    maps = [node[i] for i in range(2, len(node.inputs), 3)]
    axis, shape = int(node.attrs["axis"]), list(maps[0].shape)
    shape[axis] = sum(m.shape[axis] for m in maps)
    return [Spec(tuple(shape), maps[0].dtype)]


shapes_of("QLinearConcat", _concatenated)
