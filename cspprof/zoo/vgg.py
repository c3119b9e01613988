"""VGG-16. The forward returns logits."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from cspprof.zoo import model
from cspprof.zoo.blocks import check_channels, check_depths, tag_stage

WIDTHS = (64, 128, 256, 512, 512)


class ConvAct(nn.Sequential):
    """A 3×3 convolution with bias, and ReLU."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU(inplace=True))


@model("vgg16", family="vgg", paper="VGG, Simonyan and Zisserman 2014; HarDNet, Chao et al. 2019, Table 4",
       input=(1, 3, 224, 224))  # fmt: skip
def vgg16(num_classes: int = 1000, depths: Sequence[int] = (2, 2, 3, 3, 3), in_channels: int = 3) -> nn.Module:
    """VGG-16: thirteen 3×3 convolutions and three fully connected layers on a 7×7 map, for any input size."""
    check_channels(num_classes=num_classes, in_channels=in_channels)
    net, c_in = nn.Sequential(), in_channels
    for i, depth in enumerate(check_depths(depths, 5)):
        convs = [ConvAct(WIDTHS[i] if n else c_in, WIDTHS[i]) for n in range(depth)]
        name, pool = f"stage{i + 1}", nn.MaxPool2d(2, 2, ceil_mode=True)
        net.add_module(name, tag_stage(name, nn.Sequential(*convs, pool)))
        c_in = WIDTHS[i]
    head = nn.Sequential(
        nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(512 * 49, 4096), nn.ReLU(inplace=True), nn.Dropout(),
        nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4096, num_classes),
    )  # fmt: skip
    net.add_module("head", tag_stage("head", head))
    return net
