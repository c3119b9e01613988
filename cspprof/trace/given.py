"""What an operation was given, gone through once: for the rules of shapes and of costs, and for the record."""

from __future__ import annotations

from itertools import chain, repeat
from typing import Any, NamedTuple

import torch

from cspprof.rules import Packed
from cspprof.trace.metas import WEIGHT_NAMES, Operator, Tag
from cspprof.trace.nests import NUMBERS, plain, replace, tensors_in
from cspprof.trace.packed import unpack

AS_IT_IS = NUMBERS - {complex} | {str, type(None)}
"""Types of what is written down as it is."""
TENSORS = frozenset({torch.Tensor, torch.nn.Parameter})


class Given(NamedTuple):
    """The arguments of a call, with what stands for each tensor in its place."""

    metas: list[Any]
    """The positional arguments, a `Meta` in the place of each tensor."""
    named_metas: dict[str, Any]
    specs: list[Any]
    """The positional arguments, a `TensorSpec` in the place of each tensor and a `Packed` in that of packed weights."""
    named_specs: dict[str, Any]
    reads: list[int]
    """Positions among the tensors of those that are activations. What is not read is in neither list: `out=`, and the
    tensor whose shape a new one takes."""
    weights: list[int]
    """Positions of those that are weights: by the name of the argument, or because they lie in a parameter."""
    attrs: dict[str, Any]
    """The other arguments by their schema names, as plain values."""


def given_to(op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], tags: list[Tag]) -> Given:
    """`tags` are those of all tensors among the arguments, in order."""
    metas: list[Any] = []
    specs: list[Any] = []
    reads: list[int] = []
    weights: list[int] = []
    attrs: dict[str, Any] = {}
    at = 0
    positional = zip(chain(op.names, repeat("")), args, strict=False)
    for name, value in chain(positional, kwargs.items()) if kwargs else positional:
        kind, start = type(value), at
        if kind in AS_IT_IS:
            metas.append(value)
            specs.append(value)
            attrs[name] = value
            continue
        if kind is torch.Tensor or isinstance(value, torch.Tensor):
            meta = tags[at].meta
            metas.append(meta)
            specs.append(meta.spec)
            at += 1
        elif plain(value):
            metas.append(value)
            specs.append(value)
            attrs[name] = plainly(value)
            continue
        else:
            whole = kind is list and set(map(type, value)) <= TENSORS
            at += len(value) if whole else sum(1 for _ in tensors_in(value))
            held = [tag.meta for tag in tags[start:at]]
            bare = [m.spec for m in held]
            metas.append(held if whole else replace(value, iter(held)))
            specs.append(bare if whole else replace(value, iter(bare), _packed))
            if start == at:
                attrs[name] = plainly(value)
        if not op.makes_like and name not in op.outs:
            learned = name in WEIGHT_NAMES
            for i in range(start, at):
                (weights if learned or (tags[i].meta.weight and name != "input") else reads).append(i)
    if not kwargs:
        return Given(metas, kwargs, specs, kwargs, reads, weights, attrs)
    n = len(args)
    named = dict(zip(kwargs, metas[n:], strict=True)), dict(zip(kwargs, specs[n:], strict=True))
    return Given(metas[:n], named[0], specs[:n], named[1], reads, weights, attrs)


def numbers(op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments that are single whole numbers, by their schema names."""
    named = {**dict(zip(op.names, args, strict=False)), **kwargs}
    return {name: value for name, value in named.items() if type(value) is int}


def plainly(value: Any) -> Any:
    """As a record has it."""
    kind = type(value)
    if kind is tuple or kind is list:
        return tuple(value) if value and type(value[0]) in NUMBERS else tuple([plainly(v) for v in value])
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple([plainly(v) for v in value])
    return str(value).removeprefix("torch.")


def _packed(held: torch.ScriptObject, specs: list[Any]) -> Packed:
    return Packed(tuple(specs), unpack(held)[1])
