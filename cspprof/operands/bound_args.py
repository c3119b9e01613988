"""The arguments of a call, prepared once for the rules of shapes and costs and for the record."""

from __future__ import annotations

from itertools import chain, repeat
from typing import Any, NamedTuple

import torch

from cspprof.operands.operators import Operator
from cspprof.operands.pytree import NUMBERS, is_tensorless, replace_tensors, tensors_in
from cspprof.operands.quantized_weights import unpack
from cspprof.operands.tensor_meta import TensorTag
from cspprof.ops import PackedWeights

WEIGHT_NAMES = frozenset({"weight", "bias", "running_mean", "running_var"})
"""Schema names of arguments that are weights, whatever tensor is passed."""


class BoundArgs(NamedTuple):
    """The arguments of a call with descriptions in the place of tensors."""

    metas: list[Any]
    """The positional arguments, each tensor as its `TensorMeta`."""
    named_metas: dict[str, Any]
    specs: list[Any]
    """The positional arguments, each tensor as its `TensorSpec` and packed weights as `PackedWeights`."""
    named_specs: dict[str, Any]
    reads: list[int]
    """Positions, among the tensors, of the activations. Tensors in neither list are not read: `out=`, or a tensor whose
    shape alone is used."""
    weights: list[int]
    """Positions of the weights: by the name of the argument, or because their storage belongs to a parameter."""
    attrs: dict[str, Any]
    """The other arguments by their schema names, as plain values."""


def bind_args(op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], tags: list[TensorTag]) -> BoundArgs:
    """`tags` belong to the tensors among the arguments, in order."""
    metas: list[Any] = []
    specs: list[Any] = []
    reads: list[int] = []
    weights: list[int] = []
    attrs: dict[str, Any] = {}
    at = 0
    for name, value in chain(zip(chain(op.names, repeat("")), args, strict=False), kwargs.items()):
        start = at
        if isinstance(value, torch.Tensor):
            metas.append(tags[at].meta)
            specs.append(tags[at].meta.spec)
            at += 1
        elif is_tensorless(value):
            metas.append(value)
            specs.append(value)
            attrs[name] = plain_value(value)
            continue
        else:
            at += sum(1 for _ in tensors_in(value))
            within = [tag.meta for tag in tags[start:at]]
            metas.append(replace_tensors(value, iter(within)))
            specs.append(replace_tensors(value, iter([m.spec for m in within]), _repack))
            if start == at:
                attrs[name] = plain_value(value)
        if not op.reads_shape_only and name not in op.outs:
            for i in range(start, at):
                is_weight = name in WEIGHT_NAMES or (tags[i].meta.weight and name != "input")
                (weights if is_weight else reads).append(i)
    n = len(args)
    named_metas, named_specs = dict(zip(kwargs, metas[n:], strict=True)), dict(zip(kwargs, specs[n:], strict=True))
    return BoundArgs(metas[:n], named_metas, specs[:n], named_specs, reads, weights, attrs)


def plain_value(value: Any) -> Any:
    """The value as a record stores it: numbers, text, None and tuples of these."""
    if isinstance(value, (list, tuple)):
        return tuple(value) if value and type(value[0]) in NUMBERS else tuple([plain_value(v) for v in value])
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value).removeprefix("torch.")


def _repack(packed: torch.ScriptObject, specs: list[Any]) -> PackedWeights:
    return PackedWeights(tuple(specs), unpack(packed)[1])
