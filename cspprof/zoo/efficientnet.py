"""EfficientNet-B0 in the Darknet definition. The forward returns logits."""

from __future__ import annotations

import torch
from torch import nn

from cspprof.zoo import model
from cspprof.zoo.blocks import ConvNormAct, PoolHead, SqueezeExcite, check_channels, network

# hidden channels of the first block, of the other blocks, output channels, blocks, stride, kernel
STAGES = ((32, 0, 16, 1, 1, 3), (96, 144, 24, 2, 2, 3), (144, 192, 40, 2, 2, 5), (192, 384, 80, 3, 1, 3),
        (384, 576, 112, 3, 2, 5), (576, 960, 192, 4, 2, 5), (960, 0, 320, 1, 1, 3))  # fmt: skip
SQUEEZED_CHANNELS = {32: 8, 96: 16, 144: 8, 192: 16, 384: 24, 576: 32, 960: 64}


class MobileBlock(nn.Module):
    """1×1 expansion, depthwise k×k, squeeze-and-excitation, 1×1 projection: (N, c_in, H, W) -> (N, c_out, …)."""

    def __init__(self, c_in: int, hidden: int, c_out: int, k: int, stride: int) -> None:
        super().__init__()
        self.expand = ConvNormAct(c_in, hidden, act="swish")
        self.depthwise = ConvNormAct(hidden, hidden, k, stride, hidden, act="swish")
        self.excite = SqueezeExcite(hidden, SQUEEZED_CHANNELS[hidden], "swish")
        self.project = ConvNormAct(hidden, c_out, act=None)
        self.dropout = nn.Dropout(0.0)
        self.skips = stride == 1 and c_in == c_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.project(self.excite(self.depthwise(self.expand(x))))
        return x + self.dropout(y) if self.skips else y


@model("efficientnet_b0_darknet", family="efficientnet", paper="CSPNet, Wang et al. 2019, Table 3",
       input=(1, 3, 224, 224))  # fmt: skip
def efficientnet_b0_darknet(num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """EfficientNet-B0 as defined in Darknet: strides and hidden widths differ from the paper; 457 M MACs."""
    check_channels(num_classes=num_classes, in_channels=in_channels)
    stages: list[nn.Module] = []
    c_in = 32
    for first, rest, c, n, stride, k in STAGES:
        blocks = [MobileBlock(c if i else c_in, rest if i else first, c, k, 1 if i else stride) for i in range(n)]
        stages.append(nn.Sequential(*blocks))
        c_in = c
    last = nn.Sequential(ConvNormAct(320, 1280, act="swish"), PoolHead(1280, num_classes))
    return network(ConvNormAct(in_channels, 32, 3, 2, act="swish"), stages, last)
