"""What a forward asks its tensors besides operating on them: their sizes, their dtype.

Python then knows a number that depends on the input, and what it does with it is in no operation. A forward that never
asks does the same at every size: that is what lets a record be replayed at another one (`cspprof.replay`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from cspprof.record import Look
from cspprof.trace.metas import Tag

if TYPE_CHECKING:
    from cspprof.trace.recorder import Recorder

GETTERS = ("shape", "dtype", "nbytes", "itemsize")
METHODS = ("size", "numel", "nelement", "stride", "contiguous", "is_contiguous", "is_floating_point", "element_size")

CHECKS = frozenset({"group_norm", "instance_norm", "batch_norm"})
"""Functions of `torch.nn.functional` that look only to refuse."""


@contextmanager
def looked_at(recorder: Recorder) -> Iterator[None]:
    """For the time of a trace, every question of the model's code is written down."""
    own = vars(torch.Tensor)
    before = {name: own[name] for name in (*GETTERS, *METHODS) if name in own}
    try:
        for name in GETTERS:
            setattr(torch.Tensor, name, property(_getter(name, recorder)))
        for name in METHODS:
            setattr(torch.Tensor, name, _method(name, recorder))
        yield
    finally:
        for name in (*GETTERS, *METHODS):
            if name in before:
                setattr(torch.Tensor, name, before[name])
            else:
                delattr(torch.Tensor, name)


def note(recorder: Recorder, what: str, args: dict[str, Any], tags: Iterable[Tag]) -> None:
    """What was asked or done is in no call, and depends on these tensors."""
    for tag in tags:
        if not (tag.constant or tag.meta.weight):
            look = Look(len(recorder.log), recorder.layer, what, tuple(args.items()), tag.storage, tag.meta.spec)
            recorder.looks[look] = None


def _look(recorder: Recorder, what: str, tensor: torch.Tensor, args: dict[str, Any]) -> None:
    tag = tensor.__dict__.get("_cspprof")
    if tag is None or tag.owner is not recorder:
        tag = recorder.held.get(id(tensor))
    if tag is not None:
        note(recorder, what, args, [tag])


def _getter(name: str, recorder: Recorder) -> Callable[[Any], Any]:
    get = getattr(torch.Tensor, name).__get__

    def getter(self: torch.Tensor) -> Any:
        if _asked_by_the_model():
            _look(recorder, name, self, {})
        return get(self)

    return getter


def _method(name: str, recorder: Recorder) -> Callable[..., Any]:
    call = getattr(torch.Tensor, name)

    def method(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if _asked_by_the_model():
            given = {**{"dim" if name == "size" else "argument": a for a in args}, **kwargs}
            _look(recorder, name, self, {k: a if isinstance(a, int) else str(a) for k, a in given.items()})
        return call(self, *args, **kwargs)

    return method


def _asked_by_the_model() -> bool:
    """Whether the question was put neither by this trace nor by the inside of torch."""
    frame = sys._getframe(2)
    name = frame.f_globals.get("__name__", "")
    if name == "torch.nn.functional":
        asker = frame.f_code.co_name
        if asker.startswith("adaptive_"):  # to fill in sizes left open
            size = frame.f_locals["output_size"]
            return isinstance(size, (tuple, list)) and None in size
        return asker not in CHECKS
    return name == "torch._tensor" or not name.startswith(("torch._", "cspprof.trace"))
