"""The modules of a model, the tensors that they hold, and the table of layers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple

import torch
from torch import ScriptObject, nn

from cspprof.core.record import Layer
from cspprof.operands.pytree import tensors_in
from cspprof.operands.quantized_weights import unpack
from cspprof.operands.tensor_subclasses import local_numel

STAGE = "cspprof_stage"
"""Attribute of a module or its class: the stage that the module and its submodules belong to."""

CLASS = "cspprof_class"
"""Attribute of a module or its class: the class name to record instead of its own."""


class HeldTensor(NamedTuple):
    """A parameter or buffer, where it is found first."""

    layer: int
    path: str
    tensor: torch.Tensor


class ModuleTree:
    """The modules of a model in `named_modules` order, each once, under its first path."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.index: dict[int, int] = {id(model): 0}
        """The position of a module by its id."""
        self.modules: list[nn.Module] = [model]
        self.paths: list[str] = [""]
        self.depths: list[int] = [0]
        self.parents: list[int] = [-1]
        self.shared_with: dict[int, list[str]] = {}
        """The other paths of modules that have more than one."""
        self._walk()
        self.calls = [0] * len(self.modules)
        """How often the forward called each module."""
        self.called_by_other_thread: int | None = None
        """A module that another thread called, whose operations a trace does not see."""
        self.modes_not_set: set[type] = set()
        """Classes of modules that decide by themselves whether they are in training mode, against that of the trace."""
        self.own_train: set[type] = set()
        """Classes of modules that define a `train()`, which is not called, and whose mode is not that of the trace."""
        self.unregistered: dict[int, nn.Module] = {}
        """Modules with parameters that the forward called although they are not submodules, by id."""
        self.parameters = self._held("_parameters")
        self.constants = list(_frozen_constants(self.modules, self.paths))
        """The weights of scripted modules that `torch.jit.freeze` has made constants of their graphs."""
        self.buffers = self._held("_buffers")
        self.packed_weights: dict[int, tuple[int, ScriptObject]] = {}
        """Objects in which quantized layers keep their weights, each with the first layer that holds it, by hash."""
        for layer, module in enumerate(self.modules):
            for value in vars(module).values():
                if type(value) is ScriptObject:
                    self.packed_weights.setdefault(hash(value), (layer, value))

    def _walk(self) -> None:
        """Find the submodules, depth first. A module that holds one of its parents ends the path there."""
        path_modules = {id(self.model)}
        waiting: list[tuple[nn.Module, str, int, int, Iterator[Any]]] = [
            (self.model, "", 1, 0, iter(list(self.model._modules.items())))
        ]
        while waiting:
            module, prefix, depth, parent, children = waiting[-1]
            for name, child in children:
                if child is None:
                    continue
                path, level = prefix + name, depth
                if name == "_orig_mod":  # the wrapper of a compiled module adds no level
                    path, level = prefix[:-1], depth - 1
                position = self.index.setdefault(id(child), len(self.modules))
                if position < len(self.modules):
                    self.shared_with.setdefault(position, []).append(path)
                else:
                    self.modules.append(child)
                    self.paths.append(path)
                    self.depths.append(level)
                    self.parents.append(parent)
                submodules = child._modules
                if submodules and id(child) not in path_modules:
                    path_modules.add(id(child))
                    items = iter(list(submodules.items()))
                    waiting.append((child, f"{path}." if path else "", level + 1, position, items))
                    break
            else:
                path_modules.discard(id(module))
                waiting.pop()

    def _held(self, table: str) -> list[HeldTensor]:
        found: dict[int, HeldTensor] = {}
        for layer, (module, path) in enumerate(zip(self.modules, self.paths, strict=True)):
            for name, tensor in getattr(module, table).items():
                if tensor is not None and id(tensor) not in found:
                    found[id(tensor)] = HeldTensor(layer, f"{path}.{name}" if path else name, tensor)
        return list(found.values())

    def layers(self) -> tuple[Layer, ...]:
        """The table of layers. A parameter counts for the first layer that owns it."""
        params, frozen = self._own_params(), self._frozen_params()
        by_class: dict[type, tuple[str, str | None]] = {}
        stages: list[str | None] = []
        layers = []
        for i, module in enumerate(self.modules):
            cls, attributes = type(module), vars(module)
            if cls not in by_class:
                name = getattr(cls, CLASS, None) or f"{cls.__module__}.{cls.__qualname__}"
                by_class[cls] = name, getattr(cls, STAGE, None)
            name, stage = by_class[cls]
            inherited = stages[self.parents[i]] if i else None
            stages.append(attributes.get(STAGE) or stage or inherited)
            name = attributes.get(CLASS) or name
            shared = tuple(self.shared_with.get(i, ()))
            layers.append(
                Layer(self.paths[i], name, self.depths[i], self.calls[i], params[i], shared, stages[i], frozen[i])
            )
        return tuple(layers)

    def _own_params(self) -> list[int]:
        """Elements of each module's own parameters that no earlier module owns, packed weights included."""
        counts = [0] * len(self.modules)
        for layer, _, tensor in (*self.parameters, *self.constants):
            counts[layer] += local_numel(tensor)
        for layer, packed in self.packed_weights.values():
            counts[layer] += sum(t.numel() for t in unpack(packed)[0])
        return counts

    def _frozen_params(self) -> list[int]:
        """Elements of each module's own parameters that need no gradient and that no earlier module owns."""
        counts = [0] * len(self.modules)
        for layer, _, tensor in (*self.parameters, *self.constants):
            if not tensor.requires_grad:
                counts[layer] += tensor.numel()
        return counts

    def sources(self) -> dict[str, str]:
        """The files below the current folder that define the modules' classes, by class, without installed packages."""
        here = f"{Path.cwd()}{os.sep}"
        found = {}
        for cls in dict.fromkeys(map(type, self.modules)):
            file = getattr(sys.modules.get(cls.__module__), "__file__", None) or ""
            if file.startswith(here) and "site-packages" not in file:
                found[f"{cls.__module__}.{cls.__qualname__}"] = file[len(here) :].replace(os.sep, "/")
        return found

    def failing_module(self, traceback: TracebackType | None) -> tuple[str, nn.Module]:
        """The innermost module of the model among the frames of an exception, after its path."""
        layer = 0
        while traceback is not None:
            owner = traceback.tb_frame.f_locals.get("self")
            layer = self.index.get(id(owner), layer)
            traceback = traceback.tb_next
        return self.paths[layer], self.modules[layer]

    def add_unregistered(self, parameter: torch.Tensor) -> None:
        """Find the module that uses a parameter of its own now, by the functions that are running."""
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            owner: Any = frame.f_locals.get("self")
            if issubclass(type(owner), nn.Module) and any(held is parameter for held in owner._parameters.values()):
                self.unregistered[id(owner)] = owner
                return
            frame = frame.f_back


def is_frozen_script(module: nn.Module) -> bool:
    """Whether `torch.jit.freeze` made the module: it has no mode."""
    return (
        isinstance(module, torch.jit.ScriptModule)
        and module._c._has_method("forward")
        and not module._c.hasattr("training")
    )


def _frozen_constants(modules: list[nn.Module], paths: list[str]) -> Iterator[HeldTensor]:
    """The constants of floating point in the graphs of frozen modules, without the statistics of batch norms."""
    for layer, (module, path) in enumerate(zip(modules, paths, strict=True)):
        if not is_frozen_script(module):
            continue
        graph: Any = module.graph
        for node in graph.findAllNodes("prim::Constant"):
            value = node.output()
            uses = {(use.user.kind(), use.offset) for use in value.uses()}
            if uses <= {("aten::batch_norm", 3), ("aten::batch_norm", 4)}:
                continue
            name = ".".join(filter(None, (path, value.debugName().removeprefix("self."))))
            for tensor in tensors_in(value.toIValue()):  # several in a recurrent layer
                if tensor.is_floating_point():
                    yield HeldTensor(layer, name, tensor)


def without_wrappers(path: str) -> str:
    """A path without the names that wrappers of compiled modules add."""
    return ".".join(part for part in path.split(".") if part != "_orig_mod")
