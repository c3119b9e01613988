"""The state of torch that a trace changes. `restore` may run twice, so a KeyboardInterrupt at any moment leaves nothing
changed."""

from __future__ import annotations

import sys
import traceback
from operator import call
from typing import Any

import torch
from torch import overrides
from torch.utils import _device, _python_dispatch

from cspprof.core.errors import exception_chain

# Dispatch keys and their guards are private. The public `torch.inference_mode()` excludes the same keys, but it makes
# tensors on which autograd cannot work. Torch itself uses these guards in Python; tried with 2.13 and 2.14.
Key = torch._C.DispatchKey
AUTOGRAD = (Key.AutogradFunctionality, Key.ADInplaceOrView)
LAZY = (Key.Conjugate, Key.Negative, Key.ZeroTensor)
"""Tensors that are conjugated, negated or filled when they are read; formulas of autograd make them. Torch excludes
these keys too while a dispatch mode handles an operation."""
KEYS = (*AUTOGRAD, *LAZY)
DEVICES = ("cpu", "cuda")

# Torch's context managers restore this state too, but Python may raise KeyboardInterrupt between the call of
# `__enter__` and the begin of the block, or inside of `__exit__`. Torch has no public functions for the stacks of
# modes, the excluded dispatch keys, the default device and the stance (torch 2.13 and 2.14).
_is_excluded = torch._C._dispatch_tls_is_dispatch_key_excluded
_set_excluded = torch._C._dispatch_tls_set_dispatch_key_excluded


class TorchState:
    """Modes, excluded dispatch keys, gradients, autocast and the default device of this thread, and the two settings of
    the process that `make_eager` changes."""

    def __init__(self) -> None:
        self._dispatch_modes = _python_dispatch._get_current_dispatch_mode_stack()
        self._function_modes = overrides._get_current_function_mode_stack()
        self._excluded = [_is_excluded(key) for key in KEYS]
        self._gradients = torch.is_grad_enabled()
        self._autocast = [(torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in DEVICES]
        self._autocast_cache = torch.is_autocast_cache_enabled()
        self._autocast_depth = autocast_depth()
        self._default_device = (_default_device(), _device.CURRENT_DEVICE)
        self._fast_path = torch.backends.mha.get_fastpath_enabled()
        self._stance = _stance()

    def restore(self) -> None:
        _restore_stack(_python_dispatch, _python_dispatch._get_current_dispatch_mode_stack, self._dispatch_modes)
        if overrides._get_current_function_mode_stack() != self._function_modes:  # a default device is one of them
            torch._GLOBAL_DEVICE_CONTEXT.device_context, _device.CURRENT_DEVICE = self._default_device
        _restore_stack(overrides, overrides._get_current_function_mode_stack, self._function_modes)
        for key, excluded in zip(KEYS, self._excluded, strict=True):
            _set_excluded(key, excluded)
        if torch.is_grad_enabled() != self._gradients:
            torch._C._set_grad_enabled(self._gradients)
        for _ in range(autocast_depth() - self._autocast_depth):
            torch.autocast_decrement_nesting()
        for device, (enabled, dtype) in zip(DEVICES, self._autocast, strict=True):
            torch.set_autocast_enabled(device, enabled)
            torch.set_autocast_dtype(device, dtype)
        torch.set_autocast_cache_enabled(self._autocast_cache)
        torch.backends.mha.set_fastpath_enabled(self._fast_path)
        if self._stance is None:
            # The trace imported torch._dynamo. If the import was interrupted, only some of its modules are there.
            if _stance() is not None and "torch._dynamo" in sys.modules:
                torch.compiler.set_stance("default")
        elif _stance() is not self._stance:
            sys.modules["torch._dynamo.eval_frame"]._set_stance(self._stance)


def raise_interruption(error: BaseException) -> None:
    """Raise KeyboardInterrupt if `error` is one, or replaced one: torch may raise an error of its own instead.

    The context managers that an interrupted function entered are left now, instead of when its frames are freed.
    """
    chain = exception_chain(error)
    if any(isinstance(found, KeyboardInterrupt) for found in chain):
        for found in chain:
            traceback.clear_frames(found.__traceback__)
        raise error if isinstance(error, KeyboardInterrupt) else KeyboardInterrupt


def _restore_stack(module: Any, get: Any, before: list[Any]) -> None:
    while len(now := get()) > len(before) or now != before[: len(now)]:
        module._pop_mode()
    for mode in before[len(now) :]:
        module._push_mode(mode)


def autocast_depth() -> int:
    """The number of open autocast regions plus 1. Torch tells it only when it changes it; `max` calls both functions
    without a moment in between at which Python could raise KeyboardInterrupt."""
    depth: int = max(map(call, (torch.autocast_increment_nesting, torch.autocast_decrement_nesting)))
    return depth


def _default_device() -> Any:
    """The mode of `torch.set_default_device`, which torch pushes on the stack of modes and keeps here too."""
    return getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)


def _stance() -> Any:
    return getattr(sys.modules.get("torch._dynamo.eval_frame"), "_stance", None)
