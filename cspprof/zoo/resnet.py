"""ResNet-10, -50 and ResNeXt-50 as defined in Darknet, and their cross-stage-partial twins.

These networks are in the tables of the CSPNet paper: shortcuts without projection convolutions, stride in the 3×3,
2×2 max pooling, a 1×1 convolution as classifier. The CSP twins have stages of 3-3-5-2 blocks, the plain networks of
3-4-6-3, so a difference between them is not due to the split alone. Forwards return logits.

`width` multiplies every number of channels but not the groups.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from cspprof.core.errors import CspprofError
from cspprof.core.formulas import bypass_channels
from cspprof.zoo import model
from cspprof.zoo.blocks import (
    Basic,
    Bottleneck,
    ConvHead,
    ConvNormAct,
    Elastic,
    PoolHead,
    check_channels,
    check_depths,
    network,
    scale_channels,
)
from cspprof.zoo.csp import FUSIONS, SPLITS, CrossStagePartial, check_choice

PLAIN = (3, 4, 6, 3)
PARTIAL = (3, 3, 5, 2)
TABLE = "CSPNet, Wang et al. 2019, Table 3"


def _stem(in_channels: int, base: int) -> nn.Sequential:
    """(N, in_channels, H, W) -> (N, base, H/4, W/4)."""
    parts = [("conv", ConvNormAct(in_channels, base, 7, 2)), ("pool", nn.MaxPool2d(2, 2, ceil_mode=True))]
    return nn.Sequential(OrderedDict(parts))


class Stage(nn.Module):
    """A sequence of bottlenecks. The first one changes resolution and width."""

    def __init__(self, depth: int, c_in: int, mid: int, c_out: int, stride: int, groups: int) -> None:
        super().__init__()
        self.c_out = c_out
        first = Bottleneck(c_in, mid, c_out, stride, groups)
        self.blocks = nn.Sequential(first, *(Bottleneck(c_out, mid, c_out, 1, groups) for _ in range(depth - 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.blocks(x)
        return y


def _plain(
    depths: Sequence[int], mid: int, groups: int, head: type[nn.Module], num_classes: int, in_channels: int,
    width: float,
) -> nn.Module:  # fmt: skip
    """A plain network. `mid` is the width of the first stage's 3×3 convolutions if the stem has 64 channels; each stage
    doubles it."""
    check_channels(num_classes=num_classes, in_channels=in_channels)
    base = scale_channels(64, width, 64 * groups // mid)
    stages, c_in = [], base
    for i, depth in enumerate(check_depths(depths, 4)):
        c_out = 4 * base << i
        stages.append(Stage(depth, c_in, base * mid // 64 << i, c_out, 1 if i == 0 else 2, groups))
        c_in = c_out
    return network(_stem(in_channels, base), stages, head(c_in, num_classes))


@dataclass(frozen=True, slots=True)
class PartialConfig:
    """The sizes of a CSP twin, for a stem of 64 channels."""

    mid: int
    """Width of the first stage's 3×3 convolutions. Each stage doubles it."""
    groups: int
    widths: tuple[int, int, int, int]
    """Channels of the transitions that end the stages."""
    plain: Callable[..., nn.Module]
    """The factory of the plain network."""


def _partial(
    config: PartialConfig, num_classes: int, depths: Sequence[int] | None, in_channels: int, gamma: float | None,
    fusion: str, split: str, elastic: bool, width: float,
) -> nn.Module:  # fmt: skip
    """A CSP twin. Stage i splits into two parts of 128·2ⁱ channels; the first stage processes 64 channels unless it is
    elastic. Another γ divides the same sum differently and scales the blocks with the processed part. A slice divides
    the channels of its input; the first block widens the processed part."""
    check_channels(num_classes=num_classes, in_channels=in_channels)
    check_choice(fusion=(fusion, FUSIONS), split=(split, SPLITS))
    if fusion == "none":
        return config.plain(num_classes=num_classes, depths=depths or PLAIN, in_channels=in_channels, width=width)
    base = scale_channels(64, width, 64 * config.groups // config.mid)
    stages, c_in = [], base
    for i, depth in enumerate(check_depths(depths or PARTIAL, 4)):
        if c_in % config.groups and i:
            raise CspprofError(
                f"gamma={gamma!r} gives {c_in} channels to a convolution with {config.groups} groups",
                "Give gamma=0.5, or split=conv, which rounds to whole groups.",
            )
        down = ConvNormAct(c_in, c_in, 3, 2, config.groups) if i else None
        stages.append(_stage(i, depth, c_in, base, config, down, gamma, fusion, split, elastic))
        c_in = stages[-1].c_out
    return network(_stem(in_channels, base), stages, PoolHead(c_in, num_classes))


def _stage(
    i: int, depth: int, c_in: int, base: int, config: PartialConfig, down: nn.Module | None, gamma: float | None,
    fusion: str, split: str, elastic: bool,
) -> CrossStagePartial:  # fmt: skip
    width = bypass = 2 * base << i
    main = width if i or elastic else base
    if gamma is not None:
        bypass = bypass_channels(2 * width, gamma, config.groups)
        main = width = 2 * width - bypass
    if split == "slice":
        bypass = bypass_channels(c_in, 0.5 if gamma is None else gamma)
        main = c_in - bypass
    mid = max(config.mid * width // 128 // config.groups, 1) * config.groups
    if elastic:
        blocks = [Elastic(lambda: _half_bottleneck(width, config.groups), "leaky") for _ in range(depth)]
    else:
        blocks = [Bottleneck(main if n == 0 else width, mid, width, 1, config.groups) for n in range(depth)]  # type: ignore
    # In the authors' second and third stages the split convolutions have no activation.
    return CrossStagePartial(
        c_in, base * config.widths[i] // 64, bypass=bypass, main=main, blocks=nn.Sequential(*blocks), c_blocks=width,
        down=down, split_act=i in (0, 3), split=split, fusion=fusion,
    )  # fmt: skip


def _half_bottleneck(width: int, groups: int) -> nn.Module:
    """The convolutions of a bottleneck with half of the `width` channels and half of the groups."""
    channels, groups = width // 2, max(groups // 2, 1)
    if width % 2 or channels % groups:
        raise CspprofError(f"elastic blocks cannot halve {width} channels", "Leave gamma out, or give gamma=0.5.")
    return nn.Sequential(
        ConvNormAct(channels, channels),
        ConvNormAct(channels, channels, 3, groups=groups),
        ConvNormAct(channels, channels, act=None),
    )


@model("resnet10", family="resnet", paper="CSPNet, Wang et al. 2019, Table 3")
def resnet10(
    num_classes: int = 1000, depths: Sequence[int] = (1, 1, 1, 1), in_channels: int = 3, width: float = 1.0
) -> nn.Module:
    """ResNet-10 as defined in Darknet: blocks of two 3×3 convolutions, no projections."""
    check_channels(num_classes=num_classes, in_channels=in_channels)
    c_in = base = scale_channels(64, width)
    stages = []
    for i, depth in enumerate(check_depths(depths, 4)):
        c = base << i
        stages.append(nn.Sequential(*(Basic(c if n else c_in, c, 2 if i and not n else 1) for n in range(depth))))
        c_in = c
    return network(_stem(in_channels, base), stages, PoolHead(c_in, num_classes))


@model("csp_resnet10", family="resnet", paper=TABLE, status="construction", twin="resnet10")
def csp_resnet10(
    num_classes: int = 1000, depths: Sequence[int] = (1, 1, 1, 1), in_channels: int = 3, gamma: float = 0.5,
    fusion: str = "csp", split: str = "slice", width: float = 1.0,
) -> nn.Module:  # fmt: skip
    """CSPResNet-10: half of the output of a stage's strided 3×3 bypasses the block; the narrow first stage is plain.

    There is no public definition. Here the last transition halves the width, as in the authors' CSPResNet-50. This
    gives 2.96 M weights and 1.74 BFLOPs; the paper prints 2.73 M and 1.905. No rule that we tried gives both.
    """
    check_channels(num_classes=num_classes, in_channels=in_channels)
    check_choice(fusion=(fusion, FUSIONS), split=(split, SPLITS))
    if fusion == "none":
        return resnet10(num_classes, depths, in_channels, width)
    first, *rest = check_depths(depths, 4)
    c_in = base = scale_channels(64, width)
    stages: list[nn.Module] = [nn.Sequential(*(Basic(base, base) for _ in range(first)))]
    for i, depth in enumerate(rest, 1):
        c = base << i
        bypass = bypass_channels(c, gamma)
        main = c - bypass
        partial = CrossStagePartial(
            c, c // 2, bypass=bypass, main=main, blocks=nn.Sequential(*(Basic(main, main) for _ in range(depth))),
            c_blocks=main, down=ConvNormAct(c_in, c, 3, 2), split=split, fusion=fusion,
        )  # fmt: skip
        stages.append(partial)
        c_in = partial.c_out
    return network(_stem(in_channels, base), stages, PoolHead(c_in, num_classes))


@model("resnet50", family="resnet", paper=TABLE)
def resnet50(
    num_classes: int = 1000, depths: Sequence[int] = PLAIN, in_channels: int = 3, width: float = 1.0
) -> nn.Module:
    """ResNet-50 as defined in Darknet: no projections, classifier before the pooling."""
    return _plain(depths, 64, 1, ConvHead, num_classes, in_channels, width)


@model("resnext50", family="resnext", paper=TABLE)
def resnext50(
    num_classes: int = 1000, depths: Sequence[int] = PLAIN, in_channels: int = 3, width: float = 1.0
) -> nn.Module:
    """ResNeXt-50 (32 groups) as defined in Darknet: no projections."""
    return _plain(depths, 128, 32, PoolHead, num_classes, in_channels, width)


@model("csp_resnet50", family="resnet", paper=TABLE, twin="resnet50", variants=("elastic",))
def csp_resnet50(
    num_classes: int = 1000, depths: Sequence[int] | None = None, in_channels: int = 3, gamma: float | None = None,
    fusion: str = "csp", split: str = "conv", elastic: bool = False, width: float = 1.0,
) -> nn.Module:  # fmt: skip
    """CSPResNet-50: half of each stage bypasses the bottlenecks, two thirds of the first."""
    config = PartialConfig(64, 1, (128, 256, 512, 1024), resnet50)
    return _partial(config, num_classes, depths, in_channels, gamma, fusion, split, elastic, width)


@model("csp_resnext50", family="resnext", paper=TABLE, twin="resnext50", variants=("elastic",))
def csp_resnext50(
    num_classes: int = 1000, depths: Sequence[int] | None = None, in_channels: int = 3, gamma: float | None = None,
    fusion: str = "csp", split: str = "conv", elastic: bool = False, width: float = 1.0,
) -> nn.Module:  # fmt: skip
    """CSPResNeXt-50: half of each stage bypasses the grouped bottlenecks, two thirds of the first."""
    config = PartialConfig(128, 32, (256, 512, 1024, 2048), resnext50)
    return _partial(config, num_classes, depths, in_channels, gamma, fusion, split, elastic, width)
