"""Prove that a deployed form computes what its network computes: the same outputs on real tensors.

The network gets random weights and calibrated statistics where it has default ones, so that a merged branch or a folded
norm that is wrong changes the output by far more than rounding does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cspprof.core.errors import CspprofError
from cspprof.core.relative_error import WrongOutputError, relative_error
from cspprof.deployment.random_weights import VanishedError, calibrate, check_depends_on_input, rescale

if TYPE_CHECKING:
    import numpy as np


class Forward(NamedTuple):
    """A forward pass on the CPU."""

    run: Callable[[nn.Module, int, torch.dtype], list[torch.Tensor]]
    """`run(module, seed, dtype)`: the output tensors of a module on random input."""
    is_random: bool
    """Whether another seed gives another input. Inputs of integers are all 0."""


TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
"""The largest relative error ‖a − b‖₂ / ‖b‖₂ of an output: rounding explains as much. A deep network can multiply the
rounding errors of float32; then float64, in which torch's convolutions are slow on a CPU, decides."""


class UnprovenError(CspprofError):
    """In this dtype the forward fails, or the outputs differ."""

    def __init__(self, message: str, hint: str, differs: bool) -> None:
        super().__init__(message, hint)
        self.differs = differs


@dataclass(slots=True)
class Trial:
    """A copy of a network in which every layer affects the output, and the outputs that its deployed form must have."""

    module: nn.Module
    forward: Forward
    dtype: torch.dtype
    outputs: list[torch.Tensor]

    @classmethod
    def of(cls, model: nn.Module, forward: Forward, dtype: torch.dtype) -> Trial:
        """The trial in `dtype`. Raises UnprovenError if the forward fails, and CspprofError if the model cannot be
        copied or if its output does not depend on its input."""
        module = evaluation_copy(model)
        try:
            return _calibrated(in_dtype(module, dtype), forward, dtype)
        except CspprofError:
            raise
        except Exception as error:  # the forward of a user's model may raise anything
            raise UnprovenError(
                f"the deployed form cannot be proven, because the model does not run on the CPU: {_text(error)}",
                "Leave out --deploy (in Python: deploy=True), or correct the forward.",
                differs=False,
            ) from error

    def check(self, module: nn.Module, change: str) -> None:
        """Raise UnprovenError unless `module`, the network after a `change`, returns the same outputs."""
        try:
            with float_type(self.dtype), _seeded():
                outputs = self.forward.run(module, 0, self.dtype)
            error = relative_error(_arrays(outputs), _arrays(self.outputs))
        except WrongOutputError as wrong:
            raise self._refused(change, wrong.message) from None
        except Exception as failure:
            raise self._refused(change, f"its forward raises {_text(failure)}") from failure
        if error > TOLERANCE[self.dtype]:
            raise self._refused(
                change,
                f"its outputs differ by {error:.1e} (relative), and rounding explains {TOLERANCE[self.dtype]:.0e}",
            )

    def _refused(self, change: str, reason: str) -> UnprovenError:
        return UnprovenError(
            f"the deployed form computes something else than the network: after {change}, {reason}",
            "Correct the method that merges, or count the network as it is trained: leave out --deploy (in Python: "
            "deploy=True).",
            differs=True,
        )


def evaluation_copy(model: nn.Module) -> nn.Module:
    """A copy on the CPU in eval mode. Raises CspprofError if the model cannot be copied or has no weights yet."""
    try:
        module = copy.deepcopy(model).cpu()
    except Exception as error:
        raise CspprofError(
            f"the model cannot be copied: {_text(error)}",
            "copy.deepcopy(model) must work: remove locks and files, and run a lazy model once.",
        ) from error
    for parent in module.modules():
        for name, child in parent._modules.items():
            while isinstance(child, nn.Module) and isinstance(inner := getattr(child, "_orig_mod", None), nn.Module):
                child = parent._modules[name] = inner  # of torch.compile
    set_eval(module)
    return module


def _text(error: Exception) -> str:
    """The class and the first line of an error."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"


def in_dtype(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module itself with weights in float64 or float32; complex ones stay."""
    return module.double() if dtype is torch.float64 else module.float()


def set_eval(module: nn.Module) -> None:
    """Set the flag of every module, as a trace does, without the `train` method of the model."""
    for m in module.modules():
        if isinstance(m, torch.jit.ScriptModule):
            m.eval()
        else:
            m.__dict__["training"] = False


@contextmanager
def float_type(dtype: torch.dtype) -> Iterator[None]:
    """New tensors have this dtype: the methods of models create convolutions without naming one."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _seeded() -> Iterator[None]:
    """The same random numbers in each forward, and the user's generator unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _calibrated(module: nn.Module, forward: Forward, dtype: torch.dtype) -> Trial:
    def run(seed: int = 0) -> list[torch.Tensor]:
        with _seeded():
            return forward.run(module, seed, dtype)

    with float_type(dtype):
        _vary_norms(module)
        calibrate(module, run)
        outputs = run()
        _check_values(outputs)
        if forward.is_random:
            try:
                _check_dependence(outputs, run(1))
            except VanishedError:
                rescale(module, run)
                outputs = run()
                _prove_dependence(outputs, run(1))
    return Trial(module, forward, dtype, outputs)


def _check_values(outputs: list[torch.Tensor]) -> None:
    if not any(t.numel() for t in outputs):
        raise CspprofError(
            "the deployed form cannot be proven, because the forward returns no numbers on random input",
            "Profile the part that returns tensors, such as the backbone, or leave out --deploy.",
        )


def _check_dependence(outputs: list[torch.Tensor], others: list[torch.Tensor]) -> None:
    """Raise VanishedError if the outputs for two inputs are equal. Outputs of other shapes are not."""
    if [t.shape for t in outputs] == [t.shape for t in others]:
        check_depends_on_input(outputs, others)


def _prove_dependence(outputs: list[torch.Tensor], others: list[torch.Tensor]) -> None:
    try:
        _check_dependence(outputs, others)
    except VanishedError as error:
        raise CspprofError(f"the deployed form cannot be proven: {error.message}", error.hint) from None


@torch.no_grad()
def _vary_norms(module: nn.Module) -> None:
    """Give batch norms random weights and biases if they have their initial ones: 1 and 0 would hide a wrong factor."""
    generator = torch.Generator().manual_seed(0)
    for norm in module.modules():
        if not isinstance(norm, _BatchNorm) or norm.weight is None or norm.bias is None:
            continue
        if bool((norm.weight == norm.weight.flatten()[0]).all()) and not bool(norm.bias.any()):
            norm.weight.copy_(0.5 + torch.rand(norm.weight.shape, generator=generator))
            norm.bias.copy_(torch.randn(norm.bias.shape, generator=generator) / 4)


def _arrays(tensors: list[torch.Tensor]) -> list[np.ndarray]:
    return [t.detach().to(torch.float64).numpy() for t in tensors]
