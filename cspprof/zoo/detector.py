"""`Detector`: a backbone with a neck and heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from cspprof.zoo.blocks import tag_stage

NATIVE = (1, 3, 416, 416)
"""Native input shape of the YOLOv3 family, (N, C, H, W)."""


class Detector(nn.Module):
    """(N, C, H, W) -> the predictions of `neck`, which takes the maps of the last `levels` stages from coarse to fine.

    Stem and stages have the same names as in a classifier, so a comparison matches them. The detector tags stem, stages
    and neck; the neck tags the heads.
    """

    def __init__(self, stem: nn.Module, stages: Sequence[nn.Module], neck: nn.Module, levels: int) -> None:
        super().__init__()
        self.stem = tag_stage("stem", stem)
        self.names = [f"stage{i}" for i in range(1, len(stages) + 1)]
        for name, part in zip(self.names, stages, strict=True):
            self.add_module(name, tag_stage(name, return_map(part)))
        self.neck = tag_stage("neck", neck)
        self.levels = levels

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.stem(x)
        maps = []
        for name in self.names:
            output = self.get_submodule(name)(x)
            stage_map, x = output if isinstance(output, tuple) else (output, output)
            maps.append(stage_map)
        predictions: list[torch.Tensor] = self.neck(maps[: -self.levels - 1 : -1])
        return predictions


def return_map(part: nn.Module) -> nn.Module:
    """Make a stage return the map at its resolution and its output, if these differ (`forward_with_map`).

    The stage is still called as a module, so forward hooks see it.
    """
    if hasattr(part, "forward_with_map"):
        part.forward = part.forward_with_map  # type: ignore[assignment]
    return part
