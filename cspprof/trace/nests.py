"""Nests of lists, tuples and mappings that hold tensors: what operations take and forwards return."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from cspprof.trace.packed import unpack

PLAIN = frozenset({int, float, bool, complex, str, type(None), torch.dtype, torch.device, torch.layout})
"""Types of arguments that hold no tensor."""
NUMBERS = frozenset({int, float, bool, complex})


def plain(value: Any) -> bool:
    """Whether there is certainly no tensor in it: in a schema's list, the first item tells of all."""
    kind = type(value)
    if kind is list or kind is tuple:
        return not value or type(value[0]) in NUMBERS
    return kind in PLAIN


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in a nest, left to right; dataclasses and other plain objects are looked into as well, and so are
    tensors made of tensors, such as jagged ones."""
    if type(value) is torch.Tensor:
        yield value
    elif isinstance(value, torch.Tensor):
        if is_traceable_wrapper_subclass(value):
            for name in value.__tensor_flatten__()[0]:
                yield from tensors_in(getattr(value, name))
        else:
            yield value
    elif isinstance(value, torch.ScriptObject):
        yield from unpack(value)[0]
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensors_in(getattr(value, field.name))
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        for item in vars(value).values():
            if isinstance(item, (torch.Tensor, list, tuple, Mapping)):
                yield from tensors_in(item)


Repack = Callable[[torch.ScriptObject, list[Any]], Any]


def replace(value: Any, by: Iterator[Any], repack: Repack = lambda held, items: held) -> Any:
    """The same nest of lists and tuples, with the next of `by` in the place of each tensor.

    `repack` says what stands for packed weights, given what stands for the tensors in them; by default they stay.
    """
    if plain(value):
        return value
    if isinstance(value, torch.Tensor):
        return next(by)
    if type(value) in (list, tuple):
        return type(value)(replace(v, by, repack) for v in value)
    if isinstance(value, torch.ScriptObject):
        return repack(value, [next(by) for _ in unpack(value)[0]])
    return value
