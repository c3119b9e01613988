"""Where an output of an operation lies: in a storage of its own, in an argument's, or it is an argument itself."""

from __future__ import annotations

import torch

from cspprof.trace.metas import Meta, Operator, Tag, meta_of

FRESH, SAME, ALIAS = "fresh", "same", "alias"
"""How an output relates to the arguments: a new tensor, an argument itself, a view of an argument's storage."""

Result = tuple[str, int, Meta]
"""FRESH, SAME or ALIAS; the position of that tensor argument; the output's meta."""


def relation(
    tensor: torch.Tensor, op: Operator, tensors: list[torch.Tensor], inputs: list[torch.Tensor], tags: list[Tag]
) -> Result:
    """Of an output to the tensor arguments; `inputs` are those that torch was given in their places."""
    for i, t in enumerate(tensors):
        if tensor is t:
            return SAME, i, meta_of(tensor, tags[i].meta.weight) if op.written else tags[i].meta
    if op.views and len(tensors) == 1 and not op.composite and tensors[0].layout is torch.strided:
        return ALIAS, 0, meta_of(tensor, tags[0].meta.weight)  # always a view; a composite may copy, as reshape does
    if tensor.layout is torch.strided:
        data = tensor.untyped_storage()._cdata
        for i, t in enumerate(inputs):
            if t.layout is torch.strided and t.untyped_storage()._cdata == data:
                return ALIAS, i, meta_of(tensor, tags[i].meta.weight)
    return FRESH, -1, meta_of(tensor)


def offsets(base: torch.Tensor, made: list[torch.Tensor]) -> tuple[int, ...]:
    """Where views begin, counted from where the tensor does that they are of; empty where shape, strides and that do
    not say all."""
    told = (base.dtype, base.is_neg(), base.layout)
    if base.is_complex() or any((t.dtype, t.is_neg(), t.layout) != told for t in made):
        return ()
    return tuple(int(t.storage_offset()) - int(base.storage_offset()) for t in made)
