"""How an output of an operation relates to its tensor arguments: new memory, a view, or the argument itself."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import torch

from cspprof.core.tensors import TensorMeta
from cspprof.operands.operators import Operator
from cspprof.operands.tensor_meta import TensorTag, meta_of


class Alias(Enum):
    """The relation of an output to the tensor arguments."""

    NONE = "none"
    """A new tensor in a storage of its own."""
    SAME = "same"
    """An argument itself."""
    VIEW = "view"
    """A view of an argument's storage."""


class Output(NamedTuple):
    """One output of an operation."""

    alias: Alias
    argument: int
    """The position of the related tensor argument; -1 for a new tensor."""
    meta: TensorMeta


def output_of(
    tensor: torch.Tensor, op: Operator, tensors: list[torch.Tensor], passed: list[torch.Tensor], tags: list[TensorTag]
) -> Output:
    """Relate an output to the tensor arguments. `passed` are the tensors that the kernel received in their places."""
    for i, argument in enumerate(tensors):
        if tensor is argument:
            return Output(Alias.SAME, i, meta_of(tensor, tags[i].meta.weight) if op.written else tags[i].meta)
    if op.returns_views and len(tensors) == 1 and not op.composite and tensors[0].layout is torch.strided:
        return Output(Alias.VIEW, 0, meta_of(tensor, tags[0].meta.weight))  # a composite may copy, as reshape does
    if tensor.layout is torch.strided:
        # A storage on meta has no data pointer; `_cdata` identifies it (torch 2.13 and 2.14).
        storage = tensor.untyped_storage()._cdata
        for i, argument in enumerate(passed):
            if argument.layout is torch.strided and argument.untyped_storage()._cdata == storage:
                return Output(Alias.VIEW, i, meta_of(tensor, tags[i].meta.weight))
    return Output(Alias.NONE, -1, meta_of(tensor))
