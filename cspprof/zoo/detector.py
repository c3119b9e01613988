"""A backbone with a neck and heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from cspprof.zoo.blocks import stage

NATIVE = (1, 3, 416, 416)
"""Input of the YOLOv3 family, (N, C, H, W)."""


class Detector(nn.Module):
    """(N, C, H, W) -> what `neck` makes of the maps of the last `levels` stages, given to it from coarse to fine.

    The parts are named as a classifier's are, so that a comparison finds them again. Stem, stages and neck are tagged
    here, heads by the neck.
    """

    def __init__(self, stem: nn.Module, stages: Sequence[nn.Module], neck: nn.Module, levels: int) -> None:
        super().__init__()
        self.stem = stage("stem", stem)
        self.names = [f"stage{i}" for i in range(1, len(stages) + 1)]
        for name, part in zip(self.names, stages, strict=True):
            self.add_module(name, stage(name, tapped(part)))
        self.neck = stage("neck", neck)
        self.levels = levels

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.stem(x)
        maps = []
        for name in self.names:
            made = self.get_submodule(name)(x)
            full, x = made if isinstance(made, tuple) else (made, made)
            maps.append(full)
        predictions: list[torch.Tensor] = self.neck(maps[: -self.levels - 1 : -1])
        return predictions


def tapped(part: nn.Module) -> nn.Module:
    """The stage, made to return the map at its own resolution beside its output, where these are two (`both`).

    It is still called as a module: hooks, and so a trace, see it.
    """
    if hasattr(part, "both"):
        part.forward = part.both  # type: ignore[assignment]
    return part
