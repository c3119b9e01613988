"""Necks and detection heads: how the levels of a feature pyramid meet, and what predicts from them.

A pyramid is a list of maps from coarse to fine, each twice as high and wide as the one before. A neck with its heads
turns it into a list of predictions (N, anchors·(5 + classes), H, W); no box is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from cspprof.zoo.blocks import ConvNormAct, activation, shortcut, stage

Tensor = torch.Tensor
Maps = list[torch.Tensor]
ANCHORS = 3
"""Boxes that a YOLOv3 head predicts at each place."""


def predictions(num_classes: int) -> int:
    """Channels of a YOLOv3 head: for each anchor a box, its objectness and the classes."""
    return ANCHORS * (5 + num_classes)


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    """`x` at the height and width of `like`, each place repeated."""
    return F.interpolate(x, size=like.shape[2:])


# -- parts -----------------------------------------------------------------------------------------


class Maxout(nn.Module):
    """Fewer channels, each the largest of a group (Goodfellow et al. 2013): (N, c, H, W) -> (N, c_out, H, W).

    The groups are those of Darknet's `maxpool_depth`: channel g is the maximum of the channels k with
    k ≡ g (mod c_out). A missing last member of a group is −∞. As a reduction it is in no CIO.
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
    """A map beside its maxima over 5×5, 9×9 and 13×13 places: (N, c, H, W) -> (N, 4c, H, W) (He et al. 2014, as in
    YOLOv3-SPP)."""

    def __init__(self, sizes: Sequence[int] = (5, 9, 13)) -> None:
        super().__init__()
        self.pools = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in sizes)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([*reversed([pool(x) for pool in self.pools]), x], 1)


class SpatialAttention(nn.Module):
    """SAM: x · σ(BN(1×1(by))), for x (N, c, H, W) and by (N, c_by, H, W) -> (N, c, H, W).

    In ThunderNet (Qin et al. 2019, section 3.2) `by` is what the RPN made of x; in Darknet's networks it is x itself.
    """

    def __init__(self, c: int, c_by: int | None = None) -> None:
        super().__init__()
        self.weigh = ConvNormAct(c_by or c, c, act="sigmoid")

    def forward(self, x: Tensor, by: Tensor | None = None) -> Tensor:
        weights: Tensor = self.weigh(x if by is None else by)
        return x * weights


class YoloHead(nn.Module):
    """3×3 convolution, and the 1×1 with bias that predicts (YOLOv3, Redmon and Farhadi 2018):
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
    """A level of a YOLOv3 feature pyramid (FPN, Lin et al. 2017): the coarser one, narrowed and enlarged, is
    concatenated with the level's own map."""

    def __init__(self, c: int, c_coarser: int | None, width: int, c_head: int, c_out: int, act: str) -> None:
        super().__init__()
        self.narrow = ConvNormAct(c_coarser or c, width, act=act)
        self.head = stage("head", YoloHead(width + (c if c_coarser else 0), c_head, c_out, act))
        self.c_next = width

    def forward(self, x: Tensor, coarser: Tensor | None) -> tuple[Tensor, Tensor]:
        """The prediction, and what the next finer level takes."""
        narrow = self.narrow(x if coarser is None else coarser)
        joined = narrow if coarser is None else torch.cat([enlarged(narrow, x), x], 1)
        return self.head(joined), narrow


class PartialResidualLevel(nn.Module):
    """A level of a partial residual network (PRN, Wang et al. 2019, ICCV workshops): the coarser one, narrowed and
    enlarged, is added onto as many of the level's first channels, and only those go on."""

    def __init__(self, c: int, c_coarser: int | None, width: int, c_head: int, c_out: int, act: str) -> None:
        super().__init__()
        self.narrow = ConvNormAct(c_coarser or c, width, act=act)
        self.head = stage("head", PartialResidualHead(width, c_out, act))
        self.act = activation(act)
        self.c_next = width

    def forward(self, x: Tensor, coarser: Tensor | None) -> tuple[Tensor, Tensor]:
        """The prediction, and what the next finer level takes."""
        narrow = self.narrow(x if coarser is None else coarser)
        if coarser is None:
            return self.head(narrow, narrow)  # type: ignore[no-any-return]
        narrow = enlarged(narrow, x)
        return self.head(self.act(shortcut(x, narrow)), narrow, x)  # type: ignore[no-any-return]


class PartialResidualHead(nn.Module):
    """3×3 convolution, shortcuts from the maps before it, and the 1×1 that predicts."""

    def __init__(self, c: int, c_out: int, act: str) -> None:
        super().__init__()
        self.conv = ConvNormAct(c, c, 3, act=act)
        self.act = activation(act)
        self.predict = nn.Conv2d(c, c_out, 1)

    def forward(self, x: Tensor, *before: Tensor) -> tuple[Tensor, Tensor]:
        """The prediction (N, c_out, H, W), and what the convolution made (N, c, H, W)."""
        made = y = self.conv(x)
        for earlier in before:
            y = self.act(shortcut(earlier, y))
        return self.predict(y), made


class TopDown(nn.Module):
    """Levels from coarse to fine, each with its head: `c_levels` are the channels of the maps, `widths` those that
    each level is narrowed to, `heads` those of its 3×3 convolution."""

    def __init__(
        self, level: type[ConcatLevel | PartialResidualLevel], c_levels: Sequence[int], widths: Sequence[int],
        heads: Sequence[int], c_out: int, act: str,
    ) -> None:  # fmt: skip
        super().__init__()
        self.levels = nn.ModuleList()
        coarser: int | None = None
        for c, width, c_head in zip(c_levels, widths, heads, strict=True):
            made = level(c, coarser, width, c_head, c_out, act)
            self.levels.append(made)
            coarser = made.c_next

    def forward(self, pyramid: Maps) -> Maps:
        made, coarser = [], None
        for level, x in zip(self.levels, pyramid, strict=True):
            prediction, coarser = level(x, coarser)
            made.append(prediction)
        return made


# -- several levels at once: GFM and EFM -------------------------------------------------------------


class Fusion(nn.Module):
    """GFM and EFM (CSPNet, Wang et al. 2019, section 3.2): each level takes those at most `reach` scales away.

    With reach 1 (EFM) level s takes s−1, s and s+1; with a larger one (GFM) all. Each map is compressed by Maxout to
    1/`maxout` of its channels before the concatenation (none for 1); a coarser one is enlarged, a finer one
    max-pooled. A 1×1 convolution brings level s to `widths[s]`, a YOLOv3 head predicts. `attention`: *sam* on every
    level's map, *spp* on the coarsest one's.
    """

    def __init__(
        self, c_levels: Sequence[int], widths: Sequence[int], reach: int, maxout: int, c_out: int, act: str,
        attention: str = "none",
    ) -> None:  # fmt: skip
        super().__init__()
        few = [max(c // maxout, 1) for c in c_levels]
        self.compress = nn.ModuleList(nn.Identity() if maxout == 1 else Maxout(c) for c in few)
        self.near = [[t for t in range(len(few)) if abs(s - t) <= reach] for s in range(len(few))]
        self.narrow = nn.ModuleList(
            ConvNormAct(sum(few[t] for t in near), width, act=act)
            for near, width in zip(self.near, widths, strict=True)
        )
        furthest = min(reach, len(few) - 1)
        self.shrink = nn.ModuleList(nn.MaxPool2d(2 ** (n + 1), ceil_mode=True) for n in range(furthest))
        self.attend = nn.ModuleList(_attention(attention, width, s == 0, act) for s, width in enumerate(widths))
        self.heads = nn.ModuleList(stage("head", YoloHead(width, width, c_out, act)) for width in widths)

    def forward(self, pyramid: Maps) -> Maps:
        small = [compress(x) for compress, x in zip(self.compress, pyramid, strict=True)]
        made = []
        for s, head in enumerate(self.heads):
            joined = torch.cat([self._at_scale(small[t], t - s, small[s]) for t in self.near[s]], 1)
            made.append(head(self.attend[s](self.narrow[s](joined))))
        return made

    def _at_scale(self, x: Tensor, finer: int, like: Tensor) -> Tensor:
        """A map that is so many scales finer (or coarser, where negative) than `like`, at its size."""
        if finer > 0:
            shrunk: Tensor = self.shrink[finer - 1](x)
            return shrunk
        return enlarged(x, like) if finer < 0 else x


def _attention(name: str, width: int, coarsest: bool, act: str) -> nn.Module:
    if name == "sam":
        return SpatialAttention(width)
    if name == "spp" and coarsest:
        return nn.Sequential(SpatialPyramidPooling(), ConvNormAct(4 * width, width, act=act))
    return nn.Identity()


# -- down and up again: PANet -------------------------------------------------------------------------


def _five(c_in: int, c: int, act: str) -> nn.Sequential:
    """1×1, 3×3, 1×1, 3×3, 1×1: (N, c_in, H, W) -> (N, c, H, W)."""
    shapes = [(c_in, c, 1), (c, 2 * c, 3), (2 * c, c, 1), (c, 2 * c, 3), (2 * c, c, 1)]
    return nn.Sequential(*(ConvNormAct(a, b, k, act=act) for a, b, k in shapes))


class Descend(nn.Module):
    """The coarser map, narrowed and enlarged, joins the narrowed level: -> (N, width, H, W)."""

    def __init__(self, c: int, width: int, act: str) -> None:
        super().__init__()
        self.narrow = ConvNormAct(2 * width, width, act=act)
        self.own = ConvNormAct(c, width, act=act)
        self.convs = _five(2 * width, width, act)

    def forward(self, coarser: Tensor, x: Tensor) -> Tensor:
        coarser = enlarged(self.narrow(coarser), x)
        y: Tensor = self.convs(torch.cat([self.own(x), coarser], 1))
        return y


class Ascend(nn.Module):
    """The finer map, halved by a strided convolution, joins the level: -> (N, width, H, W)."""

    def __init__(self, width: int, act: str) -> None:
        super().__init__()
        self.halve = ConvNormAct(width // 2, width, 3, 2, act=act)
        self.convs = _five(2 * width, width, act)

    def forward(self, finer: Tensor, x: Tensor) -> Tensor:
        y: Tensor = self.convs(torch.cat([self.halve(finer), x], 1))
        return y


class PathAggregation(nn.Module):
    """PANet (Liu et al. 2018) with spatial pyramid pooling, in the Darknet form: down the pyramid and up again.

    Three levels of `c_levels` channels, narrowed to `width`, a half and a quarter of it. The predictions come finest
    first, as they are made.
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
            stage("head", YoloHead(c, 2 * c, c_out, act)) for c in (width // 4, width // 2, width)
        )

    def forward(self, pyramid: Maps) -> Maps:
        coarse, middle, fine = pyramid
        down = [self.coarsest(coarse)]
        for step, x in zip(self.descend, (middle, fine), strict=True):
            down.append(step(down[-1], x))
        up = down.pop()
        made = [self.heads[0](up)]
        for step, head in zip(self.ascend, list(self.heads)[1:], strict=True):
            up = step(up, down.pop())
            made.append(head(up))
        return made
