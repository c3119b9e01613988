"""Random numbers of a forward: drawn from private generators where torch allows it, so that other threads draw theirs
undisturbed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cspprof.operands.operators import Operator, operator

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
        if op.target == "aten.native_dropout" and args[2] and args[1] < 1:
            mask = torch.empty_like(args[0], dtype=torch.bool)
            mask.bernoulli_(1 - args[1], generator=self.generator(args[0].device))
            return args[0] * mask / (1 - args[1]), mask
        func, position = op.with_generator
        if func is not None and len(args) <= position:
            return func(*args, **{**kwargs, "generator": self.generator(_device_of(args, kwargs))})
        if op.composite and _drops(op, args, kwargs):
            with _PartsWithGenerators(self):
                return op.func.decompose(*args, **kwargs)
        return op.func(*args, **kwargs)

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


class _PartsWithGenerators(TorchDispatchMode):
    """While active, the parts of a composite operation draw from private generators."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # see `DispatchRecorder`

    def __init__(self, generators: PrivateGenerators) -> None:
        super().__init__()
        self._generators = generators

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        op = operator(func)
        return self._generators.run(op, *args, **kwargs or {}) if op.draws else func(*args, **kwargs or {})


def _drops(op: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a layer with dropout (recurrent, attention) draws numbers: it trains, and the probability is not 0."""
    named = {**dict(zip(op.names, args, strict=False)), **kwargs}
    return bool(named.get("train", True) and any(named.get(name) for name in ("p", "dropout", "dropout_p")))


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
