"""ResNet-50 and ResNeXt-50 in their Darknet forms, and their cross-stage-partial twins.

These are the networks of the CSPNet paper's tables: shortcuts without projection convolutions, stride in the 3×3,
2×2 max pooling, a 1×1 convolution as classifier. The CSP twins have stages of 3-3-5-2 blocks where the plain nets
have 3-4-6-3, so a difference between them is not the split alone. Forwards return logits, no softmax.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from cspprof.zoo import model
from cspprof.zoo.blocks import Bottleneck, ConvHead, ConvNormAct, PoolHead, check_channels, check_depths, network
from cspprof.zoo.csp import CrossStagePartial

PLAIN = (3, 4, 6, 3)
PARTIAL = (3, 3, 5, 2)
TABLE = "CSPNet, Wang et al. 2019, Table 3"


def _stem(in_channels: int) -> nn.Sequential:
    """(N, in_channels, H, W) -> (N, 64, H/4, W/4)."""
    parts = [("conv", ConvNormAct(in_channels, 64, 7, 2)), ("pool", nn.MaxPool2d(2, 2, ceil_mode=True))]
    return nn.Sequential(OrderedDict(parts))


class Stage(nn.Module):
    """A row of bottlenecks, the first of which changes resolution and width."""

    def __init__(self, depth: int, c_in: int, mid: int, c_out: int, stride: int, groups: int) -> None:
        super().__init__()
        first = Bottleneck(c_in, mid, c_out, stride, groups)
        self.blocks = nn.Sequential(first, *(Bottleneck(c_out, mid, c_out, 1, groups) for _ in range(depth - 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.blocks(x)
        return y


def _plain(depths: Sequence[int], mid: int, groups: int, head: type[nn.Module], num_classes: int, in_channels: int
           ) -> nn.Module:  # fmt: skip
    check_channels(num_classes=num_classes, in_channels=in_channels)
    stages, c_in = [], 64
    for i, depth in enumerate(check_depths(depths, 4)):
        stages.append(Stage(depth, c_in, mid << i, 256 << i, 1 if i == 0 else 2, groups))
        c_in = 256 << i
    return network(_stem(in_channels), stages, head(c_in, num_classes))


def _partial(depths: Sequence[int], mid: int, groups: int, widths: Sequence[int], num_classes: int, in_channels: int
             ) -> nn.Module:  # fmt: skip
    """`widths` are those of the transitions that end the stages; each feeds the next stage's strided 3×3."""
    check_channels(num_classes=num_classes, in_channels=in_channels)
    stages, c_in = [], 64
    for i, depth in enumerate(check_depths(depths, 4)):
        width = 128 << i
        main = 64 if i == 0 else width
        m = mid << i
        # In the authors' second and third stage the convolutions that split do not activate.
        down = ConvNormAct(c_in, c_in, 3, 2, groups) if i else None
        blocks = nn.Sequential(*(Bottleneck(main if n == 0 else width, m, width, 1, groups) for n in range(depth)))
        stages.append(
            CrossStagePartial(c_in, widths[i], bypass=width, main=main, blocks=blocks, c_blocks=width, down=down,
                              split_act=i in (0, 3))
        )  # fmt: skip
        c_in = widths[i]
    return network(_stem(in_channels), stages, PoolHead(c_in, num_classes))


@model("resnet50", family="resnet", paper=TABLE)
def resnet50(num_classes: int = 1000, depths: Sequence[int] = PLAIN, in_channels: int = 3) -> nn.Module:
    """ResNet-50, Darknet form: no projections, classifier before the pooling."""
    return _plain(depths, 64, 1, ConvHead, num_classes, in_channels)


@model("resnext50", family="resnext", paper=TABLE)
def resnext50(num_classes: int = 1000, depths: Sequence[int] = PLAIN, in_channels: int = 3) -> nn.Module:
    """ResNeXt-50 (32 groups), Darknet form: no projections."""
    return _plain(depths, 128, 32, PoolHead, num_classes, in_channels)


@model("csp_resnet50", family="resnet", paper=TABLE, twin="resnet50")
def csp_resnet50(num_classes: int = 1000, depths: Sequence[int] = PARTIAL, in_channels: int = 3) -> nn.Module:
    """CSPResNet-50: half of each stage bypasses the bottlenecks, two thirds of the first."""
    return _partial(depths, 64, 1, (128, 256, 512, 1024), num_classes, in_channels)


@model("csp_resnext50", family="resnext", paper=TABLE, twin="resnext50")
def csp_resnext50(num_classes: int = 1000, depths: Sequence[int] = PARTIAL, in_channels: int = 3) -> nn.Module:
    """CSPResNeXt-50: half of each stage bypasses the grouped bottlenecks, two thirds of the first."""
    return _partial(depths, 128, 32, (256, 512, 1024, 2048), num_classes, in_channels)
