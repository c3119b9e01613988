"""Outputs of common operations, answered without torch's meta kernels, which are most of a plain meta forward.

An answer is called with the operation's own arguments, a `Meta` in the place of each tensor, and returns the
`Meta` of the only output, or None for "ask torch": odd layouts, promoted dtypes, anything that torch might refuse.
So a wrong shape still raises torch's own error, and every answer here can be checked against torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from cspprof import formulas as f
from cspprof.trace.metas import Meta, dense, meta

Answer = Callable[..., Meta | None]
ANSWERS: dict[str, Answer] = {}


def answers(*targets: str) -> Callable[[Answer], Answer]:
    def register(answer: Answer) -> Answer:
        ANSWERS.update(dict.fromkeys((f"aten.{t}" for t in targets), answer))
        return answer

    return register


def _dense(shape: tuple[int, ...], like: Meta) -> Meta:
    return dense(shape, like.dtype)


def _plain(first: Meta, *others: Meta | None) -> bool:
    """Contiguous and of one dtype: the layouts and dtypes that need no rule of torch's."""
    dtype = first.dtype
    for t in others:
        if t is not None and not (t.contiguous and t.dtype is dtype):
            return False
    return first.contiguous


def _ordered(first: Meta, *others: Meta | None) -> bool:
    """The same, or some channels of a contiguous map of more: images lie further apart."""
    dtype = first.dtype
    for t in others:
        if t is not None and not (t.dtype is dtype and (t.contiguous or _sliced(t))):
            return False
    return first.contiguous or _sliced(first)


def _sliced(t: Meta) -> bool:
    """Whether each image is contiguous; where a size is 1, torch may take the map for a channels-last one."""
    canonical = f.contiguous_strides(t.shape)
    apart = bool(canonical) and t.strides[1:] == canonical[1:] and t.strides[0] >= canonical[0]
    return t.dense and apart and 1 not in t.shape[1:]


def _settled(tensor: Meta) -> bool:
    """Contiguous, or without gaps in an order of dimensions that no dimension of size 1 leaves open."""
    if tensor.contiguous:
        return True
    shape, strides = tensor.shape, tensor.strides
    return 1 not in shape[1:] and strides[0] == prod(shape[1:]) and f.packed(shape, strides)


def _pointwise(input: Meta) -> Meta | None:
    """The result of an operation on each element: its layout is the input's, without the gaps."""
    if not input.dtype.is_floating_point:
        return None
    if _settled(input):
        return input_like(input)
    if 1 in input.shape[1:] or 0 in input.shape or len({0, *input.strides}) <= len(input.shape):
        return None
    if input.shape[0] == 1 and input.strides[0] < max(input.strides):  # where it stands among the others is open
        return None
    strides = f.elementwise_strides(input.shape, [(input.shape, input.strides)])
    return meta(input.shape, strides, input.dtype)


def _in_order(tensor: Meta) -> bool:
    """Contiguous as torch sees it, whatever the strides of dimensions of size 1."""
    own = zip(tensor.shape, tensor.strides, f.contiguous_strides(tensor.shape), strict=True)
    return all(n == 1 or a == b for n, a, b in own)


def _dtypes(*tensors: Meta) -> bool:
    return all(t.dtype is tensors[0].dtype for t in tensors)


@answers("conv2d")
def conv2d(
    input: Meta, weight: Meta, bias: Meta | None = None, stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0), dilation: Sequence[int] = (1, 1), groups: int = 1,
) -> Meta | None:  # fmt: skip
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


@answers("linear")
def linear(input: Meta, weight: Meta, bias: Meta | None = None) -> Meta | None:
    if len(weight.shape) != 2 or not _plain(weight, bias) or not _dtypes(input, weight) or not input.shape:
        return None
    if not input.contiguous and len(input.shape) != 2:
        return None
    if input.shape[-1] != weight.shape[1] or (bias is not None and bias.shape != weight.shape[:1]):
        return None
    return _dense((*input.shape[:-1], weight.shape[0]), input)


@answers("matmul")
def matmul(left: Meta, right: Meta) -> Meta | None:
    if len(left.shape) < 2 or len(left.shape) != len(right.shape) or not _dtypes(left, right):
        return None
    if left.shape[:-2] != right.shape[:-2] or left.shape[-1] != right.shape[-2]:
        return None
    return _dense((*left.shape[:-1], right.shape[-1]), left)


@answers("batch_norm")
def batch_norm(input: Meta, weight: Meta | None, bias: Meta | None, mean: Meta | None, var: Meta | None,
               training: bool, *args: Any) -> Meta | None:  # fmt: skip
    if training or mean is None or len(input.shape) < 2 or 0 in input.shape or not _ordered(input):
        return None
    size = (input.shape[1],)
    learned = [t for t in (weight, bias, mean, var) if t is not None]
    if any(t.shape != size for t in learned) or not _plain(*learned) or learned[0].dtype is not input.dtype:
        return None
    return _dense(input.shape, input)


@answers("layer_norm")
def layer_norm(input: Meta, shape: Sequence[int], weight: Meta | None = None, bias: Meta | None = None,
               *args: Any) -> Meta | None:  # fmt: skip
    size = tuple(shape)
    fits = input.shape[-len(size) :] == size and all(t is None or t.shape == size for t in (weight, bias))
    fits = fits and all(t is None or _dtypes(input, t) for t in (weight, bias))
    fits = fits and input.dtype.is_floating_point and (input.contiguous or not _in_order(input))
    return _dense(input.shape, input) if fits and _plain(weight or input, bias) else None


@answers(
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
def unary(input: Meta, *args: Any, **kwargs: Any) -> Meta | None:
    return _pointwise(input)


@answers("softmax", "log_softmax")
def softmax(input: Meta, dim: int, dtype: Any = None) -> Meta | None:
    rank = len(input.shape)
    fits = dtype is None and input.contiguous and input.dtype.is_floating_point and -rank <= dim < rank
    return input_like(input) if fits else None


@answers("add", "sub", "mul", "div")
def binary(left: Meta, right: Any, *args: Any, **kwargs: Any) -> Meta | None:
    if not left.dtype.is_floating_point or kwargs.keys() - {"alpha"}:
        return None
    if not isinstance(right, Meta):
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
    return meta(shape, f.elementwise_strides(shape, [(t.shape, t.strides) for t in (left, right)]), left.dtype)


@answers("cat")
def cat(tensors: Sequence[Meta], dim: int = 0) -> Meta | None:
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


@answers("max_pool2d")
def max_pool2d(
    input: Meta, kernel: Sequence[int], stride: Sequence[int] = (), padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1), ceil_mode: bool = False,
) -> Meta | None:  # fmt: skip
    return _pooled(input, kernel, stride, padding, dilation, ceil_mode)


@answers("avg_pool2d")
def avg_pool2d(
    input: Meta, kernel: Sequence[int], stride: Sequence[int] = (), padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False, *args: Any,
) -> Meta | None:  # fmt: skip
    return _pooled(input, kernel, stride, padding, (1, 1), ceil_mode)


def _pooled(
    input: Meta, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
    ceil_mode: bool,
) -> Meta | None:  # fmt: skip
    if len(input.shape) != 4 or not input.contiguous or not input.dtype.is_floating_point or input.shape[1] == 1:
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


@answers("upsample_nearest2d")
def upsample_nearest2d(input: Meta, size: Sequence[int] | None, *scales: Any) -> Meta | None:
    return _resized(input, size, scales)


@answers("upsample_bilinear2d", "upsample_bicubic2d")
def upsample(input: Meta, size: Sequence[int] | None, align_corners: bool, *scales: Any) -> Meta | None:
    return _resized(input, size, scales)


def _resized(input: Meta, size: Sequence[int] | None, scales: tuple[Any, ...]) -> Meta | None:
    if len(input.shape) != 4 or not _ordered(input) or not input.dtype.is_floating_point or 1 in input.shape[1:]:
        return None
    if size is None:
        size = [int(n * scale) for n, scale in zip(input.shape[2:], scales[0], strict=True)]
    return _dense((*input.shape[:2], *size), input) if len(size) == 2 and min(size) > 0 else None


@answers("adaptive_avg_pool2d")
def adaptive_avg_pool2d(input: Meta, size: Sequence[int]) -> Meta | None:
    if len(input.shape) != 4 or not input.contiguous or not input.dtype.is_floating_point or min(input.shape[1:]) <= 1:
        return None  # where a size is 1, torch may take the map for a channels-last one
    return _dense((*input.shape[:2], *size), input)


@answers("mean", "sum", "amax", "amin")
def reduced(input: Meta, dim: Sequence[int] | None = None, keepdim: bool = False, *, dtype: Any = None) -> Meta | None:
    rank = len(input.shape)
    if not dim or dtype is not None or not input.contiguous or not input.dtype.is_floating_point or 0 in input.shape:
        return None
    if not all(-rank <= d < rank for d in dim) or len({d % rank for d in dim}) != len(dim):
        return None
    gone = {d % rank for d in dim}
    kept = [1 if i in gone else n for i, n in enumerate(input.shape) if keepdim or i not in gone]
    return _dense(tuple(kept), input)


@answers("contiguous")
def contiguous(input: Meta, memory_format: Any = None) -> Meta | None:
    return None if memory_format is not None or _in_order(input) else _dense(input.shape, input)


@answers("roll")
def roll(input: Meta, shifts: Sequence[int], dims: Sequence[int] = ()) -> Meta | None:
    rank = len(input.shape)
    fits = len(shifts) == len(dims) > 0 and all(-rank <= d < rank and input.shape[d] > 1 for d in dims)
    return input_like(input) if fits and input.contiguous and 1 not in input.shape[1:] else None


@answers("pad")
def pad(input: Meta, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Meta | None:
    rank, n = len(input.shape), len(pad) // 2
    if mode != "constant" or len(pad) % 2 or not 0 < n <= rank or min(pad) < 0 or not input.contiguous:
        return None
    if rank in (4, 5) and 1 in input.shape[1:]:  # memory formats are ambiguous
        return None
    ends = [(0, 0)] * (rank - n) + [(pad[2 * i], pad[2 * i + 1]) for i in reversed(range(n))]
    return _dense(tuple(size + a + b for size, (a, b) in zip(input.shape, ends, strict=True)), input)


def input_like(input: Meta) -> Meta:
    """The same, as a fresh activation."""
    return meta(input.shape, input.strides, input.dtype)


@answers("scaled_dot_product_attention")
def attention(query: Meta, key: Meta, value: Meta, mask: Meta | None = None, dropout: float = 0.0, *args: Any,
              **kwargs: Any) -> Meta | None:  # fmt: skip
    """Queries cut out of one projection, (N, L, 3, H, E) in memory, give an output (N, L, H, E) in memory: what joins
    the heads afterwards is a view. On meta alone torch says otherwise."""
    if dropout or kwargs.get("enable_gqa") or len(query.shape) != 4 or query.contiguous or query.dtype.is_complex:
        return None
    if not query.shape == key.shape == value.shape or not query.dtype is key.dtype is value.dtype:
        return None
    (n, heads, length, size), (outer, head, place, one) = query.shape, query.strides
    if (mask is not None and len(mask.shape) not in (2, 4)) or not outer >= place > head >= size > one == 1:
        return None
    return meta((n, heads, length, size), (length * heads * size, size, heads * size, 1), query.dtype)
