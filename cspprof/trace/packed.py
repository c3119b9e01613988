"""Weights that a quantised layer keeps packed for its kernel, inside an object that is no tensor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

WINDOW = ("stride", "padding", "dilation", "groups")


def unpack(held: Any) -> tuple[list[torch.Tensor], dict[str, Any]]:
    """The tensors in a `ScriptObject`, weights first, and what a packed convolution knows of its window.

    Layers offer `unpack`; recurrent cells and embeddings tell their state, cells with the layers they are made of.
    An object of another library is left closed.
    """
    if not any(home in held._type().qualified_name() for home in (".quantized.", ".rnn.")):
        return [], {}
    methods = held._method_names()
    if "unpack" not in methods:
        tensors = list(_tensors(held.__getstate__()))
        return sorted(tensors, key=lambda t: -t.dim()), {}
    weight, bias = held.unpack()
    return [weight] if bias is None else [weight, bias], {n: getattr(held, n)() for n in WINDOW if n in methods}


def _tensors(state: Any) -> Iterator[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, torch.ScriptObject):
        yield unpack(state)[0][0]  # a cell has the biases of its layers beside them
    elif isinstance(state, (list, tuple)):
        for item in state:
            yield from _tensors(item)
