"""Shapes and costs of ONNX Runtime's contrib operators, which its optimizer, its quantizer and some exporters write.

The library `onnx` does not know them. To add one, decorate one function with `contrib_rule`: it takes an `OnnxNode`
and returns the outputs and the cost. The semantics are those of the runtime's operator documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from cspprof.core import formulas as f
from cspprof.core.kinds import Kind
from cspprof.core.registry import Registry
from cspprof.core.tensors import TensorSpec
from cspprof.ops import Facts, linalg
from cspprof.ops.attention import attention_facts
from cspprof.ops.indexing import lookup_facts
from cspprof.ops.pooling import pool_facts
from cspprof.sources.onnx_graph.operators import OnnxNode, conv_facts, recurrent_facts
from cspprof.sources.onnx_graph.output_rules import sliding_window

Outcome = tuple[list[TensorSpec], Facts]
"""The outputs of a node and its cost. An output that is not listed has the spec of the first one."""
ContribRule = Callable[[OnnxNode], Outcome]
CONTRIB_RULES: Registry[ContribRule] = Registry("contrib operator rule")

SAME_AS = {
    "com.microsoft.FusedConv": "Conv",
    "com.microsoft.ConvTransposeWithDynamicPads": "ConvTranspose",
    "com.microsoft.nchwc.Conv": "Conv",
    "com.microsoft.nchwc.MaxPool": "MaxPool",
    "com.microsoft.nchwc.AveragePool": "AveragePool",
    "com.microsoft.nchwc.GlobalMaxPool": "GlobalMaxPool",
    "com.microsoft.nchwc.GlobalAveragePool": "GlobalAveragePool",
}
"""Contrib operators with the output shape and the cost of a standard operator."""


def contrib_rule(*operators: str, domain: str = "com.microsoft") -> Callable[[ContribRule], ContribRule]:
    """Register the rule of these operators of a domain."""

    def register(rule: ContribRule) -> ContribRule:
        for operator in operators:
            CONTRIB_RULES.add(f"{domain}.{operator}", rule)
        return rule

    return register


# -- convolutions and pooling -------------------------------------------------------------------------
# Quantized and GPU operators may have maps (N, H, W, C). The CPU's blocked operators (domain nchwc) have maps
# (N, C/8, H, W, 8) in memory, but write their shapes as (N, C, H, W), with C rounded up to whole blocks. The padding
# channels are multiplied too, so they count.


def _is_channels_last(node: OnnxNode) -> bool:
    return node.operator.rpartition(".")[2].startswith("Nhwc") or bool(node.attrs.get("channels_last"))


def _channels_first(node: OnnxNode, spec: TensorSpec) -> TensorSpec:
    """A map of this node as (N, C, H, W)."""
    if not _is_channels_last(node):
        return spec
    return TensorSpec((spec.shape[0], spec.shape[-1], *spec.shape[1:-1]), spec.dtype)


def _in_layout_of(node: OnnxNode, spec: TensorSpec) -> TensorSpec:
    """A map (N, C, H, W) in the layout of this node."""
    if not _is_channels_last(node):
        return spec
    return TensorSpec((spec.shape[0], *spec.shape[2:], spec.shape[1]), spec.dtype)


def _sliding_window_output(node: OnnxNode, kernel: Sequence[int], channels: int, dtype: str) -> TensorSpec:
    """The output (N, C, H, W) of a convolution or pool over input 0."""
    x = _channels_first(node, node[0])
    return TensorSpec((x.shape[0], channels, *sliding_window(node, x.shape[2:], kernel)), dtype)


def _convolution(node: OnnxNode, weight: TensorSpec, dtype: str) -> Outcome:
    out = _sliding_window_output(node, weight.shape[2:], weight.shape[0], dtype)
    return [_in_layout_of(node, out)], conv_facts(node, weight, out)


@contrib_rule("NhwcConv", "NhwcFusedConv")
def channels_last_conv(node: OnnxNode) -> Outcome:
    return _convolution(node, node[1], node[0].dtype)


@contrib_rule("QLinearConv")
def quantized_conv(node: OnnxNode) -> Outcome:
    """Inputs: x, weight and output, each with scale and zero point, but the output only with these."""
    return _convolution(node, node[3], node[7].dtype if node.has(7) else node[0].dtype)


def _pool(node: OnnxNode, kind: Kind) -> Outcome:
    kernel, channels = node.attr("kernel_shape"), _channels_first(node, node[0]).shape[1]
    out = _sliding_window_output(node, kernel, channels, node[0].dtype)
    return [_in_layout_of(node, out)], pool_facts(kind, kernel, out, outputs=1)


@contrib_rule("NhwcMaxPool", "MaxpoolWithMask")
def max_pool(node: OnnxNode) -> Outcome:
    return _pool(node, Kind.MAX_POOL)


@contrib_rule("QLinearAveragePool")
def average_pool(node: OnnxNode) -> Outcome:
    return _pool(node, Kind.AVG_POOL)


@contrib_rule("QLinearGlobalAveragePool")
def global_average_pool(node: OnnxNode) -> Outcome:
    x = _channels_first(node, node[0])
    out = TensorSpec((*x.shape[:2], *(1 for _ in x.shape[2:])), x.dtype)
    return [_in_layout_of(node, out)], pool_facts(Kind.AVG_POOL, x.shape[2:], out, **{"global": True})


@contrib_rule("ReorderInput", domain="com.microsoft.nchwc")
def to_blocks(node: OnnxNode) -> Outcome:
    return [_channels_first(node, node[0])], Facts(Kind.DATA)


@contrib_rule("ReorderOutput", domain="com.microsoft.nchwc")
def from_blocks(node: OnnxNode) -> Outcome:
    out = TensorSpec((node[0].shape[0], int(node.attr("channels")), *node[0].shape[2:]), node[0].dtype)
    return [_in_layout_of(node, out)], Facts(Kind.DATA)


@contrib_rule("Upsample", domain="com.microsoft.nchwc")
def upsample(node: OnnxNode) -> Outcome:
    shape = tuple(n * s for n, s in zip(node[0].shape, node.attr("scales"), strict=True))
    out = TensorSpec(shape, node[0].dtype)
    return [out], Facts(Kind.RESIZE, elementwise=out.numel)


# -- matrix products --------------------------------------------------------------------------------


def _product(left: Sequence[int], right: Sequence[int], dtype: str, kind: Kind = Kind.MATMUL) -> Outcome:
    """left @ right. Raises ValueError if the shapes do not fit."""
    if left[-1] != right[-2 if len(right) > 1 else 0]:
        raise ValueError(f"cannot multiply {'×'.join(map(str, left))} by {'×'.join(map(str, right))}")
    shape = (*f.broadcast(left[:-2], right[:-2]), *left[-2:-1], *(right[-1:] if len(right) > 1 else ()))
    return [TensorSpec(shape, dtype)], Facts(kind, f.matmul_macs(left, shape))


def _factor(node: OnnxNode, i: int, side: str) -> tuple[int, ...]:
    """The shape of a factor as it is multiplied: `transBatch` moves the first dimension behind the other batch
    dimensions, `trans` exchanges the last two. A vector stays as it is."""
    dims = list(node[i].shape)
    if len(dims) > 2 and node.attrs.get(f"transBatch{side}"):
        dims = [*dims[1:-1], dims[0], dims[-1]]
    if len(dims) > 1 and node.attrs.get(f"trans{side}"):
        dims[-2:] = dims[:-3:-1]
    return tuple(dims)


@contrib_rule("FusedMatMul", "FusedMatMulActivation", "TransposeMatMul")
def fused_matmul(node: OnnxNode) -> Outcome:
    return _product(_factor(node, 0, "A"), _factor(node, 1, "B"), node[0].dtype)


@contrib_rule("DynamicQuantizeMatMul", "MatMulIntegerToFloat")
def matmul_to_float(node: OnnxNode) -> Outcome:
    return _product(node[0].shape, node[1].shape, "float32")


@contrib_rule("MatMulInteger16")
def matmul_integer16(node: OnnxNode) -> Outcome:
    return _product(node[0].shape, node[1].shape, "int32")


@contrib_rule("GemmFastGelu")
def gemm_fast_gelu(node: OnnxNode) -> Outcome:
    return _product(node[0].shape, node[1].shape, node[0].dtype)


@contrib_rule("FusedGemm")
def fused_gemm(node: OnnxNode) -> Outcome:
    return _product(_factor(node, 0, "A"), _factor(node, 1, "B"), node[0].dtype, Kind.LINEAR)


@contrib_rule("QGemm")
def quantized_gemm(node: OnnxNode) -> Outcome:
    """Inputs: A and B, each with scale and zero point, then C, then scale and zero point of the output."""
    dtype = node[8].dtype if node.has(8) else "float32"
    return _product(_factor(node, 0, "A"), _factor(node, 3, "B"), dtype, Kind.LINEAR)


@contrib_rule("MatMulNBits", "MatMulBnb4")
def low_bit_linear(node: OnnxNode) -> Outcome:
    """A linear layer whose weight is packed into few bits; the attributes K and N state its size."""
    out = TensorSpec((*node[0].shape[:-1], int(node.attr("N"))), node[0].dtype)
    return [out], Facts(Kind.LINEAR, int(node.attr("K")) * out.numel)


@contrib_rule("DynamicQuantizeLSTM")
def quantized_lstm(node: OnnxNode) -> Outcome:
    (length, batch), hidden = node[0].shape[:2], int(node.attr("hidden_size"))
    directions = node[1].shape[0]
    state = TensorSpec((directions, batch, hidden), node[0].dtype)
    outputs = [TensorSpec((length, directions, batch, hidden), node[0].dtype), state, state]
    rows = directions * (node[1].shape[-1] + node[2].shape[-1])  # these weights are (directions, columns, rows)
    return outputs, recurrent_facts(node[1].numel + node[2].numel, rows, length * batch)


# -- attention --------------------------------------------------------------------------------------


@contrib_rule("Attention", "QAttention")
def attention_with_projection(node: OnnxNode) -> Outcome:
    """One product computes q, k and v from the input (B, L, C) with a weight (C, q + k + v); then attention.

    The past is (2, B, H, P, E). If the present shares its buffer, input 6 is the number of keys in it.
    """
    past_input = 4 if node.operator == "com.microsoft.Attention" else 8
    (batch, length), heads = node[0].shape[:2], int(node.attr("num_heads"))
    q, k, v = node.attrs.get("qkv_hidden_sizes") or [node[1].shape[1] // 3] * 3
    has_past = node.has(past_input) and len(node[past_input].shape) == 5
    past = node[past_input].shape[3] if has_past else 0
    shares = past > 0 and bool(node.attrs.get("past_present_share_buffer"))
    keys = slots = length + past
    if shares:
        keys, slots = length + int(node.constants[6][0]) if 6 in node.constants else 0, past
    dtype = "float32" if node[0].dtype in ("int8", "uint8") else node[0].dtype
    outputs = [TensorSpec((batch, length, v), dtype), TensorSpec((2, batch, heads, slots, k // heads), dtype)]
    if not keys:
        return outputs, Facts(Kind.UNKNOWN, None)
    queries = batch * heads * length
    macs = batch * length * node[1].numel + f.attention_macs(queries, keys, q // heads, v // heads)
    return outputs, Facts(Kind.ATTENTION, macs, elementwise=queries * keys, outputs=1)


class _HeadSizes(NamedTuple):
    batch: int
    heads: int
    kv_heads: int
    length: int
    keys: int
    size: int
    """The length of a query vector."""
    value_size: int


def _head_sizes(node: OnnxNode) -> _HeadSizes:
    """The sizes of attention for each of the layouts of its inputs.

    Queries are (B, L, H·E); keys and values are the same or (B, H, S, E). Keys and values may be one tensor
    (B, S, H, 2, E), all three may be (B, L, H, 3, E), or (B, L, (H + 2·G)·E) for grouped queries.
    """
    q, heads = node[0].shape, int(node.attr("num_heads"))
    kv_heads = int(node.attrs.get("kv_num_heads", heads))
    past = _past_length(node)
    batch, length = q[:2]
    if len(q) == 5:
        return _HeadSizes(batch, heads, heads, length, length + past, q[4], q[4])
    if not node.has(1):
        size = q[2] // (heads + 2 * kv_heads)
        return _HeadSizes(batch, heads, kv_heads, length, length + past, size, size)
    k, size = node[1].shape, q[2] // heads
    if len(k) == 5:
        return _HeadSizes(batch, heads, heads, length, k[1] + past, size, k[4])
    v = node[2].shape
    if len(k) == 4:
        return _HeadSizes(batch, heads, kv_heads, length, k[2] + past, size, v[3])
    return _HeadSizes(batch, heads, kv_heads, length, k[1] + past, size, v[2] // kv_heads)


def _past_length(node: OnnxNode) -> int:
    """The number of keys that the past, (B, H, P, E), has a place for."""
    i = 6 if node.operator == "com.microsoft.MultiHeadAttention" else 3
    return node[i].shape[2] if node.has(i) else 0


@contrib_rule("MultiHeadAttention", "GroupQueryAttention")
def attention(node: OnnxNode) -> Outcome:
    """Attention without projections.

    Past and present keys may share a buffer that is longer than both. Then, and for sequences of different lengths, the
    inputs of GroupQueryAttention say how many keys there are: `seqlens_k` (5) for each sequence, without the last one,
    and `total_sequence_length` (6).
    """
    n = _head_sizes(node)
    past, total, lengths = _past_length(node), None, None
    if node.operator == "com.microsoft.GroupQueryAttention":
        total = int(node.constants[6][0]) if 6 in node.constants else None
        lengths = [int(length) + 1 for length in node.constants[5]] if 5 in node.constants else None
    present = next((spec.shape[2] for spec in node.declared[1:3] if spec is not None and len(spec.shape) == 4), 0)
    shares = past > 0 and (present == past or (total is not None and total <= past))
    slots = past if shares else n.keys
    shapes = [
        (n.batch, n.length, n.heads * n.value_size),
        (n.batch, n.kv_heads, slots, n.size),
        (n.batch, n.kv_heads, slots, n.value_size),
    ]
    outputs = [TensorSpec(shape, node[0].dtype) for shape in shapes]
    if lengths is None and shares and total is None:
        return outputs, Facts(Kind.UNKNOWN, None)
    keys = sum(lengths) if lengths is not None else n.batch * (total if total is not None else n.keys)
    return outputs, attention_facts(n.heads * n.length * keys, 1, n.size, n.value_size)


# -- operators without MACs -------------------------------------------------------------------------


def _register_shape_preserving(kind: Kind, operators: str, per_element: int = 1, outputs: int | None = None) -> None:
    """Operators whose output has the spec of input 0, with `per_element` scalar operations for each element."""

    @contrib_rule(*operators.split())
    def rule(node: OnnxNode) -> Outcome:
        return [node[0]], Facts(kind, elementwise=per_element * node[0].numel, outputs=outputs)


_register_shape_preserving(
    Kind.NORM,
    "SkipLayerNormalization SkipSimplifiedLayerNormalization LayerNormalization GroupNorm SkipGroupNorm",
    per_element=2,
    outputs=1,
)
_register_shape_preserving(Kind.ACTIVATION, "BiasGelu FastGelu Gelu QuickGelu QLinearLeakyRelu QLinearSigmoid")
_register_shape_preserving(Kind.SOFTMAX, "QLinearSoftmax BiasSoftmax")
_register_shape_preserving(Kind.ELEMENTWISE, "BiasAdd RotaryEmbedding GemmaRotaryEmbedding", outputs=1)
_register_shape_preserving(Kind.DATA, "Trilu", per_element=0)


@contrib_rule("BiasDropout")
def bias_dropout(node: OnnxNode) -> Outcome:
    mask = TensorSpec(node[0].shape, "bool")
    return [node[0], mask], Facts(Kind.ELEMENTWISE, elementwise=node[0].numel, outputs=1)


@contrib_rule("Inverse")
def inverse(node: OnnxNode) -> Outcome:
    return [node[0]], linalg.inverse(node[0], out=node[0])


@contrib_rule("MoE", "QMoE", "SparseAttention", "LongformerAttention")
def uncounted(node: OnnxNode) -> Outcome:
    """The output has the spec of input 0, so that the graph can be read; the cost is unknown."""
    return [node[0]], Facts(Kind.UNKNOWN, None)


def _elementwise(out: TensorSpec, kind: Kind = Kind.ELEMENTWISE) -> Outcome:
    return [out], Facts(kind, elementwise=out.numel)


@contrib_rule("QLinearAdd", "QLinearMul")
def quantized_binary(node: OnnxNode) -> Outcome:
    """Inputs: A and B, each with scale and zero point."""
    return _elementwise(TensorSpec(f.broadcast(node[0].shape, node[3].shape), node[0].dtype))


@contrib_rule("QLinearWhere")
def quantized_where(node: OnnxNode) -> Outcome:
    """Inputs: condition, then x and y, each with scale and zero point."""
    return _elementwise(TensorSpec(f.broadcast(node[0].shape, node[1].shape, node[4].shape), node[1].dtype))


@contrib_rule("QuantizeLinear")
def quantize(node: OnnxNode) -> Outcome:
    return _elementwise(TensorSpec(node[0].shape, node[2].dtype if node.has(2) else "uint8"))


@contrib_rule("DequantizeLinear")
def dequantize(node: OnnxNode) -> Outcome:
    return _elementwise(TensorSpec(node[0].shape, node[1].dtype))


@contrib_rule("BiasSplitGelu")
def bias_split_gelu(node: OnnxNode) -> Outcome:
    *batch, channels = node[0].shape
    return _elementwise(TensorSpec((*batch, channels // 2), node[0].dtype), Kind.ACTIVATION)


@contrib_rule("EmbedLayerNormalization")
def embedding_norm(node: OnnxNode) -> Outcome:
    out = TensorSpec((*node[0].shape, node[2].shape[-1]), node[2].dtype)
    lengths = TensorSpec(node[0].shape[:1], "int32")
    lookups = [lookup_facts(Kind.EMBEDDING, node[i], out.numel) for i in (2, 3, 4) if node.has(i)]
    attrs = {key: sum(lookup.attrs[key] for lookup in lookups) for key in ("table_bytes", "bytes_read")}
    return [out, lengths, out], Facts(Kind.EMBEDDING, 0, 2 * out.numel, attrs, 1)


@contrib_rule("QLinearConcat")
def quantized_concat(node: OnnxNode) -> Outcome:
    """Inputs: scale and zero point of the output, then each map with scale and zero point."""
    maps = [node[i] for i in range(2, len(node.inputs), 3)]
    axis, shape = int(node.attr("axis")), list(maps[0].shape)
    shape[axis] = sum(m.shape[axis] for m in maps)
    return [TensorSpec(tuple(shape), maps[0].dtype)], Facts(Kind.CONCAT)
