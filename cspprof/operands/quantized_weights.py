"""Weights that a quantized layer stores packed inside a `ScriptObject`, which is not a tensor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

WINDOW = ("stride", "padding", "dilation", "groups")


def unpack(packed: Any) -> tuple[list[torch.Tensor], dict[str, Any]]:
    """The tensors in a `ScriptObject`, weights before biases, and the window of a packed convolution.

    Packed layers have a method `unpack`; recurrent cells and embeddings expose their state. An object of another
    library yields nothing.
    """
    if not any(namespace in packed._type().qualified_name() for namespace in (".quantized.", ".rnn.")):
        return [], {}
    methods = packed._method_names()
    if "unpack" not in methods or "Embedding" in packed._type().qualified_name():
        tensors = list(_tensors_of_state(packed.__getstate__()))
        return sorted(tensors, key=lambda t: -t.dim()), {}
    weight, bias = packed.unpack()
    window = {name: getattr(packed, name)() for name in WINDOW if name in methods}
    return [weight] if bias is None else [weight, bias], window


def _tensors_of_state(state: Any) -> Iterator[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, torch.ScriptObject):
        yield unpack(state)[0][0]  # a cell keeps the biases of its layers beside them
    elif isinstance(state, (list, tuple)):
        for item in state:
            yield from _tensors_of_state(item)
