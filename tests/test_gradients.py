"""Gradients that a forward takes itself: they are counted, and the operations around them are recorded as usual."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import quick, trace
from networks import Function, op_names
from torch import nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode

from cspprof.core.record import Kind
from cspprof.zoo import catalog

DEVICES = pytest.mark.parametrize("device", ["meta", "cpu"])
CONV = 2 * 16 * 16 * 8 * 27  # MACs of a 3×3 convolution, 3 -> 8 channels, on 2 images of 16×16


class WithNet(nn.Module):
    """A network and a function that the forward calls with it."""

    def __init__(self, net: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.net = net
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(self.net, *args)


def gradient_for_input(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(net(x).sum(), x)[0]


def gradients_for_weights(net: nn.Module, x: torch.Tensor) -> Any:
    with torch.enable_grad():
        return torch.autograd.grad(net(x).sum(), list(net.parameters()))


def gradient_penalty(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(net(x).pow(2).sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.pow(2).sum(), x)[0]


# -- counts -----------------------------------------------------------------------------------------


@DEVICES
@pytest.mark.parametrize(
    ("conv", "macs"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), CONV),
        (nn.Conv2d(3, 6, 3, padding=1, groups=3), 2 * 256 * 6 * 9),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), CONV // 4),
        (nn.ConvTranspose2d(3, 8, 2, stride=2), 2 * 256 * 3 * 8 * 4),
    ],
)
def test_each_gradient_of_a_convolution_costs_as_much_as_the_convolution(
    device: str, conv: nn.Module, macs: int
) -> None:
    shape = (2, 3, 16, 16)
    for_input = trace(WithNet(conv, gradient_for_input), shape, device=device)
    for_weights = trace(WithNet(conv, gradients_for_weights), shape, device=device)
    assert for_input.total("macs") == 2 * macs
    assert for_weights.total("macs") == 2 * macs
    (gradient,) = [op for op in for_input.ops if op.kind is Kind.GRADIENT]
    assert (gradient.macs, gradient.layer) == (macs, "")
    assert for_input.complete
    assert for_weights.complete


@DEVICES
def test_gradients_of_linear_layers_agree_with_the_counter_of_torch(device: str) -> None:
    net = nn.Sequential(nn.Linear(6, 7), nn.SiLU(), nn.LayerNorm(7), nn.Linear(7, 3))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        gradients_for_weights(net, torch.randn(4, 6))
    p = trace(WithNet(net, gradients_for_weights), (4, 6), device=device)
    assert 2 * p.total("macs") == counter.get_total_flops()
    assert p.complete


def test_a_gradient_of_a_gradient_is_counted() -> None:
    p = trace(WithNet(nn.Linear(6, 7, bias=False), gradient_penalty), (2, 6))
    assert p.complete
    assert p.total("macs") == 4 * LINEAR  # the layer, its gradient, and the gradients of both


@DEVICES
def test_a_network_with_common_layers_has_a_gradient_without_unknown_operations(device: str) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, groups=2),
        nn.GroupNorm(2, 8), nn.GELU(), nn.AvgPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Hardswish(),
        nn.ConvTranspose2d(8, 4, 2, 2), nn.PReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5),
        nn.Softmax(-1),
    )  # fmt: skip
    alone = trace(net, (2, 3, 16, 16), device=device)
    p = trace(WithNet(net, gradient_for_input), (2, 3, 16, 16), device=device)
    assert p.complete, p.uncounted
    assert p.total("macs") == 2 * alone.total("macs")
    for metric in ("cio_hardnet", "cio_cspnet", "params", "conv_weights"):  # of the network, not of its gradient
        assert p.total(metric) == alone.total(metric)


def test_the_backward_pass_of_fused_attention_computes_the_scores_a_second_time() -> None:
    def gradient(q: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            q = q.detach().requires_grad_()
            return torch.autograd.grad(F.scaled_dot_product_attention(q, q, q).sum(), q)[0]

    assert trace(Function(gradient), (1, 2, 6, 4), device="cpu").total("macs") == (2 + 5) * 2 * 6 * 6 * 4


@DEVICES
def test_a_recurrent_layer_has_a_gradient(device: str) -> None:
    class LastStep(nn.LSTM):
        def forward(self, x: torch.Tensor) -> Any:  # type: ignore[override]
            return super().forward(x)[0]

    alone = trace(LastStep(6, 5), (4, 2, 6), device=device).total("macs")
    p = trace(WithNet(LastStep(6, 5), gradient_for_input), (4, 2, 6), device=device)
    assert p.complete, p.uncounted
    # On meta torch runs single steps, and the gradient for the first hidden state is not needed. The kernel of the CPU
    # computes the gradients of the weights too.
    assert p.total("macs") == (2 * alone - 2 * 100 if device == "meta" else 3 * alone)


# -- ways to take a gradient ------------------------------------------------------------------------


def backward(net: nn.Module, x: torch.Tensor) -> Any:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        net(x).sum().backward()
        return x.grad


def with_hook(net: nn.Module, x: torch.Tensor) -> Any:
    with torch.enable_grad():
        hidden = net(x.detach().requires_grad_())
        hidden.register_hook(lambda gradient: 2 * gradient)
        return torch.autograd.grad(hidden.sum(), list(net.parameters()))


def recomputed(net: nn.Module, x: torch.Tensor) -> Any:
    with torch.enable_grad(), set_checkpoint_early_stop(False):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(checkpoint(net, x, use_reentrant=False).sum(), x)[0]


def with_tangent(net: nn.Module, x: torch.Tensor) -> Any:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(net(forward_ad.make_dual(x, torch.ones_like(x)))).tangent


def in_place_on_a_view(net: nn.Module, x: torch.Tensor) -> Any:
    with torch.enable_grad():
        scale = torch.ones(6, device=x.device, requires_grad=True)
        y = x.clone()
        y[0].mul_(scale)
        return torch.autograd.grad(net(y).sum(), scale)[0]


def one_step_of_training(net: nn.Module, x: torch.Tensor) -> Any:
    parameters = dict(net.named_parameters())

    def loss(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(net, parameters, (x,)).pow(2).mean()

    gradients = torch.func.grad(loss)(parameters)
    return torch.func.functional_call(net, {k: v - gradients[k] for k, v in parameters.items()}, (x,))


LINEAR = 2 * 6 * 7


@DEVICES
@pytest.mark.parametrize(
    ("function", "products"),
    [
        (gradient_for_input, 2),
        (backward, 3),
        (with_hook, 2),
        (recomputed, 3),
        (with_tangent, 3),  # torch multiplies the zero tangent of the weight too
        (in_place_on_a_view, 2),
        (one_step_of_training, 3),
        (lambda net, x: torch.func.grad(lambda x: net(x).sum())(x), 2),
        (lambda net, x: torch.func.vjp(net, x)[1](net(x)), 3),
        (lambda net, x: torch.vmap(net)(x), 1),
        (lambda net, x: torch.func.jacfwd(net)(x), 1 + 1 + 12),  # the zero tangent of the weight, and 12 directions
        (lambda net, x: torch.func.jacrev(net)(x), 1 + 14),
        (lambda net, x: torch.autograd.functional.jacobian(net, x), 1 + 14),
        (lambda net, x: checkpoint(net, x, use_reentrant=True), 1),
    ],
)
def test_every_way_to_take_a_gradient_is_counted(device: str, function: Callable[..., Any], products: int) -> None:
    p = trace(WithNet(nn.Linear(6, 7), function), (2, 6), device=device)
    assert p.total("macs") == products * LINEAR
    assert p.complete, p.uncounted


@DEVICES
def test_a_custom_autograd_function_is_counted_in_both_directions(device: str) -> None:
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> Any:
            ctx.save_for_backward(x, weight)
            return x @ weight.t()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
            x, weight = ctx.saved_tensors
            return gradient @ weight, gradient.t() @ x

    net = nn.Linear(6, 7, bias=False)
    p = trace(WithNet(net, lambda net, x: backward(lambda y: Product.apply(y, net.weight), x)), (2, 6), device=device)
    assert p.total("macs") == 3 * LINEAR


@DEVICES
@pytest.mark.parametrize("wrap", [torch.no_grad(), torch.inference_mode()])
def test_a_forward_without_gradients_is_recorded_as_usual(device: str, wrap: Any) -> None:
    p = trace(WithNet(nn.Linear(6, 7), wrap(lambda net, x: net(x))), (2, 6), device=device)
    assert op_names(p) == ["linear"]


@DEVICES
def test_weights_that_the_forward_replaces_are_counted(device: str) -> None:
    def with_max_norm(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        net.weight.data = torch.renorm(net.weight.data, 2, 0, 1.0)
        return net(x)

    assert trace(WithNet(nn.Linear(6, 7), with_max_norm), (2, 6), device=device).total("macs") == LINEAR


# -- the same record with gradients -----------------------------------------------------------------


@pytest.mark.parametrize(
    "name", quick([n for n, entry in catalog().items() if entry.family in ("resnet", "densenet", "efficientnet")], 3)
)
def test_a_network_traced_with_gradients_has_the_same_operations_and_totals(name: str) -> None:
    with torch.device("meta"):
        net = catalog().get(name).factory()
    plain = trace(WithNet(net, lambda net, x: net(x)), (1, 3, 64, 64))
    enabled = trace(WithNet(net, lambda net, x: net(x)), (1, 3, 64, 64), gradients=True)
    assert [(op.layer, op.target, op.kind) for op in enabled.ops] == [
        (op.layer, op.target, op.kind) for op in plain.ops
    ]
    for metric in ("macs", "cio_hardnet", "cio_cspnet", "params", "conv_weights", "traffic_bytes", "peak_bytes"):
        assert enabled.total(metric) == plain.total(metric), metric


# -- the model afterwards ---------------------------------------------------------------------------


@DEVICES
def test_a_backward_pass_leaves_no_gradient_on_the_model_or_the_input(device: str) -> None:
    def on_the_input(net: nn.Module, x: torch.Tensor) -> None:
        with torch.enable_grad():
            net(x.requires_grad_()).sum().backward()

    net, x = nn.Linear(6, 7), torch.zeros(2, 6)
    kept = net.weight.grad = torch.ones(7, 6)
    assert trace(WithNet(net, on_the_input), [x], device=device).total("macs") == 3 * LINEAR
    assert net.weight.grad is kept
    assert torch.equal(kept, torch.ones(7, 6))
    assert net.bias.grad is None
    assert (x.requires_grad, x.grad) == (False, None)
