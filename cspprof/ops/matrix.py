"""Linear layers and matrix products of every dtype, and operations built on them: distances, a fused loss.

A multiply-accumulate counts once whatever its dtype, complex and 8-bit ones included.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from cspprof.core import formulas as f
from cspprof.core.backward import Backward, Saved
from cspprof.core.kinds import Kind
from cspprof.core.tensors import TensorMeta, tensor_meta
from cspprof.ops.layouts import (
    all_contiguous,
    contiguous_output,
    reshape_copies,
    same_dtype,
)
from cspprof.ops.op_rules import Facts, Operand, Spec, backward, backward_rule, kept, kept_bytes, op_rule, output_rule

# -- linear layers ----------------------------------------------------------------------------------

QUANTIZED_LINEARS = (
    "linear linear_relu linear_leaky_relu linear_tanh linear_dynamic linear_relu_dynamic linear_dynamic_fp16 "
    "linear_relu_dynamic_fp16 linear_with_input_q_dq_qweight_dq_output_fp32 "
    "linear_with_input_q_dq_qweight_dq_relu_output_fp32"
)


@op_rule(
    "aten.linear", "aten.mkldnn_linear", "aten._mixed_dtypes_linear",
    *(f"quantized.{name}" for name in QUANTIZED_LINEARS.split()),
)  # fmt: skip
def linear(input: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    return Facts(Kind.LINEAR, input.shape[-1] * out.numel)


@output_rule("aten.linear")
def linear_output(input: TensorMeta, weight: TensorMeta, bias: TensorMeta | None = None) -> TensorMeta | None:
    if len(weight.shape) != 2 or not all_contiguous(weight, bias) or not same_dtype(input, weight) or not input.shape:
        return None
    if not input.contiguous and len(input.shape) != 2:
        return None
    if input.shape[-1] != weight.shape[1] or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    return contiguous_output((*input.shape[:-1], weight.shape[0]), input)


@op_rule("aten.bilinear")
def bilinear(input1: Spec, input2: Spec, weight: Spec, bias: Spec | None = None, *, out: Spec) -> Facts:
    # y[o] = Σ_i Σ_j x1[i]·W[o,i,j]·x2[j]: the inner product over j first, then over i.
    return Facts(Kind.LINEAR, out.numel * weight.shape[1] * (weight.shape[2] + 1))


@op_rule("aten._trilinear")
def trilinear(
    first: Spec, second: Spec, third: Spec, expand1: Sequence[int], expand2: Sequence[int], expand3: Sequence[int],
    sumdim: Sequence[int], unroll_dim: int = 1, *, out: Spec,
) -> Facts:  # fmt: skip
    """A part of the gradient of `bilinear`: the sum of products of three factors, each with dimensions of size 1 at the
    positions of its `expand`. One scalar operation and one MAC for each product."""
    shapes = [list(factor.shape) for factor in (first, second, third)]
    for shape, expand in zip(shapes, (expand1, expand2, expand3), strict=True):
        for position in sorted(expand):
            shape.insert(position, 1)
    products = prod(f.broadcast(*shapes))
    return Facts(Kind.MATMUL, products, elementwise=products)


# -- matrix products --------------------------------------------------------------------------------


@op_rule(
    "aten.matmul", "aten.mm", "aten.bmm", "aten.mv", "aten.dot", "aten.vdot", "aten._int_mm", "aten._scaled_mm",
    "aten._scaled_mm_v2", "aten._weight_int8pack_mm", "aten._weight_int4pack_mm", "aten._weight_int4pack_mm_for_cpu",
    "aten._dyn_quant_matmul_4bit", "quantized.matmul",
)  # fmt: skip
def matmul(left: Spec, right: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """Scales of quantized factors are not MACs."""
    return Facts(Kind.MATMUL, f.matmul_macs(left.shape, out.shape))


@output_rule("aten.matmul")
def matmul_output(left: TensorMeta, right: TensorMeta) -> TensorMeta | None:
    if len(left.shape) < 2 or len(left.shape) != len(right.shape) or not same_dtype(left, right):
        return None
    if left.shape[:-2] != right.shape[:-2] or left.shape[-1] != right.shape[-2]:
        return None
    return contiguous_output((*left.shape[:-1], right.shape[-1]), left)


@op_rule("aten.addmm", "aten.baddbmm", "aten.addmv", "aten._addmm_activation")
def addmm(bias: Spec, left: Spec, right: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    return Facts(Kind.MATMUL, f.matmul_macs(left.shape, out.shape))


@op_rule("aten.addbmm")
def addbmm(bias: Spec, left: Spec, right: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    return Facts(Kind.MATMUL, prod(left.shape) * right.shape[-1])


@op_rule("aten._grouped_mm", "aten._scaled_grouped_mm", "aten._scaled_grouped_mm_v2", values=("offs",))
def grouped_mm(
    left: Spec, right: Spec, *args: Any, out: Spec, values: Sequence[Sequence[int] | None], **kwargs: Any
) -> Facts:
    """One product for each group. If a factor has two dimensions, its groups are runs of rows or columns, which end at
    the offsets. The runs need not cover the whole factor."""
    (rows, inner), columns = left.shape[-2:], right.shape[-1]
    if len(left.shape) == len(right.shape) == 3:
        return Facts(Kind.MATMUL, left.shape[0] * rows * inner * columns)
    (ends,) = values
    if not ends:
        return Facts(Kind.UNKNOWN, None)
    if len(left.shape) == len(right.shape):
        inner = ends[-1]
    elif len(left.shape) == 2:
        rows = ends[-1]
    else:
        columns = ends[-1]
    return Facts(Kind.MATMUL, rows * inner * columns)


@op_rule("aten.outer", "aten.ger", "aten.addr")
def outer(*args: Spec, out: Spec, **kwargs: Any) -> Facts:
    return Facts(Kind.MATMUL, out.numel)


# -- operations built on products -------------------------------------------------------------------


@op_rule("aten._euclidean_dist", "aten._cdist_forward", "aten._pdist_forward")
def distance(left: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """For each pair and coordinate a difference and, for p = 2, one MAC (the square, accumulated)."""
    coordinates = left.shape[-1] * out.numel
    p = next((a for a in args if isinstance(a, (int, float))), 2)
    if p == 2:
        return Facts(Kind.MATMUL, coordinates, elementwise=coordinates)
    return Facts(Kind.REDUCTION, elementwise=2 * coordinates)


@op_rule("torch_nn._linear_cross_entropy_batch_chunked", "torch_nn._linear_cross_entropy_batch_chunked_no_reduction")
def linear_cross_entropy(input: Spec, weight: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    logits = input.numel // input.shape[-1] * weight.shape[0]
    return Facts(Kind.LINEAR, logits * input.shape[-1], elementwise=logits, outputs=1)


# -- backward ---------------------------------------------------------------------------------------

# The gradient for each factor is a product with the other one, of as many MACs as the forward product. Autograd keeps
# a factor only for the gradient of the other.


@backward_rule("aten.linear")
def linear_gradients(input: Operand, weight: Operand, bias: Operand | None = None, *, out: Operand) -> Backward:
    """An input of more than two dimensions is reshaped to two, which copies it if no view of it has that shape."""
    macs = input.shape[-1] * out.numel if input.shape else 0
    rows = (input.numel // max(input.shape[-1], 1), input.shape[-1]) if input.shape else ()
    copies = len(input.shape) > 2 and reshape_copies(input.meta, rows)
    saved_input = kept_bytes(input.nbytes, weight) if copies else kept(input, weight)
    return backward(saved_input, kept(weight, input), products=[(macs, input), (macs, weight)])


@backward_rule("aten.mm", "aten.bmm", "aten.mv", "aten.dot", "aten.vdot", "aten.outer", "aten.ger")
def product_gradients(left: Operand, right: Operand, *args: Any, out: Operand, **kwargs: Any) -> Backward:
    macs = out.numel * (left.shape[-1] if len(left.shape) > 1 or not out.shape else 1)
    return backward(kept(left, right), kept(right, left), products=[(macs, left), (macs, right)])


@backward_rule("aten.addmm", "aten.baddbmm", "aten.addmv")
def addmm_gradients(bias: Operand, left: Operand, right: Operand, *args: Any, out: Operand, **kwargs: Any) -> Backward:
    return product_gradients(left, right, out=out)


@backward_rule("aten.matmul")
def matmul_gradients(left: Operand, right: Operand, *, out: Operand) -> Backward:
    """`matmul` calls `mm` or `bmm` on factors that it broadcasts and reshapes, which copies a factor if no view of it
    has the new shape."""
    macs = f.matmul_macs(left.shape, out.shape)
    saved = [*_matmul_factor(left, right, out, first=True), *_matmul_factor(right, left, out, first=False)]
    return backward(saved, products=[(macs, left), (macs, right)])


def _matmul_factor(factor: Operand, other: Operand, out: Operand, first: bool) -> list[Saved]:
    """The entries for one factor of `matmul`, which autograd keeps for the gradient of the other."""
    rank, other_rank = len(factor.shape), len(other.shape)
    if max(rank, other_rank) <= 2:
        return kept(factor, other)
    if min(rank, other_rank) <= 2:  # one product of two matrices, with all leading dimensions in the rows
        if rank <= 2:
            return kept(factor, other)
        shape, strides = factor.shape, factor.meta.strides
        if not first:  # as the transposed product
            shape = (*shape[:-2], shape[-1], shape[-2])
            strides = (*strides[:-2], strides[-1], strides[-2])
        meta = tensor_meta(shape, strides, factor.meta.dtype)
        copies = reshape_copies(meta, (prod(shape[:-1]), shape[-1]))
        return kept_bytes(factor.nbytes, other) if copies else kept(factor, other)
    batch = out.shape[:-2]
    shape = (*batch, *factor.shape[-2:])
    missing = len(shape) - rank
    strides = tuple(
        [
            0 if i < missing or (n == 1 and shape[i] != 1) else stride
            for i, (n, stride) in enumerate(
                zip((1,) * missing + factor.shape, (0,) * missing + factor.meta.strides, strict=True)
            )
        ]
    )
    expanded = tensor_meta(shape, strides, factor.meta.dtype)
    if reshape_copies(expanded, (prod(batch), *shape[-2:])):
        return kept_bytes(expanded.spec.nbytes, other)
    return kept(factor, other)
