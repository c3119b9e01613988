"""Normalization layers: no MACs, two scalar operations for each element (subtract and scale)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cspprof.core.kinds import Kind
from cspprof.core.tensors import TensorMeta
from cspprof.ops.layouts import (
    all_contiguous,
    all_contiguous_or_channel_slices,
    contiguous_output,
    is_contiguous_to_torch,
    same_dtype,
)
from cspprof.ops.op_rules import Facts, Spec, op_rule, output_rule

NORMS = (
    "batch_norm layer_norm group_norm instance_norm rms_norm local_response_norm native_batch_norm native_layer_norm "
    "native_group_norm _native_batch_norm_legit _native_batch_norm_legit_no_training _batch_norm_with_update "
    "_fused_rms_norm"
)
QUANTIZED_NORMS = (
    "batch_norm batch_norm1d batch_norm2d batch_norm3d batch_norm_relu batch_norm1d_relu batch_norm2d_relu "
    "batch_norm3d_relu layer_norm group_norm instance_norm"
)


@op_rule(*(f"aten.{name}" for name in NORMS.split()), *(f"quantized.{name}" for name in QUANTIZED_NORMS.split()))
def norm(input: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    return Facts(Kind.NORM, elementwise=2 * input.numel, outputs=1)


@output_rule("aten.batch_norm")
def batch_norm_output(
    input: TensorMeta, weight: TensorMeta | None, bias: TensorMeta | None, mean: TensorMeta | None,
    var: TensorMeta | None, training: bool, *args: Any,
) -> TensorMeta | None:  # fmt: skip
    if training or mean is None or len(input.shape) < 2 or 0 in input.shape:
        return None
    if not all_contiguous_or_channel_slices(input):
        return None
    vectors = [t for t in (weight, bias, mean, var) if t is not None]
    if any(t.shape != (input.shape[1],) for t in vectors) or not all_contiguous(*vectors):
        return None
    return contiguous_output(input.shape, input) if same_dtype(input, mean) else None


@output_rule("aten.layer_norm")
def layer_norm_output(
    input: TensorMeta, shape: Sequence[int], weight: TensorMeta | None = None, bias: TensorMeta | None = None,
    *args: Any,
) -> TensorMeta | None:  # fmt: skip
    size = tuple(shape)
    vectors = [t for t in (weight, bias) if t is not None]
    if input.shape[-len(size) :] != size or any(t.shape != size for t in vectors) or not same_dtype(input, *vectors):
        return None
    if not input.is_floating or (is_contiguous_to_torch(input) and not input.contiguous):
        return None
    return contiguous_output(input.shape, input) if all_contiguous(weight or input, bias) else None
