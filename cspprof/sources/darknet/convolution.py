"""The sections `[convolutional]`, `[connected]` and `[local]`, and the blur of `antialiasing`."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from cspprof.core import formulas as f
from cspprof.core.record import Kind, TensorSpec
from cspprof.ops import Facts, op_rule
from cspprof.sources.darknet.functions import Function, Tensor, custom_op
from cspprof.sources.darknet.layers import BuiltLayer, LayerContext, layer, sequential, shape_text


class Conv(nn.Conv2d):
    """A convolution whose output size does not depend on its dilation, as in Darknet."""

    end_padding = 0
    """Rows and columns appended to the map, or removed if negative, to obtain that size."""

    def padded(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, self.end_padding, 0, self.end_padding)) if self.end_padding else x

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self._conv_forward(self.padded(x), self.weight, self.bias)
        return y


def _binarized(weight: Tensor) -> Tensor:
    """Each weight as its sign times the mean magnitude of its filter."""
    scale = weight.abs().mean((1, 2, 3), keepdim=True)
    return torch.where(weight > 0, scale, -scale)


class BinaryConv(Conv):
    """A convolution with binary weights (`binary=1`)."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self._conv_forward(self.padded(x), _binarized(self.weight), self.bias)
        return y


class XnorConv(Conv):
    """A convolution with binary weights and inputs (`xnor=1`)."""

    def forward(self, x: Tensor) -> Tensor:
        padding, dilation = int(self.padding[0]), self.dilation[0]
        y = xnor_conv(self.padded(x), self.weight, list(self.stride), padding, dilation)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)


@custom_op("xnor_conv")
def xnor_conv(x: Tensor, weight: Tensor, stride: list[int], padding: int, dilation: int) -> Tensor:
    """A convolution of signs: (N, c_in, H, W), (c_out, c_in, k, k) -> (N, c_out, H′, W′).

    The result of each filter is scaled by the mean magnitude of its weights (XNOR-Net, Rastegari et al. 2016).
    """
    signs = torch.where(x > 0, 1.0, -1.0).to(x.dtype)
    return F.conv2d(signs, _binarized(weight), None, stride, padding, dilation)


@op_rule("darknet.xnor_conv")
def _xnor_conv_cost(
    x: TensorSpec, weight: TensorSpec, stride: Any, padding: int, dilation: int, *, out: TensorSpec
) -> Facts:
    """A one-bit MAC counts as one MAC."""
    attrs = {
        "kernel": weight.shape[2:], "stride": tuple(stride), "padding": (padding, padding),
        "dilation": (dilation, dilation), "groups": 1, "xnor": True,
    }  # fmt: skip
    return Facts(Kind.CONV, f.conv_macs(weight.shape, out.shape), attrs=attrs)


@custom_op("blur")
def blur(x: Tensor, size: int, stride: list[int]) -> Tensor:
    """A low-pass filter before subsampling (Zhang 2019): a fixed depthwise convolution with the 2×2 mean or the 3×3
    binomial kernel."""
    line = x.new_ones(2) / 2 if size == 2 else x.new_tensor([0.25, 0.5, 0.25])
    weight = torch.outer(line, line).expand(x.shape[1], 1, size, size)
    return F.conv2d(x, weight, None, stride, size // 2 if size == 3 else 0, groups=x.shape[1])


@op_rule("darknet.blur")
def _blur_cost(x: TensorSpec, size: int, stride: Any, *, out: TensorSpec) -> Facts:
    """The MACs of a depthwise convolution. Darknet leaves them out of its own total."""
    attrs = {"kernel": (size, size), "stride": tuple(stride), "groups": x.shape[1], "blur": True}
    return Facts(Kind.CONV, size * size * out.numel, attrs=attrs)


def antialiasing(
    ctx: LayerContext, strides: tuple[int, int], size: tuple[int, int]
) -> tuple[nn.Module | None, tuple[int, int]]:
    """The blur after a layer with the option `antialiasing`, and its output size for a layer output of this `size`.

    Such a layer runs with stride 1, and the blur has the strides. Without the option: None, and the size unchanged.
    """
    mode = ctx.section.integer("antialiasing", 0)
    if not mode:
        return None, size
    kernel, padding = (2, 0) if mode == 2 else (3, 1)
    module = Function(f"{kernel}×{kernel}, stride {strides}", lambda x: blur(x, kernel, list(strides)))
    height, width = ((n + 2 * padding - kernel) // s + 1 for n, s in zip(size, strides, strict=True))
    return module, (height, width)


@layer("convolutional", "conv")
def convolutional(ctx: LayerContext) -> BuiltLayer:
    s = ctx.section
    if not s.has("filters"):
        ctx.notes.append(f"line {s.line}: [{s.type}] has no filters, so it has 1, as in Darknet")
    filters, size = s.integer("filters", 1, minimum=1), s.integer("size", 1, minimum=1)
    strides = ctx.strides()
    padding = size // 2 if s.flag("pad") else s.integer("padding", 0, minimum=0)
    dilation = 1 if size == 1 else s.integer("dilation", 1, minimum=1)
    groups = 1 if s.flag("xnor") else max(s.integer("groups", 1), 1)
    for name, n in (("the map before it has", ctx.shape[0]), ("filters is", filters)):
        if n % groups:
            raise s.error(
                f"[{s.type}] {name} {n} channels, which {groups} groups do not divide", "Change groups.", "groups"
            )
    kind = XnorConv if s.flag("xnor") else BinaryConv if s.flag("binary") else Conv
    conv_strides = (1, 1) if s.flag("antialiasing") else strides
    window = ctx.output_size(size, 2 * padding, conv_strides)
    ctx.check_size("its weight", filters, ctx.shape[0] // groups, size, size)
    ctx.check_size("its padded map", ctx.shape[0], *(n + 2 * (padding + 1) * dilation for n in ctx.shape[1:]))
    normed = s.flag("batch_normalize") or s.flag("cbn")
    conv = kind(ctx.shape[0], filters, size, conv_strides, padding * dilation, dilation, groups, bias=not normed)
    conv.end_padding = (dilation - 1) * (size - 1 - 2 * padding)
    norm = nn.BatchNorm2d(filters) if normed else None
    if s.has("share_index"):
        _share_weights(ctx, conv, norm)
    act = ctx.activation("logistic")
    blur, out = antialiasing(ctx, strides, window)
    return BuiltLayer(sequential(conv=conv, norm=norm, act=act, blur=blur), (filters, *out))


def _share_weights(ctx: LayerContext, conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> None:
    """Give the layer the weights of the convolutional layer `share_index`; its strides and dilation stay its own."""
    index = ctx.source_layer("share_index")
    module = ctx.built[index].module
    other = getattr(module, "conv", None)
    if not isinstance(other, nn.Conv2d) or other.weight.shape != conv.weight.shape:
        raise ctx.section.error(
            f"share_index: layer {index} has no weights of shape {shape_text(conv.weight.shape)}",
            "Name a convolutional layer with the same filters, size and channels.",
            "share_index",
        )
    conv.weight = other.weight
    if conv.bias is not None and other.bias is not None:
        conv.bias = other.bias
    other_norm = getattr(module, "norm", None)
    if norm is not None and other_norm is not None:
        norm.weight, norm.bias = other_norm.weight, other_norm.bias
        norm.running_mean, norm.running_var = other_norm.running_mean, other_norm.running_var


class Connected(nn.Module):
    """A fully connected layer: (N, c, h, w) -> (N, n, 1, 1)."""

    def __init__(self, inputs: int, outputs: int, normed: bool, act: nn.Module | None) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=not normed)
        self.norm = nn.BatchNorm1d(outputs) if normed else None
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.flatten(1))
        y = y if self.norm is None else self.norm(y)
        y = y if self.act is None else self.act(y)
        return y[:, :, None, None]


@layer("connected", "conn")
def connected(ctx: LayerContext) -> BuiltLayer:
    c, h, w = ctx.shape
    outputs = ctx.section.integer("output", 1, minimum=1)
    ctx.check_size("its weight", outputs, c * h * w)
    module = Connected(c * h * w, outputs, ctx.section.flag("batch_normalize"), ctx.activation("logistic"))
    return BuiltLayer(module, (outputs, 1, 1))


class LocallyConnected(nn.Module):
    """A convolution with its own weights at every output position: (N, c_in, H, W) -> (N, c_out, H′, W′)."""

    def __init__(self, c_in: int, filters: int, size: int, stride: int, padding: int, out: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.stride, self.padding, self.out = size, stride, padding, out
        self.weight = nn.Parameter(torch.randn(out[0] * out[1], filters, c_in * size * size) * 0.01)
        self.bias = nn.Parameter(torch.zeros(filters, *out))

    def forward(self, x: Tensor) -> Tensor:
        columns = F.unfold(x, self.size, padding=self.padding, stride=self.stride)  # (N, c_in·k², positions)
        y: Tensor = torch.bmm(self.weight, columns.permute(2, 1, 0))  # (positions, filters, N)
        y = y.permute(2, 1, 0).unflatten(2, self.out)
        return y + self.bias


@layer("local")
def local(ctx: LayerContext) -> BuiltLayer:
    s = ctx.section
    filters, size, stride = s.integer("filters", 1, minimum=1), s.integer("size", 1, minimum=1), ctx.strides()[0]
    padding = size // 2 if s.flag("pad") else 0
    out = ctx.output_size(size, 2 * padding, (stride, stride))
    ctx.check_size("its weight", *out, filters, ctx.shape[0] * size * size)
    local = LocallyConnected(ctx.shape[0], filters, size, stride, padding, out)
    return BuiltLayer(sequential(local=local, act=ctx.activation("logistic")), (filters, *out))
