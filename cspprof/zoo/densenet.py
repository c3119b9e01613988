"""DenseNets and their cross-stage-partial twins. Forwards return logits.

The twins are constructions by section 3 of the CSPNet paper: x0 of each dense block is sliced, a transition halves the
dense path, as in DenseNet, and a second one, after concatenation and pooling, restores the width of the plain network.

`width` multiplies the 64 channels of the stem; `growth` is the number of channels that each layer adds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from cspprof.core.formulas import bypass_channels
from cspprof.zoo import model
from cspprof.zoo.blocks import LinearHead, check_channels, check_depths, network, scale_channels, transition_pool
from cspprof.zoo.csp import FUSIONS, SPLITS, CrossStagePartial, check_choice

PAPER = "DenseNet, Huang et al. 2017, Table 1"
CONSTRUCTION = "after CSPNet, Wang et al. 2019, section 3"
INPUT = (1, 3, 224, 224)
DEPTHS = {"121": (6, 12, 24, 16), "169": (6, 12, 32, 32), "201": (6, 12, 48, 32), "264": (6, 12, 64, 48)}


class NormActConv(nn.Sequential):
    """Batch norm, ReLU, convolution."""

    def __init__(self, c_in: int, c_out: int, k: int = 1) -> None:
        super().__init__(nn.BatchNorm2d(c_in), nn.ReLU(inplace=True), nn.Conv2d(c_in, c_out, k, 1, k // 2, bias=False))


class DenseLayer(nn.Module):
    """A 1×1 to four times the growth and a 3×3 to the growth, concatenated with the input: (N, c, H, W) ->
    (N, c + growth, H, W)."""

    def __init__(self, c_in: int, growth: int) -> None:
        super().__init__()
        self.bottleneck = NormActConv(c_in, 4 * growth)
        self.conv = NormActConv(4 * growth, growth, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.conv(self.bottleneck(x))], 1)


def dense_block(c_in: int, growth: int, layers: int) -> nn.Sequential:
    """`layers` dense layers: (N, c_in, H, W) -> (N, c_in + layers·growth, H, W)."""
    return nn.Sequential(*(DenseLayer(c_in + i * growth, growth) for i in range(layers)))


def _stem(in_channels: int, base: int) -> nn.Module:
    conv = nn.Conv2d(in_channels, base, 7, 2, 3, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(base), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))


def _densenet(depths: Sequence[int], growth: int, width: float, num_classes: int, in_channels: int) -> nn.Module:
    check_channels(num_classes=num_classes, in_channels=in_channels, growth=growth)
    c = base = scale_channels(64, width)
    stages = []
    layer_counts = check_depths(depths, 4)
    for i, layers in enumerate(layer_counts):
        block = dense_block(c, growth, layers)
        c += layers * growth
        if i < len(layer_counts) - 1:
            stages.append(nn.Sequential(block, NormActConv(c, c // 2), transition_pool()))
            c //= 2
        else:
            stages.append(nn.Sequential(block, nn.BatchNorm2d(c), nn.ReLU(inplace=True)))
    return network(_stem(in_channels, base), stages, LinearHead(c, num_classes))


def _partial(
    depths: Sequence[int], growth: int, width: float, num_classes: int, in_channels: int, gamma: float, fusion: str,
    split: str,
) -> nn.Module:  # fmt: skip
    check_channels(num_classes=num_classes, in_channels=in_channels, growth=growth)
    check_choice(fusion=(fusion, FUSIONS), split=(split, SPLITS))
    if fusion == "none":
        return _densenet(depths, growth, width, num_classes, in_channels)
    stages: list[nn.Module] = []
    layer_counts = check_depths(depths, 4)
    c = base = scale_channels(64, width)
    for i, layers in enumerate(layer_counts):
        bypass, last = bypass_channels(c, gamma), i == len(layer_counts) - 1
        c_blocks = c - bypass + layers * growth
        plain_width = c + layers * growth
        partial = CrossStagePartial(
            c, plain_width if last else plain_width // 2, bypass=bypass, main=c - bypass, c_blocks=c_blocks, act="relu",
            blocks=dense_block(c - bypass, growth, layers), split=split, fusion=fusion,
            c_transition=c_blocks // 2, pool=None if last else transition_pool(),
        )  # fmt: skip
        stages.append(partial)
        c = partial.c_out
    return network(_stem(in_channels, base), stages, LinearHead(c, num_classes))


def _register(number: str, growth: int, name: str) -> None:
    """Register a DenseNet as `name` and its twin as `csp_` + `name`."""

    def plain(num_classes: int = 1000, depths: Sequence[int] = DEPTHS[number], growth: int = growth, width: float = 1.0,
              in_channels: int = 3) -> nn.Module:  # fmt: skip
        return _densenet(depths, growth, width, num_classes, in_channels)

    def partial(num_classes: int = 1000, depths: Sequence[int] = DEPTHS[number], growth: int = growth,
                width: float = 1.0, in_channels: int = 3, gamma: float = 0.5, fusion: str = "csp", split: str = "slice"
                ) -> nn.Module:  # fmt: skip
        return _partial(depths, growth, width, num_classes, in_channels, gamma, fusion, split)

    plain.__doc__ = f"DenseNet-{number}, growth rate {growth}, bottleneck layers, compression 0.5."
    partial.__doc__ = f"CSPDenseNet-{number}: half of each block's base layer bypasses the dense layers."
    model(name, family="densenet", paper=PAPER, input=INPUT)(plain)
    model(f"csp_{name}", family="densenet", paper=CONSTRUCTION, input=INPUT, status="construction", twin=name)(partial)


for _number in DEPTHS:
    _register(_number, 32, f"densenet{_number}{'_32' if _number == '264' else ''}")
