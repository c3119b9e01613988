"""The model side of a trace: its modules, what they hold, and the table of layers."""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import compress, repeat
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import ScriptObject, nn

from cspprof.record import Layer
from cspprof.trace.forms import Getter, values_of
from cspprof.trace.packed import unpack

STAGE = "cspprof_stage"
"""Attribute by which a model's author names the stage that a module (and what is in it) belongs to."""


CONTAINERS = frozenset({dict, list, OrderedDict})
STANDARD = frozenset(vars(nn.Module()))
"""Attributes of every module."""
TABLES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
CALLED = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
"""Hooks that a call of a module calls."""
HOOKS = (*CALLED, *sorted(name for name in STANDARD - {*CALLED} if "hooks" in name))


Row = tuple[nn.Module, dict[str, Any], str, int, int]
"""A module, its attributes, its first path, its depth, and the number of the module that it lies in."""


class Held(NamedTuple):
    """The tensors of one sort that modules hold, as columns."""

    layers: list[int]
    paths: list[str]
    tensors: list[torch.Tensor]

    def once(self) -> Held:
        """Each tensor where it comes first."""
        keys = list(map(id, self.tensors))
        first = dict(zip(reversed(keys), reversed(range(len(keys))), strict=True))
        if len(first) == len(keys):
            return self
        kept = sorted(first.values())
        return Held([self.layers[i] for i in kept], [self.paths[i] for i in kept], [self.tensors[i] for i in kept])


class Scope:
    """The modules of a model in `named_modules` order, each one once, under its first path."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.index: dict[int, int] = {id(model): 0}
        self.further: dict[int, list[str]] = {}
        """The other paths of modules that have more than one."""
        own = model.__dict__
        rows: list[Row] = [(model, own, "", 0, -1)]
        self._walk(rows, model._modules, "", 1, 0)
        facts: Any = zip(*rows, strict=True)
        self.modules: tuple[nn.Module, ...]
        self.attributes: Sequence[dict[str, Any]]
        """What each module holds: during a trace, a copy of it (see `untouched`)."""
        self.paths: tuple[str, ...]
        """The first path of each."""
        self.depths: tuple[int, ...]
        self.parents: tuple[int, ...]
        self.modules, self.attributes, self.paths, self.depths, self.parents = facts
        self.calls = [0] * len(self.modules)
        self.elsewhere: int | None = None
        """A layer that another thread called, where a trace does not see what it does."""
        self.strangers: dict[int, nn.Module] = {}
        """Modules with parameters that the forward called and that are not registered, by id."""
        self.kinds: list[type[nn.Module]] = list(map(type, self.modules))
        others, self.names = self._others()
        """The names of all attributes that modules have."""
        types = list(map(type, others))
        self.packs = ScriptObject in set(types)
        """Whether some layer keeps weights in an object."""
        self.containers = list(compress(others, map(CONTAINERS.__contains__, types)))
        """Lists and dicts that are attributes, but for hooks and the tables that every module has."""
        self.tables = self._columns()
        """What every module has, a column for each name in `TABLES` and `HOOKS`; None for what one has not."""
        self.hooked = any(any(self.tables[name]) for name in CALLED)
        """Whether some module has hooks that a forward calls."""
        self.parameters, self.buffers = self._held("_parameters"), self._held("_buffers")
        """Each where it comes first."""

    def _walk(
        self, rows: list[Row], children: dict[str, nn.Module | None], before: str, depth: int, parent: int
    ) -> None:
        """Take in what lies in a module: `before` is what their paths begin with."""
        index = self.index
        for name, child in children.items():
            if child is None:
                continue
            path, inner = before + name, depth + 1
            if name == "_orig_mod":  # a wrapper of a compiled module adds no step
                path, inner = before[:-1], depth
            n = len(rows)
            i = index.setdefault(id(child), n)
            own = child.__dict__
            if i == n:
                rows.append((child, own, path, inner - 1, parent))
            else:
                self.further.setdefault(i, []).append(path)
            if child._modules:
                self._walk(rows, child._modules, f"{path}." if path else "", inner, i)

    def _others(self) -> tuple[list[Any], set[str]]:
        """The values of all attributes but those that every module has, and the names of all."""
        getters: dict[tuple[str, ...], Getter] = {}
        values: list[Any] = []
        for own in self.attributes:
            names = tuple(own)
            getter = getters.get(names)
            if getter is None:
                getter = getters[names] = values_of(*[n for n in names if n not in STANDARD])
            values += getter(own)
        return values, set().union(*getters)

    def _columns(self) -> dict[str, Sequence[Any]]:
        names = (*TABLES, *HOOKS)
        try:
            columns: Iterable[Any] = zip(*map(values_of(*names), self.attributes), strict=True)
        except KeyError:  # of TorchScript, or unpickled from an old file
            columns = [[own.get(name) for own in self.attributes] for name in names]
        return dict(zip(names, columns, strict=True))

    def _held(self, name: str) -> Held:
        layers: list[int] = []
        paths: list[str] = []
        tensors: list[torch.Tensor] = []
        tables = self.tables[name]
        if None in tables:
            tables = [getattr(module, name) for module in self.modules]
        for layer in compress(range(len(tables)), tables):
            path = self.paths[layer]
            before = f"{path}." if path else ""
            for name, tensor in tables[layer].items():
                if tensor is not None:
                    layers.append(layer)
                    paths.append(before + name)
                    tensors.append(tensor)
        return Held(layers, paths, tensors).once()

    def layers(self) -> tuple[Layer, ...]:
        """The layer table; a parameter counts with the first layer that owns it."""
        facts = {kind: _class_facts(kind) for kind in set(self.kinds)}
        names = [facts[kind][0] for kind in self.kinds]
        if "cspprof_class" in self.names:
            names = [own.get("cspprof_class") or name for own, name in zip(self.attributes, names, strict=True)]
        shared = [tuple(self.further.get(i, ())) for i in range(len(names))] if self.further else repeat((), len(names))
        stages = self._stages({kind: stage for kind, (_, stage) in facts.items() if stage})
        rows = zip(self.paths, names, self.depths, self.calls, self._params(), shared, stages, strict=True)
        return tuple([tuple.__new__(Layer, row) for row in rows])

    def _stages(self, of_kinds: dict[type, str]) -> Iterable[str | None]:
        """Of each module: its own, that of its class, or that of the module that it lies in."""
        if not of_kinds and STAGE not in self.names:
            return repeat(None, len(self.modules))
        stages: list[str | None] = []
        for own, kind, parent in zip(self.attributes, self.kinds, self.parents, strict=True):
            stages.append(own.get(STAGE) or of_kinds.get(kind) or (stages[parent] if parent >= 0 else None))
        return stages

    def _params(self) -> list[int]:
        """Elements of each module's own parameters that no module before it owns."""
        seen: set[Any] = set()
        counts = [_packed(own, seen) for own in self.attributes] if self.packs else [0] * len(self.modules)
        layers, _, tensors = self.parameters
        for layer, n in zip(layers, map(torch.Tensor.numel, tensors), strict=True):
            counts[layer] += n
        return counts

    def sources(self) -> dict[str, str]:
        """Files below the current folder, installed libraries left out, in which the modules' classes are defined."""
        here = f"{Path.cwd()}{os.sep}"
        found = {}
        for cls in dict.fromkeys(self.kinds):
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
