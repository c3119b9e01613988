"""Gradients of operations, computed in a forward that takes a gradient: `torch.autograd.grad`, `backward()`.

The gradient of a convolution or product for one of its two factors has the same MACs as the operation itself. An
`output_mask` says which gradients are computed. The gradients of linear layers and products arrive as `mm` and `bmm`,
which have rules of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from cspprof.core import formulas as f
from cspprof.core.kinds import Kind
from cspprof.core.tensors import TensorSpec
from cspprof.ops.attention import Values, packed_pairs
from cspprof.ops.op_rules import Facts, Ints, Spec, op_rule, register_without_macs

# -- convolution ------------------------------------------------------------------------------------


@op_rule("aten.convolution_backward", "aten.convolution_backward_overrideable")
def convolution_backward(
    grad_output: Spec, input: Spec, weight: Spec, bias_sizes: Any, stride: Ints, padding: Ints, dilation: Ints,
    transposed: bool, output_padding: Ints, groups: int, output_mask: Sequence[bool], *, out: Spec,
) -> Facts:  # fmt: skip
    """The gradients for the input and for the weight. That for the bias is a sum."""
    if transposed:
        macs = f.conv_transpose_macs(weight.shape, input.shape)
    else:
        macs = f.conv_macs(weight.shape, grad_output.shape)
    for_input, for_weight, for_bias = output_mask
    return Facts(Kind.GRADIENT, macs * (for_input + for_weight), elementwise=grad_output.numel * for_bias)


@op_rule("torchvision._deform_conv2d_backward")
def deform_conv2d_backward(
    grad: Spec, input: Spec, weight: Spec, offset: Spec, mask: Spec, bias: Spec, stride_h: int, stride_w: int,
    pad_h: int, pad_w: int, dilation_h: int, dilation_w: int, groups: int, *args: Any, out: Spec,
) -> Facts:  # fmt: skip
    """The two products: for the sampled input and for the weight. Sampling is not counted as MACs."""
    return Facts(Kind.GRADIENT, 2 * f.conv_macs(weight.shape, grad.shape))


# -- products ---------------------------------------------------------------------------------------


@op_rule("aten.linear_backward", "aten.mkldnn_linear_backward")
def linear_backward(input: Spec, grad_output: Spec, weight: Spec, output_mask: Sequence[bool], *, out: Spec) -> Facts:
    for_input, for_weight, for_bias = output_mask
    macs = grad_output.numel * weight.shape[1]
    return Facts(Kind.GRADIENT, macs * (for_input + for_weight), elementwise=grad_output.numel * for_bias)


@op_rule("aten.matmul_backward")
def matmul_backward(grad: Spec, left: Spec, right: Spec, mask: Sequence[bool], *, out: Spec) -> Facts:
    return Facts(Kind.GRADIENT, f.matmul_macs(left.shape, grad.shape) * sum(mask))


@op_rule("aten._cdist_backward", "aten._pdist_backward")
def distance_backward(grad: Spec, left: Spec, *args: Any, out: Spec) -> Facts:
    """For each pair and coordinate one MAC: the scaled difference is added to the gradient."""
    distances = next((a for a in reversed(args) if isinstance(a, TensorSpec)), grad)
    return Facts(Kind.GRADIENT, distances.numel * left.shape[-1], elementwise=distances.numel * left.shape[-1])


# -- attention --------------------------------------------------------------------------------------


def _attention_backward(pairs: int, size: int, value_size: int) -> Facts:
    """Five products for each pair of a query and a key: the scores again, and the gradients of value, scores, query and
    key."""
    return Facts(Kind.GRADIENT, pairs * (3 * size + 2 * value_size), elementwise=2 * pairs)


BACKENDS = "flash_attention flash_attention_for_cpu efficient_attention cudnn_attention fused_attention_overrideable"


@op_rule(*(f"aten._scaled_dot_product_{name}_backward" for name in BACKENDS.split()))
def attention_backward(grad: Spec, query: Spec, key: Spec, value: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """Query (…, H, L, E), key (…, S, E), value (…, S, Ev). The kernel does not keep the scores and computes them a
    second time."""
    return _attention_backward(prod(query.shape[:-1]) * key.shape[-2], query.shape[-1], value.shape[-1])


@op_rule("aten._flash_attention_backward", "aten._cudnn_attention_backward", values=("cum_seq_q", "cum_seq_k"))
@op_rule("aten._efficient_attention_backward", values=("cu_seqlens_q", "cu_seqlens_k"))
@op_rule("torch_attn._varlen_attn_backward", values=("cu_seq_q", "cu_seq_k"))
def packed_attention_backward(
    grad: Spec, query: Spec, key: Spec, value: Spec, *args: Any, out: Spec, values: Values, **kwargs: Any
) -> Facts:
    pairs = packed_pairs(query, key, (*values, ()))
    if pairs is None:
        return Facts(Kind.UNKNOWN, None)
    return _attention_backward(pairs * query.shape[-2], query.shape[-1], value.shape[-1])


# -- recurrent layers -------------------------------------------------------------------------------


@op_rule("aten.mkldnn_rnn_layer_backward")
def recurrent_backward(input: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """Each of the two weight matrices gives a gradient for its input and one for itself, at every step."""
    matrices = [a for a in args[:4] if isinstance(a, TensorSpec) and len(a.shape) == 2]
    steps = prod(input.shape[:-1])
    rows = sum(m.shape[0] for m in matrices)
    return Facts(Kind.GRADIENT, 2 * steps * sum(m.numel for m in matrices), elementwise=rows * steps)


# -- without MACs -----------------------------------------------------------------------------------


def _first_gradient(*args: Any, out: Spec, **kwargs: Any) -> int:
    """One scalar operation for each element of the larger of the incoming and the first outgoing gradient."""
    first = next((a for a in args if isinstance(a, TensorSpec)), out)
    return max(first.numel, out.numel)


register_without_macs(  # norms, softmax, pooling, resizing, padding, activations, losses, lookups
    Kind.GRADIENT,
    "native_batch_norm_backward batch_norm_backward batch_norm_backward_elemt batch_norm_backward_reduce "
    "cudnn_batch_norm_backward miopen_batch_norm_backward native_layer_norm_backward native_group_norm_backward "
    "_fused_rms_norm_backward _weight_norm_interface_backward _softmax_backward_data _log_softmax_backward_data "
    "_masked_softmax_backward _adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward avg_pool2d_backward "
    "avg_pool3d_backward adaptive_avg_pool3d_backward adaptive_max_pool2d_backward adaptive_max_pool3d_backward "
    "fractional_max_pool2d_backward fractional_max_pool3d_backward max_pool2d_with_indices_backward "
    "max_pool3d_with_indices_backward mkldnn_adaptive_avg_pool2d_backward mkldnn_max_pool2d_backward "
    "mkldnn_max_pool3d_backward max_pool2d_backward upsample_nearest1d_backward upsample_nearest2d_backward "
    "upsample_nearest3d_backward _upsample_nearest_exact1d_backward _upsample_nearest_exact2d_backward "
    "_upsample_nearest_exact3d_backward upsample_linear1d_backward upsample_bilinear2d_backward "
    "upsample_bicubic2d_backward upsample_trilinear3d_backward _upsample_bilinear2d_aa_backward "
    "_upsample_bicubic2d_aa_backward _upsample_lanczos2d_aa_backward grid_sampler_2d_backward "
    "grid_sampler_3d_backward cudnn_grid_sampler_backward cudnn_affine_grid_generator_backward "
    "_grid_sampler_2d_cpu_fallback_backward reflection_pad1d_backward reflection_pad2d_backward "
    "reflection_pad3d_backward replication_pad1d_backward replication_pad2d_backward replication_pad3d_backward "
    "elu_backward glu_backward glu_backward_jvp hardshrink_backward hardsigmoid_backward hardswish_backward "
    "hardtanh_backward leaky_relu_backward log_sigmoid_backward mish_backward silu_backward softplus_backward "
    "softshrink_backward rrelu_with_noise_backward _prelu_kernel_backward threshold_backward gelu_backward "
    "sigmoid_backward tanh_backward logit_backward native_dropout_backward binary_cross_entropy_backward "
    "huber_loss_backward mse_loss_backward smooth_l1_loss_backward soft_margin_loss_backward nll_loss_backward "
    "nll_loss2d_backward multi_margin_loss_backward multilabel_margin_loss_backward _ctc_loss_backward "
    "embedding_dense_backward _embedding_bag_backward _embedding_bag_dense_backward "
    "_embedding_bag_per_sample_weights_backward _segment_reduce_backward _thnn_fused_lstm_cell_backward_impl "
    "_thnn_fused_gru_cell_backward _fake_quantize_learnable_per_channel_affine_backward "
    "_fake_quantize_learnable_per_tensor_affine_backward",
    _first_gradient,
)
register_without_macs(  # the gradient of a selection: zeros, and a copy
    Kind.DATA, "slice_backward select_backward diagonal_backward masked_scatter_backward"
)
register_without_macs(
    Kind.GRADIENT,
    "_roi_align_backward _roi_pool_backward _ps_roi_align_backward _ps_roi_pool_backward",
    _first_gradient,
    "torchvision",
)
