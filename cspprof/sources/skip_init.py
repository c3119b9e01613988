"""Build a module on meta without initializing its weights: there is no memory to initialize."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_T = torch.Tensor
FILLS = frozenset({
    _T.normal_, _T.uniform_, _T.fill_, _T.zero_, _T.random_, _T.bernoulli_, _T.exponential_, _T.log_normal_,
    _T.erfinv_, _T.clamp_, _T.add_, _T.sub_, _T.mul_, _T.div_,
})  # fmt: skip
"""Methods that change the values of a tensor and nothing else."""


class SkipInit(TorchFunctionMode):
    """While active, `torch.nn.init` functions and in-place fills of meta tensors return their tensor unchanged."""

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            tensor = kwargs.get("tensor", args[0] if args else None)
            if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                return tensor
        elif func in FILLS and args[0].is_meta and (not args[0].requires_grad or not torch.is_grad_enabled()):
            return args[0]
        return func(*args, **kwargs)
