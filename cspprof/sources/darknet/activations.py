"""Darknet's activations by their names in a cfg."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from cspprof.core.record import Kind, TensorSpec
from cspprof.ops import Facts, op_rule
from cspprof.sources.darknet.functions import Function, Tensor, custom_op


def _plse(x: Tensor) -> Tensor:
    return torch.where(x < -4, 0.01 * (x + 4), torch.where(x > 4, 0.01 * (x - 4) + 1, 0.125 * x + 0.5))


def _stair(x: Tensor) -> Tensor:
    n, half = x.floor(), (x / 2).floor()
    return torch.where(n % 2 == 0, half, x - n + half)


def _lhtan(x: Tensor) -> Tensor:
    return torch.where(x < 0, 0.001 * x, torch.where(x > 1, 0.001 * (x - 1) + 1, x))


def _hard_mish(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.where(x > -2, x * x / 2 + x, torch.zeros_like(x)))


def _normalize_channels(x: Tensor) -> Tensor:
    positive = x.relu()
    return positive / (positive.sum(1, keepdim=True) + 1e-4)


_MODULES: dict[str, Callable[[], nn.Module]] = {
    "logistic": nn.Sigmoid,
    "relu": partial(nn.ReLU, inplace=True),
    "relu6": partial(nn.ReLU6, inplace=True),
    "leaky": partial(nn.LeakyReLU, 0.1, inplace=True),
    "relie": partial(nn.LeakyReLU, 0.01, inplace=True),
    "elu": partial(nn.ELU, inplace=True),
    "selu": partial(nn.SELU, inplace=True),
    "gelu": partial(nn.GELU, "tanh"),
    "tanh": nn.Tanh,
    "swish": partial(nn.SiLU, inplace=True),
    "mish": partial(nn.Mish, inplace=True),
    "hardtan": partial(nn.Hardtanh, inplace=True),
}
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "loggy": lambda x: 2 * x.sigmoid() - 1,
    "ramp": lambda x: x.relu() + 0.1 * x,
    "plse": _plse,
    "stair": _stair,
    "lhtan": _lhtan,
    "revleaky": lambda x: F.leaky_relu(x, 0.1),
    "hard_mish": _hard_mish,
    "normalize_channels": _normalize_channels,
    "normalize_channels_softmax": lambda x: x.softmax(1),
    "normalize_channels_softmax_maxval": lambda x: x.softmax(1),
}
NAMES = frozenset({"linear", *_MODULES, *_FUNCTIONS})


@custom_op("activation")
def apply_activation(x: Tensor, name: str) -> Tensor:
    """An activation for which torch has no module, as one operation: of every element, or of the channels of every
    position."""
    return _FUNCTIONS[name](x)


@op_rule("darknet.activation")
def _activation_cost(x: TensorSpec, name: str, *, out: TensorSpec) -> Facts:
    return Facts(Kind.ACTIVATION, elementwise=out.numel)


def activation(name: str) -> nn.Module | None:
    """The module of an activation; None for `linear`. An unknown name gives ReLU, as in Darknet."""
    if name == "linear":
        return None
    if name in _FUNCTIONS:
        return Function(name, partial(apply_activation, name=name))
    return _MODULES.get(name, _MODULES["relu"])()
