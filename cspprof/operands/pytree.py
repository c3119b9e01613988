"""Tensors in nested arguments and results: lists, tuples, mappings, dataclasses, packed weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch

from cspprof.operands.quantized_weights import unpack
from cspprof.operands.tensor_subclasses import inner_tensors

NUMBERS = frozenset({int, float, bool, complex})
TENSORLESS = NUMBERS | {str, type(None), torch.dtype, torch.device, torch.layout}
"""Types of arguments that contain no tensor."""


def is_tensorless(value: Any) -> bool:
    """Whether an operator's argument contains no tensor. The first item of a list represents all: a schema's list has
    one element type."""
    kind = type(value)
    if kind is list or kind is tuple:
        return not value or type(value[0]) in NUMBERS
    return kind in TENSORLESS


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in a nested value, left to right. Also searches dataclasses, attributes of plain objects, and tensor
    subclasses that wrap other tensors (jagged, quantized)."""
    if type(value) is torch.Tensor:
        yield value
    elif isinstance(value, torch.Tensor):
        yield from inner_tensors(value)
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


def replace_tensors(value: Any, by: Iterator[Any], repack: Repack = lambda packed, items: packed) -> Any:
    """The same nesting of lists and tuples, with the next item of `by` in the place of each tensor.

    `repack` builds the replacement of packed weights from the replacements of the tensors in them; by default the
    packed object stays.
    """
    if is_tensorless(value):
        return value
    if isinstance(value, torch.Tensor):
        return next(by)
    if type(value) in (list, tuple):
        return type(value)(replace_tensors(v, by, repack) for v in value)
    if isinstance(value, torch.ScriptObject):
        return repack(value, [next(by) for _ in unpack(value)[0]])
    return value
