"""Convolutions of every rank: plain, transposed, deformable, quantized."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from cspprof.core import formulas as f
from cspprof.core.backward import Backward
from cspprof.core.kinds import Kind
from cspprof.core.tensors import TensorMeta
from cspprof.ops.layouts import all_contiguous_or_channel_slices, contiguous_output
from cspprof.ops.op_rules import (
    Facts,
    Ints,
    Operand,
    PackedWeights,
    Spec,
    backward,
    backward_rule,
    kept,
    kept_bytes,
    op_rule,
    output_rule,
)


def _window(weight: Spec, stride: Ints, padding: Ints | str, dilation: Ints, groups: int) -> dict[str, Any]:
    n = len(weight.shape) - 2
    return {
        "kernel": weight.shape[2:],
        "stride": f.pair(stride, n),
        "padding": padding if isinstance(padding, str) else f.pair(padding, n),
        "dilation": f.pair(dilation, n),
        "groups": groups,
    }


# -- plain ------------------------------------------------------------------------------------------


@op_rule("aten.conv1d", "aten.conv2d", "aten.conv3d")
def conv(
    input: Spec, weight: Spec, bias: Spec | None = None, stride: Ints = 1, padding: Ints | str = 0,
    dilation: Ints = 1, groups: int = 1, *, out: Spec,
) -> Facts:  # fmt: skip
    attrs = _window(weight, stride, padding, dilation, groups)
    return Facts(Kind.CONV, f.conv_macs(weight.shape, out.shape), attrs=attrs)


@output_rule("aten.conv2d")
def conv2d_output(
    input: TensorMeta, weight: TensorMeta, bias: TensorMeta | None = None, stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0), dilation: Sequence[int] = (1, 1), groups: int = 1,
) -> TensorMeta | None:  # fmt: skip
    if not len(input.shape) == len(weight.shape) == 4 or isinstance(padding, str):
        return None
    if not all_contiguous_or_channel_slices(input, weight, bias):
        return None
    n, channels, h, w = input.shape
    c_out, c_in, k_h, k_w = weight.shape
    if not channels or channels != c_in * groups or c_out % groups or (bias is not None and bias.shape != (c_out,)):
        return None
    if channels == 1 and (k_h == 1 or k_w == 1):  # the weight is both contiguous and channels-last
        return None
    (s_h, s_w), (p_h, p_w), (d_h, d_w) = f.pair(stride), f.pair(padding), f.pair(dilation)
    if s_h < 1 or s_w < 1:
        return None
    h, w = f.window_size(h, k_h, s_h, p_h, d_h), f.window_size(w, k_w, s_w, p_w, d_w)
    return contiguous_output((n, c_out, h, w), input) if h > 0 and w > 0 else None


# -- transposed -------------------------------------------------------------------------------------


@op_rule("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")
def conv_transpose(
    input: Spec, weight: Spec, bias: Spec | None = None, stride: Ints = 1, padding: Ints = 0,
    output_padding: Ints = 0, groups: int = 1, dilation: Ints = 1, *, out: Spec,
) -> Facts:  # fmt: skip
    attrs = _window(weight, stride, padding, dilation, groups)
    return Facts(Kind.CONV_TRANSPOSE, f.conv_transpose_macs(weight.shape, input.shape), attrs=attrs)


@op_rule("aten.convolution", "aten._convolution")
def convolution(
    input: Spec, weight: Spec, bias: Spec | None, stride: Ints, padding: Ints, dilation: Ints,
    transposed: bool, output_padding: Ints, groups: int, *flags: bool, out: Spec,
) -> Facts:  # fmt: skip
    if transposed:
        return conv_transpose(input, weight, bias, stride, padding, output_padding, groups, dilation, out=out)
    return conv(input, weight, bias, stride, padding, dilation, groups, out=out)


# -- backward ---------------------------------------------------------------------------------------


def _conv_gradients(input: Operand, weight: Operand, macs: int) -> Backward:
    """The gradients for the input and for the weight have the MACs of the convolution; that for the bias is a sum.
    Autograd keeps input and weight, whichever gradient it computes."""
    return backward(kept(input), kept(weight), products=[(macs, input), (macs, weight)])


@backward_rule("aten.conv1d", "aten.conv2d", "aten.conv3d")
def conv_gradients(
    input: Operand, weight: Operand, bias: Any = None, stride: Ints = 1, padding: Ints | str = 0, dilation: Ints = 1,
    *args: Any, out: Operand,
) -> Backward:  # fmt: skip
    """An input that must be padded more on one side is padded first, and autograd keeps the result."""
    found = _conv_gradients(input, weight, f.conv_macs(weight.shape, out.shape))
    kernel = weight.shape[2:]
    total = [d * (k - 1) for d, k in zip(f.pair(dilation, len(kernel)), kernel, strict=True)]
    if padding != "same" or not any(n % 2 for n in total):
        return found
    sizes = input.shape[-len(kernel) :]
    padded = prod(n + t % 2 for n, t in zip(sizes, total, strict=True)) * (input.nbytes // max(prod(sizes), 1))
    return backward(kept_bytes(padded), kept(weight))._replace(macs=found.macs)


@backward_rule("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")
def conv_transpose_gradients(input: Operand, weight: Operand, *args: Any, out: Operand) -> Backward:
    return _conv_gradients(input, weight, f.conv_transpose_macs(weight.shape, input.shape))


@backward_rule("aten.convolution", "aten._convolution")
def convolution_gradients(
    input: Operand, weight: Operand, bias: Any, stride: Ints, padding: Ints, dilation: Ints, transposed: bool,
    *args: Any, out: Operand,
) -> Backward:  # fmt: skip
    if transposed:
        return conv_transpose_gradients(input, weight, out=out)
    return _conv_gradients(input, weight, f.conv_macs(weight.shape, out.shape))


# -- other layouts and kernels ----------------------------------------------------------------------


@op_rule("aten.conv_tbc")
def conv_tbc(input: Spec, weight: Spec, bias: Spec, pad: int = 0, *, out: Spec) -> Facts:
    """Time first, channels last: input (T, N, c_in), weight (kernel, c_in, c_out), out (T', N, c_out)."""
    kernel, c_in, _ = weight.shape
    attrs = {"kernel": (kernel,), "stride": (1,), "padding": (pad,), "dilation": (1,), "groups": 1}
    return Facts(Kind.CONV, kernel * c_in * out.numel, attrs=attrs)


@op_rule("aten.mkldnn_convolution")
def mkldnn_convolution(
    input: Spec, weight: Spec, bias: Spec | None, padding: Ints, stride: Ints, dilation: Ints, groups: int, *, out: Spec
) -> Facts:
    return conv(input, weight, bias, stride, padding, dilation, groups, out=out)


@op_rule("torchvision.deform_conv2d")
def deform_conv2d(
    input: Spec, weight: Spec, offset: Spec, mask: Spec, bias: Spec, stride_h: int, stride_w: int, pad_h: int,
    pad_w: int, dilation_h: int, dilation_w: int, groups: int, *args: Any, out: Spec,
) -> Facts:  # fmt: skip
    """The convolution alone: the bilinear sampling of its input is not counted as MACs."""
    attrs = _window(weight, (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), groups)
    return Facts(Kind.CONV, f.conv_macs(weight.shape, out.shape), attrs=attrs)


# -- quantized --------------------------------------------------------------------------------------

QUANTIZED = (
    "conv1d conv1d_relu conv1d_dynamic conv2d conv2d_relu conv2d_dynamic conv2d_add conv2d_add_relu conv3d "
    "conv3d_relu conv3d_dynamic"
)
QUANTIZED_TRANSPOSED = (
    "conv_transpose1d conv_transpose1d_dynamic conv_transpose2d conv_transpose2d_dynamic conv_transpose3d "
    "conv_transpose3d_dynamic"
)


def _unpack(args: tuple[Any, ...]) -> tuple[Spec, dict[str, Any]]:
    """The weight and the window of the packed convolution among the arguments."""
    packed = next(a for a in args if isinstance(a, PackedWeights))
    weight, attrs = packed.tensors[0], packed.attrs
    return weight, _window(weight, attrs["stride"], attrs["padding"], attrs["dilation"], attrs["groups"])


@op_rule(*(f"quantized.{name}" for name in QUANTIZED.split()))
def quantized_conv(*args: Any, out: Spec, **kwargs: Any) -> Facts:
    """Torch packs a 1-d convolution as a 2-d one of height 1, which has the same MACs."""
    weight, attrs = _unpack(args)
    return Facts(Kind.CONV, f.conv_macs(weight.shape, out.shape), attrs=attrs)


@op_rule(*(f"quantized.{name}" for name in QUANTIZED_TRANSPOSED.split()))
def quantized_conv_transpose(input: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    weight, attrs = _unpack(args)
    return Facts(Kind.CONV_TRANSPOSE, f.conv_transpose_macs(weight.shape, input.shape), attrs=attrs)
