"""Random numbers of a forward: drawn from private generators where torch allows it, so that other threads draw theirs
undisturbed."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterable
from threading import get_ident
from typing import Any

import torch

from cspprof.trace.operators import Operator

DROPOUTS = frozenset({"aten.dropout", "aten.dropout_"})


class PrivateGenerators:
    """Generators that start in the state of the process-wide ones, for the operations of one trace."""

    def __init__(self) -> None:
        self._made: dict[torch.device, torch.Generator] = {}
        self._passed: dict[int, tuple[torch.Generator, torch.Tensor]] = {}
        """Generators of the user that the forward draws from, with their state before."""

    def run(self, op: Operator, *args: Any, **kwargs: Any) -> Any:
        """Run an operation that draws random numbers."""
        used = next((v for v in (*args, *kwargs.values()) if isinstance(v, torch.Generator)), None)
        if used is not None:
            self._passed.setdefault(id(used), (used, used.get_state()))
            return op.func(*args, **kwargs)
        if op.target in DROPOUTS and args[2]:
            return self._dropout(args[0], args[1], op.in_place)
        func, position = op.with_generator
        if func is None or len(args) > position:
            return op.func(*args, **kwargs)
        return func(*args, **{**kwargs, "generator": self.generator(_device_of(args, kwargs))})

    def generator(self, device: torch.device) -> torch.Generator:
        if device not in self._made:
            self._made[device] = _default_generator(device).clone_state()
        return self._made[device]

    def _dropout(self, x: torch.Tensor, p: float, in_place: bool) -> torch.Tensor:
        if p == 1:
            mask = torch.zeros_like(x)
        else:
            mask = torch.empty_like(x).bernoulli_(1 - p, generator=self.generator(x.device)).div_(1 - p)
        return x.mul_(mask) if in_place else x * mask

    def restore(self) -> None:
        """Give the user's generators their state back."""
        for generator, state in self._passed.values():
            generator.set_state(state)


class GlobalRandomState:
    """The state of the random generators of the process: torch's, Python's and NumPy's.

    A forward may draw from Python's and NumPy's, and from torch's by the few operations that take no generator.
    """

    def __init__(self) -> None:
        self._states: list[tuple[Callable[[], Any], Callable[[Any], Any], Any]] = []
        pairs: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = [
            (torch.get_rng_state, torch.set_rng_state),
            (random.getstate, random.setstate),
        ]
        if torch.cuda.is_initialized():
            pairs.append((torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all))
        if (numpy := sys.modules.get("numpy.random")) is not None:
            pairs.append((numpy.get_state, numpy.set_state))
        self._threads = _time_of_other_threads()
        for get, set_state in pairs:
            self._states.append((get, set_state, get()))

    def restore(self) -> None:
        """Restore what changed, unless another thread ran meanwhile: it may have drawn the numbers."""
        changed = [(set_state, before) for get, set_state, before in self._states if not _equal(get(), before)]
        if not changed or self._threads is None:
            return
        interval = sys.getswitchinterval()
        try:
            sys.setswitchinterval(1)  # no other thread runs between the query and what depends on it
            if _time_of_other_threads() == self._threads:
                for set_state, before in changed:
                    set_state(before)
        finally:
            sys.setswitchinterval(interval)


def _time_of_other_threads() -> dict[int, int] | None:
    """The processor time of each other thread that runs Python. None if there are some and their time is unknown."""
    others = [thread for thread in sys._current_frames() if thread != get_ident()]
    if others and not hasattr(time, "pthread_getcpuclockid"):
        return None
    return {thread: time.clock_gettime_ns(time.pthread_getcpuclockid(thread)) for thread in others}


def _default_generator(device: torch.device) -> torch.Generator:
    if device.type == "cpu":
        return torch.default_generator
    module = getattr(torch, device.type)
    index = module.current_device() if device.index is None else device.index
    generators: tuple[torch.Generator, ...] = module.default_generators
    return generators[index]


def _device_of(args: Iterable[Any], kwargs: dict[str, Any]) -> torch.device:
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"])
    tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor))
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, tuple) and hasattr(a[1], "all"):  # NumPy's
        return bool((a[1] == b[1]).all() and a[2:] == b[2:])
    if isinstance(a, list):
        return all(map(torch.equal, a, b))
    return bool(a == b)
