"""Gradients during a trace: torch's autograd works inside a forward, and the trace still sees composite operations.

Torch's autograd lies above the dispatch modes and replaces a composite operation such as `conv2d` or `linear` by its
parts. With the keys of autograd excluded, as under `torch.inference_mode()`, a dispatch mode receives the composite
operation. The trace then runs it with these keys included again, if a gradient may be needed. So a forward may call
`torch.autograd.grad` or `backward()`, and what the backward pass computes reaches the dispatch mode too.

Whether torch would differentiate an operation is known without autograd: a forward that turns gradients off for some of
its operations (`torch.no_grad()`, `torch.inference_mode()`) changes `torch.is_grad_enabled()`, which the mode reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import Enum

import torch
from torch.autograd import forward_ad

from cspprof.isolation.torch_state import AUTOGRAD, KEYS


class Gradients(Enum):
    """Gradients in one run of a forward."""

    WATCHED = "watched"
    """Enabled as far as the forward can see, but autograd records nothing: the fastest run. It tells which operations
    run while the forward has turned gradients off. It does not suit a forward that takes gradients itself."""
    OFF = "off"
    """Disabled, as under `torch.no_grad()`. Autograd records what the forward enables itself."""
    ON = "on"
    """Enabled, and autograd records all operations."""


@contextmanager
def composite_operations() -> Iterator[None]:
    """A dispatch mode receives composite operations whole, and nothing is recorded for autograd."""
    with ExitStack() as stack:
        for key in AUTOGRAD:
            stack.enter_context(torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(key)))
        yield


@contextmanager
def autograd_included() -> Iterator[None]:
    """Within `composite_operations`: operations are recorded for autograd if gradients are enabled."""
    with ExitStack() as stack:
        for key in KEYS:
            stack.enter_context(torch._C._SetExcludeDispatchKeyGuard(key, False))
        yield


def forward_ad_active() -> bool:
    """Whether the forward is inside `torch.autograd.forward_ad.dual_level()`. The level is private in 2.13 and 2.14."""
    return forward_ad._current_level >= 0


def may_concern_gradients(error: BaseException) -> bool:
    """Whether the forward raised an error about gradients, or an assertion without a text."""
    cause = error.__cause__
    return "grad" in str(cause).lower() or "differentia" in str(cause).lower() or isinstance(cause, AssertionError)
