"""CSP backbones with SPP and PANet, the large detectors in the repository of the CSPNet authors.

Forwards return the maps of the heads from fine to coarse. `width` scales the backbone, not the neck.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from cspprof.zoo import model
from cspprof.zoo.blocks import check_channels
from cspprof.zoo.darknet import csp_darknet53
from cspprof.zoo.detector import NATIVE, Detector
from cspprof.zoo.necks import PathAggregation, head_channels
from cspprof.zoo.resnet import csp_resnet50, csp_resnext50

PAPER = "CSPNet, Wang et al. 2019, repository: PANet-SPP"


def _register(name: str, family: str, title: str, classifier: Callable[..., nn.Module]) -> None:
    """Register the detector `name` with the backbone of `classifier`."""

    def detector(
        num_classes: int = 80, depths: Sequence[int] | None = None, in_channels: int = 3, gamma: float | None = None,
        fusion: str = "csp", split: str = "conv", elastic: bool = False, width: float = 1.0,
    ) -> nn.Module:  # fmt: skip
        check_channels(num_classes=num_classes)
        stem, *stages, _ = classifier(1, depths, in_channels, gamma, fusion, split, elastic, width).children()
        widths = [s.c_out for s in stages[:-4:-1]]
        return Detector(stem, stages, PathAggregation(widths, head_channels(num_classes)), levels=3)  # type: ignore[arg-type]

    detector.__doc__ = f"{title} with spatial pyramid pooling, PANet and three YOLOv3 heads."
    model(name, family=family, paper=PAPER, input=NATIVE)(detector)


_register("csp_resnet50_panet_spp", "resnet", "CSPResNet-50", csp_resnet50)
_register("csp_resnext50_panet_spp", "resnext", "CSPResNeXt-50", csp_resnext50)
_register("csp_darknet53_panet_spp", "darknet", "CSPDarknet-53", csp_darknet53)
