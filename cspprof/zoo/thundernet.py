"""ThunderNet on SNet-49 and SNet-146 (Qin et al. 2019), without the R-CNN subnet.

The R-CNN subnet runs one fully connected layer 245→1024 for each proposal, and the number of proposals depends on
values. The channels of the backbones are from the code of the authors. As classifiers at 224×224 they have 51.2 and
162.5 million MACs, not 49 and 146 as their names say, so they are readings.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from cspprof.zoo import model
from cspprof.zoo.blocks import ConvNormAct, check_channels, check_depths, tag_stage
from cspprof.zoo.detector import Detector
from cspprof.zoo.necks import SpatialAttention, upsample_like

PAPER = "ThunderNet, Qin et al. 2019, sections 3.1 and 3.2"
INPUT = (1, 3, 320, 320)
DEPTHS = (4, 8, 4)
THIN = 245
"""Channels of the map for the R-CNN subnet: 5 for each of 7×7 positions."""
BOXES = 25
"""Anchors at each position: 5 sizes, 5 shapes."""
Tensor = torch.Tensor


def _depthwise(c: int, stride: int = 1, act: str | None = None) -> nn.Module:
    return ConvNormAct(c, c, 5, stride, c, act=act)


class ShuffleUnit(nn.Module):
    """ShuffleNetV2's unit (Ma et al. 2018) with a 5×5 depthwise convolution: (N, c, H, W) -> (N, c, H, W).

    Every second channel passes unchanged, which is the channel shuffle of the previous unit.
    """

    def __init__(self, c: int) -> None:
        super().__init__()
        half = c // 2
        self.main = nn.Sequential(
            ConvNormAct(half, half, act="relu"), _depthwise(half), ConvNormAct(half, half, act="relu")
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, ::2], self.main(x[:, 1::2])], 1)


class ShuffleDown(nn.Module):
    """ShuffleNetV2's unit of stride 2: (N, c_in, H, W) -> (N, c_out, ⌈H/2⌉, ⌈W/2⌉)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        mid = c_out // 2
        self.bypass = nn.Sequential(_depthwise(c_in, 2), ConvNormAct(c_in, c_in, act="relu"))
        self.main = nn.Sequential(
            ConvNormAct(c_in, mid, act="relu"), _depthwise(mid, 2), ConvNormAct(mid, c_out - c_in, act="relu")
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.bypass(x), self.main(x)], 1)


class ContextEnhancement(nn.Module):
    """CEM (section 3.2): the sum of C4, upsampled C5 and the mean of C5, each with `width` channels after a 1×1."""

    def __init__(self, c4: int, c5: int, width: int = THIN) -> None:
        super().__init__()
        self.middle = nn.Conv2d(c4, width, 1)
        self.coarse = nn.Conv2d(c5, width, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.context = nn.Conv2d(c5, width, 1)

    def forward(self, c5: Tensor, c4: Tensor) -> Tensor:
        """(N, width, H, W) at the resolution of `c4`."""
        middle = self.middle(c4)
        y: Tensor = middle + upsample_like(self.coarse(c5), c4) + self.context(self.pool(c5))
        return y


class RegionProposals(nn.Module):
    """RPN: 5×5 depthwise and 1×1 to 256, then objectness and box of each anchor."""

    def __init__(self, c: int = THIN, width: int = 256) -> None:
        super().__init__()
        self.features = nn.Sequential(_depthwise(c, act="relu"), ConvNormAct(c, width, act="relu"))
        self.objectness = nn.Conv2d(width, BOXES, 1)
        self.boxes = nn.Conv2d(width, 4 * BOXES, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.features(x)
        return y, self.objectness(y), self.boxes(y)


class ThunderNeck(nn.Module):
    """CEM, RPN and SAM: C5 and C4 -> objectness (N, 25, H, W), boxes (N, 100, H, W), thin map (N, 245, H, W)."""

    def __init__(self, c4: int, c5: int) -> None:
        super().__init__()
        self.cem = ContextEnhancement(c4, c5)
        self.rpn = tag_stage("head", RegionProposals())
        self.sam = SpatialAttention(THIN, 256)

    def forward(self, pyramid: list[Tensor]) -> list[Tensor]:
        x = self.cem(*pyramid)
        features, objectness, boxes = self.rpn(x)
        return [objectness, boxes, self.sam(x, features)]


def _thundernet(widths: Sequence[int], last: int | None, depths: Sequence[int], in_channels: int) -> nn.Module:
    check_channels(in_channels=in_channels)
    c, stages = 24, []
    for width, depth in zip(widths, check_depths(depths, 3), strict=True):
        stages.append(nn.Sequential(ShuffleDown(c, width), *(ShuffleUnit(width) for _ in range(depth - 1))))
        c = width
    if last is not None:
        stages[-1].append(ConvNormAct(c, last, act="relu"))
    conv = ConvNormAct(in_channels, 24, 3, 2, act="relu")
    stem = nn.Sequential(OrderedDict(conv=conv, pool=nn.MaxPool2d(3, 2, 1)))
    return Detector(stem, stages, ThunderNeck(widths[1], last or c), levels=2)


@model("thundernet_snet49", family="thundernet", paper=PAPER, input=INPUT, status="reading")
def thundernet_snet49(depths: Sequence[int] = DEPTHS, in_channels: int = 3) -> nn.Module:
    """ThunderNet on SNet-49 without its R-CNN subnet."""
    return _thundernet((60, 120, 240), 512, depths, in_channels)


@model("thundernet_snet146", family="thundernet", paper=PAPER, input=INPUT, status="reading")
def thundernet_snet146(depths: Sequence[int] = DEPTHS, in_channels: int = 3) -> nn.Module:
    """ThunderNet on SNet-146 without its R-CNN subnet."""
    return _thundernet((132, 264, 528), None, depths, in_channels)
