"""A torch module with its arguments, its output tensors, and the weights that a preparation changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cspprof.core.inputs import arguments, parse_inputs
from cspprof.modules.input_tensors import InputTensors
from cspprof.operands.pytree import tensors_in
from cspprof.sources import LoadedModel

CHANGES = "changed_weights.pt"
"""The file of the changed weights in the folder of a prepared model."""


Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a forward."""


def call_arguments(loaded: LoadedModel, input_texts: Sequence[str], device: str = "cpu", seed: int = 0) -> Call:
    """Positional and keyword arguments: standard normal numbers, and zeros for integers. The same seed gives the same
    numbers."""
    inputs = parse_inputs(input_texts)
    make = InputTensors(device, None, seed)
    return arguments(loaded.inputs if inputs is None else inputs, make, permutation=make.permutation)


def input_tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors among the arguments, in order."""
    return list(tensors_in((args, kwargs)))


def output_tensors(result: Any) -> list[torch.Tensor]:
    """The tensors that a forward returned, in order."""
    return list(tensors_in(result))


def has_only_tensors(result: Any) -> bool:
    """Whether a result is made of tensors in lists, tuples and dicts, as an ONNX graph can return it."""
    if isinstance(result, (list, tuple)):
        return all(map(has_only_tensors, result))
    if type(result) is dict:
        return all(map(has_only_tensors, result.values()))
    return isinstance(result, torch.Tensor)


class TensorsOnly(nn.Module):
    """A module that returns only the tensors of another module's result."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        return tuple(output_tensors(self.module(*args, **kwargs)))


def copied_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all weights by name."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def write_changes(module: nn.Module, before: dict[str, torch.Tensor], folder: Path) -> None:
    """Write the weights that differ from `before`. A second build of the SPEC has the values `before`."""
    changed = {name: t for name, t in module.state_dict().items() if not torch.equal(t, before[name])}
    torch.save(changed, folder / CHANGES)


def read_changes(module: nn.Module, folder: Path) -> None:
    """Set the weights that `write_changes` wrote."""
    module.load_state_dict(torch.load(folder / CHANGES, weights_only=True), strict=False)
