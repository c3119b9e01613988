"""The model side of a trace: its modules, what they hold, and the table of layers."""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from itertools import chain, compress, filterfalse
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import ScriptObject, nn

from cspprof.record import Layer
from cspprof.trace.packed import unpack

STAGE = "cspprof_stage"
"""Attribute by which a model's author names the stage that a module (and what is in it) belongs to."""


CONTAINERS = frozenset({dict, list, OrderedDict})


class Held(NamedTuple):
    """The tensors of one sort that modules hold, as columns; one that is held twice comes twice."""

    layers: list[int]
    paths: list[str]
    tensors: list[torch.Tensor]


class Scope:
    """The modules of a model in `named_modules` order, each one once, under its first path."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules: list[nn.Module] = []
        self.paths: list[str] = []
        """The first path of each."""
        self.further: dict[int, list[str]] = {}
        """The other paths of modules that have more than one."""
        self.depths: list[int] = []
        self.parents: list[int] = []
        self.index: dict[int, int] = {}
        self._walk(model, "", 0, -1)
        self.calls = [0] * len(self.modules)
        self.elsewhere: int | None = None
        """A layer that another thread called, where a trace does not see what it does."""
        self.attributes = [module.__dict__ for module in self.modules]
        self.values = list(chain.from_iterable(map(dict.values, self.attributes)))
        """Of all attributes of all modules, one after the other."""
        self.packs = ScriptObject in set(map(type, self.values))
        """Whether some layer keeps weights in an object."""
        inner = [v for v in self.values if type(v) in CONTAINERS]
        self.filled = list(filter(None, inner))
        """Lists and dicts that are attributes, and not empty."""
        self.empty = list(filterfalse(None, inner))
        self.parameters = self._held("_parameters")
        self.buffers = self._held("_buffers")

    def _walk(self, module: nn.Module, path: str, depth: int, parent: int) -> None:
        i = self.index.setdefault(id(module), len(self.modules))
        if i == len(self.modules):
            self.modules.append(module)
            self.paths.append(path)
            self.depths.append(depth)
            self.parents.append(parent)
        else:
            self.further.setdefault(i, []).append(path)
        for name, child in module._modules.items():
            if child is None:
                continue
            if name == "_orig_mod":  # a wrapper of a compiled module adds no step
                self._walk(child, path, depth, i)
            else:
                self._walk(child, f"{path}.{name}" if path else name, depth + 1, i)

    def _held(self, table: str) -> Held:
        held = Held([], [], [])
        tables = [getattr(module, table) for module in self.modules]
        for layer in compress(range(len(tables)), tables):
            path = self.paths[layer]
            for name, tensor in tables[layer].items():
                if tensor is not None:
                    held.layers.append(layer)
                    held.paths.append(f"{path}.{name}" if path else name)
                    held.tensors.append(tensor)
        return held

    def layers(self) -> tuple[Layer, ...]:
        """The layer table; a parameter counts with the first layer that owns it."""
        kinds = list(map(type, self.modules))
        facts = {kind: _class_facts(kind) for kind in set(kinds)}
        names: list[str] = []
        stages: list[str | None] = []
        for kind, own, parent in zip(kinds, self.attributes, self.parents, strict=True):
            name, stage = facts[kind]
            names.append(own.get("cspprof_class") or name)
            stages.append(own.get(STAGE) or stage or (stages[parent] if parent >= 0 else None))
        shared = [tuple(self.further.get(i, ())) for i in range(len(kinds))] if self.further else [()] * len(kinds)
        rows = zip(self.paths, names, self.depths, self.calls, self._params(), shared, stages, strict=True)
        return tuple([tuple.__new__(Layer, row) for row in rows])

    def _params(self) -> list[int]:
        """Elements of each module's own parameters that no module before it owns."""
        seen: set[Any] = set()
        counts = [_packed(own, seen) for own in self.attributes] if self.packs else [0] * len(self.modules)
        for layer, _, tensor in zip(*self.parameters, strict=True):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                counts[layer] += tensor.numel()
        return counts

    def sources(self) -> dict[str, str]:
        """Files below the current folder, installed libraries left out, in which the modules' classes are defined."""
        here = f"{Path.cwd()}{os.sep}"
        found = {}
        for cls in dict.fromkeys(map(type, self.modules)):
            file = getattr(sys.modules.get(cls.__module__), "__file__", None) or ""
            if file.startswith(here) and "site-packages" not in file:
                found[f"{cls.__module__}.{cls.__qualname__}"] = file[len(here) :].replace(os.sep, "/")
        return found

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
