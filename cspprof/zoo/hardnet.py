"""HarDNet: harmonic links between layers (Chao et al. 2019, section 4). Forwards return logits.

`width` multiplies every number of channels; `depths` are the layers of each block, `growth` its growth rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from cspprof.core.formulas import harmonic_links as links
from cspprof.core.formulas import harmonic_width
from cspprof.zoo import model
from cspprof.zoo.blocks import ConvNormAct, LinearHead, check_channels, check_depths, network, one_for_each, widened

PAPER = "HarDNet, Chao et al. 2019, section 4 and Table 4"
INPUT = (1, 3, 224, 224)


def width(k: int, growth: int, m: float) -> int:
    """Channels of layer k."""
    return harmonic_width(len(links(k)), growth, m)


class HarmonicBlock(nn.Module):
    """Layer k reads the layers that `links` names; the output is the last layer and all odd ones.

    (N, c_in, H, W) -> (N, c_out, H, W). With `separable` a layer is a 1×1 and a depthwise 3×3 convolution.
    """

    def __init__(self, c_in: int, growth: int, m: float, layers: int, separable: bool) -> None:
        super().__init__()
        widths = [c_in, *(width(k, growth, m) for k in range(1, layers + 1))]
        self.sources = [links(k) for k in range(1, layers + 1)]
        self.kept = [k for k in range(1, layers + 1) if k == layers or k % 2]
        self.layers = nn.ModuleList(
            _layer(sum(widths[i] for i in sources), widths[k], separable) for k, sources in enumerate(self.sources, 1)
        )
        self.c_out = sum(widths[k] for k in self.kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = [x]
        for layer, sources in zip(self.layers, self.sources, strict=True):
            parts = [made[i] for i in sources]
            made.append(layer(parts[0] if len(parts) == 1 else torch.cat(parts, 1)))
        return torch.cat([made[k] for k in self.kept], 1)


def _layer(c_in: int, c_out: int, separable: bool) -> nn.Module:
    if separable:
        return nn.Sequential(
            ConvNormAct(c_in, c_out, act="relu6"), ConvNormAct(c_out, c_out, 3, groups=c_out, act=None)
        )
    return ConvNormAct(c_in, c_out, 3, act="relu6")


@dataclass(frozen=True, slots=True)
class Form:
    """One HarDNet."""

    stem: Sequence[int]
    m: float
    growth: Sequence[int]
    layers: Sequence[int]
    widths: Sequence[int]
    """Of the 1×1 transitions that end the blocks."""
    down: Sequence[int]
    """Blocks (from 1) that a halving follows."""
    separable: bool = False


def _changed(form: Form, depths: Sequence[int] | None, growth: Sequence[int] | None, width: float) -> Form:
    """The form with other layers and growth rates by block, and `width` times the channels."""
    blocks = len(form.layers)
    growth = one_for_each("growth", form.growth if growth is None else growth, blocks, "channel")

    def wide(channels: Sequence[int]) -> list[int]:
        return [widened(c, width) for c in channels]

    return replace(
        form, stem=wide(form.stem), growth=wide(growth), widths=wide(form.widths),
        layers=check_depths(form.layers if depths is None else depths, blocks),
    )  # fmt: skip


def _hardnet(
    form: Form, num_classes: int, in_channels: int, depths: Sequence[int] | None, growth: Sequence[int] | None,
    width: float,
) -> nn.Module:  # fmt: skip
    check_channels(num_classes=num_classes, in_channels=in_channels)
    form = _changed(form, depths, growth, width)
    first, c = form.stem
    second = ConvNormAct(first, c, 1 if form.separable else 3, act="relu6")
    stem = nn.Sequential(ConvNormAct(in_channels, first, 3, 2, act="relu6"), second, _halved(c, form.separable, 3))
    stages: list[nn.Module] = []
    for i, (rate, layers, out) in enumerate(zip(form.growth, form.layers, form.widths, strict=True), 1):
        block = HarmonicBlock(c, rate, form.m, layers, form.separable)
        parts: list[nn.Module] = [block, ConvNormAct(block.c_out, out, act="relu6")]
        if i in form.down:
            parts.append(_halved(out, form.separable, 2))
        stages.append(nn.Sequential(*parts))
        c = out
    return network(stem, stages, LinearHead(c, num_classes))


def _halved(c: int, separable: bool, k: int) -> nn.Module:
    """Max pooling; in the depthwise-separable nets a strided depthwise convolution."""
    if separable:
        return ConvNormAct(c, c, 3, 2, c, act=None)
    return nn.MaxPool2d(k, 2, 1 if k == 3 else 0, ceil_mode=k == 2)


FORM_39DS = Form((24, 48), 1.6, (16, 20, 64, 160), (4, 16, 8, 4), (96, 320, 640, 1024), (1, 2, 3), separable=True)
FORM_85 = Form(
    (48, 96), 1.7, (24, 24, 28, 36, 48, 256), (8, 16, 16, 16, 16, 4), (192, 256, 320, 480, 720, 1280), (1, 3, 5)
)
FORM_68 = Form((32, 64), 1.7, (14, 16, 20, 40, 160), (8, 16, 16, 16, 4), (128, 256, 320, 640, 1024), (1, 3, 4))


@model("hardnet39ds", family="hardnet", paper=PAPER, input=INPUT)
def hardnet39ds(
    num_classes: int = 1000, in_channels: int = 3, depths: Sequence[int] | None = None,
    growth: Sequence[int] | None = None, width: float = 1.0,
) -> nn.Module:  # fmt: skip
    """HarDNet-39DS, depthwise-separable; the released definition."""
    return _hardnet(FORM_39DS, num_classes, in_channels, depths, growth, width)


@model("hardnet68ds", family="hardnet", paper=PAPER, input=INPUT)
def hardnet68ds(
    num_classes: int = 1000, in_channels: int = 3, depths: Sequence[int] | None = None,
    growth: Sequence[int] | None = None, width: float = 1.0,
) -> nn.Module:  # fmt: skip
    """HarDNet-68DS, depthwise-separable; the released definition."""
    return _hardnet(replace(FORM_68, separable=True), num_classes, in_channels, depths, growth, width)


@model("hardnet68", family="hardnet", paper=PAPER, input=INPUT)
def hardnet68(
    num_classes: int = 1000, in_channels: int = 3, depths: Sequence[int] | None = None,
    growth: Sequence[int] | None = None, width: float = 1.0,
) -> nn.Module:  # fmt: skip
    """HarDNet-68."""
    return _hardnet(FORM_68, num_classes, in_channels, depths, growth, width)


@model("hardnet85", family="hardnet", paper=PAPER, input=INPUT)
def hardnet85(
    num_classes: int = 1000, in_channels: int = 3, depths: Sequence[int] | None = None,
    growth: Sequence[int] | None = None, width: float = 1.0,
) -> nn.Module:  # fmt: skip
    """HarDNet-85."""
    return _hardnet(FORM_85, num_classes, in_channels, depths, growth, width)
