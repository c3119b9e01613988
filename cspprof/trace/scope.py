"""The model side of a trace: its layers, the hooks that say which one is running, and leaving no change behind."""

from __future__ import annotations

import os
import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import ScriptObject, nn

from cspprof.record import Layer
from cspprof.trace.packed import unpack

STAGE = "cspprof_stage"
"""Attribute by which a model's author names the stage that a module (and what is in it) belongs to."""


def _class_name(module: nn.Module) -> str:
    """Qualified; a module that stands for one of another class says so by an attribute `cspprof_class`."""
    own = f"{type(module).__module__}.{type(module).__qualname__}"
    return getattr(module, "cspprof_class", None) or own


class Scope:
    """The modules of a model in `named_modules` order, each one once, under its first path."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules: list[nn.Module] = []
        self.paths: list[list[str]] = []
        self.index: dict[int, int] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            i = self.index.setdefault(id(module), len(self.modules))
            if i == len(self.modules):
                self.modules.append(module)
                self.paths.append([])
            self.paths[i].append(clean(path))
        self.calls = [0] * len(self.modules)

    def layers(self) -> tuple[Layer, ...]:
        """The layer table; a parameter counts with the first layer that owns it."""
        seen: set[Any] = set()
        stages: dict[str, str | None] = {}
        layers = []
        for module, paths, calls in zip(self.modules, self.paths, self.calls, strict=True):
            own: dict[Any, int] = {id(p): p.numel() for p in module._parameters.values() if p is not None}
            for held in [v for v in module.__dict__.values() if type(v) is ScriptObject]:  # a quantised layer's
                own[hash(held), "packed"] = sum(t.numel() for t in unpack(held)[0])
            own = {key: n for key, n in own.items() if key not in seen}
            seen.update(own)
            path = paths[0]
            stage = getattr(module, STAGE, None) or stages.get(path.rpartition(".")[0])
            stages[path] = stage
            layers.append(
                Layer(
                    path=path,
                    class_name=_class_name(module),
                    depth=path.count(".") + 1 if path else 0,
                    calls=calls,
                    params=sum(own.values()),
                    shared_with=tuple(paths[1:]),
                    stage=stage,
                )
            )
        return tuple(layers)

    def sources(self) -> dict[str, str]:
        """Files below the current folder, installed libraries left out, in which the modules' classes are defined."""
        here = f"{Path.cwd()}{os.sep}"
        found = {}
        for cls in dict.fromkeys(map(type, self.modules)):
            file = getattr(sys.modules.get(cls.__module__), "__file__", None) or ""
            if file.startswith(here) and "site-packages" not in file:
                found[f"{cls.__module__}.{cls.__qualname__}"] = file[len(here) :].replace(os.sep, "/")
        return found

    @contextmanager
    def hooked(self, move: Callable[[int], None]) -> Iterator[None]:
        """Forward hooks on every module: `move` is told the layer that runs from now on."""
        stack = [0]

        def enter(module: nn.Module, args: Any) -> None:
            layer = self.index[id(module)]
            self.calls[layer] += 1
            stack.append(layer)
            move(layer)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            stack.pop()
            move(stack[-1] if stack else 0)

        handles = []
        try:
            for module in self.modules:
                if isinstance(module, torch.jit.ScriptModule):
                    continue  # has no Python hooks; its operations belong to the module that calls it
                handles.append(module.register_forward_pre_hook(enter, prepend=True))
                handles.append(module.register_forward_hook(leave, always_call=True))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def failing_layer(self, traceback: TracebackType | None) -> int:
        """The innermost module of this model whose code an exception came through."""
        layer = 0
        while traceback is not None:
            owner = traceback.tb_frame.f_locals.get("self")
            layer = self.index.get(id(owner), layer)
            traceback = traceback.tb_next
        return layer


def clean(path: str) -> str:
    """A path without what wrappers of compiled modules add."""
    return ".".join(part for part in path.split(".") if part != "_orig_mod")


@contextmanager
def untouched(scope: Scope) -> Iterator[None]:
    """Put back every attribute, buffer, flag and hook of every module, and the state of the random generators.

    A forward may keep tensors of the trace in a cache of its own; those are dropped again, also one level down
    in lists and dicts that are attributes.
    """
    learns = [(p, p.requires_grad) for p in scope.model.parameters()]
    saved = []
    for module in scope.modules:
        attributes = dict(module.__dict__)
        inner = [v for v in attributes.values() if type(v) in (dict, list, OrderedDict)]
        saved.append((module, attributes, [(v, v.copy()) for v in inner if v], [v for v in inner if not v]))
    put_generators_back = _generators()
    try:
        yield
    finally:
        for module, attributes, filled, empty in saved:
            if not _same(module.__dict__, attributes):
                module.__dict__.clear()
                module.__dict__.update(attributes)
            for container, content in filled:
                if not _same(container, content):
                    container.clear()
                    container.update(content) if isinstance(container, dict) else container.extend(content)
            for container in empty:
                container.clear()
        for parameter, learned in learns:  # which train() of the model's own may change
            if parameter.requires_grad != learned:
                parameter.requires_grad = learned
        put_generators_back()


def _generators() -> Callable[[], None]:
    """Remembers the state of every global random generator that a forward may draw from; the call puts it back."""
    states: list[tuple[Callable[[Any], Any], Any]] = [
        (torch.set_rng_state, torch.get_rng_state()),
        (random.setstate, random.getstate()),
    ]
    if torch.cuda.is_initialized():
        states.append((torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    if (numpy := sys.modules.get("numpy.random")) is not None:
        states.append((numpy.set_state, numpy.get_state()))

    def put_back() -> None:
        for put, state in states:
            put(state)

    return put_back


def _same(now: Any, before: Any) -> bool:
    """Whether two lists or dicts hold the very same objects in the same order."""
    if isinstance(now, dict):
        return list(now) == list(before) and all(now[k] is before[k] for k in now)
    return len(now) == len(before) and all(a is b for a, b in zip(now, before, strict=True))
