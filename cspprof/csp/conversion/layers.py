"""Layers with another number of channels: a rule per class, which gives the new layer and the code that builds it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Shapes = Mapping[str, tuple[int, ...]]
"""New shapes of the parameters and buffers of a module, by name."""


@dataclass(frozen=True, slots=True)
class Resized:
    """A layer with new shapes."""

    module: nn.Module
    code: str
    """An expression that builds it: `nn.Conv2d(64, 128, 1, bias=False)`; for another class `with_shapes(…)`, in which
    `{old}` stands for the layer that it replaces."""


def resize(module: nn.Module, shapes: Shapes) -> Resized:
    """`module` with parameters and buffers of new shapes. The values are those of a new layer.

    A layer of a class of `torch.nn` is built by its constructor. A layer of another class, and one with hooks, which
    its constructor does not know, is copied, and its settings and parameters are replaced.
    """
    settings = _settings(module, shapes)
    cls = type(module)
    if cls.__module__.startswith("torch.nn.modules.") and settings and not has_hooks(module):
        keywords = {name: getattr(module, name) for name in _constructor_parameters(cls) if hasattr(module, name)}
        keywords |= settings
        for flag, parameter in (("bias", "bias"), ("affine", "weight"), ("elementwise_affine", "weight")):
            if flag in _constructor_parameters(cls):
                keywords[flag] = getattr(module, parameter) is not None
        device = next((p.device for p in module.parameters()), torch.device("cpu"))
        with device:
            made = cls(**keywords)
        made.train(module.training)
        dtype = next((p.dtype for p in module.parameters()), None)
        return Resized(made.to(dtype) if dtype is not None else made, call_text(f"nn.{cls.__name__}", cls, keywords))
    arguments = "".join(f", {k}={v!r}" for k, v in settings.items())
    return Resized(with_shapes(module, shapes, **settings), f"with_shapes({{old}}, {dict(shapes)!r}{arguments})")


def has_hooks(module: nn.Module) -> bool:
    """Whether functions of the user run before or after the forward or the backward of a module."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind, None) for kind in kinds)


def with_shapes(module: nn.Module, shapes: Shapes, **settings: Any) -> nn.Module:
    """A copy of `module` with other settings, and with parameters and buffers of other shapes: with the values of the
    first channels, repeated where there are more.

    Generated code contains a copy of this function.
    """
    made = copy.copy(module)
    made.__dict__ = dict(module.__dict__)
    for table in ("_parameters", "_buffers", "_modules"):
        made.__dict__[table] = dict(module.__dict__[table])
    for name, value in settings.items():
        setattr(made, name, value)
    for name, shape in shapes.items():
        old = getattr(module, name)
        new = old.detach()
        for axis, size in enumerate(shape):
            new = new.index_select(axis, torch.arange(size, device=old.device) % max(1, old.shape[axis]))
        if isinstance(old, nn.Parameter):
            made._parameters[name] = nn.Parameter(new, old.requires_grad)
        else:
            made._buffers[name] = new
    reset = getattr(made, "reset_parameters", None)
    if settings and callable(reset):
        reset()
    return made


def _settings(module: nn.Module, shapes: Shapes) -> dict[str, Any]:
    """The settings of a layer that go with the new shapes; empty for a class that has none."""
    rule = next((r for c, r in RULES.items() if isinstance(module, c)), None)
    return {} if rule is None else rule(module, shapes)


def _convolution(m: Any, shapes: Shapes) -> dict[str, Any]:
    first, second = shapes.get("weight", tuple(m.weight.shape))[:2]
    depthwise = m.groups == m.in_channels > 1
    if m.transposed:
        groups = first if depthwise else m.groups
        return {"in_channels": first, "out_channels": second * groups, "groups": groups}
    groups = first * m.in_channels // m.out_channels if depthwise else m.groups
    return {"in_channels": second * groups, "out_channels": first, "groups": groups}


def _linear(m: Any, shapes: Shapes) -> dict[str, Any]:
    out, into = shapes.get("weight", tuple(m.weight.shape))
    return {"in_features": into, "out_features": out}


def _of_weight(setting: str) -> Callable[[Any, Shapes], dict[str, Any]]:
    """The rule of a layer with one number for each channel."""

    def rule(m: Any, shapes: Shapes) -> dict[str, Any]:
        return {setting: next(iter(shapes.values()))[0]}

    return rule


def _layer_norm(m: Any, shapes: Shapes) -> dict[str, Any]:
    return {"normalized_shape": tuple(next(iter(shapes.values())))}


RULES: dict[type[nn.Module], Callable[[Any, Shapes], dict[str, Any]]] = {
    nn.modules.conv._ConvNd: _convolution,
    nn.Linear: _linear,
    nn.modules.batchnorm._NormBase: _of_weight("num_features"),
    nn.GroupNorm: _of_weight("num_channels"),
    nn.LayerNorm: _layer_norm,
    nn.RMSNorm: _layer_norm,
    nn.PReLU: _of_weight("num_parameters"),
}
"""The settings of a layer, by class."""


def _constructor_parameters(cls: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(cls).parameters


def call_text(name: str, cls: type, keywords: Mapping[str, Any]) -> str:
    """The call of a constructor as code, without arguments that have their default value."""
    texts = []
    positional = True
    for parameter in _constructor_parameters(cls).values():
        if parameter.name in ("device", "dtype") or parameter.name not in keywords:
            continue
        value = _simplified(keywords[parameter.name])
        if parameter.default is not parameter.empty and value == _simplified(parameter.default):
            positional = False
            continue
        plain = positional and parameter.kind is not parameter.KEYWORD_ONLY
        texts.append(repr(value) if plain else f"{parameter.name}={value!r}")
    return f"{name}({', '.join(texts)})"


def _simplified(value: Any) -> Any:
    """`3` for `(3, 3)`."""
    if isinstance(value, tuple) and len(value) > 1 and len(set(value)) == 1:
        return value[0]
    return value
