"""Build models on the meta device without initializing their weights: a meta tensor has no values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from cspprof.sources.private_seed import DRAWS, PrivateSeed

Function = Callable[..., Any]

FACTORIES: frozenset[Function] = frozenset({
    torch.empty, torch.empty_permuted, torch.empty_strided, torch.empty_quantized,
    torch.zeros, torch.ones, torch.full, torch.eye, torch.arange, torch.range, torch.linspace, torch.logspace,
    torch.rand, torch.randn, torch.randint, torch.randperm, torch.tril_indices, torch.triu_indices,
    torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor, torch.nested.nested_tensor,
    torch.sparse_coo_tensor, torch.sparse_compressed_tensor, torch.sparse_csr_tensor, torch.sparse_csc_tensor,
    torch.sparse_bsr_tensor, torch.sparse_bsc_tensor,
    torch.bartlett_window, torch.blackman_window, torch.hamming_window, torch.hann_window, torch.kaiser_window,
    torch.fft.fftfreq, torch.fft.rfftfreq,
})  # fmt: skip
"""Functions that create a tensor on the default device, the same as for `torch.device` as a context manager."""

_T = torch.Tensor
FILLS: frozenset[Function] = frozenset({
    _T.normal_, _T.uniform_, _T.fill_, _T.zero_, _T.random_, _T.bernoulli_, _T.exponential_, _T.log_normal_,
    _T.erfinv_, _T.clamp_, _T.add_, _T.sub_, _T.mul_, _T.div_,
})  # fmt: skip
"""Methods that change only the values of their tensor."""

INITS: frozenset[Function] = frozenset({
    nn.init.uniform_, nn.init.normal_, nn.init.constant_, nn.init.kaiming_uniform_,
})  # fmt: skip
"""The functions of `torch.nn.init` that a mode can intercept. The others call methods in `FILLS`."""


class SkipInit(PrivateSeed):
    """While active, new tensors are on the meta device, and filling a meta tensor does nothing. Random numbers of real
    tensors come from private generators: one mode does both, since torch calls each mode for each function.

    `torch.device("meta")` runs each fill: a ResNet-50 takes twice, a ConvNeXt-B five times as long to build. Only
    functions in `factories` create meta tensors. Calls that torch refuses still raise.
    """

    def __init__(self, factories: frozenset[Function] = FACTORIES) -> None:
        super().__init__()
        self.factories = factories
        self._handled = frozenset(factories | FILLS | INITS | DRAWS)

    def __torch_function__(
        self, func: Function, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in self._handled:  # most calls: torch passes each read of an attribute, too
            return func(*args, **kwargs or {})
        kwargs = kwargs or {}
        if func in self.factories:
            if kwargs.get("device") is None:
                kwargs = {**kwargs, "device": "meta"}
        elif func in FILLS:
            if _writes_only_values(*args, **kwargs):
                return args[0]
        elif func in INITS:
            tensor = kwargs["tensor"]
            if tensor.is_meta and (func is not nn.init.kaiming_uniform_ or _has_fans(**kwargs)):
                return tensor
        return super().__torch_function__(func, types, args, kwargs)


def _writes_only_values(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> bool:
    """Whether an in-place method with these arguments is valid and changes nothing but values, which meta lacks."""
    valid = tensor.is_floating_point() and not (tensor.requires_grad and torch.is_grad_enabled())
    return tensor.is_meta and valid and not any(isinstance(a, torch.Tensor) for a in (*args, *kwargs.values()))


def _has_fans(
    tensor: torch.Tensor, a: float, mode: str, nonlinearity: Any, generator: torch.Generator | None = None
) -> bool:
    """Whether `kaiming_uniform_` accepts the arguments. Raises ValueError as torch does."""
    nn.init.calculate_gain(nonlinearity, a)
    return tensor.ndim > 1 and mode in ("fan_in", "fan_out")
