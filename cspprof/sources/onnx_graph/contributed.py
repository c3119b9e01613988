"""Operators that ONNX Runtime contributes: what its optimizer, its quantizer and exporters for it put in a graph.

The library `onnx` knows none of them, so that each has a rule for its shape (`shapes_of`) beside that for its cost.
Semantics are those of the runtime's own operator documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cspprof.core import formulas as f
from cspprof.core.record import Kind
from cspprof.ops import Facts
from cspprof.sources.onnx_graph import rules
from cspprof.sources.onnx_graph.rules import ONNX_RULES, SHAPES, Node, Spec, onnx_rule, out_numel, plain, window

AS = {
    "com.microsoft.FusedConv": "Conv",
    "com.microsoft.ConvTransposeWithDynamicPads": "ConvTranspose",
    **{f"com.microsoft.nchwc.{name}": name for name in (
        "Conv", "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool")},
}  # fmt: skip
"""Those whose output has the shape of a standard operator's."""


def contrib(names: str) -> tuple[str, ...]:
    return tuple(f"com.microsoft.{name}" for name in names.split())


def shapes_of(names: str, shapes: Callable[[Node], list[Spec]]) -> None:
    for name in contrib(names):
        SHAPES.add(name, shapes)


def like(i: int) -> Callable[[Node], list[Spec]]:
    return lambda node: [node[i]]


def _facts_of_standard(name: str, rule: str) -> None:
    ONNX_RULES.add(name, ONNX_RULES.get(rule))


# -- maps in other layouts ----------------------------------------------------------------------------
# Quantised and GPU convolutions may keep maps as (N, H, W, C); the CPU's blocked ones as (N, C/8, H, W, 8), where
# shapes are written (N, C, H, W) with C filled up to whole blocks. What is filled up is multiplied, and counts.


def _to_channels_first(spec: Spec) -> Spec:
    return Spec((spec.shape[0], spec.shape[-1], *spec.shape[1:-1]), spec.dtype)


def _to_channels_last(spec: Spec) -> Spec:
    return Spec((spec.shape[0], *spec.shape[2:], spec.shape[1]), spec.dtype)


def _channels_last(node: Node) -> bool:
    return node.op.rpartition(".")[2].startswith("Nhwc") or bool(node.attrs.get("channels_last"))


def _first(node: Node, spec: Spec) -> Spec:
    """The map (N, C, H, W), however it lies."""
    return _to_channels_first(spec) if _channels_last(node) else spec


def _windows(node: Node, kernel: Sequence[int], channels: int) -> Spec:
    """The output of a convolution or pool over `node[0]`, laid out as that is."""
    x, n = _first(node, node[0]), len(kernel)
    strides = node.attrs.get("strides") or [1] * n
    dilations = node.attrs.get("dilations") or [1] * n
    pads, auto = node.attrs.get("pads") or [0] * 2 * n, node.attrs.get("auto_pad", "NOTSET")
    spatial = []
    for i, (size, k) in enumerate(zip(x.shape[2:], kernel, strict=True)):
        span = dilations[i] * (k - 1) + 1
        if auto.startswith("SAME"):
            spatial.append(-(-size // strides[i]))
            continue
        free = size - span + (0 if auto == "VALID" else pads[i] + pads[i + n])
        spatial.append((-(-free // strides[i]) if node.attrs.get("ceil_mode") else free // strides[i]) + 1)
    made = Spec((x.shape[0], channels, *spatial), x.dtype)
    return _to_channels_last(made) if _channels_last(node) else made


def _convolution(weight_at: int, out_at: int | None = None) -> tuple[Callable[[Node], Facts], Any]:
    """The rules of a convolution (x, …, weight, …) whose output has the dtype of input `out_at`."""

    def shapes(node: Node) -> list[Spec]:
        made = _windows(node, node[weight_at].shape[2:], node[weight_at].shape[0])
        return [made if out_at is None or not node.has(out_at) else Spec(made.shape, node[out_at].dtype)]

    def facts(node: Node) -> Facts:
        weight, groups = node[weight_at], int(node.attrs.get("group", 1))
        out = _first(node, node.out)
        attrs = window(node, weight, groups)
        return Facts(Kind.CONV, f.conv_macs(weight.shape, out.shape), attrs=attrs, outputs=1)

    return facts, shapes


for _names, _weight, _dtype in (("NhwcConv NhwcFusedConv", 1, None), ("QLinearConv", 3, 7)):
    _rule, _shape = _convolution(_weight, _dtype)
    shapes_of(_names, _shape)
    onnx_rule(*contrib(_names))(_rule)
onnx_rule(*contrib("FusedConv"))(ONNX_RULES.get("Conv"))
onnx_rule(*contrib("ConvTransposeWithDynamicPads"))(ONNX_RULES.get("ConvTranspose"))


@onnx_rule("com.microsoft.nchwc.Conv")
def blocked_conv(node: Node) -> Facts:
    """The weight is (c_out, c_in/groups, k…) too, both filled up to whole blocks."""
    weight = node[1]
    attrs = window(node, weight, int(node.attrs.get("group", 1)))
    return Facts(Kind.CONV, f.conv_macs(weight.shape, node.out.shape), attrs=attrs)


def _pool(names: str, kind: Kind) -> None:
    def facts(node: Node) -> Facts:
        return rules.pool(kind, node.attrs["kernel_shape"], node.out)

    shapes_of(names, lambda node: [_windows(node, node.attrs["kernel_shape"], _first(node, node[0]).shape[1])])
    onnx_rule(*contrib(names))(facts)


_pool("NhwcMaxPool MaxpoolWithMask", Kind.MAX_POOL)
_pool("QLinearAveragePool", Kind.AVG_POOL)


def _pooled(node: Node) -> list[Spec]:
    x = _first(node, node[0])
    made = Spec((*x.shape[:2], *(1 for _ in x.shape[2:])), x.dtype)
    return [_to_channels_last(made) if _channels_last(node) else made]


shapes_of("QLinearGlobalAveragePool", _pooled)


@onnx_rule(*contrib("QLinearGlobalAveragePool"))
def quantised_global_average(node: Node) -> Facts:
    return rules.pool(Kind.AVG_POOL, _first(node, node[0]).shape[2:], node.out, **{"global": True})


for _name in ("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"):
    _facts_of_standard(f"com.microsoft.nchwc.{_name}", _name)


def _into_blocks(node: Node) -> list[Spec]:
    return [_first(node, node[0])]


def _out_of_blocks(node: Node) -> list[Spec]:
    made = Spec((node[0].shape[0], int(node.attrs["channels"]), *node[0].shape[2:]), node[0].dtype)
    return [_to_channels_last(made) if node.attrs.get("channels_last") else made]


def _enlarged(node: Node) -> list[Spec]:
    return [Spec(tuple(n * s for n, s in zip(node[0].shape, node.attrs["scales"], strict=True)), node[0].dtype)]


for _name, _blocks in (("ReorderInput", _into_blocks), ("ReorderOutput", _out_of_blocks), ("Upsample", _enlarged)):
    SHAPES.add(f"com.microsoft.nchwc.{_name}", _blocks)
plain(Kind.DATA, "com.microsoft.nchwc.ReorderInput com.microsoft.nchwc.ReorderOutput")
plain(Kind.RESIZE, "com.microsoft.nchwc.Upsample", out_numel)


# -- matrix products ----------------------------------------------------------------------------------


def _turned(node: Node, i: int, side: str) -> tuple[int, ...]:
    """The operand's shape as it is multiplied: `transBatch` moves its first dimension behind the others, `trans`
    exchanges the last two. A vector stays one."""
    dims = list(node[i].shape)
    if len(dims) > 2 and node.attrs.get(f"transBatch{side}"):
        dims = [*dims[1:-1], dims[0], dims[-1]]
    if len(dims) > 1 and node.attrs.get(f"trans{side}"):
        dims[-2:] = dims[:-3:-1]
    return tuple(dims)


def _product(left: Sequence[int], right: Sequence[int]) -> tuple[int, ...]:
    """The shape of left @ right. Raises ValueError where they do not fit."""
    if left[-1] != right[-2 if len(right) > 1 else 0]:
        raise ValueError(f"cannot multiply {'×'.join(map(str, left))} by {'×'.join(map(str, right))}")
    return (*f.broadcast(left[:-2], right[:-2]), *left[-2:-1], *(right[-1:] if len(right) > 1 else ()))


PRODUCTS = "FusedMatMul FusedMatMulActivation TransposeMatMul"
shapes_of(PRODUCTS, lambda node: [Spec(_product(_turned(node, 0, "A"), _turned(node, 1, "B")), node[0].dtype)])


@onnx_rule(*contrib(PRODUCTS))
def fused_matmul(node: Node) -> Facts:
    return Facts(Kind.MATMUL, _turned(node, 0, "A")[-1] * node.out.numel)


def _of_matrices(names: str, weight_at: int, dtype: Callable[[Node], str]) -> None:
    """x @ weight with scales, zero points and a bias besides."""
    shapes_of(names, lambda node: [Spec(_product(node[0].shape, node[weight_at].shape), dtype(node))])
    onnx_rule(*contrib(names))(lambda node: Facts(Kind.MATMUL, node[0].shape[-1] * node.out.numel))


_of_matrices("DynamicQuantizeMatMul MatMulIntegerToFloat", 1, lambda node: "float32")
_of_matrices("MatMulInteger16", 1, lambda node: "int32")
_of_matrices("GemmFastGelu", 1, lambda node: node[0].dtype)


def _few_bits(names: str, size: str, depth: str) -> None:
    """x times a weight packed into few bits: its sizes are attributes."""
    shapes_of(names, lambda node: [Spec((*node[0].shape[:-1], int(node.attrs[size])), node[0].dtype)])
    onnx_rule(*contrib(names))(lambda node: Facts(Kind.LINEAR, int(node.attrs[depth]) * node.out.numel))


_few_bits("MatMulNBits MatMulBnb4", "N", "K")


def _gemm(names: str, weight_at: int, dtype: Callable[[Node], str]) -> None:
    def shapes(node: Node) -> list[Spec]:
        left = node[0].shape[::-1] if node.attrs.get("transA") else node[0].shape
        weight = node[weight_at].shape
        return [Spec(_product(left, weight[::-1] if node.attrs.get("transB") else weight), dtype(node))]

    shapes_of(names, shapes)
    onnx_rule(*contrib(names))(ONNX_RULES.get("Gemm"))


_gemm("FusedGemm", 1, lambda node: node[0].dtype)
_gemm("QGemm", 3, lambda node: node[8].dtype if node.has(8) else "float32")


# -- attention ----------------------------------------------------------------------------------------


def _sizes(node: Node) -> tuple[int, int, int]:
    """Widths of all queries, keys and values that the weight (C, …) of a packed product makes."""
    given = node.attrs.get("qkv_hidden_sizes")
    q, k, v = given or [node[1].shape[1] // 3] * 3
    return int(q), int(k), int(v)


def _past(node: Node, at: int) -> int:
    """Steps that were kept from before, of (2, B, H, P, E)."""
    return node[at].shape[3] if node.has(at) and len(node[at].shape) == 5 else 0


def _packed(name: str, past_at: int) -> None:
    """One product makes q, k and v of the input (B, L, C) by a weight (C, 3·H·E); then attention."""

    def shapes(node: Node) -> list[Spec]:
        (batch, length), (_, k, v), heads = node[0].shape[:2], _sizes(node), int(node.attrs["num_heads"])
        dtype = "float32" if node[0].dtype in ("int8", "uint8") else node[0].dtype
        present = (2, batch, heads, _past(node, past_at) + length, k // heads)
        return [Spec((batch, length, v), dtype), Spec(present, dtype)]

    def facts(node: Node) -> Facts:
        (batch, length), (q, _, v), heads = node[0].shape[:2], _sizes(node), int(node.attrs["num_heads"])
        scores, keys = batch * heads * length, length + _past(node, past_at)
        macs = batch * length * node[1].numel + f.attention_macs(scores, keys, q // heads, v // heads)
        return Facts(Kind.ATTENTION, macs, scores * keys, outputs=1)

    shapes_of(name, shapes)
    onnx_rule(*contrib(name))(facts)


_packed("Attention", 4)
_packed("QAttention", 8)


def _heads(node: Node) -> tuple[int, int, int, int, int, int, int]:
    """Batch, query heads, key heads, length, keys, and the lengths of a query and of a value vector.

    Queries (B, L, H·E), keys and values as wide or (B, H, S, E); all three in one (B, L, H, 3, E), keys and values in
    one (B, S, H, 2, E); for grouped queries, all in one (B, L, (H + 2·G)·E).
    """
    q, heads = node[0].shape, int(node.attrs["num_heads"])
    groups = int(node.attrs.get("kv_num_heads", heads))
    past = node[_PAST[node.op]].shape[2] if node.has(_PAST[node.op]) else 0
    if len(q) == 5:
        return q[0], heads, heads, q[1], q[1] + past, q[4], q[4]
    if not node.has(1):
        size = q[2] // (heads + 2 * groups)
        return q[0], heads, groups, q[1], q[1] + past, size, size
    k, size = node[1].shape, q[2] // heads
    if len(k) == 5:
        return q[0], heads, heads, q[1], k[1] + past, size, k[4]
    v = node[2].shape
    if len(k) == 4:
        return q[0], heads, groups, q[1], k[2] + past, size, v[3]
    return q[0], heads, groups, q[1], k[1] + past, size, v[2] // groups


_PAST = {"com.microsoft.MultiHeadAttention": 6, "com.microsoft.GroupQueryAttention": 3}


def _attended(node: Node) -> list[Spec]:
    batch, heads, groups, length, keys, size, value = _heads(node)
    dtype = node[0].dtype
    made = [(batch, length, heads * value), (batch, groups, keys, size), (batch, groups, keys, value)]
    return [Spec(shape, dtype) for shape in made]


shapes_of("MultiHeadAttention GroupQueryAttention", _attended)


@onnx_rule(*contrib("MultiHeadAttention GroupQueryAttention"))
def projected_attention(node: Node) -> Facts:
    """Queries, keys and values that were projected before. Where past and present share a buffer, all of it is
    attended to, as with any other mask."""
    batch, heads, _, length, keys, size, value = _heads(node)
    scores = batch * heads * length
    return Facts(Kind.ATTENTION, f.attention_macs(scores, keys, size, value), scores * keys, outputs=1)


# -- recurrent ----------------------------------------------------------------------------------------


def _states(node: Node) -> list[Spec]:
    (length, batch), hidden = node[0].shape[:2], int(node.attrs["hidden_size"])
    directions = node[1].shape[0]
    state = Spec((directions, batch, hidden), node[0].dtype)
    return [Spec((length, directions, batch, hidden), node[0].dtype), state, state]


shapes_of("DynamicQuantizeLSTM", _states)
_facts_of_standard("com.microsoft.DynamicQuantizeLSTM", "LSTM")


# -- what multiplies nothing --------------------------------------------------------------------------

NORMS = "SkipLayerNormalization SkipSimplifiedLayerNormalization LayerNormalization GroupNorm SkipGroupNorm"
ACTIVATIONS = "BiasGelu FastGelu Gelu QuickGelu QLinearLeakyRelu QLinearSigmoid"
shapes_of(
    f"{NORMS} {ACTIVATIONS} QLinearSoftmax BiasSoftmax BiasAdd RotaryEmbedding GemmaRotaryEmbedding BiasDropout "
    "Inverse Trilu MoE QMoE SparseAttention LongformerAttention",
    like(0),
)
plain(Kind.NORM, " ".join(contrib(NORMS)), lambda node: 2 * node[0].numel, 1)
plain(Kind.ACTIVATION, " ".join(contrib(f"{ACTIVATIONS} BiasSplitGelu")), out_numel)
plain(
    Kind.ELEMENTWISE,
    " ".join(
        contrib(
            "QLinearAdd QLinearMul QLinearWhere BiasAdd RotaryEmbedding GemmaRotaryEmbedding QuantizeLinear "
            "DequantizeLinear BiasDropout"
        )
    ),
    out_numel,
    1,
)
plain(Kind.SOFTMAX, " ".join(contrib("QLinearSoftmax BiasSoftmax")), out_numel)
plain(Kind.CONCAT, " ".join(contrib("QLinearConcat")))
plain(Kind.DATA, " ".join(contrib("Trilu")))
plain(Kind.EMBEDDING, " ".join(contrib("EmbedLayerNormalization")), lambda node: 2 * node.out.numel, 1)
shapes_of("QLinearAdd QLinearMul", lambda node: [Spec(f.broadcast(node[0].shape, node[3].shape), node[0].dtype)])
shapes_of(
    "QLinearWhere",
    lambda node: [Spec(f.broadcast(node[0].shape, node[1].shape, node[4].shape), node[1].dtype)],
)  # fmt: skip
shapes_of("BiasSplitGelu", lambda node: [Spec((*node[0].shape[:-1], node[0].shape[-1] // 2), node[0].dtype)])
shapes_of("EmbedLayerNormalization", lambda node: [Spec((*node[0].shape, node[2].shape[-1]), node[2].dtype)])
shapes_of("QuantizeLinear", lambda node: [Spec(node[0].shape, node[2].dtype if node.has(2) else "uint8")])
shapes_of("DequantizeLinear", lambda node: [Spec(node[0].shape, node[1].dtype)])


def _concatenated(node: Node) -> list[Spec]:
    """(scale, zero point, then map, scale, zero point of each input)."""
    maps = [node[i] for i in range(2, len(node.inputs), 3)]
    axis, shape = int(node.attrs["axis"]), list(maps[0].shape)
    shape[axis] = sum(m.shape[axis] for m in maps)
    return [Spec(tuple(shape), maps[0].dtype)]


shapes_of("QLinearConcat", _concatenated)
