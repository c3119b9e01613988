"""Modules that several test files trace, and short forms of a profile to compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from cspprof.core.record import Kind
from cspprof.profiles import Profile


class Function(nn.Module):
    """A module whose forward is the given function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


class ConvNet(nn.Module):
    """Convolution 3→4, batch norm, ReLU in place, and a linear layer on the pooled map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.act(self.norm(self.conv(x))).mean((2, 3)))


def op_names(profile: Profile) -> list[str]:
    """The operations that are not views, such as `conv2d`."""
    return [op.spec.name for op in profile.ops if op.kind is not Kind.VIEW]


def layer_ops(profile: Profile) -> list[tuple[str, str]]:
    """The layer and the name of every operation."""
    return [(op.layer, op.spec.name) for op in profile.ops]
