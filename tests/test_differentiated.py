"""Which operations of a forward torch differentiates: parts without gradients, `detach`, and functions with a backward
pass of their own. The training step is compared with torch's own autograd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from conftest import quick
from conftest import trace as trace_with
from test_training import IMAGE, ZOO, Functional, assert_equal_to_autograd, counted_macs
from torch import nn

import cspprof
from cspprof.profiles import Profile

# -- gradients turned off ---------------------------------------------------------------------------


def without(context: Callable[[], Any]) -> Functional:
    """The first convolution runs in the context, with parameters that require gradients."""

    def forward(a: nn.Module, b: nn.Module, x: torch.Tensor) -> torch.Tensor:
        with context():
            y = F.relu(a(x))
        return b(y.clone())

    return Functional(forward)


def switched_off_and_on(a: nn.Module, b: nn.Module, x: torch.Tensor) -> torch.Tensor:
    torch.set_grad_enabled(False)
    y = a(x)
    torch.set_grad_enabled(True)
    return b(y)


def enabled_within(a: nn.Module, b: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = a(x)
        with torch.enable_grad():
            return b(y)


def teacher_and_student(a: nn.Module, b: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        target = b(a(x)).softmax(1)
    return ((b(a(x)) - target) ** 2).mean()


def moving_average(a: nn.Module, b: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = b(a(x))
    with torch.no_grad():
        b.bias.mul_(0.9).add_(y.mean((0, 2, 3)), alpha=0.1)
    return y


def view_without_gradient(a: nn.Module, b: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = a(x)
    with torch.no_grad():
        half = y[:, :4]
    return b(torch.cat([half, y[:, 4:]], 1))


def written_without_gradient(a: nn.Module, b: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = a(x).clone()
    with torch.no_grad():
        y.mul_(2)
    return b(y)


TURNED_OFF: dict[str, Functional] = {
    "no_grad": without(torch.no_grad),
    "inference mode": without(torch.inference_mode),
    "set_grad_enabled as a context": without(lambda: torch.set_grad_enabled(False)),
    "set_grad_enabled as a call": Functional(switched_off_and_on),
    "a decorated function": Functional(lambda a, b, x: b(torch.no_grad()(a)(x))),
    "gradients enabled within": Functional(enabled_within),
    "a teacher": Functional(teacher_and_student),
    "a moving average": Functional(moving_average),
    "a view": Functional(view_without_gradient),
    "in place": Functional(written_without_gradient),
    "a branch without gradient": Functional(lambda a, b, x: (lambda y: b(y) * b(y).detach().sigmoid())(a(x))),
    "detached in the loss": Functional(lambda a, b, x: (lambda y: F.mse_loss(b(y), y.detach()))(a(x))),
    "data": Functional(lambda a, b, x: b(a(x).data)),
}


@pytest.mark.parametrize("name", TURNED_OFF)
def test_operations_without_gradients_cost_their_forward_pass_only(name: str) -> None:
    assert_equal_to_autograd(TURNED_OFF[name], IMAGE)


def test_a_backbone_without_gradients_by_hand() -> None:
    """4→8 channels, 3×3, without gradients; 8→8, 1×1, with the gradient of its weight only."""
    record = cspprof.profile(without(torch.no_grad), IMAGE)
    first, second = 2 * 4 * 9 * 8 * 64, 2 * 8 * 8 * 64
    assert record.total("train_macs") == first + 2 * second
    assert record.total("saved_bytes") == 2 * 8 * 64 * 4
    assert record.notes == ()


def test_a_forward_that_is_never_differentiated_cannot_be_trained() -> None:
    from cspprof.core.errors import CspprofError
    from cspprof.report.training import training_report

    record = cspprof.profile(Functional(lambda a, b, x: torch.no_grad()(lambda: b(a(x)))()), IMAGE)
    with pytest.raises(CspprofError, match="no output depends on a parameter that requires a gradient"):
        training_report([record])


def test_a_saved_profile_keeps_what_is_differentiated(tmp_path: Path) -> None:
    record = cspprof.profile(without(torch.no_grad), IMAGE)
    record.save(tmp_path / "x.profile.json")
    assert Profile.load(tmp_path / "x.profile.json").total("train_macs") == record.total("train_macs")


# -- functions with a backward pass of their own ----------------------------------------------------


class Swish(torch.autograd.Function):
    """x·sigmoid(x), which saves its input only."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return gradient * s * (1 + x * (1 - s))


class Product(torch.autograd.Function):
    """A 1×1 convolution as a product, whose backward pass computes the product once more."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return torch.einsum("nchw,oc->nohw", x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        x, weight = ctx.saved_tensors
        again = torch.einsum("nchw,oc->nohw", x, weight).sum() * 0
        return torch.einsum("nohw,oc->nchw", gradient, weight) + again, torch.einsum("nohw,nchw->oc", gradient, x)


class Exponential(torch.autograd.Function):
    """Saves its output, and a tensor that is neither input nor output."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> Any:
        y, flags = torch.exp(x), x > 0
        ctx.save_for_backward(y, flags)
        return y, y.sum()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, of_sum: torch.Tensor) -> Any:
        y, flags = ctx.saved_tensors
        return (gradient + of_sum) * y * flags


class Round(torch.autograd.Function):
    """The gradient of the output is that of the input."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return gradient


class Reversal(torch.autograd.Function):
    """The input, with the opposite gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return -gradient


class Scaled(torch.autograd.Function):
    """Writes into its input."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.mark_dirty(x)
        return x.mul_(2)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return gradient * 2


def with_teacher(a: nn.Module, b: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        target = F.relu(a(x))
    return b(Swish.apply(a(x)) + target)


FUNCTIONS: dict[str, Functional] = {
    "saves its input": Functional(lambda a, b, x: b(Swish.apply(a(x)))),
    "has products": Functional(lambda a, b, x: Product.apply(F.relu(a(x)), b.weight), None, nn.Linear(8, 8)),
    "saves its output": Functional(lambda a, b, x: (lambda y, s: b(y) + s)(*Exponential.apply(a(x)))),
    "passes a gradient through a comparison": Functional(lambda a, b, x: b(Round.apply(a(x)))),
    "returns a view": Functional(lambda a, b, x: b(Reversal.apply(a(x)))),
    "works in place": Functional(lambda a, b, x: b(Scaled.apply(a(x).clone()))),
    "computes the output of the model": Functional(lambda a, b, x: Swish.apply(b(a(x)))),
    "one after the other": Functional(lambda a, b, x: b(Swish.apply(Product.apply(a(x), b.weight[:, :, 0, 0])))),
    "in place, one after the other": Functional(lambda a, b, x: b(Scaled.apply(Swish.apply(a(x))))),
    "beside a teacher": Functional(with_teacher),
    "in a part without gradients": Functional(lambda a, b, x: b(torch.no_grad()(Swish.apply)(a(x)))),
    "checkpointed": Functional(
        lambda a, b, x: b(torch.utils.checkpoint.checkpoint(lambda y: F.relu(b(y)), a(x), use_reentrant=True))
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_autograd_function_costs_what_its_backward_pass_computes(name: str) -> None:
    assert_equal_to_autograd(FUNCTIONS[name], IMAGE)


class Broken(Swish):
    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        raise NotImplementedError


class Hidden(torch.autograd.Function):
    """A view of the input whose backward pass has a product."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return torch.einsum("nchw,dc->ndhw", gradient, torch.zeros(8, 8, device=gradient.device))


@pytest.mark.parametrize("function", [Broken, Hidden])
def test_a_backward_pass_that_cannot_be_counted_makes_a_lower_bound(function: Any) -> None:
    record = cspprof.profile(Functional(lambda a, b, x: b(function.apply(a(x)))), IMAGE)
    macs = cspprof.metrics.METRICS.get("train_macs").total(record)
    assert macs.missed == 1
    assert function.__name__ in record.notes[0]
    first, second = 2 * 4 * 9 * 8 * 64, 2 * 8 * 8 * 64
    assert macs.value >= 2 * first + second  # the gradient reaches the first convolution


# -- the ways to run a forward ----------------------------------------------------------------------


@pytest.mark.parametrize("name", quick(ZOO, ["peleenet"]))
def test_the_record_is_that_of_a_run_under_autograd(name: str) -> None:
    from cspprof.sources import Request, open_model

    with open_model(name, Request()) as loaded:
        watched = trace_with(loaded.module, loaded.inputs, train=True)
        recorded = trace_with(loaded.module, loaded.inputs, train=True, gradients=True)
    assert (watched.specs, watched.calls) == (recorded.specs, recorded.calls)


def test_gradients_on_a_device_are_those_on_meta() -> None:
    model = Functional(with_teacher)
    records = [cspprof.profile(model, IMAGE, device=device) for device in ("meta", "cpu")]
    assert records[0].total("train_macs") == records[1].total("train_macs") == counted_macs(model, torch.zeros(IMAGE))


def test_a_forward_sees_that_gradients_are_enabled_and_runs_once() -> None:
    runs = []
    model = Functional(lambda a, b, x: (runs.append(torch.is_grad_enabled()), b(a(x)))[1])
    cspprof.profile(model, IMAGE)
    assert runs == [True]
