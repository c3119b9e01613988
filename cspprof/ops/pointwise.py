"""Norms, activations, reductions, resampling: no MACs, scalar operations by the element.

What torch itself tags as pointwise needs no line here.
"""

from __future__ import annotations

from typing import Any

from cspprof.core.record import Kind, TensorSpec
from cspprof.ops import Facts, Spec, no_macs, op_rule


def _first(*args: Any, out: Spec, **kwargs: Any) -> int:
    return args[0].numel if args and isinstance(args[0], TensorSpec) else out.numel


def _out(*args: Any, out: Spec, **kwargs: Any) -> int:
    return out.numel


NORMS = (
    "batch_norm layer_norm group_norm instance_norm rms_norm local_response_norm native_batch_norm native_layer_norm "
    "native_group_norm _native_batch_norm_legit _native_batch_norm_legit_no_training _batch_norm_with_update "
    "_fused_rms_norm"
)
QUANTISED_NORMS = (
    "batch_norm batch_norm1d batch_norm2d batch_norm3d batch_norm_relu batch_norm1d_relu batch_norm2d_relu "
    "batch_norm3d_relu layer_norm group_norm instance_norm"
)


@op_rule(*(f"aten.{name}" for name in NORMS.split()), *(f"quantized.{name}" for name in QUANTISED_NORMS.split()))
def norm(input: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    return Facts(Kind.NORM, elementwise=2 * input.numel, outputs=1)


no_macs(
    Kind.ACTIVATION,
    "relu relu6 leaky_relu silu gelu mish hardswish hardsigmoid hardtanh sigmoid tanh elu selu celu softplus prelu "
    "rrelu log_sigmoid glu hardshrink softshrink threshold tanhshrink",
    _out,
)
no_macs(Kind.ACTIVATION, "relu6 leaky_relu hardswish sigmoid elu celu prelu threshold", _out, "quantized")
no_macs(  # elementwise, though torch does not tag them so
    Kind.ELEMENTWISE,
    "floor_divide rsub complex polar linalg_cross renorm embedding_renorm_ isin _weight_norm_interface _weight_norm "
    "quantize_per_tensor quantize_per_tensor_dynamic quantize_per_channel dequantize fake_quantize_per_tensor_affine "
    "fake_quantize_per_channel_affine fake_quantize_per_tensor_affine_cachemask "
    "fake_quantize_per_channel_affine_cachemask _fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
    _out,
)
no_macs(
    Kind.ELEMENTWISE,
    "add add_relu add_scalar add_scalar_relu mul mul_relu mul_scalar mul_scalar_relu clamp",
    _out,
    "quantized",
)
no_macs(
    Kind.ELEMENTWISE,
    "quantize_per_tensor quantize_per_channel quantize_per_token dequantize_per_tensor dequantize_per_channel "
    "dequantize_per_token",
    _out,
    "quantized_decomposed",
)
no_macs(Kind.SOFTMAX, "softmax log_softmax _softmax _log_softmax _safe_softmax softmin", _out)
no_macs(Kind.SOFTMAX, "softmax", _out, "quantized")
no_macs(
    Kind.REDUCTION,
    "sum prod amax amin max min aminmax argmax argmin any all std var std_mean var_mean norm cumsum cumprod cummax "
    "cummin logsumexp linalg_vector_norm nansum count_nonzero median nanmedian mode kthvalue logcumsumexp trace dist "
    "histc histogram bincount _histogramdd_bin_edges _histogramdd_from_bin_cts _histogramdd_from_bin_tensors "
    "segment_reduce hash_tensor unfold_backward cross_entropy_loss nll_loss nll_loss_forward nll_loss2d_forward "
    "_ctc_loss mse_loss huber_loss smooth_l1_loss soft_margin_loss binary_cross_entropy "
    "binary_cross_entropy_with_logits multi_margin_loss multilabel_margin_loss_forward",
    _first,
)
no_macs(
    Kind.REDUCTION,
    "choose_qparams choose_qparams_symmetric choose_qparams_per_token choose_qparams_per_token_asymmetric",
    _first,
    "quantized_decomposed",
)
no_macs(
    Kind.RESIZE,
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d "
    "_upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d "
    "_upsample_bilinear2d_aa _upsample_bicubic2d_aa _upsample_lanczos2d_aa grid_sampler grid_sampler_2d "
    "grid_sampler_3d",
    _out,
)
no_macs(Kind.RESIZE, "roi_align roi_pool ps_roi_align ps_roi_pool", _out, "torchvision")
