"""Tensor subclasses that run operations themselves: wrappers of other tensors, shards of a tensor, tensors of a mode.

A trace records the operations on the tensors inside a wrapper, because these are computed. It does not record what a
forward computes only to learn shapes: on fake tensors, and while torch traces a function into a graph.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass, transform_subclass

from cspprof.core.errors import NeedsValuesError, TraceError
from cspprof.operands.tensor_meta import MKLDNN

META = torch.device("meta")
_active_mode = torch._C._get_dispatch_mode  # no public function returns one mode (torch 2.13 and 2.14)
_FAKE = torch._C._TorchDispatchModeKey.FAKE
_PROXY = torch._C._TorchDispatchModeKey.PROXY
VALUES_HINT = "Trace with real values: --device cpu (in Python: device='cpu')."


def computes_shapes_only(types: Any) -> bool:
    """Whether an operation on tensors of these subclasses is run for its shapes: on fake tensors, under a
    `FakeTensorMode`, or while `make_fx` builds a graph."""
    return (
        _active_mode(_FAKE) is not None
        or _active_mode(_PROXY) is not None
        or any(issubclass(cls, FakeTensor) for cls in types)
    )


SHARDING_PROPAGATION = frozenset(
    {"torch.distributed.tensor._sharding_prop", "torch.distributed.tensor._decompositions"}
)


def propagates_shardings() -> bool:
    """Whether `DTensor` is finding the placements of an operation's outputs, which it remembers for the next time.

    Depending on the operation it tries them on fake or on meta tensors, so the tensors do not tell. Only the call stack
    does (torch 2.13 and 2.14).
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") in SHARDING_PROPAGATION:
            return True
        frame = frame.f_back
    return False


def is_wrapper_class(cls: type[torch.Tensor]) -> bool:
    """Whether the class defines what operations do, in `__torch_dispatch__`."""
    return cls.__torch_dispatch__ is not torch._C._disabled_torch_dispatch_impl


def inner_tensors(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The plain tensors inside a wrapper, at any depth; the tensor itself if it is no wrapper or hides them."""
    cls = type(tensor)
    if cls is nn.Parameter or cls is torch.Tensor or not is_wrapper_class(cls) or issubclass(cls, FakeTensor):
        return [tensor]
    return [plain for part in _parts(tensor) for plain in inner_tensors(part)] or [tensor]


def _parts(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    if is_traceable_wrapper_subclass(tensor):
        values = [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
    else:
        values = list(vars(tensor).values())
    yield from (value for value in values if isinstance(value, torch.Tensor))  # a DTensor also lists its device mesh


def local_numel(tensor: torch.Tensor) -> int:
    """The elements of a tensor; of a `DTensor`, the elements of the shard in this process."""
    sharded = is_sharded_class(type(tensor))
    return sum(map(torch.Tensor.numel, inner_tensors(tensor))) if sharded else tensor.numel()


def is_sharded_class(cls: type) -> bool:
    """Whether its tensors are `DTensor`s, which hold the part of a tensor that belongs to this process."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and issubclass(cls, module.DTensor)


def empty_on_meta(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """An empty tensor on meta with the shape of `tensor`. A wrapper gives a wrapper of empty tensors on meta.

    Raises NeedsValuesError for a wrapper that cannot be rebuilt around other tensors.
    """
    if isinstance(tensor, FakeTensor):
        return torch.empty_strided(tuple(tensor.shape), tensor.stride(), dtype=dtype, device=META)
    if tensor.layout is MKLDNN:
        raise NeedsValuesError("a tensor of layout torch._mkldnn cannot be made without values", VALUES_HINT)
    if not is_wrapper_class(type(tensor)):
        with torch._C.DisableTorchFunctionSubclass():
            made = torch.empty_like(tensor, dtype=dtype, device=META)
            if type(tensor) in (torch.Tensor, nn.Parameter):
                return made
            made = made.as_subclass(type(tensor))  # its class may override functions
        made.__dict__.update(vars(tensor))
        return made
    try:
        if is_traceable_wrapper_subclass(tensor):
            made = transform_subclass(tensor, _part_on_meta)
            made = made if made.dtype == dtype else made.to(dtype)
        else:
            made = torch.empty_like(tensor, dtype=dtype, device=META)
    except Exception as error:
        raise NeedsValuesError(f"a {type(tensor).__name__} cannot be made without values", VALUES_HINT) from error
    if type(made) is not type(tensor):
        raise NeedsValuesError(f"a {type(tensor).__name__} without values would be a plain tensor", VALUES_HINT)
    return made


def _part_on_meta(name: str, part: Any) -> Any:
    return empty_on_meta(part, part.dtype) if isinstance(part, torch.Tensor) else part


def refuse_fake(tensor: torch.Tensor, what: str) -> None:
    """Raise TraceError for a fake tensor, which has no values to compute with on a real device."""
    if isinstance(tensor, FakeTensor):
        raise TraceError(f"{what} is a FakeTensor, which has no values", "Trace on meta: leave out --device.")


def refuse_distributed(modules: list[nn.Module], paths: list[str]) -> None:
    """Raise TraceError if FSDP or the composable `replicate` wraps a module. Their first forward sets up state outside
    of the modules, which a trace does not restore."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    composable = sys.modules.get("torch.distributed._composable.replicate")
    wrappers = {} if fsdp is None else {
        fsdp.FullyShardedDataParallel: "FullyShardedDataParallel", fsdp.FSDPModule: "fully_shard"
    }  # fmt: skip
    if composable is not None:
        wrappers[composable.DDP] = "replicate"
    for module, path in zip(modules, paths, strict=True) if wrappers else ():
        for cls, function in wrappers.items():
            if isinstance(module, cls):
                raise TraceError(
                    f"{f'layer {path!r}' if path else 'the model'} ({type(module).__name__}) is distributed by "
                    f"{function}, whose hooks keep and replace parameters outside of the modules",
                    f"Profile the model before it is passed to {function}.",
                )
