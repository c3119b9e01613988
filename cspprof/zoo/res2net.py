"""Res2NetLite-72, a small Res2Net in Table 3 of the CSPNet paper. The forward returns logits.

`width` multiplies every number of channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from cspprof.zoo import model
from cspprof.zoo.blocks import ConvNormAct, PoolHead, check_channels, check_depths, network, scale_channels


class Res2Block(nn.Module):
    """A 1×1 convolution in four quarters; each 3×3 reads its quarter and the output before it (Gao et al. 2019).

    (N, 4c, H, W) -> the same shape.
    """

    def __init__(self, c: int) -> None:
        super().__init__()
        self.first = ConvNormAct(4 * c, 4 * c)
        self.convs = nn.ModuleList(ConvNormAct(c, c, 3, groups=2) for _ in range(3))
        self.last = ConvNormAct(4 * c, 4 * c)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        quarters = self.first(x).chunk(4, 1)
        outputs = [quarters[0], self.convs[0](quarters[1])]
        for conv, quarter in zip(self.convs[1:], quarters[2:], strict=True):
            outputs.append(conv(quarter + outputs[-1]))
        y: torch.Tensor = self.last(torch.cat(outputs, 1))
        return x + y


class Down(nn.Sequential):
    """A 1×1, a grouped 3×3 of stride 2 and a 1×1 convolution: (N, c_in, H, W) -> (N, 4c, H/2, W/2)."""

    def __init__(self, c_in: int, c: int) -> None:
        super().__init__(ConvNormAct(c_in, c), ConvNormAct(c, c, 3, 2, groups=2), ConvNormAct(c, 4 * c))


@model("res2netlite72", family="res2net", paper="CSPNet, Wang et al. 2019, Table 3", input=(1, 3, 224, 224))
def res2netlite72(
    num_classes: int = 1000, depths: Sequence[int] = (3, 7, 3), in_channels: int = 3, width: float = 1.0
) -> nn.Module:
    """Res2NetLite-72: three stages of widths 72, 144 and 288, with four quarters and two groups."""
    check_channels(num_classes=num_classes, in_channels=in_channels)
    c_in = first = scale_channels(32, width)
    base = scale_channels(72, width, 2)
    stages = []
    for i, depth in enumerate(check_depths(depths, 3)):
        c = base << i
        stages.append(nn.Sequential(Down(c_in, c), *(Res2Block(c) for _ in range(depth))))
        c_in = 4 * c
    stem = nn.Sequential(ConvNormAct(in_channels, first, 3, 2), nn.MaxPool2d(3, 2, 1))
    return network(stem, stages, PoolHead(c_in, num_classes))
