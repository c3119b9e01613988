"""The networks that calibration measures: short chains of one kind of operation at the shapes of common CNNs.

Each is a few layers long, so that it takes a millisecond or more. Names are options of the factory `build`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn


class MicroNetwork(NamedTuple):
    """A network for calibration: how to build it, and the shape of its input."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]


NETWORKS: dict[str, MicroNetwork] = {}


def build(name: str) -> nn.Module:
    """A network by name, in eval mode."""
    return NETWORKS[name].make().eval()


class Lambda(nn.Module):
    """A module without weights."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


class Residual(nn.Module):
    """x + conv(x)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.inner(x))


class Dense(nn.Module):
    """The input concatenated with a convolution of it."""

    def __init__(self, channels: int, growth: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, growth, kernel, padding=kernel // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, F.relu(self.conv(x))], 1)


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, channels // 16, 1), nn.Conv2d(channels // 16, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.second(F.relu(self.first(F.adaptive_avg_pool2d(x, 1)))))


class Split(nn.Module):
    """Both halves of the channels, the second through a convolution, concatenated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels // 2, channels // 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, 1)
        return torch.cat([a, F.relu(self.conv(b))], 1)


class Attention(nn.Module):
    """Self-attention with matrix products and a softmax."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x @ x.transpose(-1, -2) * 0.125, -1) @ x


def _add(name: str, shape: Sequence[int], make: Callable[[], nn.Module]) -> None:
    NETWORKS[name] = MicroNetwork(make, (1, *shape))


def _convs(
    widths: Sequence[int], size: int, kernel: int = 1, groups: int = 1, depthwise: bool = False, stride: int = 1
) -> None:
    """Convolutions from each width to the next, each with a ReLU."""
    what = "dw" if depthwise else f"g{groups}_" if groups > 1 else ""
    name = f"conv{kernel}{what}_{'_'.join(map(str, widths))}_at_{size}{'_stride2' if stride == 2 else ''}"

    def make() -> nn.Module:
        layers: list[nn.Module] = []
        for c, out in pairwise(widths):
            n = c if depthwise else groups
            layers += [nn.Conv2d(c, out, kernel, stride, kernel // 2, groups=n), nn.ReLU()]
        return nn.Sequential(*layers)

    _add(name, (widths[0], size, size), make)


def _chain(name: str, shape: Sequence[int], layer: Callable[[], nn.Module], times: int) -> None:
    _add(name, shape, lambda: nn.Sequential(*(layer() for _ in range(times))))


def _dense(channels: int, growth: int, size: int, times: int) -> None:
    """Layers that read all layers before them, alternately 3×3 and 1×1."""

    def make() -> nn.Module:
        return nn.Sequential(*(Dense(channels + i * growth, growth, 1 if i % 2 else 3) for i in range(times)))

    _add(f"dense_{channels}_{growth}_at_{size}", (channels, size, size), make)


# Convolutions 3×3: aligned widths at each resolution, widths off the block, and downsampling.
for _c, _size, _times in ((16, 112, 4), (32, 112, 2), (64, 56, 2), (128, 28, 2), (256, 14, 2), (512, 7, 2)):
    _convs([_c] * (_times + 1), _size, 3)
for _c, _size in ((20, 56), (60, 28), (62, 28), (72, 28), (100, 14), (250, 14)):
    _convs([_c] * 3, _size, 3)
_convs([32, 64, 128, 256], 112, 3, stride=2)
_convs([256, 32, 256, 32], 28, 3)
_convs([32, 32, 32], 28, 5)
# Convolutions 1×1: wide to narrow and back, as in bottlenecks and inverted residuals.
for _widths, _size in (
    ((64, 256, 64, 256), 56), ((128, 512, 128, 512), 28), ((256, 1024, 256, 1024), 14), ((512, 2048, 512), 7),
    ((16, 96, 16, 96), 112), ((24, 144, 24, 144), 56), ((32, 192, 32, 192), 28), ((64, 384, 64, 384), 14),
    ((160, 960, 160, 960), 7), ((128, 32, 128, 32), 56), ((70, 130, 70, 130), 28), ((30, 90, 30, 90), 56),
):  # fmt: skip
    _convs(_widths, _size)
# Depthwise and grouped convolutions.
for _c, _size, _kernel in ((32, 112, 3), (144, 56, 3), (192, 28, 3), (576, 14, 3), (960, 7, 3), (240, 28, 5),
                           (672, 14, 5), (90, 28, 3)):  # fmt: skip
    _convs([_c] * 7, _size, _kernel, depthwise=True)
_convs([96, 96], 112, 3, depthwise=True, stride=2)
for _c, _size, _groups in ((128, 56, 32), (256, 28, 32), (512, 14, 32), (1024, 7, 32), (128, 28, 4)):
    _convs([_c] * 3, _size, 3, _groups)
# The image.
_convs([3, 64], 224, 7, stride=2)
_convs([3, 32], 224, 3, stride=2)
_convs([3, 32], 224, 3)
_add("transposed_128_64_at_28", (128, 28, 28), lambda: nn.ConvTranspose2d(128, 64, 2, 2))
_add("transposed_32_32_at_56", (32, 56, 56), lambda: nn.ConvTranspose2d(32, 32, 4, 2, 1))
# Linear layers: vectors and tokens.
_add("linear_2048_1000", (2048,), lambda: nn.Sequential(nn.Linear(2048, 1000), nn.ReLU(), nn.Linear(1000, 1000)))
_add("linear_9216_4096", (9216,), lambda: nn.Linear(9216, 4096))
_add("linear_196_tokens", (196, 384), lambda: nn.Sequential(nn.Linear(384, 1536), nn.ReLU(), nn.Linear(1536, 384)))
_chain("attention_196_tokens", (6, 196, 64), Attention, 2)
# Pooling, resizing.
_chain("max_pool3_64_at_56", (64, 56, 56), lambda: nn.MaxPool2d(3, 1, 1), 4)
_add("max_pool3_64_at_112", (64, 112, 112), lambda: nn.MaxPool2d(3, 2, 1))
_add("max_pool2_128_at_56", (128, 56, 56), lambda: nn.MaxPool2d(2, 2))
_chain("max_pool9_256_at_13", (256, 13, 13), lambda: nn.MaxPool2d(9, 1, 4), 2)
_chain("avg_pool3_64_at_56", (64, 56, 56), lambda: nn.AvgPool2d(3, 1, 1), 4)
_add("avg_pool2_256_at_56", (256, 56, 56), lambda: nn.AvgPool2d(2, 2))
_add("global_pool_512_at_28", (512, 28, 28), lambda: nn.AdaptiveAvgPool2d(1))
_add("global_pool_128_at_56", (128, 56, 56), lambda: nn.AdaptiveAvgPool2d(1))
_add("nearest_128_at_28", (128, 28, 28), lambda: nn.Upsample(scale_factor=2))
_add("nearest_64_at_52", (64, 52, 52), lambda: nn.Upsample(scale_factor=2))
# Elementwise operations and the bandwidth of copies.
_chain("norm_64_at_56", (64, 56, 56), lambda: nn.Sequential(nn.BatchNorm2d(64), nn.Sigmoid()), 3)
_chain("norm_relu_128_at_28", (128, 28, 28), lambda: nn.Sequential(nn.MaxPool2d(1), nn.BatchNorm2d(128), nn.ReLU()), 6)
_chain("layer_norm_196_tokens", (196, 384), lambda: nn.Sequential(nn.LayerNorm(384), nn.Tanh()), 4)
_chain("sigmoid_64_at_56", (64, 56, 56), nn.Sigmoid, 4)
_chain("silu_128_at_28", (128, 28, 28), nn.SiLU, 6)
_chain("gelu_196_tokens", (196, 1536), nn.GELU, 3)
_chain("conv_silu_64_at_56", (64, 56, 56), lambda: nn.Sequential(nn.Conv2d(64, 64, 1), nn.SiLU()), 3)
_chain("conv_relu6_64_at_56", (64, 56, 56), lambda: nn.Sequential(nn.Conv2d(64, 64, 1), nn.ReLU6()), 3)
_chain("conv_leaky_128_at_28", (128, 28, 28), lambda: nn.Sequential(nn.Conv2d(128, 128, 1), nn.LeakyReLU(0.1)), 4)
_chain("conv_sigmoid_64_at_56", (64, 56, 56), lambda: nn.Sequential(nn.Conv2d(64, 64, 1), nn.Sigmoid()), 3)
_chain("conv_hardswish_96_at_28", (96, 28, 28), lambda: nn.Sequential(nn.Conv2d(96, 96, 1), nn.Hardswish()), 4)
_chain("dw_relu6_144_at_56", (144, 56, 56), lambda: nn.Sequential(
    nn.Conv2d(144, 144, 3, padding=1, groups=144), nn.ReLU6()
), 4)  # fmt: skip
_chain("hardswish_64_at_56", (64, 56, 56), nn.Hardswish, 4)
_chain("leaky_64_at_56", (64, 56, 56), lambda: nn.Sequential(nn.LeakyReLU(), nn.Sigmoid()), 3)
_chain("sum_64_at_56", (64, 56, 56), lambda: Lambda(lambda x: x + x.flip(1)), 3)
_chain("sum_32_at_112", (32, 112, 112), lambda: Lambda(lambda x: (x + 0.5) * x), 3)
_chain("product_256_at_14", (256, 14, 14), lambda: Lambda(lambda x: x * 0.5 + x), 8)
_chain("softmax_197", (12, 197, 197), lambda: nn.Softmax(-1), 2)
_chain("mean_64_at_56", (64, 56, 56), lambda: Lambda(lambda x: x - x.mean((2, 3), keepdim=True)), 3)
_chain("largest_64_at_56", (64, 56, 56), lambda: Lambda(lambda x: x - x.amax(1, keepdim=True)), 3)
_chain("largest_196_tokens", (196, 384), lambda: Lambda(lambda x: x - x.amax(-1, keepdim=True)), 4)
_add("copy_64_at_112", (64, 112, 112), lambda: Lambda(lambda x: x.transpose(2, 3).contiguous()))
_add(
    "shuffle_256_at_28", (256, 28, 28), lambda: Lambda(lambda x: x.view(1, 4, 64, 28, 28).transpose(1, 2).flatten(1, 2))
)
_add("tiny", (8, 4, 4), lambda: nn.Sequential(*(nn.Conv2d(8, 8, 1) for _ in range(40))))
_add("tiny_gates", (128, 4, 4), lambda: nn.Sequential(*(Gate(128) for _ in range(8))))
# Combinations: what reads the output of a convolution matters.
_chain("residual_64_at_56", (64, 56, 56), lambda: Residual(nn.Conv2d(64, 64, 3, padding=1)), 2)
_chain("residual_256_at_14", (256, 14, 14), lambda: Residual(nn.Conv2d(256, 256, 1)), 4)
_chain("gates_96_at_56", (96, 56, 56), lambda: Gate(96), 3)
_chain("gates_672_at_14", (672, 14, 14), lambda: Gate(672), 4)
_chain("splits_128_at_28", (128, 28, 28), lambda: Split(128), 4)
for _c, _growth, _size, _times in ((64, 32, 56, 5), (128, 32, 28, 6), (256, 32, 14, 8), (512, 32, 7, 8),
                                   (48, 14, 56, 6)):  # fmt: skip
    _dense(_c, _growth, _size, _times)
