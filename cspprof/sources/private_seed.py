"""Build models with the same random weights in every run, without the generators of the process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from cspprof.isolation.process_state import ProcessState, random_generators
from cspprof.isolation.torch_state import TorchState, raise_interruption

T = TypeVar("T")
_T = torch.Tensor

DRAWS = frozenset({
    torch.rand, torch.randn, torch.randint, torch.randperm, torch.rand_like, torch.randn_like, torch.randint_like,
    torch.normal, torch.bernoulli, torch.multinomial, _T.normal_, _T.uniform_, _T.random_, _T.bernoulli_,
    _T.exponential_, _T.log_normal_, _T.cauchy_, _T.geometric_, _T.bernoulli, _T.multinomial,
    nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_,
})  # fmt: skip
"""Functions that draw random numbers and take a `generator`."""


class PrivateSeed(TorchFunctionMode):
    """While active, random numbers come from generators with the seed 0 that belong to the mode."""

    def __init__(self) -> None:
        super().__init__()
        self._generators: dict[torch.device, torch.Generator] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in DRAWS and kwargs.get("generator") is None:
            tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
            device = torch.device(kwargs.get("device") or (tensors[0].device if tensors else "cpu"))
            if device.type != "meta":
                if device not in self._generators:
                    self._generators[device] = torch.Generator(device).manual_seed(0)
                kwargs = {**kwargs, "generator": self._generators[device]}
        return func(*args, **kwargs)


def build_seeded(build: Callable[[], T], mode: PrivateSeed | None = None) -> T:
    """The result of `build`, called under a `mode` whose random numbers come from private generators. Afterwards torch
    and the generators of the process are as before, also after a KeyboardInterrupt at any moment."""
    state, random_state = TorchState(), ProcessState(random_generators())
    try:
        try:
            with mode or PrivateSeed():
                return build()
        except BaseException as error:
            raise_interruption(error)
            raise
        finally:
            state.restore()
            random_state.restore()
    finally:  # again: a KeyboardInterrupt may have come while the state was restored
        state.restore()
        random_state.restore()
