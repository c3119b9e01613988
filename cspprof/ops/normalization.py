"""Normalization layers: no MACs, two scalar operations for each element (subtract and scale)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from cspprof.core.backward import Backward
from cspprof.core.kinds import Kind
from cspprof.core.tensors import TensorMeta
from cspprof.ops.layouts import (
    all_contiguous,
    all_contiguous_or_channel_slices,
    contiguous_output,
    is_contiguous_to_torch,
    same_dtype,
)
from cspprof.ops.op_rules import Facts, Operand, Spec, backward, backward_rule, kept, kept_bytes, op_rule, output_rule

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
    """In training only without running statistics, which torch would write."""
    if training is not (mean is None) or len(input.shape) < 2 or 0 in input.shape:
        return None
    if not all_contiguous_or_channel_slices(input) or (training and not input.contiguous):
        return None
    vectors = [t for t in (weight, bias, mean, var) if t is not None]
    if any(t.shape != (input.shape[1],) for t in vectors) or not (vectors and all_contiguous(*vectors)):
        return None
    if training and input.spec.numel == input.shape[1]:  # one value per channel: torch may refuse it
        return None
    return contiguous_output(input.shape, input) if same_dtype(input, *vectors) else None


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


@output_rule("aten.group_norm")
def group_norm_output(
    input: TensorMeta, groups: int, weight: TensorMeta | None = None, bias: TensorMeta | None = None, *args: Any,
    **kwargs: Any,
) -> TensorMeta | None:  # fmt: skip
    vectors = [t for t in (weight, bias) if t is not None]
    if len(input.shape) < 3 or 0 in input.shape or groups < 1 or input.shape[1] % groups or not input.is_floating:
        return None
    if any(t.shape != (input.shape[1],) for t in vectors) or not all_contiguous(input, *vectors):
        return None
    return contiguous_output(input.shape, input)


# -- backward ---------------------------------------------------------------------------------------


@backward_rule("aten.batch_norm", "aten.native_batch_norm")
def batch_norm_gradients(
    input: Operand, weight: Operand | None, bias: Operand | None, mean: Operand | None, var: Operand | None,
    training: bool, *args: Any, out: Operand,
) -> Backward:  # fmt: skip
    """In training also the mean and the inverse deviation of each channel in the batch."""
    channels = input.shape[1] if len(input.shape) > 1 else 0
    statistics = kept_bytes(2 * channels * _statistics_size(input)) if training else []
    return backward(kept(input), kept(weight), kept(mean), kept(var), statistics)


@backward_rule("aten.instance_norm")
def instance_norm_gradients(
    input: Operand, weight: Operand | None = None, bias: Operand | None = None, mean: Operand | None = None,
    var: Operand | None = None, use_input_stats: bool = True, *args: Any, out: Operand,
) -> Backward:  # fmt: skip
    """A batch norm of N·C channels. Weight and statistics are repeated for each image; without running statistics a
    batch of 1 repeats nothing that autograd keeps beside the weight."""
    n = input.shape[0]
    repeated = [kept_bytes(n * t.nbytes) for t in (weight, mean, var) if t is not None]
    statistics = kept_bytes(2 * n * input.shape[1] * _statistics_size(input)) if use_input_stats else []
    return backward(kept(input), *repeated, statistics)


@backward_rule("aten.layer_norm", "aten.native_layer_norm")
def layer_norm_gradients(
    input: Operand, shape: Sequence[int], weight: Operand | None = None, bias: Operand | None = None, *args: Any,
    out: Operand,
) -> Backward:  # fmt: skip
    """Also the mean and the inverse deviation of each row."""
    rows = input.numel // max(prod(shape), 1)
    return backward(kept(input), kept(weight), kept(bias), kept_bytes(2 * rows * _statistics_size(input)))


@backward_rule("aten.group_norm")
def group_norm_gradients(
    input: Operand, num_groups: int, weight: Operand | None = None, *args: Any, out: Operand, **kwargs: Any
) -> Backward:
    """Also the mean and the inverse deviation of each group of channels of each image."""
    statistics = kept_bytes(2 * input.shape[0] * num_groups * _statistics_size(input))
    return backward(kept(input), kept(weight), statistics)


@backward_rule("aten.rms_norm")
def rms_norm_gradients(
    input: Operand, shape: Sequence[int], weight: Operand | None = None, *args: Any, out: Operand, **kwargs: Any
) -> Backward:
    """The composite of torch's CPU: the input, the inverse of the mean square of each row, and, for the gradient of the
    weight, the normalized input."""
    rows = input.numel // max(prod(shape), 1)
    inverse = kept_bytes(rows * input.nbytes // max(input.numel, 1), input)
    return backward(kept(input, input), inverse, kept(weight, input), kept_bytes(input.nbytes, weight))


def _statistics_size(input: Operand) -> int:
    """Bytes of one saved statistic: those of float32 for narrower inputs."""
    return max(4, input.nbytes // max(input.numel, 1))
