"""Results of operations that a trace does not see, because another thread runs them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch._C._functorch import is_functorch_wrapped_tensor  # no public function says so (torch 2.13 and 2.14)
from torch.overrides import TorchFunctionMode

from cspprof.operands.pytree import tensors_in


class UnseenResults(TorchFunctionMode):
    """While active, calls `found` with each tensor on meta that this thread uses and that another one computed.

    Such a tensor did not exist before, no operation of the trace produced it, and no function that this thread called
    returned it: `torch.as_tensor([1, 2], device="meta")` creates a tensor without an operation.
    """

    def __init__(self, is_traced: Callable[[torch.Tensor], bool], found: Callable[[torch.Tensor], None]) -> None:
        super().__init__()
        self._is_traced = is_traced
        self._found = found
        self._known = {id(item): item for item in gc.get_objects() if type(item) is torch.Tensor and item.is_meta}

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        self.check((args, kwargs))
        result = func(*args, **kwargs)
        self._known.update((id(tensor), tensor) for tensor in tensors_in(result))
        return result

    def check(self, value: Any) -> None:
        """Look for such tensors in a nested value."""
        for tensor in tensors_in(value):
            if type(tensor) is not torch.Tensor or not tensor.is_meta or id(tensor) in self._known:
                continue
            self._known[id(tensor)] = tensor
            if not self._is_traced(tensor) and not is_functorch_wrapped_tensor(tensor):
                self._found(tensor)
