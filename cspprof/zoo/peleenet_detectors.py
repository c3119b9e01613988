"""Detectors on PeleeNet and CSPPeleeNet, with the necks that the PRN and CSPNet papers compare.

Forwards return the maps of the heads from coarse to fine. `width` scales the backbone, not the neck.

The first three reproduce the table of the PRN repository to the printed digit (4.84, 4.04 and 5.03 BFLOPs).

The channels of GFM and EFM are not published. Published are: Maxout compresses each level to a quarter before the
concatenation; every layer of CSPPeleeNet-EFM costs about the same; its largest layer is 80 % below the 0.9968 BFLOPs of
PeleeNet-YOLO and 44 % below the 0.3544 BFLOPs of PeleeNet-PRN (CSPNet, section 3.2 and Fig. 7). The widths of PRN, 256
at 13×13 and 128 at 26×26, continued with 64 at 52×52, give three 3×3 convolutions of 0.1994 BFLOPs each, exactly 80.0 %
and 43.75 % below. This file uses these widths. The largest layer is then in the backbone, which is a reading too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from cspprof.zoo import model
from cspprof.zoo.blocks import check_channels
from cspprof.zoo.csp import check_choice
from cspprof.zoo.detector import NATIVE, Detector
from cspprof.zoo.necks import ConcatLevel, Fusion, PartialResidualLevel, TopDown, head_channels
from cspprof.zoo.peleenet import DEPTHS, Backbone, PeleeNetParts, partial_backbone, plain_backbone

PRN = "PRN, Wang et al. 2019 (ICCV workshops), repository"
CSPNET = "CSPNet, Wang et al. 2019, section 3.2 and Fig. 7"
WIDTHS = (256, 128, 128)
"""Channels of the levels of PRN and FPN from coarse to fine."""
BALANCED = (256, 128, 64)
"""Channels with which the 3×3 convolutions cost the same at every level."""
ATTENTION = ("none", "sam", "spp")


def _top_down(
    level: type[ConcatLevel | PartialResidualLevel], levels: int, num_classes: int, depths: Sequence[int], growth: int,
    in_channels: int, act: str, width: float,
) -> nn.Module:  # fmt: skip
    check_channels(num_classes=num_classes)
    backbone, widths = plain_backbone(PeleeNetParts(growth, act, width=width), depths, in_channels), WIDTHS[:levels]
    neck = TopDown(level, _coarse_first(backbone, levels), widths, widths, head_channels(num_classes), act)
    return Detector(backbone.stem, backbone.stages, neck, levels)


def _coarse_first(backbone: Backbone, levels: int) -> tuple[int, ...]:
    return backbone.widths[: -levels - 1 : -1]


@model("peleenet_yolo", family="peleenet", paper=f"{PRN} (Pelee-FPN); CSPNet, Wang et al. 2019, Fig. 7", input=NATIVE)
def peleenet_yolo(
    num_classes: int = 80, depths: Sequence[int] = DEPTHS, growth: int = 32, in_channels: int = 3, act: str = "relu",
    width: float = 1.0,
) -> nn.Module:  # fmt: skip
    """PeleeNet-YOLO: two levels, concatenated (FPN)."""
    return _top_down(ConcatLevel, 2, num_classes, depths, growth, in_channels, act, width)


@model("peleenet_prn", family="peleenet", paper=f"{PRN}; CSPNet, Wang et al. 2019, Fig. 7", input=NATIVE)
def peleenet_prn(
    num_classes: int = 80, depths: Sequence[int] = DEPTHS, growth: int = 32, in_channels: int = 3, act: str = "relu",
    width: float = 1.0,
) -> nn.Module:  # fmt: skip
    """PeleeNet-PRN: two levels; the coarser one is added to part of the channels of the finer one."""
    return _top_down(PartialResidualLevel, 2, num_classes, depths, growth, in_channels, act, width)


@model("peleenet_prn3", family="peleenet", paper=f"{PRN} (Pelee-PRN-3l)", input=NATIVE)
def peleenet_prn3(
    num_classes: int = 80, depths: Sequence[int] = DEPTHS, growth: int = 32, in_channels: int = 3, act: str = "relu",
    width: float = 1.0,
) -> nn.Module:  # fmt: skip
    """PeleeNet-PRN with a third level."""
    return _top_down(PartialResidualLevel, 3, num_classes, depths, growth, in_channels, act, width)


def _fused(
    reach: int, num_classes: int, maxout: int, attention: str, act: str, growth: int, width: float, **backbone: Any
) -> nn.Module:
    check_channels(num_classes=num_classes, maxout=maxout)
    check_choice(attention=(attention, ATTENTION))
    body = partial_backbone(PeleeNetParts(growth, act, width=width), **backbone)
    neck = Fusion(_coarse_first(body, 3), BALANCED, reach, maxout, head_channels(num_classes), act, attention)
    return Detector(body.stem, body.stages, neck, levels=3)


@model("csp_peleenet_gfm", family="peleenet", paper=CSPNET, input=NATIVE, status="construction")
def csp_peleenet_gfm(
    num_classes: int = 80, depths: Sequence[int] = DEPTHS, growth: int = 32, in_channels: int = 3, act: str = "relu",
    gamma: float = 0.5, fusion: str = "csp", split: str = "slice", maxout: int = 4, attention: str = "none",
    width: float = 1.0,
) -> nn.Module:  # fmt: skip
    """CSPPeleeNet with the global fusion model: every level reads all three; widths and compression as in EFM."""
    return _fused(2, num_classes, maxout, attention, act, growth, width, depths=depths, in_channels=in_channels,
                  gamma=gamma, fusion=fusion, split=split)  # fmt: skip


@model("csp_peleenet_efm", family="peleenet", paper=CSPNET, input=NATIVE, status="reading")
def csp_peleenet_efm(
    num_classes: int = 80, depths: Sequence[int] = DEPTHS, growth: int = 32, in_channels: int = 3, act: str = "relu",
    gamma: float = 0.5, fusion: str = "csp", split: str = "slice", maxout: int = 4, attention: str = "none",
    width: float = 1.0,
) -> nn.Module:  # fmt: skip
    """CSPPeleeNet with the exact fusion model: each level reads its neighbors, compressed by Maxout.

    Published are the levels that each level reads, and the compression to a quarter (`maxout=1`: no compression). Not
    published are the upsampling of coarser and max pooling of finer maps, and the 1×1 convolutions to 256, 128 and 64
    channels; see the docstring of the file. `attention=sam` is the published EFM (SAM); `spp` adds spatial pyramid
    pooling.
    """
    return _fused(1, num_classes, maxout, attention, act, growth, width, depths=depths, in_channels=in_channels,
                  gamma=gamma, fusion=fusion, split=split)  # fmt: skip
