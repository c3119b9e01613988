"""PeleeNet and its variants in the CSPNet paper. Forwards return logits.

CSPPeleeNet, SparsePeleeNet, PeleeNeXt and the variants with SE have no public definition. Those here are readings and
constructions; `cspprof reproduce` shows their distance from the printed numbers.

`width` multiplies the 32 channels of the stem; `growth` is the number of channels that each layer adds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from cspprof.core.errors import CspprofError
from cspprof.core.formulas import bypass_channels
from cspprof.zoo import model
from cspprof.zoo.blocks import (
    ConvNormAct,
    LinearHead,
    SqueezeExcite,
    check_channels,
    check_depths,
    network,
    scale_channels,
    transition_pool,
)
from cspprof.zoo.csp import FUSIONS, SPLITS, CrossStagePartial, check_choice

PAPER = "PeleeNet, Wang et al. 2018, Table 1"
TABLE = "CSPNet, Wang et al. 2019, Table 1 and Fig. 4"
INPUT = (1, 3, 224, 224)
DEPTHS = (3, 4, 8, 6)
WIDENING = (1, 2, 4, 4)
"""Width of a layer's 1×1 convolutions in each stage, in halves of the growth rate."""
SQUEEZE = 32
"""Reduction of the squeeze-and-excitation in each transition. It gives the published +0.02 M parameters."""


class Stem(nn.Module):
    """A 3×3 of stride 2, then a convolutional and a pooled branch: (N, in_channels, H, W) -> (N, c, H/4, W/4)."""

    def __init__(self, in_channels: int, c: int, act: str) -> None:
        super().__init__()
        self.conv = ConvNormAct(in_channels, c, 3, 2, act=act)
        self.narrow = nn.Sequential(ConvNormAct(c, c // 2, act=act), ConvNormAct(c // 2, c, 3, 2, act=act))
        self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.join = ConvNormAct(2 * c, c, act=act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        y: torch.Tensor = self.join(torch.cat([self.narrow(x), self.pool(x)], 1))
        return y


def bottleneck_width(c_in: int, widening: int, growth: int) -> int:
    """Width of a layer's 1×1 convolutions: widening·growth/2, or 4·⌊c_in/8⌋ for a narrow input."""
    width = widening * growth // 2
    return width if width <= c_in // 2 else max(c_in // 8, 1) * 4


class TwoWayLayer(nn.Module):
    """Half of the output has a receptive field of 3×3, half of 5×5: (N, c_in, H, W) -> (N, growth, H, W)."""

    def __init__(self, c_in: int, widening: int, growth: int, act: str, groups: int = 1) -> None:
        super().__init__()
        b, half = bottleneck_width(c_in, widening, growth), growth // 2
        own = groups if b % groups == 0 and half % groups == 0 else 1
        self.near = nn.Sequential(ConvNormAct(c_in, b, act=act), ConvNormAct(b, half, 3, groups=own, act=act))
        self.far = nn.Sequential(
            ConvNormAct(c_in, b, act=act),
            ConvNormAct(b, half, 3, groups=own, act=act),
            ConvNormAct(half, half, 3, groups=own, act=act),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.near(x), self.far(x)], 1)


class DenseBlock(nn.Module):
    """Layer i reads the layers `sources(i)`, where layer 0 is the input. The output is the concatenation of all layers.

    (N, c_in, H, W) -> (N, c_in + layers·growth, H, W).
    """

    def __init__(
        self, c_in: int, layers: int, make: Callable[[int], nn.Module], growth: int,
        sources: Callable[[int], Sequence[int]] = lambda i: range(i),
    ) -> None:  # fmt: skip
        super().__init__()
        widths = [c_in] + [growth] * layers
        self.sources = [list(sources(i)) for i in range(1, layers + 1)]
        self.layers = nn.ModuleList(make(sum(widths[j] for j in read)) for read in self.sources)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = [x]
        for layer, read in zip(self.layers, self.sources, strict=True):
            inputs = [maps[j] for j in read]
            maps.append(layer(inputs[0] if len(inputs) == 1 else torch.cat(inputs, 1)))
        return torch.cat(maps, 1)


def exponential_sources(i: int) -> list[int]:
    """Layers at distances 1, 2, 4, … before layer i, the farthest first (SparseNet, Zhu et al. 2018)."""
    return [i - 2**n for n in reversed(range(i.bit_length())) if i - 2**n >= 0]


class PlainStage(nn.Sequential):
    """Dense block, transition, and pooling except in the last stage: (N, c, H, W) -> (N, c_out, H/2, W/2), in the last
    stage (N, c_out, H, W)."""

    def forward_with_map(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The map at the resolution of this stage, for the neck of a detector, and the output."""
        block, transition, *end = self
        stage_map = y = transition(block(x))
        for part in end:
            y = part(y)
        return stage_map, y

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_with_map(x)[1]


class PeleeNetParts:
    """Makes the parts of a PeleeNet with the options in which the variants differ."""

    def __init__(
        self, growth: int, act: str, se: bool = False, groups: int = 1, width: float = 1.0,
        sources: Callable[[int], Sequence[int]] = lambda i: range(i),
    ) -> None:  # fmt: skip
        check_channels(growth=growth)
        if growth % 2:
            raise CspprofError(f"growth={growth} is odd", "Each branch of a two-way layer adds half of it: growth=32")
        self.growth, self.act, self.se, self.groups, self.sources = growth, act, se, groups, sources
        self.base = scale_channels(32, width, 2)

    def stem(self, in_channels: int) -> nn.Module:
        return Stem(in_channels, self.base, self.act)

    def block(self, stage: int, c_in: int, layers: int) -> nn.Module:
        def make(c: int) -> nn.Module:
            return TwoWayLayer(c, WIDENING[stage], self.growth, self.act, self.groups)

        return DenseBlock(c_in, layers, make, self.growth, self.sources)

    def squeeze_excite(self, c: int) -> nn.Module:
        return SqueezeExcite(c, max(c // SQUEEZE, 1)) if self.se else nn.Identity()

    def plain_stage(self, stage: int, c_in: int, layers: int, last: bool) -> tuple[nn.Module, int]:
        c = c_in + layers * self.growth
        modules = [self.block(stage, c_in, layers), ConvNormAct(c, c, act=self.act)]
        if not last:
            modules += [self.squeeze_excite(c), transition_pool()] if self.se else [transition_pool()]
        return PlainStage(*modules), c

    def partial_stage(
        self, stage: int, c_in: int, layers: int, gamma: float, fusion: str, split: str, last: bool
    ) -> tuple[nn.Module, int]:
        """A cross-stage-partial stage. The transition of the dense path keeps its width. The second transition of *csp*
        has the width of the plain stage, the transition of *first* that of the dense path."""
        bypass = bypass_channels(c_in, gamma)
        dense, plain = c_in - bypass + layers * self.growth, c_in + layers * self.growth
        partial = CrossStagePartial(
            c_in, dense if fusion == "first" else plain, bypass=bypass, main=c_in - bypass, c_blocks=dense,
            blocks=self.block(stage, c_in - bypass, layers), act=self.act, split=split,
            fusion=fusion, pool=None if last else transition_pool(),
        )  # fmt: skip
        if self.se and not last:
            return nn.Sequential(partial, self.squeeze_excite(partial.c_out)), partial.c_out
        return partial, partial.c_out


@dataclass(frozen=True, slots=True)
class Backbone:
    """A PeleeNet without its classifier."""

    stem: nn.Module
    stages: tuple[nn.Module, ...]
    widths: tuple[int, ...]
    """Channels of each stage's map, from fine to coarse."""


def plain_backbone(parts: PeleeNetParts, depths: Sequence[int] = DEPTHS, in_channels: int = 3) -> Backbone:
    """Stem and four plain stages."""
    check_channels(in_channels=in_channels)
    stages, widths, c = [], [], parts.base
    for i, layers in enumerate(check_depths(depths, 4)):
        stage, c = parts.plain_stage(i, c, layers, last=i == 3)
        stages.append(stage)
        widths.append(c)
    return Backbone(parts.stem(in_channels), tuple(stages), tuple(widths))


def partial_backbone(
    parts: PeleeNetParts, depths: Sequence[int] = DEPTHS, in_channels: int = 3, gamma: float = 0.5, fusion: str = "csp",
    split: str = "slice",
) -> Backbone:  # fmt: skip
    """Stem, three partial stages and a plain one. With fusion *first* the fourth stage is partial too."""
    check_channels(in_channels=in_channels)
    check_choice(fusion=(fusion, FUSIONS), split=(split, SPLITS))
    if fusion == "none":
        return plain_backbone(parts, depths, in_channels)
    stages, widths, c = [], [], parts.base
    for i, layers in enumerate(check_depths(depths, 4)):
        if i == 3 and fusion != "first":
            stage, c = parts.plain_stage(i, c, layers, last=True)
        else:
            stage, c = parts.partial_stage(i, c, layers, gamma, fusion, split, last=i == 3)
        stages.append(stage)
        widths.append(c)
    return Backbone(parts.stem(in_channels), tuple(stages), tuple(widths))


def _classifier(backbone: Backbone, num_classes: int) -> nn.Module:
    check_channels(num_classes=num_classes)
    return network(backbone.stem, backbone.stages, LinearHead(backbone.widths[-1], num_classes))


@model("peleenet", family="peleenet", paper=PAPER, input=INPUT)
def peleenet(
    num_classes: int = 1000, depths: Sequence[int] = DEPTHS, growth: int = 32, in_channels: int = 3, se: bool = False,
    act: str = "relu", width: float = 1.0,
) -> nn.Module:  # fmt: skip
    """PeleeNet: two-way dense layers, transitions that keep the width; with `se` it is a construction."""
    return _classifier(plain_backbone(PeleeNetParts(growth, act, se, width=width), depths, in_channels), num_classes)


@model("sparse_peleenet", family="peleenet", paper=TABLE, input=INPUT, status="reading")
def sparse_peleenet(
    num_classes: int = 1000, depths: Sequence[int] = DEPTHS, growth: int = 32, in_channels: int = 3, act: str = "relu",
    width: float = 1.0,
) -> nn.Module:  # fmt: skip
    """SparsePeleeNet: each layer reads the layers at distances 1, 2, 4, … before it."""
    parts = PeleeNetParts(growth, act, width=width, sources=exponential_sources)
    return _classifier(plain_backbone(parts, depths, in_channels), num_classes)


@model("peleenext", family="peleenet", paper="named in CSPNet, Wang et al. 2019; no public definition", input=INPUT,
       status="construction")  # fmt: skip
def peleenext(
    num_classes: int = 1000, depths: Sequence[int] = DEPTHS, growth: int = 32, in_channels: int = 3, act: str = "relu",
    groups: int = 4, width: float = 1.0,
) -> nn.Module:  # fmt: skip
    """PeleeNeXt: PeleeNet with grouped 3×3 convolutions."""
    check_channels(groups=groups)
    parts = PeleeNetParts(growth, act, groups=groups, width=width)
    return _classifier(plain_backbone(parts, depths, in_channels), num_classes)


@model("csp_peleenet", family="peleenet", paper=TABLE, input=INPUT, status="reading", twin="peleenet")
def csp_peleenet(
    num_classes: int = 1000, depths: Sequence[int] = DEPTHS, growth: int = 32, in_channels: int = 3, se: bool = False,
    act: str = "relu", gamma: float = 0.5, fusion: str = "csp", split: str = "slice", width: float = 1.0,
) -> nn.Module:  # fmt: skip
    """CSPPeleeNet: half of the base layer of each stage bypasses the dense layers; the last stage is plain."""
    backbone = partial_backbone(PeleeNetParts(growth, act, se, width=width), depths, in_channels, gamma, fusion, split)
    return _classifier(backbone, num_classes)
