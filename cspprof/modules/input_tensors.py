"""The tensors that a forward is called with: made from shapes and specs, or from the user's own tensors."""

from __future__ import annotations

from typing import Any

import torch

from cspprof.core.errors import NeedsValuesError
from cspprof.core.record import TensorSpec
from cspprof.isolation.user_memory import detached
from cspprof.operands.tensor_meta import nested_error, torch_dtype
from cspprof.operands.tensor_subclasses import empty_on_meta, refuse_fake


class InputTensors:
    """Makes the tensors of a call on one device, before any mode is entered, and keeps them in order."""

    def __init__(self, device: str, dtype: str | None, seed: int = 0) -> None:
        self.device = device
        self.dtype = dtype
        self.made: list[torch.Tensor] = []
        self.from_specs: set[int] = set()
        """The ids of those whose values are made up."""
        self._by_id: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._generator = torch.Generator().manual_seed(seed)  # the global generator keeps its state

    def __call__(self, given: TensorSpec | torch.Tensor) -> torch.Tensor:
        """A tensor like `given`. The same tensor passed twice gives the same result."""
        if not isinstance(given, torch.Tensor):
            made = self._from_spec(given)
            self.from_specs.add(id(made))
        elif id(given) in self._by_id:
            made = self._by_id[id(given)][1]
        else:
            made = self._from_tensor(given)
            self._by_id[id(given)] = (given, made)
        self.made.append(made)
        return made

    def _from_tensor(self, given: torch.Tensor) -> torch.Tensor:
        dtype = torch_dtype(self.dtype) if self.dtype and given.is_floating_point() else given.dtype
        if self.device != "meta":
            refuse_fake(given, "an input")
            # Another object: the forward may change its data or set `requires_grad` on it.
            return detached(given).to(self.device, dtype).requires_grad_(given.requires_grad)
        if given.is_nested and given.layout is torch.strided:
            raise nested_error()
        if given.layout is not torch.strided:
            raise NeedsValuesError(
                f"an input of layout {given.layout} cannot be traced without values",
                "Trace with real values: --device cpu (in Python: device='cpu').",
            )
        if type(given) is not torch.Tensor:
            return empty_on_meta(given, dtype)
        return torch.empty_strided(given.shape, given.stride(), dtype=dtype, device="meta")

    def _from_spec(self, spec: TensorSpec) -> torch.Tensor:
        dtype = torch_dtype(spec.dtype or self.dtype or "float32")
        if self.device == "meta":
            return torch.empty(spec.shape, dtype=dtype, device="meta")
        if dtype.is_floating_point:
            return torch.randn(spec.shape, generator=self._generator).to(self.device, dtype)
        return torch.zeros(spec.shape, dtype=dtype, device=self.device)

    def permutation(self, given: torch.Tensor) -> torch.Tensor:
        """A permutation of a packed sequence on the device; on meta with its values."""
        return given if self.device == "meta" else given.to(self.device)

    def name(self, i: int, kwargs: dict[str, Any]) -> str:
        """The name of the i-th input: its keyword, else `input` or `input0`, `input1` …"""
        for key, value in kwargs.items():
            if value is self.made[i]:
                return key
        return "input" if len(self.made) == 1 else f"input{i}"
