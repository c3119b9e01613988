"""Attention: two products over every pair of a query and a key, whichever kernel computes them.

The whole score matrix counts. A causal mask, a padding mask or a block mask may let a kernel skip parts of it, but
masks are values, so the count ignores them, as torch's own counter does. Each score also counts as one scalar
operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

from cspprof.core import formulas as f
from cspprof.core.backward import Backward
from cspprof.core.kinds import Kind
from cspprof.core.tensors import TensorMeta, TensorSpec
from cspprof.ops.layouts import has_no_gaps, output_like, packed_like, reshape_copies
from cspprof.ops.op_rules import (
    Facts,
    Operand,
    Spec,
    backward,
    backward_rule,
    kept,
    kept_bytes,
    op_rule,
    output_rule,
)


def attention_facts(queries: int, keys: int, size: int, value_size: int) -> Facts:
    """Attention of `queries` query vectors (over batch, heads and length), each with `keys` keys."""
    macs = f.attention_macs(queries, keys, size, value_size)
    return Facts(Kind.ATTENTION, macs, elementwise=queries * keys, outputs=1)


BACKENDS = (
    "flash_attention flash_attention_for_cpu efficient_attention cudnn_attention attention_math "
    "attention_math_for_mps fused_attention_overrideable"
)


@op_rule("aten.scaled_dot_product_attention", "higher_order.flex_attention",
         *(f"aten._scaled_dot_product_{name}" for name in BACKENDS.split()))  # fmt: skip
def attention(query: Spec, key: Spec, value: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """Query (…, H, L, E), key (…, S, E), value (…, S, Ev); `out` (…, H, L, Ev) has the broadcast batch and all heads
    of a grouped query. The `score_mod` function of flex_attention is not counted."""
    return attention_facts(prod(out.shape[:-1]), key.shape[-2], query.shape[-1], value.shape[-1])


@output_rule("aten.scaled_dot_product_attention")
def attention_output(
    query: TensorMeta, key: TensorMeta, value: TensorMeta, mask: TensorMeta | None = None, dropout: float = 0.0,
    *args: Any, **kwargs: Any,
) -> TensorMeta | None:  # fmt: skip
    """The output of the CPU's fused kernel lies in memory as the query, without gaps: where the heads of a token lie
    together, joining them is a view. Torch's meta kernel returns a contiguous tensor."""
    if dropout or kwargs.get("enable_gqa") or len(query.shape) != 4 or query.is_complex or not query.dense:
        return None
    keys = (*query.shape[:2], key.shape[-2], query.shape[-1])
    if not key.shape == value.shape == keys or not query.dtype == key.dtype == value.dtype:
        return None
    if 0 in (*query.shape, *keys) or any(t.strides[-1] != 1 for t in (query, key, value)):
        return None
    if mask is not None and len(mask.shape) not in (2, 4):
        return None
    return output_like(query) if has_no_gaps(query.shape, query.strides) else packed_like(query)


@backward_rule("aten.scaled_dot_product_attention")
def attention_gradients(
    query: Operand, key: Operand, value: Operand, attn_mask: Operand | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, *args: Any, out: Operand, enable_gqa: bool = False, **kwargs: Any,
) -> Backward:  # fmt: skip
    """Two products give the gradients of the scores and of the value, two more those of query and key. A fused kernel
    keeps its operands, its output and the logarithm of the sum of each row of scores, and computes the scores again,
    which does not count as MACs. Without a fused kernel (a mask that requires a gradient, dropout) autograd keeps the
    scaled query and key, the scores after the softmax, and what dropout made of them."""
    queries, keys = prod(out.shape[:-1]), key.shape[-2]
    pairs = queries * keys
    of_scores = (query, key, attn_mask)
    products = [
        (pairs * value.shape[-1], of_scores), (pairs * value.shape[-1], value),
        (pairs * query.shape[-1], query), (pairs * query.shape[-1], key),
    ]  # fmt: skip
    size = query.nbytes // max(query.numel, 1)
    copied = reshape_copies(value.meta, (prod(value.shape[:-2]), *value.shape[-2:]))
    unfused = [
        *kept_bytes(query.nbytes, key),
        *kept_bytes(key.nbytes, query),
        *kept_bytes(pairs * size, (*of_scores, value)),
        *(kept_bytes(value.nbytes, of_scores) if copied else kept(value, of_scores)),
    ]
    if dropout_p:
        unfused += [*kept_bytes(pairs * size, of_scores), *kept_bytes(pairs * size, value)]
    rows_in_memory = all(t.meta.strides[-1] == 1 for t in (query, key, value))
    if dropout_p or len(query.shape) != 4 or query.shape[-1] != value.shape[-1] or not rows_in_memory:
        return backward(unfused, products=products)
    fused = [saved for t in (query, key, value, attn_mask, out) for saved in kept(t, unless=attn_mask)]
    fused += kept_bytes(queries * max(4, size), unless=attn_mask)
    if attn_mask is None:
        return backward(fused, products=products)
    assert attn_mask.position is not None
    return backward(fused, [s._replace(needed_by=(attn_mask.position,)) for s in unfused], products=products)


# -- packed sequences -------------------------------------------------------------------------------

Values = Sequence[Sequence[int] | None]


def packed_pairs(query: Spec, key: Spec, values: Values) -> int | None:
    """The pairs of a query and a key in all sequences of a batch; None if the lengths of the sequences are unknown.

    `values` are the bounds 0, L₀, L₀ + L₁, … of the queries, those of the keys, and the numbers of keys that are used.
    An empty one is not given. Without bounds, heads come after length: (N, L, H, E).
    """
    query_bounds, key_bounds, used = values
    if query_bounds is None or key_bounds is None or used is None:
        return None
    queries = _lengths(query_bounds) if query_bounds else [query.shape[1]] * query.shape[0]
    if used:
        keys = used
    elif key_bounds:
        keys = _lengths(key_bounds)
    elif query_bounds:
        return None
    else:
        keys = [key.shape[1]] * query.shape[0]
    if len(queries) != len(keys) or min((*queries, *keys), default=0) < 0:
        return None
    return sum(n * m for n, m in zip(queries, keys, strict=True))


def _lengths(bounds: Sequence[int]) -> list[int]:
    return [end - start for start, end in pairwise(bounds)]


@op_rule("aten._flash_attention_forward", "aten._cudnn_attention_forward",
         values=("cum_seq_q", "cum_seq_k", "seqused_k"))  # fmt: skip
@op_rule("aten._efficient_attention_forward", values=("cu_seqlens_q", "cu_seqlens_k", "seqlen_k"))
@op_rule("torch_attn._varlen_attn", values=("cu_seq_q", "cu_seq_k", "seqused_k"))
def packed_attention(
    query: Spec, key: Spec, value: Spec, *args: Any, out: Spec, values: Values, **kwargs: Any
) -> Facts:
    """Each sequence attends to itself. (Torch's own counter takes every sequence as long as the longest.)"""
    pairs = packed_pairs(query, key, values)
    if pairs is None:
        return Facts(Kind.UNKNOWN, None)
    return attention_facts(pairs * query.shape[-2], 1, query.shape[-1], value.shape[-1])


@op_rule("torch_attn._varlen_attn_out", values=("cu_seq_q", "cu_seq_k", "seqused_k"))
@op_rule("aten._flash_attention_forward_no_dropout_inplace", values=("cum_seq_q", "cum_seq_k", "seqused_k"))
def packed_attention_into(output: Spec, *args: Any, out: Spec, values: Values, **kwargs: Any) -> Facts:
    """Written into the first argument."""
    return packed_attention(*args, out=out, values=values, **kwargs)


# -- fast paths of torch.nn -------------------------------------------------------------------------


def _multi_head(query: Spec, keys: int, size: int, heads: int) -> tuple[int, int]:
    """MACs and scalar operations of attention with its four projections (query, key, value, output), all of width
    `size`."""
    tokens = query.numel // size
    scores = tokens * heads * keys
    head_size = size // heads
    return 4 * tokens * size * size + f.attention_macs(tokens * heads, keys, head_size, head_size), scores


@op_rule("aten._native_multi_head_attention")
def multi_head_attention(
    query: Spec, key: Spec, value: Spec, embed_dim: int, num_head: int, *args: Any, out: Spec, **kwargs: Any
) -> Facts:
    """The fast path of `nn.MultiheadAttention`: query, key and value have one shape (N, L, embed_dim)."""
    macs, scores = _multi_head(query, key.shape[1], embed_dim, num_head)
    return Facts(Kind.ATTENTION, macs, elementwise=scores)


@op_rule("aten._transformer_encoder_layer_fwd")
def encoder_layer(src: Spec, embed_dim: int, num_heads: int, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """The fast path of `nn.TransformerEncoderLayer`: attention, then two linear layers. The activation and the two
    norms are scalar operations."""
    macs, scores = _multi_head(src, src.shape[1], embed_dim, num_heads)
    matrices = [a for a in args if isinstance(a, TensorSpec) and len(a.shape) == 2]
    linears = matrices[2:4]  # the first two are projections
    tokens = src.numel // embed_dim
    scalars = tokens * linears[0].shape[0] + 2 * 2 * src.numel
    return Facts(Kind.ATTENTION, macs + tokens * sum(w.numel for w in linears), elementwise=scores + scalars)
