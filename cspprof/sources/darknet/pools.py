"""Pooling layers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from cspprof.sources.darknet import ops
from cspprof.sources.darknet.layers import Built, Call, Place, Tensor, blurring, layer, row


class Pool(nn.Module):
    """Maxima or means of windows whose padding need not be the same on both sides."""

    def __init__(self, average: bool, size: int, strides: tuple[int, int], padding: int) -> None:
        super().__init__()
        self.average, self.size, self.strides, self.padding = average, size, strides, padding
        odd = padding % 2 == 1
        # With stride 2, torch's rounding up is the one place that odd padding adds.
        self.plain = padding // 2 <= size // 2 and (not odd or (strides == (2, 2) and padding // 2 < size - 1))
        self.up = odd

    def forward(self, x: Tensor) -> Tensor:
        if not self.plain:
            op = ops.avg_pool if self.average else ops.max_pool
            y: Tensor = op(x, self.size, list(self.strides), self.padding)
            return y
        if self.average:
            return F.avg_pool2d(x, self.size, self.strides, self.padding // 2, self.up, count_include_pad=False)
        return F.max_pool2d(x, self.size, self.strides, self.padding // 2, ceil_mode=self.up)

    def extra_repr(self) -> str:
        return f"{'average' if self.average else 'max'}, {self.size}, stride {self.strides}, padding {self.padding}"


def _pool(at: Place, average: bool) -> Built:
    s = at.section
    strides = at.strides()
    size = s.number("size", s.number("stride", 1), least=1)
    padding = s.number("padding", size - 1, least=0)
    blurred = 0 if average else s.number("antialiasing", 0)
    own = (1, 1) if blurred else strides
    height, width = at.windows(size, padding, own)
    after, height, width = blurring(at, blurred, strides, height, width)
    pool = Pool(average, size, own, padding)
    return Built(
        pool if after is None else row(("pool", pool), ("blur", after)), (at.shape[0], height, width), at.previous
    )


@layer("maxpool", "max")
def maxpool(at: Place) -> Built:
    if not at.section.flag("maxpool_depth"):
        return _pool(at, average=False)
    channels = at.section.number("out_channels", 1, least=1)
    size = at.section.number("size", at.section.number("stride", 1), least=1)
    module = Call(f"to {channels} channels", lambda x: ops.max_pool_depth(x, channels, size))
    return Built(module, (channels, *at.shape[1:]), at.previous)


@layer("local_avgpool", "local_avg")
def local_avgpool(at: Place) -> Built:
    return _pool(at, average=True)


@layer("avgpool", "avg")
def avgpool(at: Place) -> Built:
    return Built(nn.AdaptiveAvgPool2d(1), (at.shape[0], 1, 1), at.previous)
