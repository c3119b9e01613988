"""The tensors and storages that one trace has met."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from cspprof.core.record import Storage
from cspprof.operands.tensor_meta import TensorTag, meta_of


class TensorRegistry:
    """Gives each tensor a tag and each storage a number.

    The tag of an operation's output lies in the tensor's `__dict__`. Tensors that no operation of the trace produced
    (inputs, weights, constants) are registered here, so that nothing is left on the user's own tensors.
    """

    def __init__(self, on_unknown_parameter: Callable[[torch.Tensor], None]) -> None:
        self.on_unknown_parameter = on_unknown_parameter
        """Called with each parameter that the forward uses and the model does not register."""
        self.originals: dict[int, torch.Tensor] = {}
        """What the copy of the model holds instead of each parameter and buffer, by the id of the original."""
        self.reached_originals = False
        """Whether the forward used a parameter or buffer of the model itself instead of its copy's."""
        self.registered: dict[int, TensorTag] = {}
        """Tags of tensors that no operation of this trace produced, by the tensor's id."""
        self.owners: dict[int, torch.Tensor] = {}
        """The registered tensor of each storage. Holding it keeps its id unique."""
        self.storages: list[Storage] = []
        """The storages of registered tensors."""
        self.differentiable: set[int] = set()
        """Storages of registered tensors that require a gradient."""
        self.next_storage = 0
        self.stale: set[int] = set()
        """Storages of constants that an operation with unknown values wrote into, without being carried out."""
        self.made_up: set[int] = set()
        """Storages of inputs that were made from shapes. On a real device their values are arbitrary."""
        self.saved: dict[int, tuple[int, bool, bool]] = {}
        """For inputs, parameters and tensors that autograd may save, by the id of torch's storage: number, if it is a
        weight, and if it is a constant."""
        self.copies: set[int] = set()
        """The ids of all tensors that the copy of the model holds."""
        self.unexplained = False
        """Whether the forward used a tensor on meta that no operation produced and that the model does not hold."""
        self.unrecorded = object()
        """The `trace` of tags of outputs that are not recorded."""

    def register(self, tensor: torch.Tensor, name: str, role: str) -> TensorTag:
        """Give a storage and a tag to a tensor that no operation of this trace produced."""
        found = self.registered.get(id(tensor))
        if found is not None:
            return found
        meta = meta_of(tensor, role not in ("input", "byproduct"))
        storage = self.new_storage()
        self.storages.append(Storage(storage, name, role, meta.spec))
        if tensor.requires_grad:
            self.differentiable.add(storage)
        constant = role in ("buffer", "constant") and not tensor.is_meta
        tag = self.registered[id(tensor)] = TensorTag(self, storage, meta, constant)
        self.owners[storage] = tensor
        if role in ("input", "parameter") and tensor.layout is torch.strided:  # `as_subclass` makes another object
            self.saved[tensor.untyped_storage()._cdata] = storage, meta.weight, False
        if role == "constant" and isinstance(tensor, nn.Parameter):
            self.on_unknown_parameter(tensor)
        return tag

    def new_storage(self) -> int:
        self.next_storage += 1
        return self.next_storage - 1

    def tag(self, tensor: torch.Tensor) -> TensorTag:
        """The tag of a tensor. A tensor that this trace has not met is registered as a constant."""
        found = self.known_tag(tensor)
        if found is None:
            tag: TensorTag | None = tensor.__dict__.get("_cspprof")
            if tag is None and tensor.is_meta and type(tensor) is torch.Tensor and id(tensor) not in self.copies:
                self.unexplained = True
            role = "byproduct" if tag is not None and tag.trace is self.unrecorded else "constant"
            found = self.register(tensor, "", role)
        return found

    def known_tag(self, tensor: torch.Tensor) -> TensorTag | None:
        """The tag of a tensor, or None if this trace has not met it."""
        tag: TensorTag | None = tensor.__dict__.get("_cspprof")
        if tag is not None and tag.trace is self:
            return tag
        registered = self.registered.get(id(tensor))
        if registered is not None:
            return registered
        stand_in = self.originals.get(id(tensor))
        if stand_in is not None:
            self.reached_originals = True
            return self.registered[id(stand_in)]
        return self._saved_tag(tensor)

    def knows(self, tensor: torch.Tensor) -> bool:
        """Whether an operation of this trace produced the tensor, or it is registered."""
        tag: TensorTag | None = tensor.__dict__.get("_cspprof")
        registered = id(tensor) in self.registered or id(tensor) in self.originals
        return registered or (tag is not None and tag.trace in (self, self.unrecorded))

    def recognize_saved(self, tensors: Iterable[torch.Tensor]) -> None:
        """Recognize the storages of these tensors in a backward pass, which receives other Python objects or views."""
        for tensor in tensors:
            if tensor.layout is torch.strided:
                tag = self.tag(tensor)
                self.saved[tensor.untyped_storage()._cdata] = tag.storage, tag.meta.weight, tag.constant

    def _saved_tag(self, tensor: torch.Tensor) -> TensorTag | None:
        if not self.saved or tensor.layout is not torch.strided:
            return None
        found = self.saved.get(tensor.untyped_storage()._cdata)
        if found is None:
            return None
        storage, weight, constant = found
        return TensorTag(self, storage, meta_of(tensor, weight), constant)

    def retag(self, tensor: torch.Tensor, tag: TensorTag) -> None:
        """Replace the tag of a tensor whose shape or strides an operation changed in place."""
        if id(tensor) in self.registered:
            self.registered[id(tensor)] = tag
        else:
            tensor.__dict__["_cspprof"] = tag

    def replace_tag(self, tensor: torch.Tensor, tag: TensorTag) -> TensorTag:
        """A new tag for a tensor to whose `data` the forward assigned a tensor of another shape."""
        if tensor.is_nested or not all(type(size) is int for size in tensor.shape):
            return tag
        self.registered.pop(id(tensor), None)
        tensor.__dict__.pop("_cspprof", None)
        self.saved.pop(tensor.untyped_storage()._cdata, None)
        return self.register(tensor, "", "constant" if tag.meta.weight else "byproduct")

    def values_known(self, tags: list[TensorTag]) -> bool:
        """Whether the values of all these tensors are known during a trace on meta."""
        return all(tag.constant and tag.storage not in self.stale for tag in tags)

    def release(self) -> None:
        """Drop the reference cycles between the registry and its tags, so that tensors are freed immediately."""
        self.registered.clear()
