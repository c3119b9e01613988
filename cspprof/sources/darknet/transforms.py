"""The sections that transform the previous feature map without a MAC: resizing, rearranging, normalization, softmax,
activation, and those that only matter in training."""

from __future__ import annotations

from math import prod
from typing import Any

import torch.nn.functional as F
from torch import nn

from cspprof.core.record import Kind, TensorSpec
from cspprof.ops import Facts, op_rule
from cspprof.sources.darknet.functions import Function, Tensor, custom_op
from cspprof.sources.darknet.layers import BuiltLayer, LayerContext, layer, shape_text


@layer("upsample")
def upsample(ctx: LayerContext) -> BuiltLayer:
    """A positive stride repeats elements; a negative one adds the elements of each window."""
    s = ctx.section
    stride, scale = s.integer("stride", 2), s.real("scale", 1.0)
    c, h, w = ctx.shape
    if stride == 0 or (stride < 0 and min(h, w) // -stride < 1):
        raise s.error(f"[upsample] stride={stride}", "Write 2 to double the size, -2 to halve it.", "stride")
    if stride > 0:
        module = Function(f"×{stride}", lambda x: _scaled(F.interpolate(x, scale_factor=float(stride)), scale))
        return BuiltLayer(module, (c, h * stride, w * stride))
    window = -stride
    module = Function(f"÷{window}", lambda x: _scaled(_window_sums(x, window), scale))
    return BuiltLayer(module, (c, h // window, w // window))


def _window_sums(x: Tensor, size: int) -> Tensor:
    n, c, h, w = x.shape
    x = x[:, :, : h // size * size, : w // size * size]
    return x.reshape(n, c, h // size, size, w // size, size).sum((3, 5))


def _scaled(x: Tensor, scale: float) -> Tensor:
    return x if scale == 1.0 else x * scale


def space_to_depth(x: Tensor, s: int) -> Tensor:
    """(N, c, h, w) -> (N, s²·c, h/s, w/s)."""
    n, c, h, w = x.shape
    return x.view(n, c, h // s, s, w // s, s).permute(0, 3, 5, 1, 2, 4).reshape(n, c * s * s, h // s, w // s)


def depth_to_space(x: Tensor, s: int) -> Tensor:
    """(N, c, h, w) -> (N, c/s², h·s, w·s)."""
    n, c, h, w = x.shape
    return x.view(n, s, s, c // (s * s), h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // (s * s), h * s, w * s)


def original_reorg(x: Tensor, s: int) -> Tensor:
    """The first `[reorg]` of Darknet: `space_to_depth` of the map read as if it were (c/s², h·s, w·s)."""
    n, c, h, w = x.shape
    return space_to_depth(x.reshape(n, c // (s * s), h * s, w * s), s).reshape(n, c * s * s, h // s, w // s)


@layer("reorg", "reorg3d")
def reorg(ctx: LayerContext) -> BuiltLayer:
    s = ctx.section
    stride = s.integer("stride", 1, minimum=1)
    c, h, w = ctx.shape
    area = stride * stride
    if s.flag("reverse"):
        if c % area:
            raise s.error(
                f"[{s.type}] stride² = {area} does not divide the {c} channels before it", "Change stride.", "stride"
            )
        module = Function("to space", lambda x: depth_to_space(x, stride))
        return BuiltLayer(module, (c // area, h * stride, w * stride))
    if h % stride or w % stride:
        raise s.error(
            f"[{s.type}] stride {stride} does not divide a map of {shape_text(ctx.shape)}", "Change stride.", "stride"
        )
    reorder = original_reorg if s.type == "reorg" and c % area == 0 else space_to_depth
    module = Function("to depth", lambda x: reorder(x, stride))
    return BuiltLayer(module, (c * area, h // stride, w // stride))


@layer("crop")
def crop(ctx: LayerContext) -> BuiltLayer:
    """The center of the map. Unless `noadjust`, values from 0 to 1 become values from −1 to 1."""
    s = ctx.section
    height, width = s.integer("crop_height", 1, minimum=1), s.integer("crop_width", 1, minimum=1)
    c, h, w = ctx.shape
    if height > h or width > w:
        raise s.error(f"[crop] cannot cut {height}×{width} out of {shape_text(ctx.shape)}", "Give a larger image.")
    top, left, adjust = (h - height) // 2, (w - width) // 2, not s.flag("noadjust")

    def center(x: Tensor) -> Tensor:
        x = x[:, :, top : top + height, left : left + width]
        return x * 2 - 1 if adjust else x

    return BuiltLayer(Function(f"{height}×{width}", center), (c, height, width))


@layer("softmax", "soft")
def softmax(ctx: LayerContext) -> BuiltLayer:
    s = ctx.section
    groups, temperature = s.integer("groups", 1, minimum=1), s.real("temperature", 1.0)
    if not temperature:
        raise s.error("[softmax] temperature=0 divides by zero", "Write temperature=1", "temperature")
    if s.flag("spatial"):
        return BuiltLayer(Function("over channels", lambda x: _scaled(x, 1 / temperature).softmax(1)), ctx.shape)
    if prod(ctx.shape) % groups:
        raise s.error(f"[softmax] {groups} groups do not divide {prod(ctx.shape)} values", "Change groups.", "groups")

    def over_groups(x: Tensor) -> Tensor:
        rows = _scaled(x, 1 / temperature).reshape(x.shape[0], groups, -1)
        return rows.softmax(-1).view(x.shape)

    return BuiltLayer(Function(f"{groups} groups", over_groups), ctx.shape)


@layer("batchnorm")
def batchnorm(ctx: LayerContext) -> BuiltLayer:
    return BuiltLayer(nn.BatchNorm2d(ctx.shape[0]), ctx.shape)


@custom_op("response_norm")
def response_norm(x: Tensor, size: int, alpha: float, beta: float, kappa: float) -> Tensor:
    """Local response normalization over channels (Krizhevsky et al. 2012). The shape stays."""
    return F.local_response_norm(x, size, alpha, beta, kappa)


@op_rule("darknet.response_norm")
def _response_norm_cost(x: TensorSpec, *args: Any, out: TensorSpec) -> Facts:
    return Facts(Kind.NORM, elementwise=2 * x.numel)


@layer("normalization", "lrn")
def normalization(ctx: LayerContext) -> BuiltLayer:
    s = ctx.section
    size, kappa = s.integer("size", 5, minimum=1), s.real("kappa", 1)
    alpha, beta = s.real("alpha", 1e-4), s.real("beta", 0.75)
    return BuiltLayer(Function("over channels", lambda x: response_norm(x, size, alpha, beta, kappa)), ctx.shape)


@layer("activation")
def activation(ctx: LayerContext) -> BuiltLayer:
    act = ctx.activation("linear")
    if act is None:
        return BuiltLayer(nn.Identity(), ctx.shape)
    return BuiltLayer(Function(ctx.section.text("activation"), lambda x: act(x.clone())), ctx.shape)


@layer("dropout")
def dropout(ctx: LayerContext) -> BuiltLayer:
    return BuiltLayer(nn.Dropout(min(max(ctx.section.real("probability", 0.2), 0.0), 1.0)), ctx.shape)


@layer("cost", "contrastive", "empty", "silence")
def identity(ctx: LayerContext) -> BuiltLayer:
    """These sections only matter in training."""
    return BuiltLayer(nn.Identity(), ctx.shape)
