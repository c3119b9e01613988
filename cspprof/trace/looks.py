"""What a forward asks its tensors besides operating on them: their sizes, their dtype.

Python then knows a number that depends on the input, and what it does with it is in no operation. A forward that never
asks does the same at every size: that is what lets a record be replayed at another one (`cspprof.replay`). Where the
code that asks shows that the answer is for a resize alone, the record says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.jit._builtins import _get_builtin_table

from cspprof.record import Look
from cspprof.trace.crops import crops
from cspprof.trace.describe import INDEXING
from cspprof.trace.flow import Resize
from cspprof.trace.metas import Tag
from cspprof.trace.purpose import purpose
from cspprof.trace.steps import place_of

if TYPE_CHECKING:
    from cspprof.trace.recorder import Recorder

GETTERS = ("shape", "dtype", "nbytes", "itemsize")
METHODS = ("size", "numel", "nelement", "stride", "storage_offset", "contiguous", "is_contiguous", "type",
           "element_size", "is_floating_point", "is_complex", "is_signed", "untyped_storage", "storage")  # fmt: skip
RANK = "dim"
"""The method that a resize asks before anything else."""
FUNCTIONS = ("numel", "is_floating_point", "is_complex", "is_signed")
"""Of torch itself."""
OF_WEIGHTS = frozenset({
    "dtype", "nbytes", "itemsize", "type", "element_size", "is_floating_point", "is_complex", "is_signed",
    "untyped_storage", "storage", "aten.to", "aten._to_copy", "aten.type_as", "aten.result_type",
})  # fmt: skip
"""Questions that a weight answers otherwise in another dtype."""
INSIDE = ("torch._", "torch.utils._", "torch.overrides", "cspprof.trace")
"""Modules that pass a question on, or ask for themselves."""
WITHIN = ("torch.", "cspprof.trace")
CHECKS = frozenset({"group_norm", "instance_norm", "batch_norm"})
"""Functions of `torch.nn.functional` that look only to refuse."""


@contextmanager
def looked_at(recorder: Recorder) -> Iterator[None]:
    """For the time of a trace, every question of the model's code is written down."""
    own = vars(torch.Tensor)
    names = (*GETTERS, *METHODS, RANK)
    before = {name: own[name] for name in names if name in own}
    functions = {name: getattr(torch, name) for name in FUNCTIONS}
    builtins = _get_builtin_table()  # what torch.jit takes for functions of torch
    ears = _Ears(recorder)
    hearing = {name: ears.calling(name, function) for name, function in functions.items()}
    try:
        for name, function in hearing.items():
            setattr(torch, name, function)
            builtins[id(function)] = f"aten::{name}"
        for name in GETTERS:
            setattr(torch.Tensor, name, property(ears.getter(name)))
        for name in METHODS:
            setattr(torch.Tensor, name, ears.calling(name, getattr(torch.Tensor, name)))
        yield
    finally:
        for name, function in functions.items():
            del builtins[id(hearing[name])]
            setattr(torch, name, function)
        for name in names:
            if name in before:
                setattr(torch.Tensor, name, before[name])
            elif name in own:
                delattr(torch.Tensor, name)


def note(recorder: Recorder, what: str, args: dict[str, Any], tags: Iterable[Tag]) -> None:
    """What was asked or done is in no call, and depends on these tensors."""
    if what in INDEXING:
        _note_crops(recorder, what, args, next(iter(tags)))
        return
    for tag in tags:
        if not (tag.constant or (tag.meta.weight and what not in OF_WEIGHTS)):
            look = Look(len(recorder.log), recorder.layer, what, tuple(args.items()), tag.storage, tag.meta.spec)
            recorder.looks[look] = None


def _note_crops(recorder: Recorder, what: str, args: dict[str, Any], tag: Tag) -> None:
    """Each dimension that an index may take up to beyond its end, other than the one that this operation is about."""
    if tag.constant or tag.meta.weight or not tag.meta.shape:
        return
    frame = sys._getframe(4)  # behind `note` and the recorder
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(WITHIN):
        frame = frame.f_back
    found = crops(frame.f_code, frame.f_lasti, frame.f_globals)
    rank = len(tag.meta.shape)
    for dim in found.beside(what, args.get("dim", 0) % rank, rank):
        look = Look(len(recorder.log), recorder.layer, "crop", (("dim", dim),), tag.storage, tag.meta.spec)
        recorder.looks[look] = None


class _Asked(NamedTuple):
    """A size asked for resizes alone."""

    tag: Tag
    at: int
    """The call before which it was."""
    dims: int | tuple[int, ...]
    resizes: tuple[Resize, ...]


class _Ears:
    """What stands in for the methods of tensors."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._asked: dict[FrameType, dict[int, _Asked]] = {}
        """By who asked and at which instruction, the latest there."""
        self._inputs = [tag for tag in recorder.held.values() if recorder.storages[tag.storage].role == "input"]

    def getter(self, name: str) -> Callable[[Any], Any]:
        get = getattr(torch.Tensor, name).__get__

        def getter(tensor: torch.Tensor) -> Any:
            frame = sys._getframe(1)
            if _is_the_models(frame):
                self._hear(frame, name, tensor, {})
            return get(tensor)

        return getter

    def calling(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def method(*args: Any, **kwargs: Any) -> Any:
            frame = sys._getframe(1)
            if _is_the_models(frame):
                tensor, *others = args or kwargs.values()
                given = {**{"dim" if name == "size" else "argument": a for a in others}, **kwargs}
                given = {k: a if isinstance(a, int) else str(a) for k, a in given.items() if a is not tensor}
                if isinstance(tensor, torch.Tensor):
                    self._hear(frame, name, tensor, given)
            return call(*args, **kwargs)

        return method

    def _hear(self, frame: FrameType, what: str, tensor: torch.Tensor, args: dict[str, Any]) -> None:
        recorder = self._recorder
        tag = tensor.__dict__.get("_cspprof")
        if tag is None or tag.owner is not recorder:
            tag = recorder.held.get(id(tensor))
        if tag is None and tensor.is_meta:  # such as a batch of `torch.vmap`: of what it was made is not known
            note(recorder, what, args, self._inputs)
        elif tag is not None:
            if what in ("shape", "size") and self._for_resizes(frame, tag, args.get("dim")):
                args = {**args, "for": "resize"}
            note(recorder, what, args, [tag])

    # -- sizes to resize to -----------------------------------------------------------------------

    def _for_resizes(self, frame: FrameType, tag: Tag, dim: int | None) -> bool:
        """Whether the answer goes to resizes alone; if so, these are waited for."""
        place, resizes = purpose(frame.f_code, frame.f_lasti, frame.f_globals)
        if not resizes:
            return False
        rank = len(tag.meta.shape)
        asked = tuple(range(rank)) if dim is None else dim % rank
        try:
            ways = [way for resize in resizes for way in resize.dims(asked, 1)]
        except (IndexError, TypeError):
            return False
        if not all(type(d) is int for _, d in ways):
            return False
        if not self._asked:
            setattr(torch.Tensor, RANK, self._dim(getattr(torch.Tensor, RANK)))
        self._asked.setdefault(frame, {})[place] = _Asked(tag, len(self._recorder.log), asked, resizes)
        return True

    def _dim(self, call: Callable[[torch.Tensor], int]) -> Callable[[torch.Tensor], int]:
        """What a resize asks of the map that it is given, before anything else."""

        def dim(tensor: torch.Tensor) -> int:
            frame = sys._getframe(1)
            if frame.f_code is F.interpolate.__code__:
                self._resized(frame, call(tensor) - 2)
            return call(tensor)

        return dim

    def _resized(self, frame: FrameType, dims: int) -> None:
        """The next call is a resize of a map with so many `dims`: where its size was asked for, it is said of what."""
        looks, at = self._recorder.looks, len(self._recorder.log)
        for look in [*takewhile(lambda look: look.at == at, reversed(looks))]:
            if look.what == "resize":  # one that came to nothing; or this one, which asks more than once
                del looks[look]
        asker: FrameType | None = frame
        while asker is not None and _is_torchs(asker):
            asker = asker.f_back
        if asker is None or asker not in self._asked:
            return
        call = place_of(asker.f_code, asker.f_lasti)
        for tag, asked, which, resizes in self._asked[asker].values():
            for resize in resizes:
                if resize.call == call:
                    for i, dim in resize.dims(which, dims):
                        note(self._recorder, "resize", {"output": i, "dim": dim, "asked": asked}, [tag])


def _is_torchs(frame: FrameType) -> bool:
    name: str = frame.f_globals.get("__name__", "")
    return name == "torch" or name.startswith("torch.")


def _is_the_models(frame: FrameType) -> bool:
    """Whether a question is put neither by this trace nor by the inside of torch."""
    name = frame.f_globals.get("__name__", "")
    if name == "torch.nn.functional":
        asker = frame.f_code.co_name
        if asker.startswith("adaptive_"):  # to fill in sizes left open
            size = frame.f_locals["output_size"]
            return isinstance(size, (tuple, list)) and None in size
        return asker not in CHECKS
    return name.startswith("torch._tensor") or not name.startswith(INSIDE)
