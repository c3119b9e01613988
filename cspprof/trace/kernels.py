"""What torch itself is asked: all on a real device; on meta views, values, and what nothing here answers."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch

from cspprof.trace.describe import BY_VALUE, STATISTICS, VALUES, written_in
from cspprof.trace.metas import Operator, Tag
from cspprof.trace.nests import replace

IS_META = attrgetter("is_meta")

if TYPE_CHECKING:
    from cspprof.trace.recorder import Recorder


def at_hand(recorder: Recorder, tensors: list[torch.Tensor], tags: list[Tag], args: Any, kwargs: Any) -> bool:
    """Whether the values are at hand: no argument comes from the model's inputs or parameters."""
    for tag in tags:
        if not tag.constant or tag.storage in recorder.stale:
            return False
    if not tensors:
        return str(kwargs.get("device", "cpu")) != "meta"
    devices = (kwargs.get("device", ""), *(a for a in args if isinstance(a, torch.device)))
    return "meta" not in map(str, devices)


def from_torch(
    recorder: Recorder, op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[torch.Tensor],
    tags: list[Tag], symbolic: bool,
) -> tuple[Any, list[torch.Tensor]]:  # fmt: skip
    """What torch answers, and the tensors that it was asked with: stand-ins on meta, or the real ones."""
    if not symbolic:
        for tensor in written_in(op, args, kwargs, STATISTICS):
            owner = recorder.owners.get(recorder.tag(tensor).storage)
            if owner is not None:
                recorder.protect(tensor if id(tensor) in recorder.held else owner)
        return _carried_out(op, args, kwargs, tensors), tensors
    there = all(map(IS_META, tensors))
    if there and op.views:
        return op.func(*args, **kwargs), tensors
    known = op.target in VALUES and not any(t.storage in recorder.stale for t in tags)
    if known or (op.views and not any(map(IS_META, tensors))):
        return op.func(*args, **kwargs), tensors  # a real parameter: its values, a view of it
    if op.in_place and tags[0].meta.weight:
        return args[0], tensors  # a write into the model's own tensors: seen, not carried out
    inputs = tensors
    if there:
        made = op.func(*args, **kwargs)
    else:
        by_value = op.target in BY_VALUE
        inputs = [
            t if by_value and not t.is_floating_point() and recorder.tag(t).constant else _stand_in(t, recorder)
            for t in tensors
        ]
        given = iter(inputs)
        made = op.func(*replace(args, given), **{k: replace(v, given) for k, v in kwargs.items()})
    if op.in_place and isinstance(made, torch.Tensor) and made.shape == tensors[0].shape:
        made = args[0]
    return made, inputs


def _carried_out(op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[torch.Tensor]) -> Any:
    """What a real kernel gives: tensors that a cache of the forward may keep and training use later."""
    if any(t.is_inference() for t in tensors):
        return op.func(*args, **kwargs)
    with torch.inference_mode(False), torch.no_grad():
        return op.func(*args, **kwargs)


def _stand_in(tensor: torch.Tensor, recorder: Recorder) -> torch.Tensor:
    """The tensor on meta: itself if it is there, else an empty one.

    Not an inference tensor: a view of one could not stand for a view of a parameter.
    """
    if tensor.is_meta:
        return tensor
    with torch.inference_mode(False):
        return recorder.tag(tensor).meta.empty()
