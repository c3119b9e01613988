"""Parts that the Darknet-family networks are built from."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import ceil, floor, inf
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn

from cspprof.core.errors import CspprofError

M = TypeVar("M", bound=nn.Module)


def stage(name: str, module: M) -> M:
    """Name the stage that `module`, and what is in it, belongs to."""
    module.cspprof_stage = name  # type: ignore[assignment]
    return module


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky": lambda: nn.LeakyReLU(0.1, inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "swish": lambda: nn.SiLU(inplace=True),
    "mish": lambda: nn.Mish(inplace=True),
    "sigmoid": nn.Sigmoid,
}


def activation(name: str) -> nn.Module:
    """The activation `name`. Raises CspprofError for one that there is not."""
    if name not in ACTIVATIONS:
        raise CspprofError(f"act={name!r} is no activation", f"There are: {', '.join(sorted(ACTIVATIONS))}")
    return ACTIVATIONS[name]()


class ConvNormAct(nn.Sequential):
    """Convolution, batch norm, activation: (N, c_in, H, W) -> (N, c_out, ⌈H/stride⌉, ⌈W/stride⌉)."""

    def __init__(
        self, c_in: int, c_out: int, k: int = 1, stride: int = 1, groups: int = 1, act: str | None = "leaky"
    ) -> None:
        parts: list[tuple[str, nn.Module]] = [
            ("conv", nn.Conv2d(c_in, c_out, k, stride, k // 2, groups=groups, bias=False)),
            ("norm", nn.BatchNorm2d(c_out)),
        ]
        if act is not None:
            parts.append(("act", activation(act)))
        super().__init__(OrderedDict(parts))


class SqueezeExcite(nn.Module):
    """Each channel scaled by what global pooling and two 1×1 convolutions with bias make of all (Hu et al. 2018)."""

    def __init__(self, channels: int, squeezed: int, act: str = "relu") -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.act = activation(act)
        self.excite = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x * self.excite(self.act(self.squeeze(self.pool(x)))).sigmoid()
        return y


def shortcut(x: torch.Tensor, y: torch.Tensor, stride: int = 1) -> torch.Tensor:
    """Darknet's shortcut: add `x` onto `y` without a projection.

    `x` (N, c, H, W) is subsampled by `stride`; of its channels those that `y` has too are added, missing ones
    count as zero. The result has the shape of `y`.
    """
    if stride > 1:
        x = x[:, :, ::stride, ::stride]
    missing = y.size(1) - x.size(1)
    if missing > 0:
        x = F.pad(x, (0, 0, 0, 0, 0, missing))
    elif missing < 0:
        x = x[:, : y.size(1)]
    return y + x


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions and a shortcut (ResNet, He et al. 2015; grouped: ResNeXt, Xie et al. 2016).

    (N, c_in, H, W) -> (N, c_out, ⌈H/stride⌉, ⌈W/stride⌉); the stride is in the 3×3, the shortcut has no projection.
    """

    def __init__(self, c_in: int, mid: int, c_out: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = ConvNormAct(c_in, mid)
        self.conv2 = ConvNormAct(mid, mid, 3, stride, groups)
        self.conv3 = ConvNormAct(mid, c_out, act=None)
        self.act = nn.LeakyReLU(0.1, inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.act(shortcut(x, self.conv3(self.conv2(self.conv1(x))), self.stride))
        return y


class Basic(nn.Module):
    """Two 3×3 convolutions and a shortcut without projection: (N, c_in, H, W) -> (N, c_out, ⌈H/stride⌉, …)."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = ConvNormAct(c_in, c_out, 3, stride)
        self.conv2 = ConvNormAct(c_out, c_out, 3, act=None)
        self.act = nn.LeakyReLU(0.1, inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.act(shortcut(x, self.conv2(self.conv1(x)), self.stride))
        return y


class Residual(nn.Module):
    """1×1 and 3×3 convolutions and a shortcut (YOLOv3, Redmon and Farhadi 2018): (N, c, H, W) -> the same shape."""

    def __init__(self, channels: int, mid: int) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(channels, mid)
        self.conv2 = ConvNormAct(mid, channels, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return shortcut(x, self.conv2(self.conv1(x)))


class Elastic(nn.Module):
    """Half of the channels at full resolution, half at half resolution, then a shortcut (ELASTIC, Wang et al. 2019).

    `make` gives the convolutions of either half, (N, c/2, …) -> the same shape. (N, c, H, W) -> the same shape.
    """

    def __init__(self, make: Callable[[], nn.Module], act: str | None) -> None:
        super().__init__()
        self.fine, self.coarse = make(), make()
        self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.act = nn.Identity() if act is None else activation(act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, 1)
        fine = self.fine(first)
        coarse = F.interpolate(self.coarse(self.pool(second)), size=x.shape[2:])
        y: torch.Tensor = self.act(x + torch.cat([fine, coarse], 1))
        return y


class PoolHead(nn.Module):
    """Global average pooling, then a 1×1 convolution with bias: (N, c_in, H, W) -> logits (N, num_classes)."""

    def __init__(self, c_in: int, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Conv2d(c_in, num_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.classifier(self.pool(x))
        return y.flatten(1)


class ConvHead(nn.Module):
    """The same two the other way round, as the Darknet ResNet-50 has them: classify every place, then average."""

    def __init__(self, c_in: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(c_in, num_classes, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.pool(self.classifier(x))
        return y.flatten(1)


class LinearHead(nn.Module):
    """Global average pooling and a fully connected layer: (N, c_in, H, W) -> logits (N, num_classes)."""

    def __init__(self, c_in: int, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(c_in, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.classifier(self.pool(x).flatten(1))
        return y


def check_channels(**counts: int) -> None:
    """Raise CspprofError unless every option of these is a number of at least 1."""
    for name, n in counts.items():
        if type(n) is not int or n < 1:
            raise CspprofError(f"{name}={n!r} is not a number of channels", f"Give at least one: {name}=10")


def widened(channels: int, width: float, step: int = 1) -> int:
    """`width` times the channels, which has to come out a multiple of `step`: nothing is rounded.

    Raises CspprofError otherwise, with the nearest widths that do.
    """
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not 0 < width < inf:
        raise CspprofError(f"width={width!r} is no multiplier", "Give a positive number: width=0.5")
    steps = channels * width / step
    if abs(steps - round(steps)) > 1e-9 * steps or round(steps) == 0:
        near = [n * step / channels for n in (floor(steps), ceil(steps)) if n]
        raise CspprofError(
            f"width={width!r} makes {channels * width:.6g} of {channels} channels, which are no multiple of {step}",
            f"Nearest: {' or '.join(f'width={w:.12g}' for w in near)}",
        )
    return round(steps) * step


def network(stem: nn.Module, stages: Sequence[nn.Module], head: nn.Module) -> nn.Sequential:
    """Stem, numbered stages and head in a row, each tagged with its stage."""
    parts = [("stem", stem), *((f"stage{i}", s) for i, s in enumerate(stages, 1)), ("head", head)]
    return nn.Sequential(OrderedDict((name, stage(name, part)) for name, part in parts))


def check_depths(depths: Sequence[int] | int, stages: int) -> tuple[int, ...]:
    """The depths as a tuple; raises CspprofError unless there is one of at least 1 for each stage."""
    return one_for_each("depths", depths, stages, "block")


def one_for_each(option: str, values: Sequence[int] | int, stages: int, what: str) -> tuple[int, ...]:
    """The values of an option as a tuple; raises CspprofError unless there is one of at least 1 for each stage."""
    found = (values,) if isinstance(values, int) else tuple(values)
    if len(found) != stages or any(type(n) is not int or n < 1 for n in found):
        raise CspprofError(
            f"{option}={found} does not give each of {stages} stages at least one {what}",
            f"Write {stages} positive numbers: {option}=({','.join(['2'] * stages)})",
        )
    return found
