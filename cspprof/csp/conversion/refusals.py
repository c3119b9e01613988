"""Models that cannot be converted at all, found before they are traced."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from cspprof.core.errors import CspprofError


def refuse_unconvertible(model: nn.Module) -> None:
    """Raise CspprofError if a layer is lazy, quantized or compiled: it has no shapes yet, or weights that cannot be
    trained, or code that fits its shapes only."""
    for path, module in model.named_modules():
        name, kind = path or type(model).__name__, type(module).__name__
        own = [t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]
        if any(isinstance(t, (UninitializedParameter, UninitializedBuffer)) for t in own):
            raise CspprofError(
                f"{name} ({kind}) is lazy: it gets its shapes in a first forward",
                "Run the model once on real input, then convert it: model(torch.randn(1, 3, 224, 224))",
            )
        if hasattr(module, "_orig_mod"):
            raise CspprofError(
                f"{name} ({kind}) is compiled, and conversion changes its modules",
                "Convert the model before torch.compile, then compile the result.",
            )
        packed = any(isinstance(value, torch.ScriptObject) for value in vars(module).values())
        if packed or "quantized" in type(module).__module__.split(".") or any(t.is_quantized for t in own):
            raise CspprofError(
                f"{name} ({kind}) is quantized, and a network with other widths must be trained",
                "Convert the float model, train it, and quantize the result.",
            )
