"""Attention of jagged tensors, by the length of each sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

_attention: Callable[..., torch.Tensor] = F.scaled_dot_product_attention


class JaggedAttention(TorchFunctionMode):
    """While active, attention of jagged tensors runs sequence by sequence.

    Torch computes it on a CPU with tensors of another layout, which have no shape of their own. So the lengths must be
    known: on meta they are not.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is _attention:
            return attention(*args, **kwargs or {})
        return func(*args, **kwargs or {})


def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None, *args: Any,
    **kwargs: Any,
) -> torch.Tensor:  # fmt: skip
    """`scaled_dot_product_attention`. Jagged tensors are (N, heads, length, size), as torch requires."""
    tensors = (query, key, value)
    if attn_mask is not None or not all(t.is_nested and t.layout is torch.jagged and t.dim() == 4 for t in tensors):
        return _attention(query, key, value, attn_mask, *args, **kwargs)
    by_length: Any = query.transpose(1, 2)
    sequences = zip(*(t.transpose(1, 2).unbind() for t in tensors), strict=True)
    outputs = [
        _attention(*(part.transpose(0, 1) for part in parts), None, *args, **kwargs).transpose(0, 1)
        for parts in sequences
    ]
    offsets, lengths = by_length.offsets(), by_length.lengths()
    return torch.nested.nested_tensor_from_jagged(torch.cat(outputs), offsets, lengths).transpose(1, 2)
