"""The sections `[maxpool]`, `[local_avgpool]` and `[avgpool]`."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from cspprof.core.record import Kind, TensorSpec
from cspprof.ops import Facts, op_rule
from cspprof.ops.pooling import pool_facts
from cspprof.sources.darknet.convolution import antialiasing
from cspprof.sources.darknet.functions import Function, Tensor, custom_op
from cspprof.sources.darknet.layers import BuiltLayer, LayerContext, layer, sequential


def _padded(x: Tensor, size: int, stride: list[int], padding: int, value: float) -> Tensor:
    """`x` with every element that a window reads: `padding` // 2 rows and columns before the map, the rest after it."""
    before = padding // 2
    after = []
    for n, step in zip(x.shape[2:], stride, strict=True):
        windows = (n + padding - size) // step + 1
        after.append(max((windows - 1) * step + size - n - before, 0))
    return F.pad(x, (before, after[1], before, after[0]), value=value)


@custom_op("max_pool")
def max_pool(x: Tensor, size: int, stride: list[int], padding: int) -> Tensor:
    """Max pooling with any sum of paddings: (N, c, H, W) -> (N, c, ⌊(H + padding − size)/stride⌋ + 1, …).

    Half of the padding, rounded down, is before the map.
    """
    return F.max_pool2d(_padded(x, size, stride, padding, float("-inf")), size, stride).clone()


@op_rule("darknet.max_pool")
def _max_pool_cost(x: TensorSpec, size: int, *args: Any, out: TensorSpec) -> Facts:
    return pool_facts(Kind.MAX_POOL, (size, size), out)


@custom_op("avg_pool")
def avg_pool(x: Tensor, size: int, stride: list[int], padding: int) -> Tensor:
    """Average pooling, with the shapes of `max_pool`. The padding is left out of the means."""
    sums = F.avg_pool2d(_padded(x, size, stride, padding, 0.0), size, stride)
    counts = F.avg_pool2d(_padded(torch.ones_like(x), size, stride, padding, 0.0), size, stride)
    return sums / counts


@op_rule("darknet.avg_pool")
def _avg_pool_cost(x: TensorSpec, size: int, *args: Any, out: TensorSpec) -> Facts:
    return pool_facts(Kind.AVG_POOL, (size, size), out)


@custom_op("max_pool_depth")
def max_pool_depth(x: Tensor, out_channels: int, size: int) -> Tensor:
    """Maxima over channels: (N, c, H, W) -> (N, out_channels, H, W).

    Output channel g is the maximum of the input channels k ≡ g (mod out_channels). Only Darknet's count uses `size`.
    """
    missing = -x.shape[1] % out_channels
    x = F.pad(x, (0, 0, 0, 0, 0, missing), value=float("-inf"))
    grouped: Tensor = x.unflatten(1, (-1, out_channels))
    return grouped.amax(1)


@op_rule("darknet.max_pool_depth")
def _max_pool_depth_cost(x: TensorSpec, out_channels: int, size: int, *, out: TensorSpec) -> Facts:
    """Darknet counts `size`² for every input element, though the window is one position wide."""
    return Facts(Kind.MAX_POOL, 0, size * size * x.numel)


class Pool(nn.Module):
    """Max or average pooling; the paddings before and after the map may differ by one."""

    def __init__(self, average: bool, size: int, strides: tuple[int, int], padding: int) -> None:
        super().__init__()
        self.average, self.size, self.strides, self.padding = average, size, strides, padding
        self.ceil_mode = odd = padding % 2 == 1
        # torch pads both sides equally. With stride 2, its ceil mode adds the one position of an odd padding.
        equal = not odd or (strides == (2, 2) and padding // 2 < size - 1)
        self.uses_torch_pool = equal and padding // 2 <= size // 2

    def forward(self, x: Tensor) -> Tensor:
        if not self.uses_torch_pool:
            op = avg_pool if self.average else max_pool
            return op(x, self.size, list(self.strides), self.padding)
        if self.average:
            return F.avg_pool2d(x, self.size, self.strides, self.padding // 2, self.ceil_mode, count_include_pad=False)
        return F.max_pool2d(x, self.size, self.strides, self.padding // 2, ceil_mode=self.ceil_mode)

    def extra_repr(self) -> str:
        return f"{'average' if self.average else 'max'}, {self.size}, stride {self.strides}, padding {self.padding}"


def _window_size(ctx: LayerContext) -> int:
    return ctx.section.integer("size", ctx.section.integer("stride", 1), minimum=1)


@layer("maxpool", "max")
def maxpool(ctx: LayerContext) -> BuiltLayer:
    size = _window_size(ctx)
    if ctx.section.flag("maxpool_depth"):
        channels = ctx.section.integer("out_channels", 1, minimum=1)
        module = Function(f"to {channels} channels", lambda x: max_pool_depth(x, channels, size))
        return BuiltLayer(module, (channels, *ctx.shape[1:]))
    strides, padding = ctx.strides(), ctx.section.integer("padding", size - 1, minimum=0)
    pool_strides = (1, 1) if ctx.section.flag("antialiasing") else strides
    pool = Pool(False, size, pool_strides, padding)
    blur, out = antialiasing(ctx, strides, ctx.output_size(size, padding, pool_strides))
    return BuiltLayer(pool if blur is None else sequential(pool=pool, blur=blur), (ctx.shape[0], *out))


@layer("local_avgpool", "local_avg")
def local_avgpool(ctx: LayerContext) -> BuiltLayer:
    size, strides = _window_size(ctx), ctx.strides()
    padding = ctx.section.integer("padding", size - 1, minimum=0)
    return BuiltLayer(Pool(True, size, strides, padding), (ctx.shape[0], *ctx.output_size(size, padding, strides)))


@layer("avgpool", "avg")
def avgpool(ctx: LayerContext) -> BuiltLayer:
    return BuiltLayer(nn.AdaptiveAvgPool2d(1), (ctx.shape[0], 1, 1))
