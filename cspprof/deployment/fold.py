"""Fold batch norms into the convolutions and linear layers in front of them, and set activations in place.

torch's `fuse_conv_bn_weights` and `fuse_linear_bn_weights` compute the new weights. Which norm belongs to which layer
follows from the record of a trace, and a second trace says whether the layer reads its new bias.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from cspprof.core.record import OpSpec, Record
from cspprof.deployment.foldable_norms import (
    CONVOLUTIONS,
    LINEAR,
    NORM_ARGUMENTS,
    Pair,
    find_foldable_norms,
    weight_storages,
)
from cspprof.deployment.in_place import in_place_layers

NO_MODULE = "is no module of a batch norm class: the forward calls a function"
MORE_THAN_A_NORM = "is a module that does more than normalize, or has hooks"
NO_PLACE_FOR_BIAS = "follows a layer that has no place for a bias"

Trace = Callable[[nn.Module], Record]
"""Traces a module on the inputs of the model."""


@dataclass(slots=True)
class Folded:
    """A model without the batch norms that could be folded."""

    module: nn.Module
    record: Record
    """Of the module."""
    folded: int = 0
    """How many calls of batch norms are gone."""
    left: Counter[str] = field(default_factory=Counter)
    """How many calls stay, by reason: a text that continues "it"."""


def fold_norms(model: nn.Module, trace: Trace) -> Folded:
    """A copy of the model in eval mode with its batch norms folded; the model itself if there are none to fold."""
    before = trace(model)
    search = find_foldable_norms(before)
    left = search.reasons
    groups = []
    for pairs in search.groups:
        if reason := _why_not(model, before, pairs):
            left[reason] += len(pairs)
        else:
            groups.append(pairs)
    while groups:
        folded = copy.deepcopy(model)
        for pairs in groups:
            _fold(folded, before, pairs)
        after = trace(folded)
        read = _biases_read(after)
        kept = [pairs for pairs in groups if _bias_name(before, pairs[0].layer) in read]
        if len(kept) == len(groups):
            return Folded(folded, after, sum(map(len, groups)), left)
        left[NO_PLACE_FOR_BIAS] += sum(map(len, groups)) - sum(map(len, kept))
        groups = kept
    return Folded(model, before, 0, left)


def set_in_place(model: nn.Module, record: Record) -> int:
    """Set `inplace` of each activation whose input no later operation reads; returns how many. `record` is the trace
    of the model."""
    changed = 0
    for path in in_place_layers(record):
        module = model.get_submodule(path)
        if getattr(module, "inplace", None) is False:
            module.inplace = True  # type: ignore[assignment]  # an attribute, no module
            changed += 1
    return changed


def _why_not(model: nn.Module, record: Record, pairs: list[Pair]) -> str:
    """Why the modules do not allow to fold the norm of these pairs; empty if they do."""
    modules = dict(model.named_modules(remove_duplicate=False))
    statistics = _names(record, pairs[0].norm)["running_mean"].rpartition(".")[0]
    for pair in pairs:
        path = record.layers[record.calls.layer[pair.norm]].path
        norm = modules.get(path)
        if norm is not modules.get(statistics) or not isinstance(norm, _BatchNorm):
            return NO_MODULE
        if not _only_normalizes(norm, path, record):
            return MORE_THAN_A_NORM
    owner, _ = _owner(model, _weight_name(record, pairs[0].layer))
    return "" if "bias" in owner._parameters else NO_PLACE_FOR_BIAS


def _only_normalizes(norm: nn.Module, path: str, record: Record) -> bool:
    """Whether the module runs a batch norm and, behind it, at most the dropout and the activation of timm's
    `BatchNormAct2d`."""
    if norm._forward_hooks or norm._forward_pre_hooks:
        return False
    own = {record.specs[record.calls.spec[i]].target for i, layer in enumerate(record.calls.layer)
           if record.layers[layer].path == path}  # fmt: skip
    return len(own) == 1 and (not norm._modules or set(norm._modules) == {"drop", "act"})


class Rest(nn.Module):
    """The rest of a batch norm with an activation after folding: the modules behind the normalization, by name."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        for name, module in norm._modules.items():
            self.add_module(name, module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in self._modules.values():
            x = x if module is None else module(x)
        return x


def _fold(model: nn.Module, record: Record, pairs: list[Pair]) -> None:
    """Change the weights of the layer of these pairs, and replace the norm wherever it is registered."""
    pair = pairs[0]
    layer, norm = (record.specs[record.calls.spec[i]] for i in pair)
    names = _names(record, pair.norm)
    tensors = {name: _tensor(model, place) for name, place in names.items()}
    mean, variance = tensors["running_mean"], tensors["running_var"]
    scale = tensors.get("weight", torch.ones_like(mean))
    shift = tensors.get("bias", torch.zeros_like(mean))
    owner, attribute = _owner(model, _weight_name(record, pair.layer))
    weight = getattr(owner, attribute).detach()
    bias_name = _bias_name(record, pair.layer)
    reads_bias = len(layer.weights) > 1
    bias = _tensor(model, bias_name) if reads_bias else torch.zeros_like(mean)
    new, new_bias = _fused(layer, (weight, bias, mean, variance, scale, shift), float(norm.attrs["eps"]))
    getattr(owner, attribute).data = new.detach()
    if reads_bias:
        bias_owner, bias_attribute = _owner(model, bias_name)
        getattr(bias_owner, bias_attribute).data = new_bias.detach()
    else:
        owner._parameters["bias"] = nn.Parameter(new_bias.detach(), getattr(owner, attribute).requires_grad)
    replaced = model.get_submodule(record.layers[record.calls.layer[pair.norm]].path)
    rest = Rest(replaced) if replaced._modules else nn.Identity()
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is replaced:
                parent._modules[name] = rest


def _fused(layer: OpSpec, tensors: tuple[torch.Tensor, ...], epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The weight and the bias of a layer with its norm. `tensors` are its weight and bias, then mean, variance, weight
    and bias of the norm.

    The weight of a transposed convolution has shape (C_in, C_out/groups, …), so each group is fused by itself.
    """
    if layer.target == LINEAR:
        weight, bias, mean, variance, scale, shift = tensors
        return fuse_linear_bn_weights(weight, bias, mean, variance, epsilon, scale, shift)
    transposed = "transpose" in layer.target
    groups = int(layer.attrs.get("groups", 1)) if transposed else 1
    parts = [
        fuse_conv_bn_weights(w, b, m, v, epsilon, s, t, transposed)
        for w, b, m, v, s, t in zip(*(tensor.chunk(groups) for tensor in tensors), strict=True)
    ]
    return torch.cat([w for w, _ in parts]), torch.cat([b for _, b in parts])


def _names(record: Record, norm: int) -> dict[str, str]:
    """The names of the weights and statistics of a batch norm, by argument."""
    attrs = record.specs[record.calls.spec[norm]].attrs
    arguments = [name for name in NORM_ARGUMENTS if name not in attrs]
    by_storage = {s.id: s.name for s in record.storages}
    return {a: by_storage[s] for a, s in zip(arguments, weight_storages(record, norm), strict=True)}


def _weight_name(record: Record, layer: int) -> str:
    storage = weight_storages(record, layer)[0]
    return next(s.name for s in record.storages if s.id == storage)


def _bias_name(record: Record, layer: int) -> str:
    """The name of the bias that a layer reads, or of the one that it has after folding."""
    storages = weight_storages(record, layer)
    if len(storages) > 1:
        return next(s.name for s in record.storages if s.id == storages[1])
    path = _weight_name(record, layer).rpartition(".")[0]
    return f"{path}.bias" if path else "bias"


def _biases_read(record: Record) -> set[str]:
    """The names of the biases that convolutions and linear layers read."""
    names = {s.id: s.name for s in record.storages}
    layers = [i for i, at in enumerate(record.calls.spec) if record.specs[at].target in CONVOLUTIONS | {LINEAR}]
    return {names.get(storage, "") for i in layers for storage in weight_storages(record, i)[1:]}


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, attribute = name.rpartition(".")
    return model.get_submodule(path), attribute


def _tensor(model: nn.Module, name: str) -> torch.Tensor:
    owner, attribute = _owner(model, name)
    tensor: torch.Tensor = getattr(owner, attribute)
    return tensor.detach()
