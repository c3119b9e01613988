"""Darknet's activations by their cfg names."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from cspprof.core.record import Kind, TensorSpec
from cspprof.ops import Facts, op_rule
from cspprof.sources.darknet.ops import whole

Tensor = torch.Tensor


def _plse(x: Tensor) -> Tensor:
    return torch.where(x < -4, 0.01 * (x + 4), torch.where(x > 4, 0.01 * (x - 4) + 1, 0.125 * x + 0.5))


def _stair(x: Tensor) -> Tensor:
    n, half = x.floor(), (x / 2).floor()
    return torch.where(n % 2 == 0, half, x - n + half)


def _lhtan(x: Tensor) -> Tensor:
    return torch.where(x < 0, 0.001 * x, torch.where(x > 1, 0.001 * (x - 1) + 1, x))


def _hard_mish(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.where(x > -2, x * x / 2 + x, torch.zeros_like(x)))


def _share_of_channels(x: Tensor) -> Tensor:
    positive = x.relu()
    return positive / (positive.sum(1, keepdim=True) + 1e-4)


_MODULES: dict[str, Callable[[], nn.Module]] = {
    "logistic": nn.Sigmoid,
    "relu": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "leaky": lambda: nn.LeakyReLU(0.1, inplace=True),
    "relie": lambda: nn.LeakyReLU(0.01, inplace=True),
    "elu": lambda: nn.ELU(inplace=True),
    "selu": lambda: nn.SELU(inplace=True),
    "gelu": lambda: nn.GELU("tanh"),
    "tanh": nn.Tanh,
    "swish": lambda: nn.SiLU(inplace=True),
    "mish": lambda: nn.Mish(inplace=True),
    "hardtan": lambda: nn.Hardtanh(inplace=True),
}
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "loggy": lambda x: 2 * x.sigmoid() - 1,
    "ramp": lambda x: x.relu() + 0.1 * x,
    "plse": _plse,
    "stair": _stair,
    "lhtan": _lhtan,
    "revleaky": lambda x: F.leaky_relu(x, 0.1),
    "hard_mish": _hard_mish,
    "normalize_channels": _share_of_channels,
    "normalize_channels_softmax": lambda x: x.softmax(1),
    "normalize_channels_softmax_maxval": lambda x: x.softmax(1),
}
NAMES = frozenset({"linear", *_MODULES, *_FUNCTIONS})


@whole("activation")
def activate(x: Tensor, name: str) -> Tensor:
    """The function `name` of every element, or of every place's channels."""
    return _FUNCTIONS[name](x)


@op_rule("darknet.activation")
def _activate(x: TensorSpec, name: str, *, out: TensorSpec) -> Facts:
    return Facts(Kind.ACTIVATION, elementwise=out.numel)


class Function(nn.Module):
    """An activation that torch has no module for: one operation, whatever it is made of."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return activate(x, self.name)

    def extra_repr(self) -> str:
        return self.name


def activation(name: str) -> nn.Module | None:
    """The module for `name`; None for `linear`. A name that Darknet does not know is ReLU to it."""
    if name == "linear":
        return None
    if name in _FUNCTIONS:
        return Function(name)
    return _MODULES.get(name, _MODULES["relu"])()
