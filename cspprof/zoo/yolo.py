"""YOLOv3-tiny and YOLOv3-tiny-PRN, the small detectors of Darknet. Forwards return the maps of the heads from coarse to
fine."""

from __future__ import annotations

import torch
from torch import nn

from cspprof.zoo import model
from cspprof.zoo.blocks import ConvNormAct, check_channels, shortcut
from cspprof.zoo.detector import NATIVE, Detector
from cspprof.zoo.necks import ConcatLevel, PartialResidualLevel, TopDown, head_channels

ACT = "leaky"


def _half_size_pool() -> nn.Module:
    return nn.MaxPool2d(2, 2, ceil_mode=True)


def _same_size_pool() -> nn.Module:
    """2×2 max pooling of stride 1 that keeps the size. Darknet's window is a position with its right and lower
    neighbors. torch pads both sides equally, so here the window is the four diagonal neighbors: the cost is equal."""
    return nn.MaxPool2d(2, 1, padding=1, dilation=2)


class LastStage(nn.Module):
    """Pooling, 3×3 to 512, pooling that keeps the size, 3×3 and a shortcut: (N, 256, H, W) -> (N, 512, H/2, …)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Sequential(_half_size_pool(), ConvNormAct(256, 512, 3))
        self.convs = nn.Sequential(_same_size_pool(), ConvNormAct(512, 512, 3))
        self.act = nn.LeakyReLU(0.1, inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        y: torch.Tensor = self.act(shortcut(x, self.convs(x)))
        return y


def _detector(last: nn.Module, neck: nn.Module, in_channels: int) -> nn.Module:
    check_channels(in_channels=in_channels)
    stages = [nn.Sequential(_half_size_pool(), ConvNormAct(16 << i, 32 << i, 3)) for i in range(4)]
    return Detector(ConvNormAct(in_channels, 16, 3), [*stages, last], neck, levels=2)


@model("yolov3_tiny", family="yolo", paper="YOLOv3, Redmon and Farhadi 2018; PRN, Wang et al. 2019, Table 1",
       input=NATIVE)  # fmt: skip
def yolov3_tiny(num_classes: int = 80, in_channels: int = 3) -> nn.Module:
    """YOLOv3-tiny: two levels, concatenated."""
    check_channels(num_classes=num_classes)
    last = nn.Sequential(_half_size_pool(), ConvNormAct(256, 512, 3), _same_size_pool(), ConvNormAct(512, 1024, 3))
    neck = TopDown(ConcatLevel, (1024, 256), (256, 128), (512, 256), head_channels(num_classes), ACT)
    return _detector(last, neck, in_channels)


@model("yolov3_tiny_prn", family="yolo", paper="PRN, Wang et al. 2019 (ICCV workshops), Table 1", input=NATIVE)
def yolov3_tiny_prn(num_classes: int = 80, in_channels: int = 3) -> nn.Module:
    """YOLOv3-tiny-PRN: two levels; the coarser one is added to half of the channels of the finer one."""
    check_channels(num_classes=num_classes)
    neck = TopDown(PartialResidualLevel, (512, 256), (256, 128), (256, 128), head_channels(num_classes), ACT)
    return _detector(LastStage(), neck, in_channels)
