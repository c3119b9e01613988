"""What an operation costs: one small rule per aten operation, a thin adapter over `formulas`.

A rule is called with the operation's own arguments, in the order and by the names of its schema, with a
`TensorSpec` in the place of each tensor; `out` is the first output's spec. To add an operation, decorate a
function with `op_rule`:

>>> from cspprof import op_rule
>>> from cspprof.rules import Facts
>>> @op_rule("mylib.fused_conv")
... def fused_conv(x, weight, *, out):
...     return Facts("conv", macs=weight.numel // weight.shape[0] * out.numel)

An operation is in one of three states: counted by a rule, ignored on purpose (a rule that says zero, or a view),
or unknown. Nothing becomes zero by being forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeVar

from cspprof import formulas as f
from cspprof.record import Kind, TensorSpec
from cspprof.registry import Registry

Spec = TensorSpec
Ints = int | Sequence[int]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a rule says of one operation."""

    kind: Kind | str
    macs: int | None = 0
    """Exact multiply-accumulates; bias, padding tricks and normalisation are not in it."""
    elementwise: int = 0
    """Scalar operations other than multiply-accumulates."""
    attrs: Mapping[str, Any] = field(default_factory=dict)
    """Kept beside the operation's own arguments."""
    outputs: int | None = None
    """How many of the outputs are real results; the rest (saved statistics, indices) is left out."""


Rule = Callable[..., Facts]
R = TypeVar("R", bound=Rule)
RULES: Registry[Rule] = Registry("operation rule")


def op_rule(*targets: str) -> Callable[[R], R]:
    """Register a rule for operations named as in a profile: `aten.conv2d`, `mylib.op` (every overload of it).

    An in-place form (`aten.relu_`) follows the rule of its plain name.
    """

    def register(rule: R) -> R:
        for target in targets:
            RULES.add(target, rule)
        return rule

    return register


def _aten(kind: Kind, names: str, cost: Callable[..., int] = lambda *a, out, **k: 0) -> None:
    """One rule for many operations that multiply nothing; `cost` gives their scalar operations."""

    def rule(*args: Any, out: Spec, **kwargs: Any) -> Facts:
        return Facts(kind, elementwise=cost(*args, out=out, **kwargs))

    for name in names.split():
        RULES.add(f"aten.{name}", rule)


# -- convolutions ---------------------------------------------------------------------------------


def _window(weight: Spec, stride: Ints, padding: Ints | str, dilation: Ints, groups: int) -> dict[str, Any]:
    n = len(weight.shape) - 2
    return {
        "kernel": weight.shape[2:],
        "stride": f.pair(stride, n),
        "padding": padding if isinstance(padding, str) else f.pair(padding, n),
        "dilation": f.pair(dilation, n),
        "groups": groups,
    }


@op_rule("aten.conv1d", "aten.conv2d", "aten.conv3d")
def conv(
    input: Spec, weight: Spec, bias: Spec | None = None, stride: Ints = 1, padding: Ints | str = 0,
    dilation: Ints = 1, groups: int = 1, *, out: Spec,
) -> Facts:  # fmt: skip
    attrs = _window(weight, stride, padding, dilation, groups)
    return Facts(Kind.CONV, f.conv_macs(weight.shape, out.shape), attrs=attrs)


@op_rule("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")
def conv_transpose(
    input: Spec, weight: Spec, bias: Spec | None = None, stride: Ints = 1, padding: Ints = 0,
    output_padding: Ints = 0, groups: int = 1, dilation: Ints = 1, *, out: Spec,
) -> Facts:  # fmt: skip
    attrs = _window(weight, stride, padding, dilation, groups)
    return Facts(Kind.CONV_TRANSPOSE, f.conv_transpose_macs(weight.shape, input.shape), attrs=attrs)


@op_rule("aten.convolution", "aten._convolution")
def convolution(
    input: Spec, weight: Spec, bias: Spec | None, stride: Ints, padding: Ints, dilation: Ints,
    transposed: bool, output_padding: Ints, groups: int, *flags: bool, out: Spec,
) -> Facts:  # fmt: skip
    if transposed:
        return conv_transpose(input, weight, bias, stride, padding, output_padding, groups, dilation, out=out)
    return conv(input, weight, bias, stride, padding, dilation, groups, out=out)


@op_rule("torchvision.deform_conv2d")
def deform_conv2d(input: Spec, weight: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """The convolution itself; the samples that it interpolates first are not MACs."""
    attrs = _window(weight, (1, 1), (0, 0), (1, 1), input.shape[1] // weight.shape[1])
    return Facts(Kind.CONV, f.conv_macs(weight.shape, out.shape), attrs=attrs)


# -- matrix products ------------------------------------------------------------------------------


@op_rule("aten.linear")
def linear(input: Spec, weight: Spec, bias: Spec | None = None, *, out: Spec) -> Facts:
    return Facts(Kind.LINEAR, weight.shape[-1] * out.numel)


@op_rule("aten.bilinear")
def bilinear(input1: Spec, input2: Spec, weight: Spec, bias: Spec | None = None, *, out: Spec) -> Facts:
    # y[o] = Σ_i Σ_j x1[i]·W[o,i,j]·x2[j]: the inner product over j first, then over i.
    return Facts(Kind.LINEAR, out.numel * weight.shape[1] * (weight.shape[2] + 1))


@op_rule("aten.matmul", "aten.mm", "aten.bmm", "aten.mv", "aten.dot", "aten.vdot")
def matmul(left: Spec, right: Spec, *, out: Spec, **kwargs: Any) -> Facts:
    return Facts(Kind.MATMUL, f.matmul_macs(left.shape, out.shape))


@op_rule("aten.addmm", "aten.baddbmm", "aten.addmv")
def addmm(bias: Spec, left: Spec, right: Spec, *, out: Spec, **kwargs: Any) -> Facts:
    return Facts(Kind.MATMUL, f.matmul_macs(left.shape, out.shape))


@op_rule("aten.addbmm")
def addbmm(bias: Spec, left: Spec, right: Spec, *, out: Spec, **kwargs: Any) -> Facts:
    return Facts(Kind.MATMUL, prod(left.shape) * right.shape[-1])


@op_rule("aten.outer", "aten.ger", "aten.addr")
def outer(*args: Spec, out: Spec, **kwargs: Any) -> Facts:
    return Facts(Kind.MATMUL, out.numel)


@op_rule("aten.scaled_dot_product_attention")
def attention(query: Spec, key: Spec, value: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    macs = f.attention_macs(query.shape, key.shape, value.shape, out.shape)
    return Facts(Kind.ATTENTION, macs, elementwise=prod(out.shape[:-1]) * key.shape[-2], outputs=1)


for backend in ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention",
                "attention_math", "fused_attention_overrideable"):  # fmt: skip
    RULES.add(f"aten._scaled_dot_product_{backend}", attention)


@op_rule("aten.lstm", "aten.gru", "aten.rnn_tanh", "aten.rnn_relu")
def recurrent(input: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """Every weight matrix meets every step of every sequence; gates are scalar operations.

    The arguments are (input, hx, params, has_biases, …), and (data, batch_sizes, hx, params, has_biases, …) for packed
    sequences, whose `data` holds one row per step: the parameters come right before the first flag.
    """
    params = args[next(i for i, a in enumerate(args) if isinstance(a, bool)) - 1]
    steps = prod(input.shape[:-1])
    macs = sum(w.numel for w in params if len(w.shape) == 2) * steps
    return Facts(Kind.RECURRENT, macs, elementwise=sum(w.numel for w in params if len(w.shape) == 1) * steps)


# -- pooling --------------------------------------------------------------------------------------


def _pool(kind: Kind, kernel: Sequence[int], out: Spec, **attrs: Any) -> Facts:
    return Facts(kind, 0, f.pool_elementwise(kernel, out.shape), {"kernel": tuple(kernel), **attrs}, outputs=1)


@op_rule(*(f"aten.max_pool{n}d{suffix}" for n in (1, 2, 3) for suffix in ("", "_with_indices")))
def max_pool(
    input: Spec, kernel_size: Ints, stride: Ints = (), padding: Ints = 0, *args: Any, out: Spec, **kwargs: Any
) -> Facts:
    n = 1 if len(out.shape) < 3 else len(out.shape) - 2
    return _pool(Kind.MAX_POOL, f.pair(kernel_size, n), out)


@op_rule("aten.avg_pool1d", "aten.avg_pool2d", "aten.avg_pool3d")
def avg_pool(input: Spec, kernel_size: Ints, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    return _pool(Kind.AVG_POOL, f.pair(kernel_size, len(out.shape) - 2), out)


def _adaptive(kind: Kind, input: Spec, output_size: Ints, out: Spec) -> Facts:
    n = 1 if isinstance(output_size, int) else len(output_size)
    whole = prod(out.shape[-n:]) == 1
    if whole:
        return _pool(kind, input.shape[-n:], out, **{"global": True})
    return Facts(kind, elementwise=input.numel, attrs={"output_size": out.shape[-n:]}, outputs=1)


@op_rule("aten.adaptive_avg_pool1d", "aten.adaptive_avg_pool2d", "aten.adaptive_avg_pool3d",
         "aten._adaptive_avg_pool2d", "aten._adaptive_avg_pool3d")  # fmt: skip
def adaptive_avg_pool(input: Spec, output_size: Ints, *, out: Spec) -> Facts:
    return _adaptive(Kind.AVG_POOL, input, output_size, out)


@op_rule("aten.adaptive_max_pool1d", "aten.adaptive_max_pool2d", "aten.adaptive_max_pool3d")
def adaptive_max_pool(input: Spec, output_size: Ints, *, out: Spec) -> Facts:
    return _adaptive(Kind.MAX_POOL, input, output_size, out)


@op_rule("aten.mean")
def mean(input: Spec, dim: Ints | None = None, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """A mean over exactly the spatial dimensions of (N, C, H, W) is global average pooling by another name."""
    rank = len(input.shape)
    dims = {d % rank for d in f.pair(dim, 1)} if dim is not None and rank else set()
    if rank == 4 and dims == {2, 3}:
        return _pool(Kind.AVG_POOL, input.shape[2:], out, **{"global": True})
    return Facts(Kind.REDUCTION, elementwise=input.numel)


# -- normalisation and the rest, which multiply nothing that counts as a MAC ------------------------


def _first(*args: Any, out: Spec, **kwargs: Any) -> int:
    return int(args[0].numel) if args and isinstance(args[0], TensorSpec) else out.numel


def _out(*args: Any, out: Spec, **kwargs: Any) -> int:
    return out.numel


NORMS = (
    "batch_norm layer_norm group_norm instance_norm rms_norm local_response_norm native_batch_norm native_layer_norm "
    "native_group_norm _native_batch_norm_legit _native_batch_norm_legit_no_training _fused_rms_norm"
)


@op_rule(*(f"aten.{name}" for name in NORMS.split()))
def norm(input: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    return Facts(Kind.NORM, elementwise=2 * input.numel, outputs=1)


_aten(
    Kind.ACTIVATION,
    "relu relu6 leaky_relu silu gelu mish hardswish hardsigmoid hardtanh sigmoid tanh elu selu celu softplus "
    "prelu rrelu log_sigmoid glu hardshrink softshrink threshold tanhshrink",
    _out,
)
_aten(
    Kind.ELEMENTWISE, "floor_divide complex polar _weight_norm_interface _weight_norm", _out
)  # torch does not tag them pointwise
_aten(Kind.SOFTMAX, "softmax log_softmax _softmax _log_softmax _safe_softmax softmin", _out)
_aten(
    Kind.REDUCTION,
    "sum prod amax amin max min aminmax argmax argmin any all std var std_mean var_mean norm cumsum cumprod "
    "logsumexp linalg_vector_norm nansum count_nonzero median logcumsumexp unique_consecutive "
    "histc bincount cross_entropy_loss nll_loss mse_loss",
    _first,
)
_aten(
    Kind.RESIZE,
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d "
    "_upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d "
    "upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler grid_sampler_2d "
    "grid_sampler_3d",
    _out,
)
_aten(Kind.CONCAT, "cat stack hstack vstack dstack concat concatenate column_stack")
RULES.add("torchvision.nms", lambda *args, out, **kwargs: Facts(Kind.DATA))
RULES.add("torchvision.roi_align", lambda *args, out, **kwargs: Facts(Kind.RESIZE, elementwise=out.numel))
_aten(Kind.EMBEDDING, "embedding embedding_bag _embedding_bag")
_aten(
    Kind.DATA,
    "clone copy copy_ contiguous to _to_copy reshape flatten fill zero fill_ zero_ pad constant_pad_nd "
    "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d "
    "_pad_circular index index_select gather take take_along_dim scatter scatter_add scatter_reduce index_put "
    "index_add index_fill index_copy masked_select masked_scatter masked_fill nonzero roll flip rot90 repeat "
    "repeat_interleave tile unfold unfold_copy im2col col2im pixel_shuffle pixel_unshuffle channel_shuffle "
    "native_channel_shuffle tril triu topk sort argsort msort searchsorted bucketize unique _unique2 one_hot "
    "meshgrid diag_embed select_scatter slice_scatter dropout native_dropout feature_dropout alpha_dropout "
    "bernoulli bernoulli_ uniform_ normal_ random_ exponential_ multinomial empty empty_like empty_strided "
    "empty_permuted new_empty new_empty_strided zeros zeros_like new_zeros ones ones_like new_ones full full_like "
    "new_full arange linspace logspace eye scalar_tensor rand rand_like randn randn_like randint randint_like "
    "randperm normal tril_indices triu_indices hann_window hamming_window lift_fresh lift_fresh_copy detach_copy "
    "_local_scalar_dense item is_nonzero equal _assert_async set_ resize_ resize_as_ combinations cartesian_prod "
    "view_copy alias_copy lift _pack_padded_sequence",
)
_aten(Kind.VIEW, "squeeze_ unsqueeze_ transpose_ t_ swapaxes_ swapdims_ as_strided_")
