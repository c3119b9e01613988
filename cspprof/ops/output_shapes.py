"""Outputs of common operations, answered without torch's meta kernels, which are most of a plain meta forward.

An answer is called with the operation's own arguments, a `TensorMeta` in the place of each tensor, and returns the
`TensorMeta` of the only output, or None for "ask torch": odd layouts, promoted dtypes, anything that torch might refuse.
So a wrong shape still raises torch's own error, and every answer here can be checked against torch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from cspprof.core import formulas as f
from cspprof.core.tensors import TensorMeta, contiguous_meta, tensor_meta
from cspprof.ops import output_rule


def _dense(shape: tuple[int, ...], like: TensorMeta) -> TensorMeta:
    return contiguous_meta(shape, like.dtype)


def _plain(first: TensorMeta, *others: TensorMeta | None) -> bool:
    """Contiguous and of one dtype: the layouts and dtypes that need no rule of torch's."""
    dtype = first.dtype
    for t in others:
        if t is not None and not (t.contiguous and t.dtype == dtype):
            return False
    return first.contiguous


def _ordered(first: TensorMeta, *others: TensorMeta | None) -> bool:
    """The same, or some channels of a contiguous map of more: images lie further apart."""
    dtype = first.dtype
    for t in others:
        if t is not None and not (t.dtype == dtype and (t.contiguous or _sliced(t))):
            return False
    return first.contiguous or _sliced(first)


def _sliced(t: TensorMeta) -> bool:
    """Whether each image is contiguous; where a size is 1, torch may take the map for a channels-last one."""
    canonical = f.contiguous_strides(t.shape)
    apart = bool(canonical) and t.strides[1:] == canonical[1:] and t.strides[0] >= canonical[0]
    return t.dense and apart and 1 not in t.shape[1:]


def _settled(tensor: TensorMeta) -> bool:
    """Contiguous, or without gaps in an order of dimensions that no dimension of size 1 leaves open."""
    if tensor.contiguous:
        return True
    shape, strides = tensor.shape, tensor.strides
    return 1 not in shape[1:] and strides[0] == prod(shape[1:]) and f.packed(shape, strides)


def _pointwise(input: TensorMeta) -> TensorMeta | None:
    """The result of an operation on each element: its layout is the input's, without the gaps."""
    if not input.is_floating:
        return None
    if _settled(input):
        return input_like(input)
    if 1 in input.shape[1:] or 0 in input.shape or len({0, *input.strides}) <= len(input.shape):
        return None
    if input.shape[0] == 1 and input.strides[0] < max(input.strides):  # where it stands among the others is open
        return None
    strides = f.elementwise_strides(input.shape, [(input.shape, input.strides)])
    return tensor_meta(input.shape, strides, input.dtype)


def _in_order(tensor: TensorMeta) -> bool:
    """Contiguous as torch sees it, whatever the strides of dimensions of size 1."""
    own = zip(tensor.shape, tensor.strides, f.contiguous_strides(tensor.shape), strict=True)
    return all(n == 1 or a == b for n, a, b in own)


def _dtypes(*tensors: TensorMeta) -> bool:
    return all(t.dtype == tensors[0].dtype for t in tensors)


@output_rule("conv2d")
def conv2d(
    input: TensorMeta, weight: TensorMeta, bias: TensorMeta | None = None, stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0), dilation: Sequence[int] = (1, 1), groups: int = 1,
) -> TensorMeta | None:  # fmt: skip
    if not len(input.shape) == len(weight.shape) == 4 or isinstance(padding, str) or not _ordered(input, weight, bias):
        return None
    n, channels, h, w = input.shape
    c_out, c_in, k_h, k_w = weight.shape
    if not channels or channels != c_in * groups or c_out % groups or (bias is not None and bias.shape != (c_out,)):
        return None
    if channels == 1 and (k_h == 1 or k_w == 1):  # memory formats are ambiguous for one channel
        return None
    (s_h, s_w), (p_h, p_w), (d_h, d_w) = f.pair(stride), f.pair(padding), f.pair(dilation)
    if s_h < 1 or s_w < 1:
        return None
    h, w = f.window_size(h, k_h, s_h, p_h, d_h), f.window_size(w, k_w, s_w, p_w, d_w)
    return _dense((n, c_out, h, w), input) if h > 0 and w > 0 else None


@output_rule("linear")
def linear(input: TensorMeta, weight: TensorMeta, bias: TensorMeta | None = None) -> TensorMeta | None:
    if len(weight.shape) != 2 or not _plain(weight, bias) or not _dtypes(input, weight) or not input.shape:
        return None
    if not input.contiguous and len(input.shape) != 2:
        return None
    if input.shape[-1] != weight.shape[1] or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    return _dense((*input.shape[:-1], weight.shape[0]), input)


@output_rule("matmul")
def matmul(left: TensorMeta, right: TensorMeta) -> TensorMeta | None:
    if len(left.shape) < 2 or len(left.shape) != len(right.shape) or not _dtypes(left, right):
        return None
    if left.shape[:-2] != right.shape[:-2] or left.shape[-1] != right.shape[-2]:
        return None
    return _dense((*left.shape[:-1], right.shape[-1]), left)


@output_rule("batch_norm")
def batch_norm(input: TensorMeta, weight: TensorMeta | None, bias: TensorMeta | None, mean: TensorMeta | None, var: TensorMeta | None,
               training: bool, *args: Any) -> TensorMeta | None:  # fmt: skip
    if training or mean is None or len(input.shape) < 2 or 0 in input.shape or not _ordered(input):
        return None
    size = (input.shape[1],)
    learned = [t for t in (weight, bias, mean, var) if t is not None]
    if any(t.shape != size for t in learned) or not _plain(*learned) or learned[0].dtype != input.dtype:
        return None
    return _dense(input.shape, input)


@output_rule("layer_norm")
def layer_norm(input: TensorMeta, shape: Sequence[int], weight: TensorMeta | None = None, bias: TensorMeta | None = None,
               *args: Any) -> TensorMeta | None:  # fmt: skip
    size = tuple(shape)
    fits = input.shape[-len(size) :] == size and all(t is None or t.shape == size for t in (weight, bias))
    fits = fits and all(t is None or _dtypes(input, t) for t in (weight, bias))
    fits = fits and input.is_floating and (input.contiguous or not _in_order(input))
    return _dense(input.shape, input) if fits and _plain(weight or input, bias) else None


@output_rule(
    *[
        "relu",
        "silu",
        "gelu",
        "hardswish",
        "hardsigmoid",
        "sigmoid",
        "tanh",
        "leaky_relu",
        "elu",
        "mish",
        "hardtanh",
        "relu6",
        "softplus",
    ]
)
def unary(input: TensorMeta, *args: Any, **kwargs: Any) -> TensorMeta | None:
    return _pointwise(input)


@output_rule("softmax", "log_softmax")
def softmax(input: TensorMeta, dim: int, dtype: Any = None) -> TensorMeta | None:
    rank = len(input.shape)
    fits = dtype is None and input.contiguous and input.is_floating and -rank <= dim < rank
    return input_like(input) if fits else None


@output_rule("add", "sub", "mul", "div")
def binary(left: TensorMeta, right: Any, *args: Any, **kwargs: Any) -> TensorMeta | None:
    if not left.is_floating or kwargs.keys() - {"alpha"}:
        return None
    if not isinstance(right, TensorMeta):
        return _pointwise(left) if isinstance(right, (int, float)) else None
    if not _dtypes(left, right):
        return None
    try:
        shape = f.broadcast(left.shape, right.shape)
    except ValueError:
        return None
    if left.contiguous and right.contiguous and shape in (left.shape, right.shape):
        return _dense(shape, left)
    if left.shape == right.shape and _ordered(left, right):
        return _dense(shape, left)
    if not (_settled(left) and _settled(right)) or shape not in (left.shape, right.shape) or 1 in shape[1:]:
        return None
    return tensor_meta(shape, f.elementwise_strides(shape, [(t.shape, t.strides) for t in (left, right)]), left.dtype)


@output_rule("cat")
def cat(tensors: Sequence[TensorMeta], dim: int = 0) -> TensorMeta | None:
    first = tensors[0]
    rank = len(first.shape)
    if not rank or not -rank <= dim < rank or not _ordered(*tensors):
        return None
    dim %= rank
    before, after, size = first.shape[:dim], first.shape[dim + 1 :], 0
    for t in tensors:
        shape = t.shape
        if len(shape) != rank or shape[:dim] != before or shape[dim + 1 :] != after:
            return None
        size += shape[dim]
    if rank == 4 and 1 in first.shape[1:]:
        return None
    return _dense((*before, size, *after), first)


@output_rule("max_pool2d")
def max_pool2d(
    input: TensorMeta, kernel: Sequence[int], stride: Sequence[int] = (), padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1), ceil_mode: bool = False,
) -> TensorMeta | None:  # fmt: skip
    return _pooled(input, kernel, stride, padding, dilation, ceil_mode)


@output_rule("avg_pool2d")
def avg_pool2d(
    input: TensorMeta, kernel: Sequence[int], stride: Sequence[int] = (), padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False, *args: Any,
) -> TensorMeta | None:  # fmt: skip
    return _pooled(input, kernel, stride, padding, (1, 1), ceil_mode)


def _pooled(
    input: TensorMeta, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
    ceil_mode: bool,
) -> TensorMeta | None:  # fmt: skip
    if len(input.shape) != 4 or not input.contiguous or not input.is_floating or input.shape[1] == 1:
        return None
    k, p = f.pair(kernel), f.pair(padding)
    s = f.pair(stride) if stride else k
    if (
        0 in input.shape
        or min(*k, *s, *f.pair(dilation), min(p) + 1) < 1
        or any(2 * pad > kk for pad, kk in zip(p, k, strict=True))
    ):
        return None
    windows = zip(input.shape[2:], k, s, p, f.pair(dilation), strict=True)
    size = [f.window_size(n, kk, ss, pp, dd, ceil_mode) for n, kk, ss, pp, dd in windows]
    return _dense((*input.shape[:2], *size), input) if min(size) > 0 else None


@output_rule("upsample_nearest2d")
def upsample_nearest2d(input: TensorMeta, size: Sequence[int] | None, *scales: Any) -> TensorMeta | None:
    return _resized(input, size, scales)


@output_rule("upsample_bilinear2d", "upsample_bicubic2d")
def upsample(input: TensorMeta, size: Sequence[int] | None, align_corners: bool, *scales: Any) -> TensorMeta | None:
    return _resized(input, size, scales)


def _resized(input: TensorMeta, size: Sequence[int] | None, scales: tuple[Any, ...]) -> TensorMeta | None:
    if len(input.shape) != 4 or not _ordered(input) or not input.is_floating or 1 in input.shape[1:]:
        return None
    if size is None:
        size = [int(n * scale) for n, scale in zip(input.shape[2:], scales[0], strict=True)]
    return _dense((*input.shape[:2], *size), input) if len(size) == 2 and min(size) > 0 else None


@output_rule("adaptive_avg_pool2d")
def adaptive_avg_pool2d(input: TensorMeta, size: Sequence[int]) -> TensorMeta | None:
    if len(input.shape) != 4 or not input.contiguous or not input.is_floating or min(input.shape[1:]) <= 1:
        return None  # where a size is 1, torch may take the map for a channels-last one
    return _dense((*input.shape[:2], *size), input)


@output_rule("mean", "sum", "amax", "amin")
def reduced(
    input: TensorMeta, dim: Sequence[int] | None = None, keepdim: bool = False, *, dtype: Any = None
) -> TensorMeta | None:
    rank = len(input.shape)
    if not dim or dtype is not None or not input.contiguous or not input.is_floating or 0 in input.shape:
        return None
    if not all(-rank <= d < rank for d in dim) or len({d % rank for d in dim}) != len(dim):
        return None
    gone = {d % rank for d in dim}
    kept = [1 if i in gone else n for i, n in enumerate(input.shape) if keepdim or i not in gone]
    return _dense(tuple(kept), input)


@output_rule("contiguous")
def contiguous(input: TensorMeta, memory_format: Any = None) -> TensorMeta | None:
    return None if memory_format is not None or _in_order(input) else _dense(input.shape, input)


@output_rule("roll")
def roll(input: TensorMeta, shifts: Sequence[int], dims: Sequence[int] = ()) -> TensorMeta | None:
    rank = len(input.shape)
    fits = len(shifts) == len(dims) > 0 and all(-rank <= d < rank and input.shape[d] > 1 for d in dims)
    return input_like(input) if fits and input.contiguous and 1 not in input.shape[1:] else None


@output_rule("pad")
def pad(input: TensorMeta, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> TensorMeta | None:
    rank, n = len(input.shape), len(pad) // 2
    if mode != "constant" or len(pad) % 2 or not 0 < n <= rank or min(pad) < 0 or not input.contiguous:
        return None
    if rank in (4, 5) and 1 in input.shape[1:]:  # memory formats are ambiguous
        return None
    ends = [(0, 0)] * (rank - n) + [(pad[2 * i], pad[2 * i + 1]) for i in reversed(range(n))]
    return _dense(tuple(size + a + b for size, (a, b) in zip(input.shape, ends, strict=True)), input)


def input_like(input: TensorMeta) -> TensorMeta:
    """The same, as a fresh activation."""
    return tensor_meta(input.shape, input.strides, input.dtype)


@output_rule("scaled_dot_product_attention")
def attention(query: TensorMeta, key: TensorMeta, value: TensorMeta, mask: TensorMeta | None = None, dropout: float = 0.0, *args: Any,
              **kwargs: Any) -> TensorMeta | None:  # fmt: skip
    """Queries cut out of one projection, (N, L, 3, H, E) in memory, give an output (N, L, H, E) in memory: what joins
    the heads afterwards is a view. On meta alone torch says otherwise."""
    if dropout or kwargs.get("enable_gqa") or len(query.shape) != 4 or query.contiguous or query.is_complex:
        return None
    if not query.shape == key.shape == value.shape or not query.dtype == key.dtype == value.dtype:
        return None
    (n, heads, length, size), (outer, head, place, one) = query.shape, query.strides
    if (mask is not None and len(mask.shape) not in (2, 4)) or not outer >= place > head >= size > one == 1:
        return None
    return tensor_meta((n, heads, length, size), (length * heads * size, size, heads * size, 1), query.dtype)
