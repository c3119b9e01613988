"""Convolutions of every rank: plain, transposed, deformable, quantised."""

from __future__ import annotations

from typing import Any

from cspprof.core import formulas as f
from cspprof.core.record import Kind
from cspprof.ops import Facts, Ints, PackedWeights, Spec, op_rule


def _window(weight: Spec, stride: Ints, padding: Ints | str, dilation: Ints, groups: int) -> dict[str, Any]:
    n = len(weight.shape) - 2
    return {
        "kernel": weight.shape[2:],
        "stride": f.pair(stride, n),
        "padding": padding if isinstance(padding, str) else f.pair(padding, n),
        "dilation": f.pair(dilation, n),
        "groups": groups,
    }


@op_rule("aten.conv1d", "aten.conv2d", "aten.conv3d")
def conv(
    input: Spec, weight: Spec, bias: Spec | None = None, stride: Ints = 1, padding: Ints | str = 0,
    dilation: Ints = 1, groups: int = 1, *, out: Spec,
) -> Facts:  # fmt: skip
    attrs = _window(weight, stride, padding, dilation, groups)
    return Facts(Kind.CONV, f.conv_macs(weight.shape, out.shape), attrs=attrs)


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


@op_rule("aten.conv_tbc")
def conv_tbc(input: Spec, weight: Spec, bias: Spec, pad: int = 0, *, out: Spec) -> Facts:
    """Time first, channels last: input (T, N, c_in), weight (kernel, c_in, c_out), out (T', N, c_out)."""
    kernel, c_in, _ = weight.shape
    attrs = {"kernel": (kernel,), "stride": (1,), "padding": (pad,), "dilation": (1,), "groups": 1}
    return Facts(Kind.CONV, kernel * c_in * out.numel, attrs=attrs)


@op_rule("torchvision.deform_conv2d")
def deform_conv2d(
    input: Spec, weight: Spec, offset: Spec, mask: Spec, bias: Spec, stride_h: int, stride_w: int, pad_h: int,
    pad_w: int, dilation_h: int, dilation_w: int, groups: int, *args: Any, out: Spec,
) -> Facts:  # fmt: skip
    """The convolution itself; the samples that it interpolates first are not MACs."""
    attrs = _window(weight, (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), groups)
    return Facts(Kind.CONV, f.conv_macs(weight.shape, out.shape), attrs=attrs)


QUANTISED = (
    "conv1d conv1d_relu conv1d_dynamic conv2d conv2d_relu conv2d_dynamic conv2d_add conv2d_add_relu conv3d "
    "conv3d_relu conv3d_dynamic"
)
QUANTISED_TRANSPOSED = (
    "conv_transpose1d conv_transpose1d_dynamic conv_transpose2d conv_transpose2d_dynamic conv_transpose3d "
    "conv_transpose3d_dynamic"
)


def _packed(args: tuple[Any, ...]) -> tuple[Spec, dict[str, Any]]:
    """The weight and the window of the packed convolution among the arguments."""
    held = next(a for a in args if isinstance(a, PackedWeights))
    weight, attrs = held.tensors[0], held.attrs
    return weight, _window(weight, attrs["stride"], attrs["padding"], attrs["dilation"], attrs["groups"])


@op_rule(*(f"quantized.{name}" for name in QUANTISED.split()))
def quantised_conv(*args: Any, out: Spec, **kwargs: Any) -> Facts:
    """A 1-d convolution is packed as a 2-d one of height 1, which leaves the product as it is."""
    weight, attrs = _packed(args)
    return Facts(Kind.CONV, f.conv_macs(weight.shape, out.shape), attrs=attrs)


@op_rule(*(f"quantized.{name}" for name in QUANTISED_TRANSPOSED.split()))
def quantised_conv_transpose(input: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    weight, attrs = _packed(args)
    return Facts(Kind.CONV_TRANSPOSE, f.conv_transpose_macs(weight.shape, input.shape), attrs=attrs)
