"""Activations, softmax and elementwise arithmetic: no MACs, one scalar operation for each element of the output.

An operation that torch tags as pointwise needs no cost rule: without one it counts as elementwise.
"""

from __future__ import annotations

from typing import Any

from cspprof.core import formulas as f
from cspprof.core.kinds import Kind
from cspprof.core.tensors import TensorMeta, tensor_meta
from cspprof.ops.layouts import (
    all_contiguous_or_channel_slices,
    contiguous_output,
    elementwise_strides,
    has_definite_order,
    output_like,
    same_dtype,
)
from cspprof.ops.op_rules import output_numel, output_rule, register_without_macs

# -- one argument -----------------------------------------------------------------------------------

register_without_macs(
    Kind.ACTIVATION,
    "relu relu6 leaky_relu silu gelu mish hardswish hardsigmoid hardtanh sigmoid tanh elu selu celu softplus prelu "
    "rrelu rrelu_with_noise _prelu_kernel log_sigmoid log_sigmoid_forward glu glu_jvp hardshrink softshrink threshold "
    "tanhshrink",
    output_numel,
)
register_without_macs(
    Kind.ACTIVATION, "relu6 leaky_relu hardswish sigmoid elu celu prelu threshold", output_numel, "quantized"
)

SHAPE_PRESERVING = "relu silu gelu hardswish hardsigmoid sigmoid tanh leaky_relu elu mish hardtanh relu6 softplus"


@output_rule(*(f"aten.{name}" for name in SHAPE_PRESERVING.split()))
def unary_output(input: TensorMeta, *args: Any, **kwargs: Any) -> TensorMeta | None:
    """The shape of the input. The layout is the input's too, without its gaps."""
    if not input.is_floating:
        return None
    if has_definite_order(input):
        return output_like(input)
    if 1 in input.shape[1:] or 0 in input.shape or len({0, *input.strides}) <= len(input.shape):
        return None
    if input.shape[0] == 1 and input.strides[0] < max(input.strides):  # the place of the batch dimension is ambiguous
        return None
    strides = elementwise_strides(input.shape, [(input.shape, input.strides)])
    return tensor_meta(input.shape, strides, input.dtype)


# -- softmax ----------------------------------------------------------------------------------------

register_without_macs(
    Kind.SOFTMAX, "softmax log_softmax _softmax _log_softmax _safe_softmax _masked_softmax softmin", output_numel
)
register_without_macs(Kind.SOFTMAX, "softmax", output_numel, "quantized")


@output_rule("aten.softmax", "aten.log_softmax")
def softmax_output(input: TensorMeta, dim: int, dtype: Any = None) -> TensorMeta | None:
    rank = len(input.shape)
    known = dtype is None and input.contiguous and input.is_floating and -rank <= dim < rank
    return output_like(input) if known else None


# -- arithmetic -------------------------------------------------------------------------------------

register_without_macs(  # elementwise, but without torch's tag
    Kind.ELEMENTWISE,
    "eq ne lt le gt ge abs copysign heaviside gcd lcm _add_relu _thnn_fused_lstm_cell _thnn_fused_gru_cell "
    "_standard_gamma_grad _dirichlet_grad floor_divide rsub complex polar linalg_cross renorm isin "
    "_weight_norm_interface _weight_norm "
    "quantize_per_tensor quantize_per_tensor_dynamic quantize_per_channel dequantize fake_quantize_per_tensor_affine "
    "fake_quantize_per_channel_affine fake_quantize_per_tensor_affine_cachemask "
    "fake_quantize_per_channel_affine_cachemask _fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
    output_numel,
)
register_without_macs(
    Kind.ELEMENTWISE,
    "add add_relu add_scalar add_scalar_relu mul mul_relu mul_scalar mul_scalar_relu clamp",
    output_numel,
    "quantized",
)
register_without_macs(
    Kind.ELEMENTWISE,
    "quantize_per_tensor quantize_per_channel quantize_per_token dequantize_per_tensor dequantize_per_channel "
    "dequantize_per_token",
    output_numel,
    "quantized_decomposed",
)


@output_rule("aten.add", "aten.sub", "aten.mul", "aten.div")
def binary_output(left: TensorMeta, right: Any, *args: Any, **kwargs: Any) -> TensorMeta | None:
    if not left.is_floating or kwargs.keys() - {"alpha"}:
        return None
    if isinstance(right, (int, float)):
        return unary_output(left)
    if not isinstance(right, TensorMeta) or not same_dtype(left, right):
        return None
    try:
        shape = f.broadcast(left.shape, right.shape)
    except ValueError:
        return None
    if left.contiguous and right.contiguous and shape in (left.shape, right.shape):
        return contiguous_output(shape, left)
    if left.shape == right.shape and all_contiguous_or_channel_slices(left, right):
        return contiguous_output(shape, left)
    if not (has_definite_order(left) and has_definite_order(right)):
        return None
    if shape not in (left.shape, right.shape) or 1 in shape[1:]:
        return None
    return tensor_meta(shape, elementwise_strides(shape, [(t.shape, t.strides) for t in (left, right)]), left.dtype)
