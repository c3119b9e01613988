"""Operations that Darknet has whole and torch only in pieces: each is one operation in a trace, with its own rule.

Pools with odd padding would otherwise read a padded copy, a binary convolution would look like an ordinary one, and
what Darknet counts could not be told from the pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F

from cspprof.core import formulas as f
from cspprof.core.record import Kind, TensorSpec
from cspprof.ops import Facts, op_rule

Tensor = torch.Tensor


PIECES: dict[str, Callable[..., Tensor]] = {}
"""What each operation is made of; its tensors come before everything else."""

F_ = TypeVar("F_", bound=Callable[..., Tensor])


def whole(name: str) -> Callable[[F_], F_]:
    """Make of a function of tensors one operation `darknet::NAME`; its gradient is that of the pieces."""

    def register(function: F_) -> F_:
        PIECES[name] = function
        op = torch.library.custom_op(f"darknet::{name}", function, mutates_args=())
        op.register_fake(function)
        op.register_autograd(backward, setup_context=keep)
        return cast("F_", op)

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*(v for v in inputs if isinstance(v, Tensor)))
        ctx.rest = [v for v in inputs if not isinstance(v, Tensor)]

    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        with torch.enable_grad():
            tensors = [t.detach().requires_grad_() for t in ctx.saved_tensors]
            made = PIECES[name](*tensors, *ctx.rest)
        return (*torch.autograd.grad(made, tensors, gradient), *(None for _ in ctx.rest))

    return register


def _around(x: Tensor, size: int, stride: list[int], padding: int, value: float) -> Tensor:
    """`x` with all that windows at `stride` (y, x) touch: `padding` // 2 places before it, the rest after it."""
    before = padding // 2
    after = []
    for n, step in zip(x.shape[2:], stride, strict=True):
        windows = (n + padding - size) // step + 1
        after.append(max((windows - 1) * step + size - n - before, 0))
    return F.pad(x, (before, after[1], before, after[0]), value=value)


@whole("max_pool")
def max_pool(x: Tensor, size: int, stride: list[int], padding: int) -> Tensor:
    """(N, c, H, W) -> (N, c, ⌊(H + padding − size)/stride⌋ + 1, …); half of the padding, rounded down, is before."""
    return F.max_pool2d(_around(x, size, stride, padding, float("-inf")), size, stride).clone()


@whole("avg_pool")
def avg_pool(x: Tensor, size: int, stride: list[int], padding: int) -> Tensor:
    """The mean of those places of each window that lie in the map; shapes as of `max_pool`."""
    sums = F.avg_pool2d(_around(x, size, stride, padding, 0.0), size, stride)
    counts = F.avg_pool2d(_around(torch.ones_like(x), size, stride, padding, 0.0), size, stride)
    return sums / counts


@whole("max_pool_depth")
def max_pool_depth(x: Tensor, out_channels: int, size: int) -> Tensor:
    """(N, c, H, W) -> (N, out_channels, H, W): channel g is the largest of the channels k with k ≡ g (mod
    out_channels). `size` only enters Darknet's count."""
    missing = -x.shape[1] % out_channels
    x = F.pad(x, (0, 0, 0, 0, 0, missing), value=float("-inf"))
    grouped: Tensor = x.unflatten(1, (-1, out_channels))
    return grouped.amax(1)


@op_rule("darknet.max_pool")
def _max_pool(x: TensorSpec, size: int, *args: Any, out: TensorSpec) -> Facts:
    return Facts(Kind.MAX_POOL, 0, f.pool_elementwise((size, size), out.shape), {"kernel": (size, size)})


@op_rule("darknet.avg_pool")
def _avg_pool(x: TensorSpec, size: int, *args: Any, out: TensorSpec) -> Facts:
    return Facts(Kind.AVG_POOL, 0, f.pool_elementwise((size, size), out.shape), {"kernel": (size, size)})


@op_rule("darknet.max_pool_depth")
def _max_pool_depth(x: TensorSpec, out_channels: int, size: int, *, out: TensorSpec) -> Facts:
    """Darknet counts every input channel, and `size`² though the window is one place wide."""
    return Facts(Kind.MAX_POOL, 0, size * size * x.numel)


@whole("xnor_conv")
def xnor_conv(x: Tensor, weight: Tensor, stride: list[int], padding: int, dilation: int) -> Tensor:
    """A convolution of signs (XNOR-Net, Rastegari et al. 2016): input and weights binarised, each filter at the mean
    size of its weights. (N, c_in, H, W), (c_out, c_in, k, k) -> (N, c_out, H′, W′)."""
    scale = weight.abs().mean((1, 2, 3), keepdim=True)
    signs = torch.where(weight > 0, scale, -scale)
    return F.conv2d(torch.where(x > 0, 1.0, -1.0).to(x.dtype), signs, None, stride, padding, dilation)


@op_rule("darknet.xnor_conv")
def _xnor_conv(
    x: TensorSpec, weight: TensorSpec, stride: Any, padding: int, dilation: int, *, out: TensorSpec
) -> Facts:
    """As many MACs as of numbers, each of one bit."""
    attrs = {
        "kernel": weight.shape[2:], "stride": tuple(stride), "padding": (padding, padding),
        "dilation": (dilation, dilation), "groups": 1, "xnor": True,
    }  # fmt: skip
    return Facts(Kind.CONV, f.conv_macs(weight.shape, out.shape), attrs=attrs)


@whole("blur")
def blur(x: Tensor, size: int, stride: list[int]) -> Tensor:
    """Smooth before subsampling (Zhang 2019): a fixed depthwise convolution with a 2×2 mean or the 3×3 binomial."""
    line = x.new_ones(2) / 2 if size == 2 else x.new_tensor([0.25, 0.5, 0.25])
    weight = torch.outer(line, line).expand(x.shape[1], 1, size, size)
    return F.conv2d(x, weight, None, stride, size // 2 if size == 3 else 0, groups=x.shape[1])


@op_rule("darknet.blur")
def _blur(x: TensorSpec, size: int, stride: Any, *, out: TensorSpec) -> Facts:
    """A depthwise convolution, which Darknet itself leaves out of its total."""
    attrs = {"kernel": (size, size), "stride": tuple(stride), "groups": x.shape[1], "blur": True}
    return Facts(Kind.CONV, size * size * out.numel, attrs=attrs)


@whole("response_norm")
def response_norm(x: Tensor, size: int, alpha: float, beta: float, kappa: float) -> Tensor:
    """Local response normalisation across channels (Krizhevsky et al. 2012); the shape stays."""
    return F.local_response_norm(x, size, alpha, beta, kappa)


@op_rule("darknet.response_norm")
def _response_norm(x: TensorSpec, *args: Any, out: TensorSpec) -> Facts:
    return Facts(Kind.NORM, elementwise=2 * x.numel)
