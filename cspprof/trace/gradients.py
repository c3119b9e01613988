"""Gradients during a trace: torch's autograd works inside a forward, and the trace still sees composite operations.

Torch's autograd lies above the dispatch modes and replaces a composite operation such as `conv2d` or `linear` by its
parts. With the keys of autograd excluded, as under `torch.inference_mode()`, a dispatch mode receives the composite
operation. The trace then runs it with these keys included again, if a gradient may be needed. So a forward may call
`torch.autograd.grad` or `backward()`, and what the backward pass computes reaches the dispatch mode too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.autograd import forward_ad

# The guards of dispatch keys are private. The public `torch.inference_mode()` excludes the same keys, but it makes
# tensors on which autograd cannot work. Torch itself uses these guards in Python; tried with 2.13 and 2.14.
Key = torch._C.DispatchKey
AUTOGRAD = (Key.AutogradFunctionality, Key.ADInplaceOrView)
LAZY = (Key.Conjugate, Key.Negative, Key.ZeroTensor)
"""Tensors that are conjugated, negated or filled when they are read; formulas of autograd make them. Torch excludes
these keys too while a dispatch mode handles an operation."""


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
        for key in (*AUTOGRAD, *LAZY):
            stack.enter_context(torch._C._SetExcludeDispatchKeyGuard(key, False))
        yield


def needs_gradient(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether autograd would record an operation on these tensors."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def forward_ad_active() -> bool:
    """Whether the forward is inside `torch.autograd.forward_ad.dual_level()`. The level is private in 2.13 and 2.14."""
    return forward_ad._current_level >= 0
