"""Notes about a trace for the reader of its numbers."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from cspprof.trace.dispatch import DispatchRecorder
from cspprof.trace.module_tree import ModuleTree
from cspprof.trace.outputs import Outputs

AUTOCAST = (
    "the forward has an autocast region, which changes no dtype on meta: bytes are those of the dtypes outside the "
    "region; trace on the device that the region is for (--device cpu, cuda) to see its own dtypes"
)


RETURNS_FUNCTION = "the forward returns a function: what that computes when it is called is not counted"


def trace_notes(tree: ModuleTree, recorder: DispatchRecorder, result: Outputs) -> Iterator[str]:
    """What a reader must know: autocast regions, modules that the model does not register, functions as results."""
    if result.returns_function:
        yield RETURNS_FUNCTION
    if recorder.saw_autocast:
        yield AUTOCAST
    missing = _unregistered_parameters(tree, recorder) if tree.unregistered else []
    if missing:
        classes = ", ".join(sorted({type(module).__name__ for module in tree.unregistered.values()}))
        yield (
            f"the forward calls modules that are not registered ({classes}): the table of layers and params leave out "
            f"their {sum(map(torch.Tensor.numel, missing)):,} parameters; create them in __init__ and keep them in a "
            "ModuleList, a ModuleDict or attributes of their own"
        )


def _unregistered_parameters(tree: ModuleTree, recorder: DispatchRecorder) -> list[torch.Tensor]:
    """Parameters of unregistered modules that are not parameters of the model under another path."""
    parameters = {s.id for s in recorder.tensors.storages if s.role == "parameter"}
    registered = {key for key, tag in recorder.tensors.registered.items() if tag.storage in parameters}
    found = {id(p): p for m in tree.unregistered.values() for p in m._parameters.values() if p is not None}
    return [p for key, p in found.items() if key not in registered]
