"""Merge the branches of re-parameterized blocks by the methods that their authors define for deployment.

RepVGG, MobileOne, FastViT, RepGhost, LeViT and others train several branches that one convolution can replace.
"""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import nn

METHODS = ("fuse", "reparameterize", "switch_to_deploy")
"""Names of the method, in the order in which timm's `reparameterize_model` looks for them. `fuse` may return the module
that replaces its own; the others change the module itself."""


@dataclass(slots=True)
class Merged:
    """A model with merged branches, and the modules that were merged, replaced or left."""

    module: nn.Module
    methods: Counter[str] = field(default_factory=Counter)
    """How many modules each method changed."""
    classes: Counter[str] = field(default_factory=Counter)
    """How many modules of each class were changed."""
    failed: dict[str, str] = field(default_factory=dict)
    """The paths of modules whose method failed, with the error. They stay as they were."""
    replaced: dict[int, tuple[nn.Module, nn.Module]] = field(default_factory=dict)
    """Each module and what replaces it, by the id of the module: a shared module is merged once."""


def method_of(module: nn.Module) -> str | None:
    """The name of the method that merges the branches of a module: a function of its class that needs no argument.

    A submodule or a flag of this name is no method, nor is `fuse(self, features)`.
    """
    if isinstance(module, torch.jit.ScriptModule) or type(module).__module__.startswith("torch."):
        return None
    for name in METHODS:
        method = getattr(type(module), name, None)
        if not inspect.isroutine(method) or not callable(getattr(module, name, None)):
            continue
        try:
            inspect.signature(getattr(module, name)).bind()
        except (TypeError, ValueError):
            continue
        return name
    return None


def has_branches(model: nn.Module) -> bool:
    """Whether a module has a method that merges its branches; the method may find nothing to merge."""
    return any(method_of(module) for module in model.modules())


def reparameterize(model: nn.Module) -> Merged:
    """Call the method of the model and of each module in it, a module before its children. Changes the model."""
    merged = Merged(model)
    merged.module = _merge(model, "", merged)
    _merge_children(merged.module, "", merged)
    return merged


def _merge_children(module: nn.Module, path: str, merged: Merged) -> None:
    for name, child in list(module._modules.items()):
        if child is None:
            continue
        place = f"{path}.{name}" if path else name
        if id(child) in merged.replaced:
            setattr(module, name, merged.replaced[id(child)][1])
            continue
        new = _merge(child, place, merged)
        merged.replaced[id(child)] = child, new
        merged.replaced[id(new)] = new, new
        if new is not child:
            setattr(module, name, new)
        _merge_children(new, place, merged)


def _merge(module: nn.Module, path: str, merged: Merged) -> nn.Module:
    """The same or another module with its branches merged. If the method fails: a copy made before the call."""
    method = method_of(module)
    if method is None:
        return module
    before, saved = _structure(module), copy.deepcopy(module)
    name = type(module).__name__
    try:
        with torch.no_grad():
            result = getattr(module, method)()
    except Exception as error:  # the code of the model may raise anything
        reason = next(iter(str(error).strip().splitlines()), "")
        merged.failed[path or name] = f"{name}.{method}() raised {type(error).__name__}: {reason}"
        return saved
    new = result if isinstance(result, nn.Module) else module
    if new is not module or _structure(new) != before:
        merged.methods[method] += 1
        merged.classes[name] += 1
    return new


def _structure(module: nn.Module) -> list[tuple[str, object]]:
    """Names and shapes of all weights, and the classes of all modules."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return [(n, tuple(t.shape)) for n, t in tensors] + [(n, type(m)) for n, m in module.named_modules()]
