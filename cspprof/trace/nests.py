"""Nests of lists, tuples and mappings that hold tensors: what operations take and forwards return."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in a nest, left to right; dataclasses and other plain objects are looked into as well."""
    if isinstance(value, torch.Tensor):
        yield value
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


def replace(value: Any, by: Iterator[Any]) -> Any:
    """The same nest of lists and tuples, with the next of `by` in the place of each tensor."""
    if isinstance(value, torch.Tensor):
        return next(by)
    if type(value) in (list, tuple):
        return type(value)(replace(v, by) for v in value)
    return value
