"""Tensor functions as single operations of a trace (`custom_op`), and as modules (`Function`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import nn

Tensor = torch.Tensor
TensorFunction = TypeVar("TensorFunction", bound=Callable[..., Tensor])


def custom_op(name: str) -> Callable[[TensorFunction], TensorFunction]:
    """Turn a tensor function into the operation `darknet::NAME`, which a trace records as one operation.

    Torch has only parts of some Darknet operations. Recorded in parts, a pool with odd padding would read a padded
    copy, a binary convolution would look like an ordinary one, and Darknet's own count could not be computed. The
    gradient is that of the parts. The tensor arguments of the function come first. Its cost rule is registered as
    `darknet.NAME`.
    """

    def register(function: TensorFunction) -> TensorFunction:
        def save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            ctx.save_for_backward(*(v for v in inputs if isinstance(v, Tensor)))
            ctx.others = [v for v in inputs if not isinstance(v, Tensor)]

        def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
            with torch.enable_grad():
                tensors = [t.detach().requires_grad_() for t in ctx.saved_tensors]
                output = function(*tensors, *ctx.others)
            return (*torch.autograd.grad(output, tensors, gradient), *(None for _ in ctx.others))

        op = torch.library.custom_op(f"darknet::{name}", function, mutates_args=())
        op.register_fake(function)
        op.register_autograd(backward, setup_context=save_inputs)
        return cast("TensorFunction", op)

    return register


class Function(nn.Module):
    """A tensor function as a module."""

    def __init__(self, name: str, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.name, self.function = name, function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)

    def extra_repr(self) -> str:
        return self.name
