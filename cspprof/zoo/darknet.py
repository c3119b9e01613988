"""Darknet-53 and its cross-stage-partial twin. Forwards return logits, no softmax."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from cspprof.zoo import model
from cspprof.zoo.blocks import ConvNormAct, PoolHead, Residual, check_channels, check_depths, network
from cspprof.zoo.csp import CrossStagePartial

DEPTHS = (1, 2, 8, 8, 4)


class Stage(nn.Module):
    """A strided 3×3 convolution and a row of residual blocks: (N, c_in, H, W) -> (N, c_out, ⌈H/2⌉, ⌈W/2⌉)."""

    def __init__(self, depth: int, c_in: int, c_out: int) -> None:
        super().__init__()
        self.down = ConvNormAct(c_in, c_out, 3, 2)
        self.blocks = nn.Sequential(*(Residual(c_out, c_out // 2) for _ in range(depth)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.blocks(self.down(x))
        return y


@model(
    "darknet53", family="darknet", paper="YOLOv3, Redmon and Farhadi 2018, Table 1; CSPNet, Wang et al. 2019, Table 3"
)
def darknet53(num_classes: int = 1000, depths: Sequence[int] = DEPTHS, in_channels: int = 3) -> nn.Module:
    """Darknet-53 as an ImageNet classifier."""
    check_channels(num_classes=num_classes, in_channels=in_channels)
    stages = [Stage(depth, 32 << i, 64 << i) for i, depth in enumerate(check_depths(depths, 5))]
    return network(ConvNormAct(in_channels, 32, 3), stages, PoolHead(1024, num_classes))


@model("csp_darknet53", family="darknet", paper="CSPNet, Wang et al. 2019, Table 3", twin="darknet53")
def csp_darknet53(num_classes: int = 1000, depths: Sequence[int] = DEPTHS, in_channels: int = 3) -> nn.Module:
    """CSPDarknet-53: half of each stage bypasses the residual blocks."""
    check_channels(num_classes=num_classes, in_channels=in_channels)
    stages = []
    for i, depth in enumerate(check_depths(depths, 5)):
        c_out = 64 << i
        # The first stage splits into two parts of full width, the others into halves.
        half = c_out if i == 0 else c_out // 2
        blocks = nn.Sequential(*(Residual(half, 32 if i == 0 else half) for _ in range(depth)))
        stages.append(
            CrossStagePartial(c_out, c_out, bypass=half, main=half, blocks=blocks, c_blocks=half,
                              down=ConvNormAct(c_out // 2, c_out, 3, 2))
        )  # fmt: skip
    return network(ConvNormAct(in_channels, 32, 3), stages, PoolHead(1024, num_classes))
