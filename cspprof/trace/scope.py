"""The model side of a trace: its layers, the hooks that say which one is running, and leaving no change behind."""

from __future__ import annotations

import os
import random
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from operator import is_not
from pathlib import Path
from threading import get_ident
from types import TracebackType
from typing import Any

import torch
from torch import ScriptObject, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from cspprof.record import Layer
from cspprof.trace.packed import unpack

STAGE = "cspprof_stage"
"""Attribute by which a model's author names the stage that a module (and what is in it) belongs to."""


class Scope:
    """The modules of a model in `named_modules` order, each one once, under its first path."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules: list[nn.Module] = []
        self.paths: list[list[str]] = []
        self.parents: list[int] = []
        self.index: dict[int, int] = {}
        self._walk(model, "", -1)
        self.calls = [0] * len(self.modules)
        self.elsewhere: int | None = None
        """A layer that another thread called, where a trace does not see what it does."""
        self.attributes = [module.__dict__ for module in self.modules]
        self.values = list(chain.from_iterable(map(dict.values, self.attributes)))
        """Of all attributes of all modules, one after the other."""
        self.kinds = set(map(type, self.values))
        self.parameters = self._held("_parameters")
        """By path; one that is held twice comes twice."""
        self.buffers = self._held("_buffers")

    def _walk(self, module: nn.Module, path: str, parent: int) -> None:
        i = self.index.setdefault(id(module), len(self.modules))
        if i == len(self.modules):
            self.modules.append(module)
            self.paths.append([path])
            self.parents.append(parent)
        else:
            self.paths[i].append(path)
        for name, child in module._modules.items():
            if child is None:
                continue
            if name == "_orig_mod":  # a wrapper of a compiled module adds no step
                self._walk(child, path, i)
            else:
                self._walk(child, f"{path}.{name}" if path else name, i)

    def _held(self, table: str) -> list[tuple[str, torch.Tensor]]:
        held = []
        for module, paths in zip(self.modules, self.paths, strict=True):
            tensors = getattr(module, table)
            if tensors:
                path = paths[0]
                for name, tensor in tensors.items():
                    if tensor is not None:
                        held.append(((f"{path}.{name}" if path else name), tensor))
        return held

    def layers(self) -> tuple[Layer, ...]:
        """The layer table; a parameter counts with the first layer that owns it."""
        seen: set[Any] = set()
        stages: list[str | None] = []
        facts: dict[type, tuple[str, str | None]] = {}
        layers = []
        for i, (module, paths, parent) in enumerate(zip(self.modules, self.paths, self.parents, strict=True)):
            kind, own, path, params = type(module), self.attributes[i], paths[0], 0
            for parameter in module._parameters.values():
                if parameter is not None and id(parameter) not in seen:
                    seen.add(id(parameter))
                    params += parameter.numel()
            if ScriptObject in self.kinds:
                params += _packed(own, seen)
            if kind not in facts:
                facts[kind] = _class_facts(kind)
            name, stage = facts[kind]
            stage = own.get(STAGE) or stage or (stages[parent] if parent >= 0 else None)
            stages.append(stage)
            depth = path.count(".") + 1 if path else 0
            layers.append(
                Layer(path, own.get("cspprof_class") or name, depth, self.calls[i], params, tuple(paths[1:]), stage)
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
        """Forward hooks for every module: `move` is told the layer that runs from now on.

        One pair of hooks that torch calls for whatever module runs, instead of a pair on each; they know the model's
        own, in this thread. Modules with forward hooks of their own are left only after those.
        """
        stack = [0]
        index, calls, thread = self.index.copy(), self.calls, get_ident()
        late = []
        for module in self.modules:
            if isinstance(module, torch.jit.ScriptModule):
                del index[id(module)]  # runs no Python; its operations belong to the module that calls it
            elif module._forward_hooks:
                late.append(module)
        left_late = {id(module) for module in late}

        def enter(module: nn.Module, args: Any) -> None:
            layer = index.get(id(module))
            if layer is None:
                return
            if get_ident() != thread:
                self.elsewhere = layer
            else:
                calls[layer] += 1
                stack.append(layer)
                move(layer)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            if id(module) in index and id(module) not in left_late and get_ident() == thread:
                stack.pop()
                move(stack[-1] if stack else 0)

        def leave_late(module: nn.Module, args: Any, output: Any) -> None:
            if get_ident() == thread:
                stack.pop()
                move(stack[-1] if stack else 0)

        handles = [module.register_forward_hook(leave_late, always_call=True) for module in late]
        try:
            handles.append(register_module_forward_pre_hook(enter))
            handles.append(register_module_forward_hook(leave, always_call=True))
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


def _packed(attributes: dict[str, Any], seen: set[Any]) -> int:
    """Elements that a quantised layer keeps packed."""
    held = {hash(v): v for v in attributes.values() if type(v) is ScriptObject}
    new = {key: v for key, v in held.items() if (key, "packed") not in seen}
    seen.update((key, "packed") for key in new)
    return sum(t.numel() for v in new.values() for t in unpack(v)[0])


def _class_facts(kind: type) -> tuple[str, str | None]:
    """The qualified name, or what the class says it stands for by an attribute `cspprof_class`; the class's stage."""
    return getattr(kind, "cspprof_class", None) or f"{kind.__module__}.{kind.__qualname__}", getattr(kind, STAGE, None)


def clean(path: str) -> str:
    """A path without what wrappers of compiled modules add."""
    return ".".join(part for part in path.split(".") if part != "_orig_mod")


CONTAINERS = frozenset({dict, list, OrderedDict})


@contextmanager
def untouched(scope: Scope) -> Iterator[None]:
    """Put back every attribute, buffer, flag and hook of every module, and the state of the random generators.

    A forward may keep tensors of the trace in a cache of its own; those are dropped again, also one level down
    in lists and dicts that are attributes.
    """
    parameters = [p for _, p in scope.parameters]
    learned = [p.requires_grad for p in parameters]
    attributes = list(map(dict.copy, scope.attributes))
    inner = [v for v in scope.values if type(v) in CONTAINERS]
    filled = [c for c in inner if c]
    content = [c.copy() for c in filled]
    empty = [c for c in inner if not c]
    put_generators_back = _generators()
    try:
        yield
    finally:
        _refill(scope.attributes, attributes)
        _refill(filled, content)
        for container in filter(None, empty):
            container.clear()
        if [p.requires_grad for p in parameters] != learned:  # which train() of the model's own may change
            for parameter, before in zip(parameters, learned, strict=True):
                parameter.requires_grad = before
        put_generators_back()


def _refill(containers: list[Any], contents: list[Any]) -> None:
    """Lists and dicts hold again what they held. Writing is cheaper than looking whether it is the same."""
    for now, before in zip(containers, contents, strict=True):
        if type(now) is list:
            now[:] = before
        else:
            now.update(before)  # never empty on the way: other threads may look
    flat = chain.from_iterable
    lengths = list(map(len, containers)) == list(map(len, contents))
    if not lengths or any(map(is_not, flat(containers), flat(contents))):
        for now, before in zip(containers, contents, strict=True):
            if type(now) is not list and (len(now) != len(before) or any(map(is_not, now, before))):
                now.clear()
                now.update(before)


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
