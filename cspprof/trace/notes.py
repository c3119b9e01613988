"""Notes about a trace for the reader of its numbers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from cspprof.modules.module_tree import ModuleTree
from cspprof.trace.dispatch import DispatchRecorder
from cspprof.trace.outputs import Outputs

AUTOCAST = (
    "the forward has an autocast region, which changes no dtype on meta: bytes are those of the dtypes outside the "
    "region; trace on the device that the region is for (--device cpu, cuda) to see its own dtypes"
)

ORIGINALS = (
    "the forward reaches modules or parameters of the model by a global variable: a trace runs a copy of the model, so "
    "these run in the mode that they have, and their operations belong to the layer that calls them; refer to them by "
    "attributes of the model"
)

FROZEN_SCRIPT = (
    "a scripted module is frozen (torch.jit.freeze): its weights are constants of its graph, which does not say which "
    "of them were parameters; all of floating point count as such, without the statistics of batch norms"
)

UNKNOWN_VALUES = (
    "the work of {} depends on the values of {}, which are unknown, so it is not counted; they are known in constants "
    "of the model, and on a real device (--device cpu, cuda) in inputs that are passed as tensors"
)

OTHER_THREAD = (
    "the forward uses tensors that another thread computed, where a trace does not see the operations: their cost is "
    "unknown; compute them in the thread of the forward"
)
UNKNOWN_GRADIENTS = (
    "the forward turns gradients off for some operations, and fails if autograd records the others, so the cost of a "
    "training step is unknown"
)
UNKNOWN_FUNCTIONS = (
    "the backward pass of {} (torch.autograd.Function) cannot be counted: the cost of a training step is a lower bound"
)
RETURNS_FUNCTION = "the forward returns a function: what that computes when it is called is not counted"
RETURNS_OBJECT = "the forward returns an object ({}) without tensors: what that computes when it is used is not counted"


def trace_notes(tree: ModuleTree, recorder: DispatchRecorder, result: Outputs) -> Iterator[str]:
    """What a reader must know: autocast regions, modules that the model does not register, functions as results."""
    if result.objects and (result.returns_function or not result.tensors):
        yield RETURNS_OBJECT.format(result.objects[0])
    elif result.returns_function:
        yield RETURNS_FUNCTION
    for target, argument in recorder.unknown_values.items():
        yield UNKNOWN_VALUES.format(target, argument)
    if recorder.functions.unknown:
        yield UNKNOWN_FUNCTIONS.format(", ".join(sorted(recorder.functions.unknown)))
    if recorder.saw_other_thread:
        yield OTHER_THREAD
    if tree.constants:
        yield FROZEN_SCRIPT
    if recorder.saw_autocast:
        yield AUTOCAST
    unregistered = _unregistered_modules(tree, recorder)
    missing = _unregistered_parameters(unregistered, recorder)
    if missing:
        classes = ", ".join(sorted({type(module).__name__ for module in unregistered}))
        yield (
            f"the forward calls modules that are not registered ({classes}): the table of layers and params leave out "
            f"their {sum(map(torch.Tensor.numel, missing)):,} parameters; create them in __init__ and keep them in a "
            "ModuleList, a ModuleDict or attributes of their own"
        )
    if tree.modes_not_set:
        yield f"{_names(tree.modes_not_set)}: `training` is a property; the trace runs in the mode that it returns"
    if tree.own_train:
        yield (
            f"{_names(tree.own_train)}: train() is a method of the class, which a trace does not call; a trace sets "
            "the flag `training` of each module. If the method does more, call it first"
        )
    if recorder.tensors.reached_originals:
        yield ORIGINALS


def _names(classes: set[type]) -> str:
    return ", ".join(sorted(cls.__name__ for cls in classes))


def _unregistered_modules(tree: ModuleTree, recorder: DispatchRecorder) -> list[nn.Module]:
    """Modules that the model does not register, of which an operation read a parameter other than to initialize it."""
    if not tree.unregistered:
        return []
    read = set()
    for entry, _, tags, written, _ in recorder.log:
        read |= {tags[i].storage for i in entry.reads}.difference(written)
    registered = recorder.tensors.registered

    def is_read(parameter: torch.Tensor | None) -> bool:
        return id(parameter) in registered and registered[id(parameter)].storage in read

    return [module for module in tree.unregistered.values() if any(map(is_read, module._parameters.values()))]


def _unregistered_parameters(modules: list[nn.Module], recorder: DispatchRecorder) -> list[torch.Tensor]:
    """Parameters of unregistered modules that are not parameters of the model under another path."""
    parameters = {s.id for s in recorder.tensors.storages if s.role == "parameter"}
    registered = {key for key, tag in recorder.tensors.registered.items() if tag.storage in parameters}
    found = {id(p): p for module in modules for p in module._parameters.values() if p is not None}
    return [p for key, p in found.items() if key not in registered]
