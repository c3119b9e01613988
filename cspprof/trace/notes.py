"""What a reader of a record has to know about the trace that it comes from."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from cspprof.trace.recorder import Recorder
from cspprof.trace.scope import Scope

AUTOCAST = (
    "the forward has an autocast region, which changes no dtype on meta: bytes are those of the dtypes outside it; "
    "trace on the device that it is for (--device cpu, cuda) to see its own"
)


def notes_of(scope: Scope, recorder: Recorder) -> Iterator[str]:
    """In words; nothing where nothing is remarkable."""
    if recorder.autocast:
        yield AUTOCAST
    unknown = _unknown(scope, recorder) if scope.strangers else []
    if unknown:
        kinds = ", ".join(sorted({type(module).__name__ for module in scope.strangers.values()}))
        yield (
            f"the forward calls modules that are not registered ({kinds}): the table of layers and params leave out "
            f"their {sum(map(torch.Tensor.numel, unknown)):,} parameters; make them in __init__ and hold them in a "
            "ModuleList, a ModuleDict or attributes of their own"
        )


def _unknown(scope: Scope, recorder: Recorder) -> list[torch.Tensor]:
    """Parameters of modules that are not registered, but for those that are the model's, or stand for one of them."""
    parameters = {s.id for s in recorder.storages if s.role == "parameter"}
    registered = {key for key, tag in recorder.held.items() if tag.storage in parameters}
    held = {id(p): p for m in scope.strangers.values() for p in m._parameters.values() if p is not None}
    return [p for key, p in held.items() if key not in registered]
