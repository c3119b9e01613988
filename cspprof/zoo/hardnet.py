"""HarDNet: harmonic links between layers (Chao et al. 2019, section 4). Forwards return logits.

`width` multiplies every number of channels; `depths` are the numbers of layers and `growth` the growth rates of the
blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from cspprof.core.formulas import harmonic_links, harmonic_width
from cspprof.zoo import model
from cspprof.zoo.blocks import (
    ConvNormAct,
    LinearHead,
    check_channels,
    check_depths,
    check_per_stage,
    network,
    scale_channels,
)

PAPER = "HarDNet, Chao et al. 2019, section 4 and Table 4"
INPUT = (1, 3, 224, 224)


class HarmonicBlock(nn.Module):
    """Layer k reads the layers `harmonic_links(k)`. The output is the last layer and all odd ones.

    (N, c_in, H, W) -> (N, c_out, H, W). A layer is a 3×3 convolution, or with `separable` a 1×1 and a depthwise 3×3.
    """

    def __init__(self, c_in: int, growth: int, m: float, layers: int, separable: bool) -> None:
        super().__init__()
        self.sources = [harmonic_links(k) for k in range(1, layers + 1)]
        widths = [c_in, *(harmonic_width(len(sources), growth, m) for sources in self.sources)]
        self.outputs = [k for k in range(1, layers + 1) if k == layers or k % 2]
        self.layers = nn.ModuleList(
            _layer(sum(widths[i] for i in sources), widths[k], separable) for k, sources in enumerate(self.sources, 1)
        )
        self.c_out = sum(widths[k] for k in self.outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = [x]
        for layer, sources in zip(self.layers, self.sources, strict=True):
            inputs = [maps[i] for i in sources]
            maps.append(layer(inputs[0] if len(inputs) == 1 else torch.cat(inputs, 1)))
        return torch.cat([maps[k] for k in self.outputs], 1)


def _layer(c_in: int, c_out: int, separable: bool) -> nn.Module:
    if separable:
        return nn.Sequential(
            ConvNormAct(c_in, c_out, act="relu6"), ConvNormAct(c_out, c_out, 3, groups=c_out, act=None)
        )
    return ConvNormAct(c_in, c_out, 3, act="relu6")


@dataclass(frozen=True, slots=True)
class HarDNetConfig:
    """The sizes of one HarDNet."""

    stem: Sequence[int]
    m: float
    growth: Sequence[int]
    layers: Sequence[int]
    widths: Sequence[int]
    """Channels of the 1×1 transitions that end the blocks."""
    down: Sequence[int]
    """Blocks that a layer of stride 2 follows, counted from 1."""
    separable: bool = False


def _resized(
    config: HarDNetConfig, depths: Sequence[int] | None, growth: Sequence[int] | None, width: float
) -> HarDNetConfig:
    """The configuration with other numbers of layers and growth rates, and `width` times the channels."""
    blocks = len(config.layers)
    growth = check_per_stage("growth", config.growth if growth is None else growth, blocks, "channel")

    def scaled(channels: Sequence[int]) -> list[int]:
        return [scale_channels(c, width) for c in channels]

    return replace(
        config, stem=scaled(config.stem), growth=scaled(growth), widths=scaled(config.widths),
        layers=check_depths(config.layers if depths is None else depths, blocks),
    )  # fmt: skip


def _hardnet(
    config: HarDNetConfig, num_classes: int, in_channels: int, depths: Sequence[int] | None,
    growth: Sequence[int] | None, width: float,
) -> nn.Module:  # fmt: skip
    check_channels(num_classes=num_classes, in_channels=in_channels)
    config = _resized(config, depths, growth, width)
    first, c = config.stem
    second = ConvNormAct(first, c, 1 if config.separable else 3, act="relu6")
    stem = nn.Sequential(
        ConvNormAct(in_channels, first, 3, 2, act="relu6"), second, _downsample(c, config.separable, 3)
    )
    stages: list[nn.Module] = []
    for i, (rate, layers, out) in enumerate(zip(config.growth, config.layers, config.widths, strict=True), 1):
        block = HarmonicBlock(c, rate, config.m, layers, config.separable)
        parts: list[nn.Module] = [block, ConvNormAct(block.c_out, out, act="relu6")]
        if i in config.down:
            parts.append(_downsample(out, config.separable, 2))
        stages.append(nn.Sequential(*parts))
        c = out
    return network(stem, stages, LinearHead(c, num_classes))


def _downsample(c: int, separable: bool, k: int) -> nn.Module:
    """Half the resolution: max pooling, or a strided depthwise convolution in the depthwise-separable networks."""
    if separable:
        return ConvNormAct(c, c, 3, 2, c, act=None)
    return nn.MaxPool2d(k, 2, 1 if k == 3 else 0, ceil_mode=k == 2)


HARDNET_39DS = HarDNetConfig(
    (24, 48), 1.6, (16, 20, 64, 160), (4, 16, 8, 4), (96, 320, 640, 1024), (1, 2, 3), separable=True
)
HARDNET_85 = HarDNetConfig(
    (48, 96), 1.7, (24, 24, 28, 36, 48, 256), (8, 16, 16, 16, 16, 4), (192, 256, 320, 480, 720, 1280), (1, 3, 5)
)
HARDNET_68 = HarDNetConfig(
    (32, 64), 1.7, (14, 16, 20, 40, 160), (8, 16, 16, 16, 4), (128, 256, 320, 640, 1024), (1, 3, 4)
)


@model("hardnet39ds", family="hardnet", paper=PAPER, input=INPUT)
def hardnet39ds(
    num_classes: int = 1000, in_channels: int = 3, depths: Sequence[int] | None = None,
    growth: Sequence[int] | None = None, width: float = 1.0,
) -> nn.Module:  # fmt: skip
    """HarDNet-39DS, depthwise-separable; the released definition."""
    return _hardnet(HARDNET_39DS, num_classes, in_channels, depths, growth, width)


@model("hardnet68ds", family="hardnet", paper=PAPER, input=INPUT)
def hardnet68ds(
    num_classes: int = 1000, in_channels: int = 3, depths: Sequence[int] | None = None,
    growth: Sequence[int] | None = None, width: float = 1.0,
) -> nn.Module:  # fmt: skip
    """HarDNet-68DS, depthwise-separable; the released definition."""
    return _hardnet(replace(HARDNET_68, separable=True), num_classes, in_channels, depths, growth, width)


@model("hardnet68", family="hardnet", paper=PAPER, input=INPUT)
def hardnet68(
    num_classes: int = 1000, in_channels: int = 3, depths: Sequence[int] | None = None,
    growth: Sequence[int] | None = None, width: float = 1.0,
) -> nn.Module:  # fmt: skip
    """HarDNet-68."""
    return _hardnet(HARDNET_68, num_classes, in_channels, depths, growth, width)


@model("hardnet85", family="hardnet", paper=PAPER, input=INPUT)
def hardnet85(
    num_classes: int = 1000, in_channels: int = 3, depths: Sequence[int] | None = None,
    growth: Sequence[int] | None = None, width: float = 1.0,
) -> nn.Module:  # fmt: skip
    """HarDNet-85."""
    return _hardnet(HARDNET_85, num_classes, in_channels, depths, growth, width)
