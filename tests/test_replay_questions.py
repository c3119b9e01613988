"""Whatever a forward can ask its tensors: another answer is refused, or what it does with it is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cspprof.errors import ReplayError
from cspprof.trace import trace

ANSWERS: list[str] = []


class Asking(nn.Module):
    """Branches on whether it hears what it heard the first time."""

    def __init__(self, question: Callable[..., Any]) -> None:
        super().__init__()
        self.conv, self.norm, self.question = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), question

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        ANSWERS.append(str(self.question(y, self.conv.weight)))
        return y.relu() if ANSWERS[-1] == ANSWERS[0] else y


QUESTIONS: list[Callable[..., Any]] = [
    lambda y, w: torch.numel(y),
    lambda y, w: torch.numel(input=y),
    lambda y, w: list(map(torch.numel, [y])),
    lambda y, w: len(y),
    lambda y, w: torch.vmap(lambda row: row * row.shape[1])(y).relu() is None,
    lambda y, w: sum(1 for _ in y[0, 0]),
    lambda y, w: torch.Tensor.shape.__get__(y),
    lambda y, w: y.type(),
    lambda y, w: torch.typename(y),
    lambda y, w: torch.broadcast_shapes(y.shape, (1,)),
    lambda y, w: y.untyped_storage().nbytes(),
    lambda y, w: y[:, 1:].storage_offset(),
    lambda y, w: y[:, :2].is_contiguous(),
    lambda y, w: y.is_same_size(y[:, :, :12, :12]),
    lambda y, w: torch.result_type(y, 1),
    lambda y, w: torch.finfo(y.dtype).eps,
    lambda y, w: y.squeeze().ndim,
    lambda y, w: y.new_zeros(3).dtype,
    lambda y, w: torch.zeros_like(y[0]).dtype,
    lambda y, w: torch.ones(3).to(y).dtype,
    lambda y, w: torch.arange(3).type_as(y).dtype,
    lambda y, w: repr(y),
    lambda y, w: w.dtype,
    lambda y, w: w.data.type(),
    lambda y, w: torch.finfo(w.dtype).eps,
    lambda y, w: w.element_size(),
    lambda y, w: w.nbytes,
    lambda y, w: w.untyped_storage().nbytes(),
    lambda y, w: w.new_zeros(1).dtype,
    lambda y, w: torch.ones(3).to(w).dtype,
    lambda y, w: torch.ones(3).type_as(w).dtype,
    lambda y, w: w.float() is w,
    lambda y, w: torch.arange(5, dtype=w.dtype).dtype,
    lambda y, w: (y.is_floating_point(), torch.is_complex(y), y.device, y.layout, torch.get_default_dtype(), w.shape),
]


@pytest.mark.parametrize("number", range(len(QUESTIONS)))
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((1, 3, 16, 12), None), ((1, 3, 12, 16), None), ((2, 3, 12, 12), None), ((1, 3, 12, 12), "float16")],
)
def test_no_answer_goes_unheard(number: int, shape: tuple[int, ...], dtype: str | None) -> None:
    ANSWERS.clear()
    module = Asking(QUESTIONS[number])
    profile = trace(module, (1, 3, 12, 12))
    try:
        made = profile.at(shape, dtype=dtype)
    except ReplayError:
        return
    assert made == trace(module, shape, dtype=dtype)


def test_whatever_stays_the_same_may_be_asked() -> None:
    ANSWERS.clear()
    module = Asking(lambda y, w: (y.size(1), y.device, y.dim(), w.shape, w.numel(), torch.get_default_dtype()))
    profile = trace(module, (1, 3, 12, 12))
    assert profile.at((2, 3, 16, 18), dtype="float16") == trace(module, (2, 3, 16, 18), dtype="float16")


class Scripting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.jit.script(halved)(x)


def halved(x: Tensor) -> Tensor:
    return x[:, : torch.numel(x) // x.numel()] if torch.is_floating_point(x) else x


def test_functions_are_compiled_meanwhile_as_ever() -> None:
    assert trace(Scripting(), (1, 3, 4, 4)).storages
    assert torch.jit.script(halved)(torch.ones(1, 3, 4, 4)).shape == (1, 1, 4, 4)


class Spectral(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.complex(x, x)


@pytest.mark.parametrize(
    ("module", "inputs", "dtype"),
    [
        (Spectral(), (1, 3, 12, 12), "float16"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(4, 4)), (1, 3, 1, 1), None),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.InstanceNorm2d(4)), (1, 3, 1, 1), None),
    ],
)
def test_what_torch_refuses_or_makes_of_another_kind(module: nn.Module, inputs: tuple[int, ...], dtype: Any) -> None:
    profile = trace(module, (1, 3, 12, 12))
    assert profile.at((3, 3, 7, 6)) == trace(module, (3, 3, 7, 6))
    with pytest.raises(ReplayError):
        profile.at(inputs, dtype=dtype)


def test_half_a_group_norm_is_what_it_is() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4))
    assert trace(module, (1, 3, 12, 12)).at((1, 3, 1, 1)) == trace(module, (1, 3, 1, 1))


def test_a_function_of_torchs_is_itself_again() -> None:
    before = torch.numel, torch.is_floating_point
    trace(nn.Sequential(nn.Conv2d(3, 4, 1)), (1, 3, 4, 4))
    assert (torch.numel, torch.is_floating_point) == before
    assert F.interpolate(torch.ones(1, 1, 2, 2), size=(3, 3)).shape == (1, 1, 3, 3)
