"""Reductions and losses: no MACs, one scalar operation for each element of the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cspprof.core import formulas as f
from cspprof.core.backward import Backward, Saved
from cspprof.core.kinds import Kind
from cspprof.core.tensors import TensorMeta
from cspprof.ops.layouts import contiguous_output
from cspprof.ops.op_rules import (
    Facts,
    Ints,
    Operand,
    Spec,
    backward,
    backward_rule,
    input_numel,
    keeps_nothing,
    kept,
    op_rule,
    output_rule,
    register_without_macs,
)
from cspprof.ops.pooling import pool_facts

register_without_macs(
    Kind.REDUCTION,
    "sum prod amax amin max min aminmax _aminmax argmax argmin any all _is_all_true _is_any_true native_norm std var "
    "std_mean var_mean norm cumsum cumprod cummax "
    "cummin logsumexp linalg_vector_norm nansum count_nonzero median nanmedian mode kthvalue logcumsumexp trace dist "
    "histc histogram bincount _histogramdd_bin_edges _histogramdd_from_bin_cts _histogramdd_from_bin_tensors "
    "segment_reduce hash_tensor unfold_backward cross_entropy_loss nll_loss nll_loss_forward nll_loss2d_forward "
    "_ctc_loss mse_loss huber_loss smooth_l1_loss soft_margin_loss binary_cross_entropy "
    "binary_cross_entropy_with_logits multi_margin_loss multilabel_margin_loss_forward",
    input_numel,
)
register_without_macs(
    Kind.REDUCTION,
    "choose_qparams choose_qparams_symmetric choose_qparams_per_token choose_qparams_per_token_asymmetric",
    input_numel,
    "quantized_decomposed",
)


@op_rule("aten.mean")
def mean(input: Spec, dim: Ints | None = None, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """A mean over exactly the spatial dimensions of (N, C, H, W) counts as global average pooling."""
    rank = len(input.shape)
    dims = {d % rank for d in f.pair(dim, 1)} if dim is not None and rank else set()
    if rank == 4 and dims == {2, 3}:
        return pool_facts(Kind.AVG_POOL, input.shape[2:], out, **{"global": True})
    return Facts(Kind.REDUCTION, elementwise=input.numel)


@output_rule("aten.mean", "aten.sum", "aten.amax", "aten.amin")
def reduction_output(
    input: TensorMeta, dim: Sequence[int] | None = None, keepdim: bool = False, *, dtype: Any = None
) -> TensorMeta | None:
    rank = len(input.shape)
    if not dim or dtype is not None or not input.contiguous or not input.is_floating or 0 in input.shape:
        return None
    reduced = {d % rank for d in dim if -rank <= d < rank}
    if len(reduced) != len(dim):  # a dimension that does not exist, or one named twice
        return None
    shape = [1 if i in reduced else n for i, n in enumerate(input.shape) if keepdim or i not in reduced]
    return contiguous_output(tuple(shape), input)


# -- backward ---------------------------------------------------------------------------------------

keeps_nothing("sum mean cumsum trace")


@backward_rule("aten.prod", "aten.amax", "aten.amin", "aten.std", "aten.norm", "aten.linalg_vector_norm",
               "aten.logsumexp")  # fmt: skip
def reduction_gradients(input: Operand, *args: Any, out: Operand, **kwargs: Any) -> Backward:
    return backward(kept(input), kept(out))


@backward_rule("aten.var")
def var_gradients(input: Operand, *args: Any, out: Operand, **kwargs: Any) -> Backward:
    return backward(kept(input))


@backward_rule("aten.max", "aten.min")
def max_gradients(input: Operand, dim: Any = None, *args: Any, out: Operand, **kwargs: Any) -> Backward:
    """Over one dimension the indices; over all the input and the result; of two tensors both."""
    if isinstance(dim, Operand):
        return backward(kept(input), kept(dim))
    return backward(kept(input), kept(out)) if dim is None else backward([Saved(~1)])
