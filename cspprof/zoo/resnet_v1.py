"""ResNets as first published: projection shortcuts, stride in the first convolution of a stage. Forwards return logits.

They are in HarDNet's Table 4 (Chao et al. 2019). torchvision's ResNet-50 is v1.5, with the stride in the 3×3. The
Darknet definitions without projections are in `resnet`. `width` multiplies every number of channels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from cspprof.zoo import model
from cspprof.zoo.blocks import ConvNormAct, LinearHead, check_channels, check_depths, network, scale_channels

PAPER = "ResNet, He et al. 2015, Table 1; HarDNet, Chao et al. 2019, Table 4"
INPUT = (1, 3, 224, 224)


class Projected(nn.Module):
    """A sequence of convolutions and a shortcut, with a 1×1 projection if the shape changes."""

    def __init__(self, c_in: int, c_out: int, stride: int, *convs: nn.Module) -> None:
        super().__init__()
        self.convs = nn.Sequential(*convs)
        same = stride == 1 and c_in == c_out
        self.projection = nn.Identity() if same else ConvNormAct(c_in, c_out, 1, stride, act=None)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.act(self.convs(x) + self.projection(x))
        return y


class BasicV1(Projected):
    """Two 3×3 convolutions: (N, c_in, H, W) -> (N, c, H/stride, W/stride)."""

    def __init__(self, c_in: int, c: int, stride: int) -> None:
        super().__init__(c_in, c, stride, ConvNormAct(c_in, c, 3, stride, act="relu"), ConvNormAct(c, c, 3, act=None))


class BottleneckV1(Projected):
    """1×1 with the stride, 3×3, 1×1: (N, c_in, H, W) -> (N, 4c, H/stride, W/stride)."""

    def __init__(self, c_in: int, c: int, stride: int) -> None:
        super().__init__(
            c_in, 4 * c, stride, ConvNormAct(c_in, c, 1, stride, act="relu"), ConvNormAct(c, c, 3, act="relu"),
            ConvNormAct(c, 4 * c, act=None),
        )  # fmt: skip


def _resnet(depths: Sequence[int], bottleneck: bool, num_classes: int, in_channels: int, width: float) -> nn.Module:
    check_channels(num_classes=num_classes, in_channels=in_channels)
    block = BottleneckV1 if bottleneck else BasicV1
    c_in = base = scale_channels(64, width)
    stages = []
    for i, depth in enumerate(check_depths(depths, 4)):
        c, c_out = base << i, (4 * base if bottleneck else base) << i
        stages.append(nn.Sequential(*(block(c_out if n else c_in, c, 2 if i and not n else 1) for n in range(depth))))
        c_in = c_out
    stem = [("conv", ConvNormAct(in_channels, base, 7, 2, act="relu")), ("pool", nn.MaxPool2d(3, 2, 1))]
    return network(nn.Sequential(OrderedDict(stem)), stages, LinearHead(c_in, num_classes))


@model("resnet18", family="resnet", paper=PAPER, input=INPUT)
def resnet18(
    num_classes: int = 1000, depths: Sequence[int] = (2, 2, 2, 2), in_channels: int = 3, width: float = 1.0
) -> nn.Module:
    """ResNet-18 with projections."""
    return _resnet(depths, False, num_classes, in_channels, width)


@model("resnet50_v1", family="resnet", paper=PAPER, input=INPUT)
def resnet50_v1(
    num_classes: int = 1000, depths: Sequence[int] = (3, 4, 6, 3), in_channels: int = 3, width: float = 1.0
) -> nn.Module:
    """ResNet-50 v1: stride on the first 1×1, projections."""
    return _resnet(depths, True, num_classes, in_channels, width)


@model("resnet101_v1", family="resnet", paper=PAPER, input=INPUT)
def resnet101_v1(
    num_classes: int = 1000, depths: Sequence[int] = (3, 4, 23, 3), in_channels: int = 3, width: float = 1.0
) -> nn.Module:
    """ResNet-101 v1."""
    return _resnet(depths, True, num_classes, in_channels, width)


@model("resnet152_v1", family="resnet", paper=PAPER, input=INPUT)
def resnet152_v1(
    num_classes: int = 1000, depths: Sequence[int] = (3, 8, 36, 3), in_channels: int = 3, width: float = 1.0
) -> nn.Module:
    """ResNet-152 v1."""
    return _resnet(depths, True, num_classes, in_channels, width)
