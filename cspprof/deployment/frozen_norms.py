"""Frozen batch norms of torchvision and others as ordinary ones, so that they can be folded.

A `FrozenBatchNorm2d` computes the same as a batch norm in eval mode, with several operations on buffers.
"""

from __future__ import annotations

import torch
from torch import nn

FROZEN = "FrozenBatchNorm2d"
"""The name of the class in torchvision, detectron2, DETR and others."""

_BUFFERS = {"weight", "bias", "running_mean", "running_var"}


def is_frozen(module: nn.Module) -> bool:
    return type(module).__name__ == FROZEN and module._buffers.keys() >= _BUFFERS


def thaw(model: nn.Module) -> None:
    """Replace each frozen batch norm by a `BatchNorm2d` that remembers it."""
    replaced: dict[int, nn.Module] = {}
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and is_frozen(child):
                norm = replaced.get(id(child)) or _batch_norm(child)
                replaced[id(child)] = parent._modules[name] = norm


def freeze_again(model: nn.Module) -> None:
    """Put back the frozen batch norms whose replacement was not folded."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and "frozen" in vars(child):
                parent._modules[name] = vars(child)["frozen"][0]


def _batch_norm(frozen: nn.Module) -> nn.BatchNorm2d:
    buffers: dict[str, torch.Tensor] = dict(frozen.named_buffers())
    norm = nn.BatchNorm2d(len(buffers["weight"]), eps=float(getattr(frozen, "eps", 1e-5)))
    norm.weight = nn.Parameter(buffers["weight"], requires_grad=False)
    norm.bias = nn.Parameter(buffers["bias"], requires_grad=False)
    norm.running_mean, norm.running_var = buffers["running_mean"], buffers["running_var"]
    norm.training = False
    vars(norm)["frozen"] = (frozen,)  # in a tuple, so that it is no submodule
    return norm
