"""Attention: two products over every pair of a query and a key, whatever the kernel.

The whole score matrix is counted. What a causal mask, a padding mask or a block mask lets a kernel skip is not taken
off, because masks are values; torch's own counter holds it the same way. Scores count as scalar operations, one each.
"""

from __future__ import annotations

from math import prod
from typing import Any

from cspprof.core import formulas as f
from cspprof.core.record import Kind, TensorSpec
from cspprof.ops import Facts, Spec, op_rule


def _attention(queries: int, keys: int, size: int, value_size: int) -> Facts:
    macs = f.attention_macs(queries, keys, size, value_size)
    return Facts(Kind.ATTENTION, macs, elementwise=queries * keys, outputs=1)


BACKENDS = (
    "flash_attention flash_attention_for_cpu efficient_attention cudnn_attention attention_math "
    "attention_math_for_mps fused_attention_overrideable"
)


@op_rule("aten.scaled_dot_product_attention", "higher_order.flex_attention",
         *(f"aten._scaled_dot_product_{name}" for name in BACKENDS.split()))  # fmt: skip
def attention(query: Spec, key: Spec, value: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """Query (…, H, L, E), key (…, S, E), value (…, S, Ev); `out` (…, H, L, Ev) has the heads of a grouped query and
    the batch that all of them broadcast to. What a `score_mod` of flex_attention computes is not in it."""
    return _attention(prod(out.shape[:-1]), key.shape[-2], query.shape[-1], value.shape[-1])


@op_rule("aten._flash_attention_forward", "aten._efficient_attention_forward")
def packed_attention(query: Spec, key: Spec, value: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """Heads after length: query (N, L, H, E). Sequences of different lengths, laid end to end, have their bounds in
    tensors of int32: values, so the count is not known."""
    if any(isinstance(a, TensorSpec) and a.dtype == "int32" for a in (*args, *kwargs.values())):
        return Facts(Kind.UNKNOWN, None)
    return _attention(prod(query.shape[:-1]), key.shape[1], query.shape[-1], value.shape[-1])


def _heads(query: Spec, keys: int, size: int, heads: int) -> Facts:
    """Projections of query, key, value and output, and attention; all of length `size`, over `heads` heads."""
    tokens = query.numel // size
    inner = _attention(tokens * heads, keys, size // heads, size // heads)
    assert inner.macs is not None
    return Facts(Kind.ATTENTION, 4 * tokens * size * size + inner.macs, elementwise=inner.elementwise)


@op_rule("aten._native_multi_head_attention")
def multi_head_attention(
    query: Spec, key: Spec, value: Spec, embed_dim: int, num_head: int, *args: Any, out: Spec, **kwargs: Any
) -> Facts:
    """The fast path of `nn.MultiheadAttention`, which is for query, key and value of one shape (N, L, embed_dim)."""
    return _heads(query, key.shape[1], embed_dim, num_head)


@op_rule("aten._transformer_encoder_layer_fwd")
def encoder_layer(src: Spec, embed_dim: int, num_heads: int, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """The fast path of `nn.TransformerEncoderLayer`: attention, then two linear layers; activation and the two
    norms are scalar operations."""
    attended = _heads(src, src.shape[1], embed_dim, num_heads)
    assert attended.macs is not None
    weights = [a for a in args if isinstance(a, TensorSpec) and len(a.shape) == 2]
    forward = weights[2:4]  # after those of the projections
    tokens = src.numel // embed_dim
    scalars = tokens * forward[0].shape[0] + 2 * 2 * src.numel
    return Facts(
        Kind.ATTENTION,
        attended.macs + tokens * sum(w.numel for w in forward),
        elementwise=attended.elementwise + scalars,
    )
