"""The primitives of torch's reference implementations, `torch.ops.prims`. None is a product of matrices: no MACs."""

from __future__ import annotations

from typing import Any

from cspprof.core import formulas as f
from cspprof.core.kinds import Kind
from cspprof.ops.op_rules import Facts, Spec, input_numel, op_rule, output_numel, register_without_macs

register_without_macs(
    Kind.ELEMENTWISE,
    "abs acos acosh add asin asinh atan atan2 atanh bessel_i0 bessel_i0e bessel_i1 bessel_i1e bessel_j0 bessel_j1 "
    "bitwise_and bitwise_not bitwise_or bitwise_xor cbrt ceil conj_physical convert_element_type cos cosh digamma div "
    "eq "
    "erf erf_inv erfc erfcx exp exp2 expm1 floor fmax fmin fmod frexp gcd ge gt hypot igamma igammac isfinite le "
    "lgamma "
    "log log10 log1p log2 lt maximum minimum mul ndtri ne neg nextafter pow reciprocal remainder round rsqrt "
    "shift_left "
    "shift_right_arithmetic sign signbit sin sinh spherical_bessel_j0 sqrt sub tan tanh trunc where zeta",
    output_numel,
    "prims",
)
register_without_macs(Kind.REDUCTION, "amax amin prod sum var xor_sum", input_numel, "prims")
register_without_macs(Kind.CONCAT, "cat", namespace="prims")
register_without_macs(
    Kind.DATA,
    "as_strided_scatter clone collapse copy_strided copy_to device_put empty empty_permuted empty_strided fill full "
    "full_like iota item maximum_value minimum_value normal reshape resize rev scalar_tensor uniform",
    namespace="prims",
)


@op_rule("prims.fft_c2c", "prims.fft_r2c")
def transform(input: Spec, *args: Any, dim: Any, out: Spec, **kwargs: Any) -> Facts:
    operations = f.fft_operations(input.numel, [input.shape[d] for d in dim])
    return Facts(Kind.FFT, elementwise=operations if "complex" in input.dtype else (operations + 1) // 2)


@op_rule("prims.fft_c2r")
def transform_to_real(input: Spec, *args: Any, dim: Any, out: Spec, **kwargs: Any) -> Facts:
    return Facts(Kind.FFT, elementwise=(f.fft_operations(out.numel, [out.shape[d] for d in dim]) + 1) // 2)
