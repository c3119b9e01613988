"""Which layer is running: what is told when a forward enters a module and leaves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import get_ident
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from cspprof.trace.forms import PARTS
from cspprof.trace.layers import Way, way_through
from cspprof.trace.recorder import Recorder
from cspprof.trace.scope import CALLED, Scope

Move = Callable[[int], int]
"""Told the layer that runs from now on, gives the one that ran until then."""


@contextmanager
def hooked(scope: Scope, move: Move) -> Iterator[None]:
    """Forward hooks for every module.

    One pair of hooks that torch calls for whatever module runs, instead of a pair on each; they know the model's
    own, in this thread. Modules with forward hooks of their own are left only after those.
    """
    outer: list[int] = []
    index, calls, thread = scope.index.copy(), scope.calls, get_ident()
    for module in scope.modules if any(map(_scripted, set(scope.kinds))) else ():
        if _scripted(type(module)):
            del index[id(module)]  # runs no Python; its operations belong to the module that calls it
    late = [m for m in scope.modules if m._forward_hooks and id(m) in index] if scope.hooked else []
    left_late = {id(module) for module in late}

    def enter(module: nn.Module, args: Any) -> None:
        layer = index.get(id(module))
        if layer is None:
            if module._parameters and id(module) not in scope.index and get_ident() == thread:
                scope.strangers[id(module)] = module
            return
        if get_ident() != thread:
            scope.elsewhere = layer
        else:
            calls[layer] += 1
            outer.append(move(layer))

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        if id(module) in index and id(module) not in left_late and get_ident() == thread:
            move(outer.pop() if outer else 0)

    def leave_late(module: nn.Module, args: Any, output: Any) -> None:
        if get_ident() == thread:
            move(outer.pop() if outer else 0)

    handles = [module.register_forward_hook(leave_late, always_call=True) for module in late]
    try:
        handles.append(register_module_forward_pre_hook(enter))
        handles.append(register_module_forward_hook(leave, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def slot(scope: Scope, recorder: Recorder) -> None:
    """Into the slot of a compiled call of each module without hooks, in the copy of its attributes that it has during
    a trace, put a shorter way: one of `layers` through a known layer, else one that tells which layer runs and calls
    the forward.

    Torch goes through its hooks in several times the time of a call without. Whatever is not a plain call goes there
    all the same: see `hooked`.
    """
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return  # somebody else's, of each call
    kinds = set(scope.kinds)
    known = recorder.on_meta and recorder.plain
    ways = {kind: (way_through(kind) if known else None) or ENTERED for kind in kinds if _plain(kind)}
    own_parts = not scope.names.isdisjoint(PARTS)
    columns = zip(scope.modules, scope.kinds, scope.attributes, strict=True)
    for layer, (module, kind, own) in enumerate(columns):
        way = ways.get(kind)
        if way is None or (scope.hooked and any(map(own.get, CALLED))):
            continue
        if own_parts and not own.keys().isdisjoint(PARTS):
            way = ENTERED
        own["_compiled_call_impl"] = partial(way[0], module, layer, recorder, way[1])


def _plain(kind: type[nn.Module]) -> bool:
    """Whether a call of such a module is torch's own."""
    own = kind.__call__ is not nn.Module.__call__ or kind._call_impl is not nn.Module._call_impl
    return not own and not _scripted(kind)


def _scripted(kind: type[nn.Module]) -> bool:
    return issubclass(kind, torch.jit.ScriptModule)


def _entered(module: nn.Module, layer: int, recorder: Recorder, _: None, /, *args: Any, **kwargs: Any) -> Any:
    own = module.__dict__
    if own["_forward_pre_hooks"] or own["_forward_hooks"] or get_ident() != recorder.thread:
        return module._call_impl(*args, **kwargs)
    recorder.calls[layer] += 1
    outer, recorder.layer = recorder.layer, layer
    try:
        return module.forward(*args, **kwargs)
    finally:
        recorder.layer = outer


ENTERED: Way = (_entered, None)
"""Into a module that is not known."""
