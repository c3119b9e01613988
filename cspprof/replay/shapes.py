"""Shapes of what operations compute, by family, from the shapes they read and the arguments on record.

A rule is called with the values read, those of weights and the recorded spec, and gives the values written. It raises
`UnknownError` where the record does not say, or where torch would refuse. Each is checked on the record itself before
it is used: see `plan`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod, trunc
from typing import Any

from cspprof import formulas as f
from cspprof.record import Kind, OpSpec
from cspprof.replay.values import Shape, UnknownError, Value, strides_of, times
from cspprof.replay.views import VIEWS, settled, view_strides

Rule = Callable[[Sequence[Value], Sequence[Value], OpSpec], list[Shape]]
SHAPES: dict[str, Rule] = {}


def shapes(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        SHAPES.update(dict.fromkeys((f"aten.{n}" for n in names), rule))
        return rule

    return register


def written(spec: OpSpec, inputs: Sequence[Value]) -> list[Value]:
    """What the operation writes; `inputs` are what it reads now, weights last. Raises UnknownError."""
    n = len(spec.reads) or len(inputs)  # of weights alone
    reads, weights = inputs[:n], inputs[n:]
    target = spec.target if spec.target in SHAPES or spec.target in VIEWS else spec.target.rstrip("_")
    if spec.kind is Kind.VIEW:
        if target not in VIEWS or len(inputs) != 1:
            raise UnknownError("is a view that replay does not know")
        parts = VIEWS[target](inputs[0], spec.attrs)
        if len(parts) != len(spec.writes):
            raise UnknownError(f"gave {len(spec.writes)} parts in the record, and would give {len(parts)}")
        _keep_rank(spec, [v.shape for v in parts])
        return parts
    rule = SHAPES.get(target) or (_broadcast if spec.kind in POINTWISE else None)
    if spec.macs is None or rule is None or not inputs:
        raise UnknownError("has no rule for other sizes")
    made = rule(reads, weights, spec)
    if len(made) != len(spec.writes):
        raise UnknownError("gives more than is on record")
    _keep_rank(spec, made)
    if any(n < 1 for shape in made for n in shape):
        raise UnknownError(f"has nothing left to give for {', '.join(times(v.shape) for v in reads)}")
    strides = inputs[0].strides if spec.target.endswith("_") else _strides(spec, inputs, made[0])
    return [Value(shape, dtype, strides) for shape, dtype in zip(made, _dtypes(spec, inputs), strict=True)]


def _keep_rank(spec: OpSpec, made: Sequence[Shape]) -> None:
    """The rank of a map is asked for unheard."""
    for now, then in zip(made, spec.writes, strict=True):
        if len(now) != len(then.shape):
            raise UnknownError(f"gave {len(then.shape)} dimensions in the record, and would give {len(now)}")


POINTWISE = frozenset({Kind.ACTIVATION, Kind.ELEMENTWISE})
DENSE = frozenset({Kind.CONV, Kind.LINEAR, Kind.NORM, Kind.CONCAT, Kind.MAX_POOL, Kind.AVG_POOL, Kind.RESIZE})
FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


def _strides(spec: OpSpec, given: Sequence[Value], shape: Shape) -> Shape | None:
    if all(v.strides == () for v in given):
        return ()
    if spec.target in ("aten.contiguous", "aten.layer_norm"):
        return ()
    if (spec.kind in DENSE | POINTWISE or "pad" in spec.attrs) and all(map(_in_order, given)):
        return ()
    if spec.kind in POINTWISE and all(v.strides is not None for v in given):
        strides = f.elementwise_strides(shape, [(v.shape, strides_of(v)) for v in given])
        return () if strides == f.contiguous_strides(shape) else strides
    return None


def _in_order(value: Value) -> bool:
    """Whether dimensions follow each other as in a contiguous tensor, with gaps or without."""
    if value.strides is None:
        return False
    steps = [s for n, s in zip(value.shape, value.strides, strict=False) if n != 1]
    return 0 not in steps and all(a > b for a, b in pairwise(steps))


def _dtypes(spec: OpSpec, given: Sequence[Value]) -> list[str]:
    """Dtypes written: where all floating operands have one, the result has it; another one stays as it is."""
    recorded = [t.dtype for t in (*spec.reads, *spec.weights)]
    if recorded == [v.dtype for v in given]:
        return [t.dtype for t in spec.writes]
    before, now = {d for d in recorded if d in FLOATS}, {v.dtype for v in given if v.dtype in FLOATS}
    complex_too = any(t.dtype.startswith("complex") for t in spec.writes)
    if len(before) != 1 or len(now) != 1 or spec.attrs.get("dtype") is not None or complex_too:
        raise UnknownError("mixes dtypes, and which one comes out is not on record")
    return [now.copy().pop() if t.dtype in before else t.dtype for t in spec.writes]


# -- computing ---------------------------------------------------------------------------------------


@shapes("conv1d", "conv2d", "conv3d")
def conv(reads: Sequence[Value], weights: Sequence[Value], spec: OpSpec) -> list[Shape]:
    x, a = reads[0].shape, spec.attrs
    weight = (*reads[1:], *weights)[0].shape
    if len(x) != len(weight) or x[1] != weight[1] * a["groups"]:
        raise UnknownError(f"was made for {weight[1] * a['groups']} channels and gets {times(x)}")
    window, padding = (a["kernel"], a["stride"], a["dilation"]), a["padding"]
    if padding == "same":
        return [(x[0], weight[0], *x[2:])]
    padding = (0,) * len(x[2:]) if padding == "valid" else padding
    sizes = [f.window_size(n, k, s, p, d) for n, k, s, d, p in zip(x[2:], *window, padding, strict=True)]
    return [(x[0], weight[0], *sizes)]


@shapes("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(reads: Sequence[Value], weights: Sequence[Value], spec: OpSpec) -> list[Shape]:
    x, weight, a = reads[0].shape, weights[0].shape, spec.attrs
    if len(x) != len(weight) or x[1] != weight[0]:
        raise UnknownError(f"was made for {weight[0]} channels and gets {times(x)}")
    more = f.pair(a.get("output_padding", 0), len(x) - 2)
    window = zip(x[2:], a["kernel"], a["stride"], a["padding"], a["dilation"], more, strict=True)
    return [
        (x[0], weight[1] * a["groups"], *((n - 1) * s - 2 * p + d * (k - 1) + o + 1 for n, k, s, p, d, o in window))
    ]


@shapes("linear")
def linear(reads: Sequence[Value], weights: Sequence[Value], spec: OpSpec) -> list[Shape]:
    x = reads[0].shape
    weight = (*reads[1:], *weights)[0].shape
    if x[-1] != weight[-1]:
        raise UnknownError(f"is a linear layer of fixed width: it was made for {weight[-1]} features and gets {x[-1]}")
    return [(*x[:-1], weight[0])]


@shapes("batch_norm", "instance_norm", "group_norm", "layer_norm", "prelu")
def norm(reads: Sequence[Value], weights: Sequence[Value], spec: OpSpec) -> list[Shape]:
    x, a = reads[0].shape, spec.attrs
    if size := a.get("normalized_shape"):
        if x[-len(size) :] != tuple(size):
            raise UnknownError(f"normalises over {times(size)} and gets {times(x)}")
    elif any(w.shape not in ((x[1],), (1,)) for w in weights):
        raise UnknownError(f"has other channels than the {x[1]} that it gets")
    if (a.get("training") or a.get("use_input_stats")) and prod(x) == x[1] * (x[0] if "use_input_stats" in a else 1):
        raise UnknownError("has one value per channel, which training refuses")
    if "num_groups" in a and prod(x) == x[1] == a["num_groups"]:
        raise UnknownError("has one value per group, which torch refuses")
    return [x]


@shapes("softmax", "log_softmax", "dropout", "feature_dropout", "clone", "flip", "roll", "channel_shuffle",
        "native_channel_shuffle", "cumsum")  # fmt: skip
def same(reads: Sequence[Value], weights: Sequence[Value], spec: OpSpec) -> list[Shape]:
    return [reads[0].shape]


@shapes("contiguous")
def contiguous(reads: Sequence[Value], weights: Sequence[Value], spec: OpSpec) -> list[Shape]:
    if spec.attrs.get("memory_format") not in (None, "contiguous_format") or laid_out(reads[0]):
        raise UnknownError("would copy nothing here, as it did in the record")
    return [reads[0].shape]


def laid_out(value: Value) -> bool:
    """Whether a tensor is contiguous. Raises UnknownError where nobody knows."""
    strides_of(value)
    return value.strides == ()


@shapes("reshape", "flatten")
def copied(reads: Sequence[Value], weights: Sequence[Value], spec: OpSpec) -> list[Shape]:
    """Of a tensor that cannot be viewed in that shape."""
    x, a = reads[0], spec.attrs
    if "shape" in a:
        shape = settled(tuple(a["shape"]), prod(x.shape))
    else:
        shape = VIEWS["aten.flatten"](x._replace(strides=()), a)[0].shape
    if view_strides(x.shape, strides_of(x), shape) is not None:
        raise UnknownError("would copy nothing here, as it did in the record")
    return [shape]


def _broadcast(reads: Sequence[Value], weights: Sequence[Value], spec: OpSpec) -> list[Shape]:
    given = [v.shape for v in (*reads, *weights)]
    first = given[0]
    if all(s == first for s in given):
        return [first] * len(spec.writes)
    try:
        shape = f.broadcast(*given)
    except ValueError:
        raise UnknownError(f"meets {' and '.join(map(times, given))}, which do not fit") from None
    if spec.target.endswith("_") and shape != first:
        raise UnknownError(f"writes {times(shape)} into {times(first)}")
    return [shape] * len(spec.writes)


@shapes("cat", "concat", "concatenate")
def cat(reads: Sequence[Value], weights: Sequence[Value], spec: OpSpec) -> list[Shape]:
    given = [v.shape for v in (*reads, *weights)]
    dim = spec.attrs.get("dim", 0) % len(given[0])
    rest = [s[:dim] + s[dim + 1 :] for s in given]
    if any(r != rest[0] for r in rest):
        raise UnknownError(f"joins {', '.join(map(times, given))}, whose sizes differ")
    return [(*given[0][:dim], sum(s[dim] for s in given), *given[0][dim + 1 :])]


@shapes("stack")
def stack(reads: Sequence[Value], weights: Sequence[Value], spec: OpSpec) -> list[Shape]:
    given = [v.shape for v in (*reads, *weights)]
    if any(s != given[0] for s in given):
        raise UnknownError(f"stacks {', '.join(map(times, given))}, whose sizes differ")
    dim = spec.attrs.get("dim", 0) % (len(given[0]) + 1)
    return [(*given[0][:dim], len(given), *given[0][dim:])]


@shapes("mean", "sum", "amax", "amin", "max", "min", "argmax", "argmin", "std", "var", "std_mean", "var_mean", "prod",
        "any", "all", "logsumexp")  # fmt: skip
def reduction(reads: Sequence[Value], weights: Sequence[Value], spec: OpSpec) -> list[Shape]:
    x, a = reads[0].shape, spec.attrs
    if len(reads) > 1:
        return _broadcast(reads, weights, spec)  # max of two tensors
    dim = a.get("dim")
    dims = range(len(x)) if dim is None or dim == () else [dim] if isinstance(dim, int) else dim
    gone = {d % len(x) for d in dims}
    kept = tuple(1 if i in gone else n for i, n in enumerate(x) if a.get("keepdim") or i not in gone)
    return [kept] * len(spec.writes)


# -- windows and sizes -------------------------------------------------------------------------------


@shapes(
    *(
        f"{kind}_pool{n}d{more}"
        for n in (1, 2, 3)
        for kind, more in (("max", ""), ("avg", ""), ("max", "_with_indices"))
    )
)
def pool(reads: Sequence[Value], weights: Sequence[Value], spec: OpSpec) -> list[Shape]:
    x, a = reads[0].shape, spec.attrs
    kernel = a["kernel"]
    n = len(kernel)
    stride = f.pair(a.get("stride") or kernel, n)
    padding, dilation = f.pair(a.get("padding", 0), n), f.pair(a.get("dilation", 1), n)
    window = zip(x[-n:], kernel, stride, padding, dilation, strict=True)
    sizes = [f.window_size(m, k, s, p, d, a.get("ceil_mode", False)) for m, k, s, p, d in window]
    return [(*x[:-n], *sizes)] * len(spec.writes)


@shapes(*(f"adaptive_{kind}_pool{n}d" for n in (1, 2, 3) for kind in ("avg", "max")))
def adaptive_pool(reads: Sequence[Value], weights: Sequence[Value], spec: OpSpec) -> list[Shape]:
    x, size = reads[0].shape, tuple(spec.attrs["output_size"])
    n = len(size)
    return [(*x[:-n], *size)] * len(spec.writes)


@shapes(*(f"upsample_{how}" for how in ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "bicubic2d",
          "trilinear3d")), "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d",
        "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa")  # fmt: skip
def resize(reads: Sequence[Value], weights: Sequence[Value], spec: OpSpec) -> list[Shape]:
    x, a = reads[0].shape, spec.attrs
    if a.get("output_size") is not None:
        return [(*x[:2], *a["output_size"])]
    scales: Any = a["scale_factors"]
    return [(*x[:2], *(trunc(n * s) for n, s in zip(x[2:], scales, strict=True)))]


@shapes("pad", "constant_pad_nd")
def pad(reads: Sequence[Value], weights: Sequence[Value], spec: OpSpec) -> list[Shape]:
    x, ends = reads[0].shape, spec.attrs["pad"]
    shape, reflected = list(x), spec.attrs.get("mode", "constant") != "constant"
    for i in range(len(ends) // 2):
        before, after = ends[2 * i : 2 * i + 2]
        if reflected and max(before, after) >= x[-1 - i]:
            raise UnknownError(f"pads {times(x)} by {max(before, after)}")
        shape[-1 - i] += before + after
    return [tuple(shape)]


@shapes("scaled_dot_product_attention")
def attention(reads: Sequence[Value], weights: Sequence[Value], spec: OpSpec) -> list[Shape]:
    """In another dtype; on another number of tokens it is refused before: see `plan`."""
    return [(*reads[0].shape[:-1], reads[2].shape[-1])]


@shapes("pixel_shuffle")
def pixel_shuffle(reads: Sequence[Value], weights: Sequence[Value], spec: OpSpec) -> list[Shape]:
    (*batch, c, h, w), r = reads[0].shape, spec.attrs["upscale_factor"]
    return [(*batch, c // r**2, h * r, w * r)]


@shapes("pixel_unshuffle")
def pixel_unshuffle(reads: Sequence[Value], weights: Sequence[Value], spec: OpSpec) -> list[Shape]:
    (*batch, c, h, w), r = reads[0].shape, spec.attrs["downscale_factor"]
    if h % r or w % r:
        raise UnknownError(f"cannot fold {h}×{w} by {r}")
    return [(*batch, c * r**2, h // r, w // r)]


@shapes("matmul", "bmm", "mm")
def matmul(reads: Sequence[Value], weights: Sequence[Value], spec: OpSpec) -> list[Shape]:
    left, right = (v.shape for v in (*reads, *weights))
    if min(len(left), len(right)) < 2 or left[-1] != right[-2]:
        raise UnknownError(f"multiplies {times(left)} by {times(right)}")
    try:
        return [(*f.broadcast(left[:-2], right[:-2]), left[-2], right[-1])]
    except ValueError:
        raise UnknownError(f"multiplies {times(left)} by {times(right)}") from None
