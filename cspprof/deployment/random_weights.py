"""Give a network with random weights activations of order 1, so that its output depends on every layer.

With random weights and the default statistics of batch norm, the activations of a deep network shrink to 1e-9. Then
denormal numbers change the time, and the outputs of two engines agree whatever they compute. One forward pass sets the
statistics, layer after layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cspprof.core.errors import CspprofError

SMALL_SCALE = 1e-2
"""A constant weight below it is the start value of a layer scale or of a gate, which switches its branch off."""

LEAST_VARIATION = 1e-3
"""Relative change of the output between two random inputs, below which the output does not depend on the input."""

WIDEST_RANGE = 1e6
"""Largest magnitude of an output, and the reciprocal of the least one."""


class VanishedError(CspprofError):
    """An output that is constant, not finite, or of extreme magnitude."""


def calibrate(module: nn.Module, run: Callable[[], Any]) -> list[str]:
    """Set the weights of an eval-mode module so that `run`, a forward pass of it, has activations of order 1. Returns
    what was changed, as notes for the user.

    Trained weights stay: only batch norms with their default statistics, and weights that switch a branch off, change.
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and _has_default_statistics(m)]
    opened = _open_branches(module)
    with _hooks(norms, _set_statistics):
        run()
    notes = []
    if norms:
        notes.append(f"statistics of {len(norms)} batch norms set by one forward pass on random input")
    if opened:
        notes.append(f"{opened} weights of norms and layer scales that switched a branch off set to 1")
    return notes


def rescale(module: nn.Module, run: Callable[[], Any]) -> str:
    """Divide the weights of each convolution and linear layer by the standard deviation of its output, layer after
    layer, during `run` (LSUV; Mishkin and Matas 2016). Returns a note."""
    layers = [m for m in module.modules() if isinstance(m, (nn.modules.conv._ConvNd, nn.Linear))]
    with _hooks(layers, _set_unit_deviation):
        run()
    return f"weights of {len(layers)} convolutions and linear layers scaled so that their outputs have deviation 1"


def check_depends_on_input(first: list[torch.Tensor], second: list[torch.Tensor]) -> None:
    """Raise VanishedError unless the outputs for two inputs are finite, of moderate magnitude and different."""
    floating = [(a.double(), b.double()) for a, b in zip(first, second, strict=True) if a.is_floating_point()]
    if any(not bool(torch.isfinite(a).all()) for a, _ in floating):
        raise VanishedError("the output is not finite", "Give the network weights for which it is.")
    scale = max((float(a.abs().max()) for a, _ in floating if a.numel()), default=1.0)
    if not 1 / WIDEST_RANGE <= scale <= WIDEST_RANGE:
        raise VanishedError(f"the largest output is {scale:.1e}, so the activations vanish or overflow", _HINT)
    change = max((_relative_change(a, b) for a, b in floating if a.numel()), default=1.0)
    if change < LEAST_VARIATION:
        raise VanishedError(f"the output changes by {change:.1e} between two random inputs, so it is constant", _HINT)


_HINT = "Initialize the weights so that the activations of every layer are of order 1, for example with nn.BatchNorm2d."


def _relative_change(a: torch.Tensor, b: torch.Tensor) -> float:
    size = float(a.norm())
    return float((a - b).norm()) / size if size else 0.0


def _has_default_statistics(norm: _BatchNorm) -> bool:
    mean, variance = norm.running_mean, norm.running_var
    return mean is not None and variance is not None and bool((mean == 0).all()) and bool((variance == 1).all())


@torch.no_grad()
def _open_branches(module: nn.Module) -> int:
    """Set weights of norms that are all 0, and layer scales that are small constants, to 1; return how many."""
    opened = 0
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if not parameter.is_floating_point() or parameter.numel() < 2:
                continue
            value = float(parameter.flatten()[0])
            constant = bool((parameter == value).all())
            off = 0 < abs(value) < SMALL_SCALE or (value == 0 and name == "weight" and "Norm" in type(owner).__name__)
            if constant and off:
                parameter.fill_(1)
                opened += 1
    return opened


@contextmanager
def _hooks(modules: list[Any], hook: Callable[..., Any]) -> Iterator[None]:
    """Call `hook(module, x)` before the forward of norms, and `hook(module, x, y)` after that of other layers."""
    handles = [
        m.register_forward_pre_hook(hook) if isinstance(m, _BatchNorm) else m.register_forward_hook(hook)
        for m in modules
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _set_statistics(norm: _BatchNorm, inputs: tuple[torch.Tensor, ...]) -> None:
    """Mean and variance of the input by channel. Where a channel has one value, those of all channels."""
    x = inputs[0].detach()
    if norm.running_mean is None or norm.running_var is None or x.numel() < 2:
        return
    channels_last = x.transpose(0, 1).flatten(1)
    if channels_last.shape[1] > 1:
        mean, variance = channels_last.mean(1), channels_last.var(1, correction=0)
    else:
        mean, variance = channels_last.mean().expand(len(channels_last)), channels_last.var(correction=0)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance.clamp_min(1e-6 * max(float(variance.max()), 1e-12)))


@torch.no_grad()
def _set_unit_deviation(layer: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> Any:
    """Scale the weights, and return the output that the scaled layer has."""
    weight, bias = layer.weight, layer.bias
    offset: Any = 0.0
    if isinstance(bias, torch.Tensor):
        is_linear = isinstance(layer, nn.Linear)  # (…, C); a convolution gives (N, C, …) or (C, …)
        spatial = 0 if is_linear else weight.dim() - 2
        offset = bias.view(-1, *(1,) * spatial)
    product = output - offset
    deviation = float(product.std(correction=0)) if product.numel() > 1 else 0.0
    if not 0 < deviation < float("inf"):
        return None
    weight.div_(deviation)
    return product / deviation + offset
