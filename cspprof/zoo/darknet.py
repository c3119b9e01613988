"""Darknet-53, the Darknet reference network, and Darknet-53's cross-stage-partial twin. Forwards return logits.

`width` multiplies every number of channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from cspprof.core.formulas import bypass_channels
from cspprof.zoo import model
from cspprof.zoo.blocks import (
    ConvNormAct,
    Elastic,
    PoolHead,
    Residual,
    check_channels,
    check_depths,
    network,
    scale_channels,
)
from cspprof.zoo.csp import FUSIONS, SPLITS, CrossStagePartial, check_choice

DEPTHS = (1, 2, 8, 8, 4)


class Stage(nn.Module):
    """A strided 3×3 convolution and a row of residual blocks: (N, c_in, H, W) -> (N, c_out, ⌈H/2⌉, ⌈W/2⌉)."""

    def __init__(self, depth: int, c_in: int, c_out: int) -> None:
        super().__init__()
        self.c_out = c_out
        self.down = ConvNormAct(c_in, c_out, 3, 2)
        self.blocks = nn.Sequential(*(Residual(c_out, c_out // 2) for _ in range(depth)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.blocks(self.down(x))
        return y


@model(
    "darknet53", family="darknet", paper="YOLOv3, Redmon and Farhadi 2018, Table 1; CSPNet, Wang et al. 2019, Table 3"
)
def darknet53(
    num_classes: int = 1000, depths: Sequence[int] = DEPTHS, in_channels: int = 3, width: float = 1.0
) -> nn.Module:
    """Darknet-53 as an ImageNet classifier."""
    check_channels(num_classes=num_classes, in_channels=in_channels)
    base = scale_channels(32, width)
    stages = [Stage(depth, base << i, 2 * base << i) for i, depth in enumerate(check_depths(depths, 5))]
    return network(ConvNormAct(in_channels, base, 3), stages, PoolHead(32 * base, num_classes))


@model("csp_darknet53", family="darknet", paper="CSPNet, Wang et al. 2019, Table 3", twin="darknet53",
       variants=("elastic",))  # fmt: skip
def csp_darknet53(
    num_classes: int = 1000, depths: Sequence[int] | None = None, in_channels: int = 3, gamma: float | None = None,
    fusion: str = "csp", split: str = "conv", elastic: bool = False, width: float = 1.0,
) -> nn.Module:  # fmt: skip
    """CSPDarknet-53: half of each stage bypasses the residual blocks."""
    check_channels(num_classes=num_classes, in_channels=in_channels)
    check_choice(fusion=(fusion, FUSIONS), split=(split, SPLITS))
    if fusion == "none":
        return darknet53(num_classes, depths or DEPTHS, in_channels, width)
    base = scale_channels(32, width)
    stages: list[CrossStagePartial] = []
    for i, depth in enumerate(check_depths(depths or DEPTHS, 5)):
        c_in = stages[-1].c_out if stages else base
        stages.append(_partial(i, depth, c_in, base, gamma, fusion, split, elastic))
    return network(ConvNormAct(in_channels, base, 3), stages, PoolHead(stages[-1].c_out, num_classes))


def _partial(
    i: int, depth: int, c_in: int, base: int, gamma: float | None, fusion: str, split: str, elastic: bool
) -> CrossStagePartial:
    """A stage of CSPDarknet-53. The convolutions of the first stage split it into two parts of full width, the others
    into halves."""
    c_out = 2 * base << i
    total = 2 * c_out if i == 0 and split == "conv" else c_out
    bypass = bypass_channels(total, 0.5 if gamma is None else gamma, multiple=2)
    main = total - bypass
    mid = main // 2 if i == 0 else main
    if elastic:
        blocks = [Elastic(lambda: _convs(main // 2), None) for _ in range(depth)]
    else:
        blocks = [Residual(main, mid) for _ in range(depth)]  # type: ignore[misc]
    return CrossStagePartial(
        c_out, c_out, bypass=bypass, main=main, blocks=nn.Sequential(*blocks), c_blocks=main,
        down=ConvNormAct(c_in, c_out, 3, 2), split=split, fusion=fusion,
    )  # fmt: skip


def _convs(channels: int) -> nn.Module:
    return nn.Sequential(ConvNormAct(channels, channels), ConvNormAct(channels, channels, 3))


@model("darknet_ref", family="darknet", paper="Darknet, Redmon 2016; CSPNet, Wang et al. 2019, Table 3")
def darknet_ref(num_classes: int = 1000, in_channels: int = 3, width: float = 1.0) -> nn.Module:
    """Darknet's reference classifier: a 3×3 convolution and a 2×2 pool, six times, then one more convolution."""
    check_channels(num_classes=num_classes, in_channels=in_channels)
    widths = [scale_channels(16, width) << i for i in range(7)]
    stages = [nn.Sequential(nn.MaxPool2d(2, 2, ceil_mode=True), ConvNormAct(a, b, 3)) for a, b in pairwise(widths)]
    return network(ConvNormAct(in_channels, widths[0], 3), stages, PoolHead(widths[-1], num_classes))
