"""Blocks, heads and checks of options that several networks share."""

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


def tag_stage(name: str, module: M) -> M:
    """Tag `module` and its submodules with the name of their stage."""
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
    """A module of the activation `name`. Raises CspprofError for an unknown name."""
    if name not in ACTIVATIONS:
        raise CspprofError(f"act={name!r} is not an activation", f"Choose one of: {', '.join(sorted(ACTIVATIONS))}")
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
    """Scale each channel by a factor from global pooling and two 1×1 convolutions with bias (Hu et al. 2018)."""

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
    """Darknet's shortcut without a projection: `y` plus `x`, with the shape of `y`.

    `x` (N, c, H, W) is subsampled by `stride`. Surplus channels of `x` are dropped, missing ones count as zero.
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

    (N, c_in, H, W) -> (N, c_out, ⌈H/stride⌉, ⌈W/stride⌉). The 3×3 has the stride; the shortcut has no projection.
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

    `make_convs` returns the convolutions of one half, (N, c/2, H, W) -> the same shape. The block maps (N, c, H, W) to
    the same shape.
    """

    def __init__(self, make_convs: Callable[[], nn.Module], act: str | None) -> None:
        super().__init__()
        self.fine, self.coarse = make_convs(), make_convs()
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
    """A 1×1 convolution with bias, then global average pooling, as in the Darknet ResNet-50: (N, c_in, H, W) -> logits
    (N, num_classes)."""

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


def transition_pool() -> nn.Module:
    """The 2×2 average pool of stride 2 that ends a dense stage. An odd height or width is rounded up."""
    return nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)


def check_channels(**counts: int) -> None:
    """Raise CspprofError unless every option is an integer of at least 1."""
    for name, n in counts.items():
        if type(n) is not int or n < 1:
            raise CspprofError(f"{name}={n!r} is not a number of channels", f"Give at least 1: {name}=10")


def scale_channels(channels: int, width: float, step: int = 1) -> int:
    """`width` times the channels, without rounding.

    Raises CspprofError, with the nearest valid widths, unless the result is a multiple of `step`.
    """
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not 0 < width < inf:
        raise CspprofError(f"width={width!r} is not a multiplier", "Give a positive number: width=0.5")
    steps = channels * width / step
    if abs(steps - round(steps)) > 1e-9 * steps or round(steps) == 0:
        nearest = [n * step / channels for n in (floor(steps), ceil(steps)) if n]
        raise CspprofError(
            f"width={width!r} turns {channels} channels into {channels * width:.6g}, which is not a multiple of {step}",
            f"Nearest: {' or '.join(f'width={w:.12g}' for w in nearest)}",
        )
    return round(steps) * step


def network(stem: nn.Module, stages: Sequence[nn.Module], head: nn.Module) -> nn.Sequential:
    """Stem, numbered stages and head in sequence, each tagged with the name of its stage."""
    parts = [("stem", stem), *((f"stage{i}", s) for i, s in enumerate(stages, 1)), ("head", head)]
    return nn.Sequential(OrderedDict((name, tag_stage(name, part)) for name, part in parts))


MAX_BLOCKS = 1_000
"""Blocks of a network: more would take minutes and gigabytes to build."""


def check_depths(depths: Sequence[int] | int, stages: int) -> tuple[int, ...]:
    """The depths as a tuple. Raises CspprofError unless there is one number of at least 1 for each stage, and together
    at most `MAX_BLOCKS`."""
    numbers = check_per_stage("depths", depths, stages, "block")
    if sum(numbers) > MAX_BLOCKS:
        raise CspprofError(
            f"depths={numbers} are more than {MAX_BLOCKS:,} blocks",
            f"Write {stages} positive integers: depths=({','.join(['2'] * stages)})",
        )
    return numbers


def check_per_stage(option: str, values: Sequence[int] | int, stages: int, unit: str) -> tuple[int, ...]:
    """The values of an option as a tuple. Raises CspprofError unless there is one of at least 1 for each stage."""
    numbers = (values,) if isinstance(values, int) else tuple(values)
    if len(numbers) != stages or any(type(n) is not int or n < 1 for n in numbers):
        raise CspprofError(
            f"{option}={numbers} does not give each of {stages} stages at least one {unit}",
            f"Write {stages} positive integers: {option}=({','.join(['2'] * stages)})",
        )
    return numbers
