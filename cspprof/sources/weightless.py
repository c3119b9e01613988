"""Building a module on meta without filling its weights: nothing can be read there, so nothing need be written.

What a plain `torch.device("meta")` spends most of its time on is random initialisation, whose meta kernels are written
in Python. Here what only writes values is left out: `nn.init`, the layers' own `reset_parameters`, tensors that are
filled in place. Names, shapes, dtypes, `requires_grad` and the errors of torch stay.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._device import DeviceContext, _device_constructors

from cspprof.sources.short_ways import short_ways

_ONE_AT_A_TIME = threading.RLock()
"""The names in torch that are replaced belong to the whole process; other threads find the originals behind them."""

_T = torch.Tensor
FILLS = frozenset({
    _T.normal_, _T.uniform_, _T.fill_, _T.zero_, _T.random_, _T.bernoulli_, _T.exponential_, _T.log_normal_,
    _T.erfinv_, _T.clamp_, _T.add_, _T.sub_, _T.mul_, _T.div_,
})  # fmt: skip
"""Methods that change values of the tensor itself and nothing else about it."""
PLAIN = (nn.Parameter, torch.Tensor)
FILLED = frozenset({torch.zeros, torch.ones, torch.rand, torch.randn})
CONSTRUCTORS = frozenset(_device_constructors())

ANY_SHAPE = ("constant_", "ones_", "zeros_", "normal_", "uniform_", "trunc_normal_")
WITH_FANS = ("xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_", "orthogonal_")
"""Functions of `nn.init`; the latter refuse tensors of fewer than two dimensions."""
KNOWN = frozenset({"fan_in", "fan_out", "relu", "leaky_relu", "linear", "sigmoid", "tanh", "selu", "conv1d", "conv2d",
                   "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})  # fmt: skip
"""Texts that they take; others they refuse."""
RESETS: tuple[tuple[type[nn.Module], str, tuple[str, ...]], ...] = (
    (nn.modules.conv._ConvNd, "reset_parameters", ()),
    (nn.Linear, "reset_parameters", ()),
    (nn.Embedding, "reset_parameters", ("_fill_padding_idx_with_zero",)),
    (nn.LayerNorm, "reset_parameters", ()),
    (nn.GroupNorm, "reset_parameters", ()),
    (nn.modules.batchnorm._NormBase, "reset_parameters", ("reset_running_stats",)),
    (nn.modules.batchnorm._NormBase, "reset_running_stats", ()),
)
"""Classes, their methods that only write values, and others that those call, which a subclass may have its own of."""


class _OnMeta(DeviceContext):
    """What `torch.device("meta")` is as a context, with tensors that are left unfilled."""

    def __init__(self) -> None:
        super().__init__(torch.device("meta"))

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in CONSTRUCTORS:
            if kwargs is None or kwargs.get("device") is None:
                kwargs = {**(kwargs or {}), "device": self.device}
                if func in FILLED and kwargs.get("out") is None and kwargs.get("generator") is None:
                    func = torch.empty
        elif func in FILLS and _only_values(*args, **(kwargs or {})):
            return args[0]
        return func(*args, **kwargs) if kwargs else func(*args)


def _only_values(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> bool:
    """Whether filling the tensor would do nothing but write values that nobody can read, and would not be refused."""
    numbers = all(isinstance(a, (int, float)) for a in (*args, *kwargs.values()))
    allowed = not (tensor.requires_grad and torch.is_grad_enabled())
    return tensor.is_meta and numbers and allowed and tensor.is_floating_point()


@contextmanager
def weightless() -> Iterator[None]:
    """Modules made in this context lie on meta, and their weights are not initialised."""
    thread = threading.get_ident()

    def initialised(original: Callable[..., Any], least: int) -> Callable[..., Any]:
        def init(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            texts = [a for a in (*args, *kwargs.values()) if isinstance(a, str)]
            if type(tensor) in PLAIN and threading.get_ident() == thread and KNOWN.issuperset(texts):
                with torch._C.DisableTorchFunction():  # or each question goes through the mode
                    if tensor.is_meta and tensor.ndim >= least:
                        return tensor
            return original(tensor, *args, **kwargs)

        return init

    def left_out(cls: type[nn.Module], name: str, calls: tuple[str, ...]) -> Callable[..., Any]:
        original = getattr(cls, name)

        def reset(module: nn.Module) -> None:
            held = [t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]
            with torch._C.DisableTorchFunction():
                nothing = all(t.is_meta for t in held)
            own = any(getattr(type(module), call) is not getattr(cls, call) for call in calls)
            if own or not nothing or threading.get_ident() != thread:
                original(module)

        return reset

    with _ONE_AT_A_TIME:
        changes: list[tuple[Any, str, Any]] = [*short_ways()]
        for names, least in ((ANY_SHAPE, 0), (WITH_FANS, 2)):
            changes += [(nn.init, name, initialised(getattr(nn.init, name), least)) for name in names]
        changes += [(cls, name, left_out(cls, name, calls)) for cls, name, calls in RESETS]
        originals = [(place, name, getattr(place, name)) for place, name, _ in changes]
        try:
            for place, name, change in changes:
                setattr(place, name, change)
            with _OnMeta():
                yield
        finally:
            for place, name, original in originals:
                setattr(place, name, original)
