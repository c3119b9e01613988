"""Activations, softmax and elementwise arithmetic: no MACs, one scalar operation for each element of the output.

An operation that torch tags as pointwise needs no cost rule: without one it counts as elementwise.
"""

from __future__ import annotations

from typing import Any

from cspprof.core import formulas as f
from cspprof.core.backward import Backward
from cspprof.core.kinds import Kind
from cspprof.core.tensors import TensorMeta, tensor_meta
from cspprof.ops.layouts import (
    all_contiguous_or_channel_slices,
    contiguous_output,
    elementwise_strides,
    has_definite_order,
    output_like,
    packed_like,
    same_dtype,
)
from cspprof.ops.op_rules import (
    Operand,
    backward,
    backward_rule,
    ends_gradients,
    keeps_input,
    keeps_nothing,
    keeps_output,
    kept,
    kept_bytes,
    output_numel,
    output_rule,
    register_without_macs,
)

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
    return packed_like(input)


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


# -- backward ---------------------------------------------------------------------------------------

keeps_output(
    "relu sigmoid tanh exp exp2 expm1 sqrt rsqrt reciprocal tan softmax _softmax _safe_softmax log_softmax "
    "_log_softmax leaky_relu_ elu_ celu_ selu_ threshold_ rrelu_with_noise_"
)
keeps_input(
    "leaky_relu elu celu selu hardtanh relu6 silu gelu mish hardswish hardsigmoid softplus hardshrink softshrink "
    "threshold abs log log2 log10 log1p sin cos asin acos atan sinh cosh erf erfc erfinv square glu digamma lgamma "
    "sinc tanhshrink"
)
keeps_nothing("neg positive")
keeps_nothing("add sub rsub", passes=True)
keeps_nothing("round floor ceil trunc sign")  # the gradient is zero
ends_gradients("floor_divide heaviside bernoulli")


@backward_rule("aten.log_sigmoid")
def log_sigmoid_gradients(input: Operand, *, out: Operand) -> Backward:
    """The CPU kernel also writes a buffer of the size of its input."""
    return backward(kept(input), kept_bytes(input.nbytes))


@backward_rule("aten.mul")
def mul_gradients(left: Operand, right: Operand | float, *args: Any, out: Operand, **kwargs: Any) -> Backward:
    """Each factor for the gradient of the other."""
    if not isinstance(right, Operand):
        return backward()
    return backward(kept(left, right), kept(right, left))


@backward_rule("aten.div")
def div_gradients(left: Operand, right: Operand | float, *args: Any, out: Operand, **kwargs: Any) -> Backward:
    if not isinstance(right, Operand):
        return backward()
    return backward(kept(left, right), kept(right))


@backward_rule("aten.pow")
def pow_gradients(base: Operand | float, exponent: Operand | float, *args: Any, out: Operand) -> Backward:
    if not isinstance(exponent, Operand):
        return backward(kept(base) if exponent else [])
    if not isinstance(base, Operand):
        return backward(kept(exponent), kept(out))
    return backward(kept(base), kept(exponent), kept(out, exponent))


@backward_rule("aten.clamp", "aten.clamp_min", "aten.clamp_max", "aten.clip")
def clamp_gradients(input: Operand, *bounds: Any, out: Operand, **named: Any) -> Backward:
    return backward(kept(input), *(kept(bound) for bound in (*bounds, *named.values())))


@backward_rule("aten.maximum", "aten.minimum", "aten.atan2", "aten.fmod", "aten.fmax", "aten.fmin", "aten.mse_loss")
def two_operand_gradients(left: Operand, right: Operand, *args: Any, out: Operand, **kwargs: Any) -> Backward:
    return backward(kept(left), kept(right))


@backward_rule("aten.prelu", "aten._prelu_kernel")
def prelu_gradients(input: Operand, weight: Operand, *, out: Operand) -> Backward:
    return backward(kept(input), kept(weight))


@backward_rule("aten.addcmul")
def addcmul_gradients(input: Operand, left: Operand, right: Operand, *, out: Operand, **kwargs: Any) -> Backward:
    return backward(kept(left, right), kept(right, left))


@backward_rule("aten.lerp")
def lerp_gradients(start: Operand, end: Operand, weight: Any, *, out: Operand) -> Backward:
    return backward(kept(start, weight), kept(end, weight), kept(weight, (start, end)))


@backward_rule("aten.where")
def where_gradients(condition: Operand, *args: Any, out: Operand) -> Backward:
    return backward(kept(condition))


@backward_rule("aten.rrelu")
def rrelu_gradients(
    input: Operand, lower: float = 0.125, upper: float = 1 / 3, training: bool = False, *args: Any, out: Operand
) -> Backward:
    """In training also the random slopes. In place, the output instead of the input."""
    slopes = kept_bytes(input.nbytes) if training else []
    return backward(kept(out) if input.in_place and training else kept(input), slopes)


@backward_rule("aten._weight_norm", "aten._weight_norm_interface")
def weight_norm_gradients(direction: Operand, magnitude: Operand, *args: Any, out: Operand) -> Backward:
    """Also the norms, one for each magnitude."""
    return backward(kept(direction), kept(magnitude), kept_bytes(magnitude.nbytes))
