"""SqueezeNet. The forward returns logits."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from cspprof.zoo import model
from cspprof.zoo.blocks import check_channels, network

PAPER = "SqueezeNet, Iandola et al. 2016, Table 1; HarDNet, Chao et al. 2019, Table 4"
# (squeezed channels, expanded channels of each of two convolutions) of each module in each stage
STAGES = (((16, 64), (16, 64), (32, 128)), ((32, 128), (48, 192), (48, 192), (64, 256)), ((64, 256),))


class Conv(nn.Sequential):
    """A convolution with bias, and ReLU."""

    def __init__(self, c_in: int, c_out: int, k: int = 1, stride: int = 1, padding: int = 0) -> None:
        super().__init__(nn.Conv2d(c_in, c_out, k, stride, padding), nn.ReLU(inplace=True))


class Fire(nn.Module):
    """A 1×1 squeeze, then a 1×1 and a 3×3 in parallel: (N, c_in, H, W) -> (N, 2·expanded, H, W)."""

    def __init__(self, c_in: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = Conv(c_in, squeezed)
        self.near, self.far = Conv(squeezed, expanded), Conv(squeezed, expanded, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.squeeze(x)
        return torch.cat([self.near(x), self.far(x)], 1)


@model("squeezenet", family="squeezenet", paper=PAPER, input=(1, 3, 224, 224))
def squeezenet(num_classes: int = 1000, in_channels: int = 3, padded: bool = False) -> nn.Module:
    """SqueezeNet 1.0; with `padded` the maps have sizes 112 to 14 as in HarDNet's Table 4, not 109 to 13."""
    check_channels(num_classes=num_classes, in_channels=in_channels)
    stages, c = [], 96
    for fires in STAGES:
        parts: list[nn.Module] = [nn.MaxPool2d(3, 2, 1) if padded else nn.MaxPool2d(3, 2, ceil_mode=True)]
        for squeezed, expanded in fires:
            parts.append(Fire(c, squeezed, expanded))
            c = 2 * expanded
        stages.append(nn.Sequential(*parts))
    head = [("classifier", Conv(c, num_classes)), ("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten())]
    return network(Conv(in_channels, 96, 7, 2, 3 if padded else 0), stages, nn.Sequential(OrderedDict(head)))
