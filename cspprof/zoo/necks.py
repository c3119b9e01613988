"""Necks and detection heads: combine the levels of a feature pyramid and predict from them.

A pyramid is a list of maps from coarse to fine, each twice as high and wide as the one before. A neck with its heads
maps it to a list of predictions (N, anchors·(5 + classes), H, W). Boxes are not decoded.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from cspprof.zoo.blocks import ConvNormAct, activation, shortcut, tag_stage

Tensor = torch.Tensor
Maps = list[torch.Tensor]
ANCHORS = 3
"""Boxes that a YOLOv3 head predicts at each position."""


def head_channels(num_classes: int) -> int:
    """Output channels of a YOLOv3 head: for each anchor a box, its objectness and the classes."""
    return ANCHORS * (5 + num_classes)


def upsample_like(x: Tensor, like: Tensor) -> Tensor:
    """`x` upsampled to the height and width of `like` by nearest neighbor."""
    return F.interpolate(x, size=like.shape[2:])


# -- parts -----------------------------------------------------------------------------------------


class Maxout(nn.Module):
    """Maximum over groups of channels (Goodfellow et al. 2013): (N, c, H, W) -> (N, c_out, H, W).

    As in Darknet's `maxpool_depth`, output channel g is the maximum of the channels k with k ≡ g (mod c_out). A missing
    last member of a group is −∞. It is a reduction, so it does not count in CIO.
    """

    def __init__(self, c_out: int) -> None:
        super().__init__()
        self.c_out = c_out

    def forward(self, x: Tensor) -> Tensor:
        missing = -x.size(1) % self.c_out
        if missing:
            x = F.pad(x, (0, 0, 0, 0, 0, missing), value=float("-inf"))
        return torch.unflatten(x, 1, (-1, self.c_out)).amax(1)

    def extra_repr(self) -> str:
        return f"to {self.c_out} channels"


class SpatialPyramidPooling(nn.Module):
    """A map concatenated with its 5×5, 9×9 and 13×13 max pools: (N, c, H, W) -> (N, 4c, H, W) (He et al. 2014, as in
    YOLOv3-SPP)."""

    def __init__(self, sizes: Sequence[int] = (5, 9, 13)) -> None:
        super().__init__()
        self.pools = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in sizes)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([*reversed([pool(x) for pool in self.pools]), x], 1)


class SpatialAttention(nn.Module):
    """SAM: x · σ(BN(1×1(by))), for x (N, c, H, W) and by (N, c_by, H, W) -> (N, c, H, W).

    In ThunderNet (Qin et al. 2019, section 3.2) `by` is the feature map of the RPN; in Darknet's networks it is x.
    """

    def __init__(self, c: int, c_by: int | None = None) -> None:
        super().__init__()
        self.weigh = ConvNormAct(c_by or c, c, act="sigmoid")

    def forward(self, x: Tensor, by: Tensor | None = None) -> Tensor:
        weights: Tensor = self.weigh(x if by is None else by)
        return x * weights


class YoloHead(nn.Module):
    """A 3×3 convolution, and a 1×1 with bias for the predictions (YOLOv3, Redmon and Farhadi 2018):
    (N, c_in, H, W) -> (N, c_out, H, W)."""

    def __init__(self, c_in: int, c: int, c_out: int, act: str = "leaky") -> None:
        super().__init__()
        self.conv = ConvNormAct(c_in, c, 3, act=act)
        self.predict = nn.Conv2d(c, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.predict(self.conv(x))
        return y


# -- from coarse to fine: FPN and PRN ----------------------------------------------------------------


class ConcatLevel(nn.Module):
    """A level of a YOLOv3 feature pyramid (FPN, Lin et al. 2017): the coarser level, narrowed by a 1×1 and upsampled,
    is concatenated with the map of this level."""

    def __init__(self, c: int, c_coarser: int | None, width: int, c_head: int, c_out: int, act: str) -> None:
        super().__init__()
        self.narrow = ConvNormAct(c_coarser or c, width, act=act)
        self.head = tag_stage("head", YoloHead(width + (c if c_coarser else 0), c_head, c_out, act))
        self.c_next = width

    def forward(self, x: Tensor, coarser: Tensor | None) -> tuple[Tensor, Tensor]:
        """The prediction, and the input of the next finer level."""
        narrow = self.narrow(x if coarser is None else coarser)
        joined = narrow if coarser is None else torch.cat([upsample_like(narrow, x), x], 1)
        return self.head(joined), narrow


class PartialResidualLevel(nn.Module):
    """A level of a partial residual network (PRN, Wang et al. 2019, ICCV workshops): the coarser level, narrowed by a
    1×1 and upsampled, is added to the first channels of this level. The other channels are dropped."""

    def __init__(self, c: int, c_coarser: int | None, width: int, c_head: int, c_out: int, act: str) -> None:
        super().__init__()
        self.narrow = ConvNormAct(c_coarser or c, width, act=act)
        self.head = tag_stage("head", PartialResidualHead(width, c_out, act))
        self.act = activation(act)
        self.c_next = width

    def forward(self, x: Tensor, coarser: Tensor | None) -> tuple[Tensor, Tensor]:
        """The prediction, and the input of the next finer level."""
        narrow = self.narrow(x if coarser is None else coarser)
        if coarser is None:
            return self.head(narrow, narrow)  # type: ignore[no-any-return]
        narrow = upsample_like(narrow, x)
        return self.head(self.act(shortcut(x, narrow)), narrow, x)  # type: ignore[no-any-return]


class PartialResidualHead(nn.Module):
    """A 3×3 convolution, shortcuts from earlier maps, and a 1×1 for the predictions."""

    def __init__(self, c: int, c_out: int, act: str) -> None:
        super().__init__()
        self.conv = ConvNormAct(c, c, 3, act=act)
        self.act = activation(act)
        self.predict = nn.Conv2d(c, c_out, 1)

    def forward(self, x: Tensor, *before: Tensor) -> tuple[Tensor, Tensor]:
        """The prediction (N, c_out, H, W), and the output of the 3×3 convolution (N, c, H, W)."""
        output = y = self.conv(x)
        for earlier in before:
            y = self.act(shortcut(earlier, y))
        return self.predict(y), output


class TopDown(nn.Module):
    """Levels from coarse to fine, each with its head. `c_levels` are the channels of the maps, `widths` the channels
    after the 1×1 of each level, `heads` the channels of the 3×3 convolution of its head."""

    def __init__(
        self, level: type[ConcatLevel | PartialResidualLevel], c_levels: Sequence[int], widths: Sequence[int],
        heads: Sequence[int], c_out: int, act: str,
    ) -> None:  # fmt: skip
        super().__init__()
        self.levels = nn.ModuleList()
        coarser: int | None = None
        for c, width, c_head in zip(c_levels, widths, heads, strict=True):
            module = level(c, coarser, width, c_head, c_out, act)
            self.levels.append(module)
            coarser = module.c_next

    def forward(self, pyramid: Maps) -> Maps:
        predictions, coarser = [], None
        for level, x in zip(self.levels, pyramid, strict=True):
            prediction, coarser = level(x, coarser)
            predictions.append(prediction)
        return predictions


# -- several levels at once: GFM and EFM -------------------------------------------------------------


class Fusion(nn.Module):
    """GFM and EFM (CSPNet, Wang et al. 2019, section 3.2): each level reads the levels at most `reach` scales away.

    With reach 1 (EFM) level s reads s−1, s and s+1; with a larger reach (GFM) it reads all. Before the concatenation,
    Maxout compresses each map to 1/`maxout` of its channels (1: no compression), a coarser map is upsampled and a finer
    one max-pooled. A 1×1 convolution gives level s `widths[s]` channels, then follows a YOLOv3 head. `attention` is
    *sam* on every level, or *spp* on the coarsest one.
    """

    def __init__(
        self, c_levels: Sequence[int], widths: Sequence[int], reach: int, maxout: int, c_out: int, act: str,
        attention: str = "none",
    ) -> None:  # fmt: skip
        super().__init__()
        compressed = [max(c // maxout, 1) for c in c_levels]
        levels = range(len(compressed))
        self.compress = nn.ModuleList(nn.Identity() if maxout == 1 else Maxout(c) for c in compressed)
        self.sources = [[t for t in levels if abs(s - t) <= reach] for s in levels]
        self.narrow = nn.ModuleList(
            ConvNormAct(sum(compressed[t] for t in sources), width, act=act)
            for sources, width in zip(self.sources, widths, strict=True)
        )
        furthest = min(reach, len(levels) - 1)
        self.shrink = nn.ModuleList(nn.MaxPool2d(2 ** (n + 1), ceil_mode=True) for n in range(furthest))
        self.attend = nn.ModuleList(_attention(attention, width, s == 0, act) for s, width in enumerate(widths))
        self.heads = nn.ModuleList(tag_stage("head", YoloHead(width, width, c_out, act)) for width in widths)

    def forward(self, pyramid: Maps) -> Maps:
        maps = [compress(x) for compress, x in zip(self.compress, pyramid, strict=True)]
        predictions = []
        for s, head in enumerate(self.heads):
            joined = torch.cat([self._resized(maps[t], t - s, maps[s]) for t in self.sources[s]], 1)
            predictions.append(head(self.attend[s](self.narrow[s](joined))))
        return predictions

    def _resized(self, x: Tensor, finer: int, like: Tensor) -> Tensor:
        """`x`, which is `finer` scales finer than `like` (coarser if negative), at the size of `like`."""
        if finer > 0:
            shrunk: Tensor = self.shrink[finer - 1](x)
            return shrunk
        return upsample_like(x, like) if finer < 0 else x


def _attention(name: str, width: int, coarsest: bool, act: str) -> nn.Module:
    if name == "sam":
        return SpatialAttention(width)
    if name == "spp" and coarsest:
        return nn.Sequential(SpatialPyramidPooling(), ConvNormAct(4 * width, width, act=act))
    return nn.Identity()


# -- down and up again: PANet -------------------------------------------------------------------------


def _five_convs(c_in: int, c: int, act: str) -> nn.Sequential:
    """1×1, 3×3, 1×1, 3×3, 1×1: (N, c_in, H, W) -> (N, c, H, W)."""
    shapes = [(c_in, c, 1), (c, 2 * c, 3), (2 * c, c, 1), (c, 2 * c, 3), (2 * c, c, 1)]
    return nn.Sequential(*(ConvNormAct(a, b, k, act=act) for a, b, k in shapes))


class Descend(nn.Module):
    """Concatenate a level with the coarser map, both narrowed by a 1×1, the latter upsampled: -> (N, width, H, W)."""

    def __init__(self, c: int, width: int, act: str) -> None:
        super().__init__()
        self.narrow = ConvNormAct(2 * width, width, act=act)
        self.own = ConvNormAct(c, width, act=act)
        self.convs = _five_convs(2 * width, width, act)

    def forward(self, coarser: Tensor, x: Tensor) -> Tensor:
        coarser = upsample_like(self.narrow(coarser), x)
        y: Tensor = self.convs(torch.cat([self.own(x), coarser], 1))
        return y


class Ascend(nn.Module):
    """Concatenate a level with the finer map after a convolution of stride 2: -> (N, width, H, W)."""

    def __init__(self, width: int, act: str) -> None:
        super().__init__()
        self.halve = ConvNormAct(width // 2, width, 3, 2, act=act)
        self.convs = _five_convs(2 * width, width, act)

    def forward(self, finer: Tensor, x: Tensor) -> Tensor:
        y: Tensor = self.convs(torch.cat([self.halve(finer), x], 1))
        return y


class PathAggregation(nn.Module):
    """PANet (Liu et al. 2018) with spatial pyramid pooling, in the Darknet form: down the pyramid and up again.

    Three levels of `c_levels` channels are narrowed to `width`, a half and a quarter of it. The predictions are ordered
    from fine to coarse, as they are computed.
    """

    def __init__(self, c_levels: Sequence[int], c_out: int, width: int = 512, act: str = "leaky") -> None:
        super().__init__()
        coarse, middle, fine = c_levels

        def three(c_in: int) -> list[nn.Module]:
            shapes = [(c_in, width, 1), (width, 2 * width, 3), (2 * width, width, 1)]
            return [ConvNormAct(a, b, k, act=act) for a, b, k in shapes]

        self.coarsest = nn.Sequential(*three(coarse), SpatialPyramidPooling(), *three(4 * width))
        self.descend = nn.ModuleList([Descend(middle, width // 2, act), Descend(fine, width // 4, act)])
        self.ascend = nn.ModuleList([Ascend(width // 2, act), Ascend(width, act)])
        self.heads = nn.ModuleList(
            tag_stage("head", YoloHead(c, 2 * c, c_out, act)) for c in (width // 4, width // 2, width)
        )

    def forward(self, pyramid: Maps) -> Maps:
        coarse, middle, fine = pyramid
        down = [self.coarsest(coarse)]
        for step, x in zip(self.descend, (middle, fine), strict=True):
            down.append(step(down[-1], x))
        up = down.pop()
        predictions = [self.heads[0](up)]
        for step, head in zip(self.ascend, list(self.heads)[1:], strict=True):
            up = step(up, down.pop())
            predictions.append(head(up))
        return predictions
