"""MobileNetV2 as published and as defined in Darknet, and the cross-stage-partial twin of the latter. Forwards return
logits.

`width` multiplies every number of channels; `depths` are the numbers of blocks in the rows of the paper's Table 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from cspprof.core.errors import CspprofError
from cspprof.core.formulas import bypass_channels
from cspprof.zoo import model
from cspprof.zoo.blocks import ConvNormAct, LinearHead, PoolHead, check_channels, check_depths, network, scale_channels
from cspprof.zoo.csp import FUSIONS, SPLITS, CrossStagePartial, check_choice

PAPER = "MobileNetV2, Sandler et al. 2018, Table 2"
TABLE = "CSPNet, Wang et al. 2019, Table 3"
# expansion, channels, blocks, stride
PUBLISHED = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
DEPTHS = (1, 2, 3, 4, 3, 3, 1)
DARKNET = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 1), (6, 96, 3, 2), (6, 160, 3, 2), (6, 320, 1, 1))


class InvertedResidual(nn.Module):
    """1×1 expansion, depthwise 3×3, 1×1 projection without activation: (N, c_in, H, W) -> (N, c_out, H/stride, …).

    With `multiplier` m the 1×1 expands to hidden/m channels and the depthwise convolution writes m channels for each.
    """

    def __init__(
        self, c_in: int, c_out: int, hidden: int, stride: int, act: str, expand: bool = True, multiplier: int = 1
    ) -> None:
        super().__init__()
        expanded = hidden // multiplier
        self.expand = ConvNormAct(c_in, expanded, act=act) if expand else nn.Identity()
        self.depthwise = ConvNormAct(expanded, hidden, 3, stride, expanded, act=act)
        self.project = ConvNormAct(hidden, c_out, act=None)
        self.skips = stride == 1 and c_in == c_out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.skips else y


def _row(c_in: int, t: int, c: int, n: int, stride: int, act: str, expand: bool) -> nn.Sequential:
    blocks = [
        InvertedResidual(c if i else c_in, c, t * (c if i else c_in), 1 if i else stride, act, expand) for i in range(n)
    ]
    return nn.Sequential(*blocks)


@model("mobilenet_v2", family="mobilenet", paper=PAPER, input=(1, 3, 224, 224), variants=("width",))
def mobilenet_v2(
    num_classes: int = 1000, in_channels: int = 3, width: float = 1.0, divisor: int | None = 8
) -> nn.Module:
    """MobileNetV2 as in HarDNet's Table 4: 300.8 M MACs.

    Channels are multiplied by `width` and rounded to a multiple of `divisor`; if that is None, they are rounded down.
    """
    check_channels(num_classes=num_classes, in_channels=in_channels)
    stages: list[nn.Module] = []
    first = c_in = round_channels(32, width, divisor)
    for t, channels, n, stride in PUBLISHED:
        c = round_channels(channels, width, divisor)
        stages.append(_row(c_in, t, c, n, stride, "relu6", expand=t > 1))
        c_in = c
    c = round_channels(1280, max(width, 1.0), divisor)
    last = nn.Sequential(ConvNormAct(c_in, c, act="relu6"), LinearHead(c, num_classes))
    return network(ConvNormAct(in_channels, first, 3, 2, act="relu6"), stages, last)


def round_channels(channels: int, width: float, divisor: int | None) -> int:
    """`width` times the channels, rounded to the nearest multiple of `divisor`, but never down by a tenth or more.

    Raises CspprofError for an invalid width or divisor.
    """
    if not isinstance(width, (int, float)) or not width > 0:
        raise CspprofError(f"width={width!r} is not a multiplier", "Give a positive number: width=1.4")
    if divisor is not None and (type(divisor) is not int or divisor < 1):
        raise CspprofError(
            f"divisor={divisor!r} is not a number of channels", "Give an integer of at least 1, or None: divisor=8"
        )
    exact = channels * width
    if divisor is None:
        return max(int(exact), 1)
    rounded = max(int(exact + divisor / 2) // divisor * divisor, divisor)
    return rounded + divisor if rounded < 0.9 * exact else rounded


@model("mobilenet_v2_darknet", family="mobilenet", paper=TABLE, input=(1, 3, 224, 224))
def mobilenet_v2_darknet(
    num_classes: int = 1000, in_channels: int = 3, depths: Sequence[int] = DEPTHS, width: float = 1.0
) -> nn.Module:
    """MobileNetV2 as defined in Darknet: stride 2 at 96, not 64 channels; expanded first block; 429.1 M MACs."""
    check_channels(num_classes=num_classes, in_channels=in_channels)
    stages: list[nn.Module] = []
    eighth = scale_channels(8, width)
    c_in = 4 * eighth
    for t, c, n, stride in _darknet_rows(depths, eighth):
        stages.append(_row(c_in, t, c, n, stride, "relu", expand=True))
        c_in = c
    return _darknet(eighth, in_channels, stages, c_in, 160 * eighth, num_classes)


def _darknet_rows(depths: Sequence[int], eighth: int) -> list[tuple[int, int, int, int]]:
    """Expansion, channels, blocks and stride of each row. `eighth` is the number of channels in place of 8."""
    rows = zip(DARKNET, check_depths(depths, len(DARKNET)), strict=True)
    return [(t, c * eighth // 8, n, stride) for (t, c, _, stride), n in rows]


def _darknet(
    eighth: int, in_channels: int, stages: Sequence[nn.Module], c_in: int, c_last: int, num_classes: int
) -> nn.Module:
    last = nn.Sequential(ConvNormAct(c_in, c_last, act="relu"), PoolHead(c_last, num_classes))
    return network(ConvNormAct(in_channels, 4 * eighth, 3, 2, act="relu"), stages, last)


def _by_paper_recipe(
    num_classes: int, in_channels: int, gamma: float, fusion: str, split: str, depths: Sequence[int], eighth: int
) -> nn.Module:
    """The Darknet network, in which a cross-stage-partial stage contains all blocks of a stage except the first."""
    stages: list[nn.Module] = []
    c_in = 4 * eighth
    for t, c, n, stride in _darknet_rows(depths, eighth):
        first = _row(c_in, t, c, 1, stride, "relu", expand=True)
        if n == 1:
            stages.append(first)
            c_in = c
        else:
            bypass = bypass_channels(c, gamma)
            main = c - bypass
            partial = CrossStagePartial(
                c, c, bypass=bypass, main=main, blocks=_row(main, t, main, n - 1, 1, "relu", expand=True),
                c_blocks=main, down=first, act="relu", split=split, fusion=fusion,
            )  # fmt: skip
            stages.append(partial)
            c_in = partial.c_out
    return _darknet(eighth, in_channels, stages, c_in, 160 * eighth, num_classes)


class PartialStage(nn.Module):
    """A stage in which a depthwise convolution of the first expansion bypasses the blocks: (N, c_in, H, W) ->
    (N, c_out, ⌈H/stride⌉, ⌈W/stride⌉).

    The output is the last map of the blocks, concatenated with the bypass. The next stage's 1×1 is the transition.
    """

    def __init__(
        self, c_in: int, expanded: int, bypass: int, stride: int, rows: list[tuple[int, int]], expand: bool = True,
        groups: int | None = None, multiplier: int = 2,
    ) -> None:  # fmt: skip
        """`rows` are pairs (channels, blocks) of the main path."""
        super().__init__()
        self.expand = ConvNormAct(c_in, expanded, act="relu") if expand else nn.Identity()
        source = expanded if expand else c_in
        self.bypass = ConvNormAct(source, bypass, 3, stride, groups or source, act="relu")
        first = rows[0][0]
        self.first = InvertedResidual(source, first, multiplier * expanded, stride, "relu", not expand, multiplier)
        self.first.skips = False
        blocks, c = [], first
        for channels, count in [(first, rows[0][1] - 1), *rows[1:]]:
            for _ in range(count):
                blocks.append(InvertedResidual(c, channels, 6 * c, 1, "relu", multiplier=2))
                c = channels
        self.blocks = nn.Sequential(*blocks)
        self.c_out = c + bypass

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.expand(x)
        bypass = self.bypass(x)
        return torch.cat([self.blocks(self.first(x)), bypass], 1)


@model("csp_mobilenet_v2", family="mobilenet", paper=TABLE, input=(1, 3, 224, 224), twin="mobilenet_v2_darknet")
def csp_mobilenet_v2(
    num_classes: int = 1000, in_channels: int = 3, gamma: float | None = None, fusion: str = "csp",
    split: str | None = None, depths: Sequence[int] = DEPTHS, width: float = 1.0,
) -> nn.Module:  # fmt: skip
    """CSPMobileNetV2: in each stage half of the expanded maps bypass the inverted residuals.

    The authors' network has no γ. With `gamma`, `split` or another `fusion` the network is the plain one with the
    paper's recipe instead: after the first block of a stage, γ of its channels bypass the other blocks.
    """
    check_channels(num_classes=num_classes, in_channels=in_channels)
    check_choice(fusion=(fusion, FUSIONS), split=(split or "slice", SPLITS))
    if fusion == "none":
        return mobilenet_v2_darknet(num_classes, in_channels, depths, width)
    eighth = scale_channels(8, width)
    if gamma is not None or split is not None or fusion != "csp":
        fraction = 0.5 if gamma is None else gamma
        return _by_paper_recipe(num_classes, in_channels, fraction, fusion, split or "slice", depths, eighth)
    first, *rows = [(c, n) for _, c, n, _ in _darknet_rows(depths, eighth)]
    base, half = 4 * eighth, 2 * eighth
    stages = [PartialStage(base, base, half, 1, [first], expand=False, groups=half, multiplier=1)]
    for expanded, part in ((6, rows[:1]), (9, rows[1:3]), (24, rows[3:4]), (36, rows[4:])):
        channels = expanded * eighth
        stages.append(PartialStage(stages[-1].c_out, channels, channels, 2, part))
    return _darknet(eighth, in_channels, stages, stages[-1].c_out, 80 * eighth, num_classes)
