"""Tensors that share memory with the user's, and a guard that keeps this memory from being written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from cspprof.operands.tensor_subclasses import inner_tensors

SMALL = 1 << 20
"""Bytes of memory that is copied before a forward, not when torch writes into it."""

Geometry = tuple[Any, torch.Size, tuple[int, ...]]
"""Offset in the memory, shape and strides of a tensor."""


def alias(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of the same class with the same memory, without gradient history and with a version counter of its own.

    Assigning to its `data`, `grad` or `requires_grad` leaves the original as it is.
    """
    if type(tensor) is nn.Parameter and tensor.grad is None and not tensor.__dict__:
        return torch.Tensor._make_subclass(nn.Parameter, tensor.data, tensor.requires_grad)
    return like(tensor, detached(tensor))


def detached(tensor: torch.Tensor) -> torch.Tensor:
    """A plain tensor, or one of a class that wraps tensors, with the same memory, without gradient history."""
    if type(tensor) is not torch.Tensor and is_traceable_wrapper_subclass(tensor):
        return tensor.detach()
    return tensor.data


def like(tensor: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    """`data` as an object of the class of `tensor`, with its attributes."""
    new = data
    if isinstance(tensor, nn.Parameter) and not isinstance(data, nn.Parameter):
        if type(data) is torch.Tensor:
            cls = type(tensor) if issubclass(type(tensor), nn.Parameter) else nn.Parameter
            new = torch.Tensor._make_subclass(cls, data, tensor.requires_grad)
        else:
            new = nn.Parameter(data, tensor.requires_grad)
    elif new.requires_grad != tensor.requires_grad:
        new.requires_grad_(tensor.requires_grad)
    if tensor.__dict__:
        new.__dict__.update({**tensor.__dict__, **new.__dict__})  # a wrapper has its tensors there
    if tensor.is_leaf and tensor.grad is not None:
        new.grad = tensor.grad.detach().to(new.device, new.dtype)
    return new


class MemoryGuard:
    """Keeps the values of the user's tensors while a forward with real values writes into them.

    The first write into memory that an alias shares with a user's tensor makes a private copy of the memory, to which
    the aliases and their views then refer. The user's memory is not written, so another thread can read it meanwhile.
    Small memory is copied before the forward. A tensor that a forward reaches by a global variable is written in place
    and gets its values back in `restore`.
    """

    def __init__(self) -> None:
        self._unsorted: list[torch.Tensor] = []
        """Aliases that are not in `_aliases` yet."""
        self._aliases: dict[int, list[torch.Tensor]] = defaultdict(list)
        """The aliases by the identity of their memory."""
        self._private: dict[int, torch.UntypedStorage] = {}
        """What replaces the memory of the user, by the identity of that."""
        self._own: dict[int, torch.UntypedStorage] = {}
        """Memory that is not the user's, by identity."""
        self._moved: list[tuple[torch.Tensor, torch.UntypedStorage, Geometry]] = []
        """Tensors that refer to private memory now, with their memory and geometry before."""
        self._saved: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        """The user's memory that is written in place, and its values."""

    def add(self, tensors: Iterable[torch.Tensor]) -> None:
        """Guard the memory of these aliases."""
        self._unsorted += [tensor for tensor in tensors if not tensor.is_meta]

    def copy_small(self) -> None:
        """Give aliases of small memory on the CPU memory of their own: a forward may write there without torch, by
        `numpy()`."""
        added = set(map(id, self._unsorted))  # the tensors inside of wrappers may be those of the user
        with torch._C.DisableTorchFunctionSubclass():
            for key, aliases in list(self._by_memory().items()):
                storage = aliases[0].untyped_storage()
                is_small = storage.device.type == "cpu" and storage.nbytes() <= SMALL
                if is_small and added.issuperset(map(id, aliases)):
                    own = storage.clone()
                    for tensor in self._aliases.pop(key):
                        _refer(tensor, own, _geometry(tensor))
                    self._own[own._cdata] = own

    def before_read(self, tensors: Iterable[torch.Tensor]) -> None:
        """Let the tensors refer to the private copy of their memory, if there is one."""
        if self._private:
            for tensor in tensors:
                storage = _storage(tensor)
                if storage is not None and storage._cdata in self._private:
                    self._move(tensor, storage)

    def before_write(self, tensor: torch.Tensor) -> None:
        """Protect the memory of a tensor that no operation of the trace produced, or of a view of one."""
        if tensor.is_meta:  # no values
            return
        storage = _storage(tensor)
        if storage is None:
            self._save(tensor)
        elif storage._cdata in self._by_memory():
            private = self._private[storage._cdata] = storage.clone()
            self._own[private._cdata] = private
            for other in (tensor, *self._aliases.pop(storage._cdata)):
                self._move(other, storage)
        elif storage._cdata not in self._own:
            self._save(tensor)

    def _by_memory(self) -> dict[int, list[torch.Tensor]]:
        while self._unsorted:
            for plain in inner_tensors(self._unsorted.pop()):
                storage = _storage(plain)
                if storage is not None:
                    self._aliases[storage._cdata].append(plain)
        return self._aliases

    def _move(self, tensor: torch.Tensor, storage: torch.UntypedStorage) -> None:
        self._moved.append((tensor, storage, _geometry(tensor)))
        _refer(tensor, self._private[storage._cdata], _geometry(tensor))

    def _save(self, tensor: torch.Tensor) -> None:
        storage = _storage(tensor)
        key = id(tensor) if storage is None else storage._cdata
        if key not in self._saved:
            whole = tensor.data if storage is None else _bytes_of(storage)
            self._saved[key] = (whole, whole.clone())

    def restore(self) -> None:
        """Give tensors that the forward reached outside the model their memory and values back."""
        while self._moved:
            _refer(*self._moved[-1])
            self._moved.pop()
        while self._saved:
            key, (memory, value) = next(iter(self._saved.items()))
            with torch.inference_mode(memory.is_inference()), torch.no_grad():
                if memory.layout is not torch.strided or not torch.equal(memory, value):  # `equal` takes no others
                    memory.copy_(value)
            del self._saved[key]
        self._unsorted.clear()
        self._aliases.clear()
        self._private.clear()
        self._own.clear()


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage | None:
    """The memory of a tensor. None for layouts that have none of their own."""
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None


def _bytes_of(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def _geometry(tensor: torch.Tensor) -> Geometry:
    return tensor.storage_offset(), tensor.shape, tensor.stride()


def _refer(tensor: torch.Tensor, storage: torch.UntypedStorage, geometry: Geometry) -> None:
    """Let a tensor refer to this memory."""
    with torch.no_grad():
        tensor.set_(storage, *geometry)
