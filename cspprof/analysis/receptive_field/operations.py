"""The receptive field of the outputs of each operation, from those of its operands."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import combinations
from math import comb
from typing import NamedTuple

from cspprof.analysis.receptive_field.concatenation import concatenated
from cspprof.analysis.receptive_field.field import (
    MISFITS,
    UNORDERED,
    Factor,
    Field,
    Segments,
    Value,
    joined,
    merged,
    mixed,
    nowhere,
    plain,
    reshaped,
    segments,
    summary,
    unknown_field,
    unordered_dim,
    windowed,
)
from cspprof.analysis.receptive_field.intervals import UnfollowedError, affine
from cspprof.analysis.receptive_field.views import RESHAPES, SLICES, SPLITS, TRANSPOSES, expanded, viewed
from cspprof.analysis.receptive_field.windows import (
    convolved,
    folded,
    padded,
    pooled,
    resized,
    shuffled_down,
    shuffled_up,
    unfolded,
)
from cspprof.core.record import CONVOLUTIONS, POOLS, Kind, OpSpec

Shape = Sequence[int]


class Operands(NamedTuple):
    """The fields of what a call reads."""

    reads: tuple[Value, ...]
    """One for each tensor of `spec.reads`."""
    weights: tuple[Value, ...]

    @property
    def known(self) -> list[Value]:
        """Those that depend on the input."""
        return [value for value in (*self.reads, *self.weights) if value is not None]


def output_fields(spec: OpSpec, operands: Operands, lengths: Sequence[int]) -> tuple[list[Value], bool]:
    """The field of each output of a call, and whether the reach of the operation is known.

    If it is not, the outputs are lower bounds: the fields of the operands of the same shape. `lengths` are the sizes of
    the input along its axes.
    """
    if not operands.known or _is_constant(spec):
        return [None] * len(spec.writes), True
    try:
        return _followed(spec, operands), True
    except (UnfollowedError, *MISFITS):
        return [_lower_bound(operands, write.shape, lengths) for write in spec.writes], False


def _followed(spec: OpSpec, operands: Operands) -> list[Value]:
    name = _name(spec)
    if name in ("split", "unbind", "chunk") or name in SPLITS or spec.kind is Kind.VIEW:
        return [viewed(operands.known[0], spec, i) for i in range(len(spec.writes))]
    outputs = [_by_parts(spec, operands, write.shape) for write in spec.writes[:1]]
    if len(spec.writes) > 1:
        outputs += [_further_output(spec, outputs[0], write.shape) for write in spec.writes[1:]]
    return outputs


def _further_output(spec: OpSpec, first: Value, shape: Shape) -> Value:
    """The field of another output: of indices and statistics that come with the first one."""
    if first is None or tuple(shape) == first.shape:
        return first
    if spec.kind is Kind.RECURRENT:
        field = merged(first)
        assert field is not None
        seq = 1 if spec.attrs.get("batch_first") else 0
        whole = mixed(field, {seq}, keep=False)
        batch = whole.dims[1 - seq]
        return replace(whole, dims=(plain(shape[0]), batch, plain(shape[-1]))) if len(shape) == 3 else summary(field)
    raise UnfollowedError


def _by_parts(spec: OpSpec, operands: Operands, shape: Shape) -> Value:
    """The output, in segments if an operand is and the operation treats each channel by itself."""
    values = operands.known
    cut = next((value for value in values if isinstance(value, Segments)), None)
    name = _name(spec)
    if spec.kind is Kind.CONCAT:
        return concatenated(spec, operands.reads, shape)
    if name in SLICES and spec.kind is Kind.DATA:
        return viewed(values[0], spec)
    if cut is None or len(shape) != len(cut.shape) or shape[cut.dim] != cut.shape[cut.dim] or cut.dim != 1:
        return _output(spec, operands, shape)
    depthwise = spec.kind is Kind.CONV and spec.attrs["groups"] == shape[1] == spec.reads[0].shape[1]
    by_channel = spec.kind in (Kind.ACTIVATION, Kind.ELEMENTWISE, Kind.RESIZE) or spec.kind in POOLS or depthwise
    by_channel = by_channel or (spec.kind is Kind.NORM and "batch" in name) or name in COPIES or "pad" in name
    if not by_channel or spec.attrs.get("training") or name.startswith("glu"):
        return _output(spec, operands, shape)
    sizes = [part.shape[1] for part in cut.parts]
    if any(isinstance(v, Segments) and [part.shape[1] for part in v.parts] != sizes for v in values):
        return _output(spec, operands, shape)
    parts = []
    for i, size in enumerate(sizes):
        own = Operands(tuple(_part(v, i, size, len(shape)) for v in operands.reads), operands.weights)
        part = _output(spec, own, (shape[0], size, *shape[2:]))
        field = merged(part)
        if field is None:
            raise UnfollowedError
        parts.append(field)
    return segments(1, parts)


def _part(value: Value, i: int, size: int, rank: int) -> Value:
    """Segment `i` of an operand; of one without segments, its channels."""
    if isinstance(value, Segments):
        return value.parts[i]
    d = 1 - rank + len(value.dims) if value is not None else 0
    if value is None or d < 0 or value.shape[d] == 1 or value.has_positions(d):
        return value
    return value.with_dim(d, plain(size))


def _output(spec: OpSpec, operands: Operands, shape: Shape) -> Value:
    """The field of the first output."""
    rule = _RULES.get(_name(spec)) or _KINDS.get(spec.kind)
    if rule is None:
        raise UnfollowedError
    fields = Operands(tuple(map(merged, operands.reads)), tuple(map(merged, operands.weights)))
    result = rule(spec, fields, shape)
    if result is not None and result.shape != tuple(shape):
        raise UnfollowedError
    return result


def _lower_bound(operands: Operands, shape: Shape, lengths: Sequence[int]) -> Value:
    fields = [f for f in map(merged, operands.known) if f is not None]
    same = [f for f in fields if f.shape == tuple(shape) or (len(f.shape) == len(shape) and _spatially_equal(f, shape))]
    try:
        if same:
            return replace(joined([_with_shape(f, shape) for f in same], shape), at_least=True)
    except (UnfollowedError, *MISFITS):
        pass
    return unknown_field(shape, lengths)


def _spatially_equal(field: Field, shape: Shape) -> bool:
    return all(field.shape[d] == shape[d] or not field.has_positions(d) for d in range(len(shape)))


def _with_shape(field: Field, shape: Shape) -> Field:
    for d, size in enumerate(shape):
        if field.shape[d] != size:
            field = field.with_dim(d, plain(size))
    return field


# -- rules ----------------------------------------------------------------------------------------------

Rule = Callable[[OpSpec, Operands, Shape], Field | None]


def _fields(operands: Operands) -> list[Field]:
    return [value for value in operands.known if isinstance(value, Field)]


def _first(operands: Operands) -> Field:
    """The field of the operand that depends on the input. Raises UnfollowedError if others do too."""
    fields = _fields(operands)
    if len(fields) != 1:
        raise UnfollowedError
    return fields[0]


def _elementwise(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    fields = _fields(operands)
    rank = len(shape)
    for f in fields:
        if len(f.dims) > rank or any(a not in (1, b) for a, b in zip(f.shape[::-1], shape[::-1], strict=False)):
            raise UnfollowedError
    return joined(fields, shape)


def _gated(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    """Half of the elements along a dimension scale the others."""
    field = _first(operands)
    for d, size in enumerate(shape):
        if field.shape[d] != size:
            if field.has_positions(d):
                raise UnfollowedError
            field = field.with_dim(d, plain(size))
    return field


def _with_dynamic_weights(field: Field, weights: Sequence[Value], shape: Shape) -> Field:
    """The field of an output that also depends on weights that were computed from the input, all of them."""
    dynamic = [summary(f) for f in map(merged, weights) if f is not None]
    if not dynamic:
        return field
    scalars = [replace(f, dims=()) for f in dynamic]
    return joined([field, *scalars], shape)


def _convolution(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    data = merged(operands.reads[0]) if operands.reads else None
    others = (*operands.reads[1:], *operands.weights)
    if data is None:
        if "deform" in spec.name:
            raise UnfollowedError
        return _with_dynamic_weights(nowhere(_fields(operands)[0], shape), others, shape)
    return _with_dynamic_weights(convolved(data, spec, shape), others, shape)


def _pool(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    field = _first(operands)
    if spec.attrs.get("global") and "dim" not in spec.attrs and "axes" not in spec.attrs:
        result = pooled(field, spec, shape)
        return result if result.shape == tuple(shape) else reshaped(result, shape)
    if spec.attrs.get("global"):
        return _reduction(spec, operands, shape)
    return pooled(field, spec, shape)


def _resize(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    return resized(_first(operands), spec, shape)


def _norm(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    name, rank = _name(spec), len(shape)
    field = merged(operands.reads[0]) if operands.reads else None
    if field is None:
        raise UnfollowedError
    over: Collection[int]
    if "batch" in name:
        over = {d for d in range(rank) if d != 1} if spec.attrs.get("training") or "with_update" in name else ()
    elif "instance" in name:
        over = range(2, rank)
    elif "group" in name:
        over = range(1, rank)
    elif "normalized_shape" in spec.attrs:
        over = range(rank - len(spec.attrs["normalized_shape"]), rank)
    elif name == "meanvariancenormalization":
        over = [d % rank for d in spec.attrs.get("axes", (0, 2, 3))]
    elif name == "lpnormalization":
        over = {spec.attrs.get("axis", -1) % rank}
    elif "layer" in name or "rms" in name:
        over = range(spec.attrs.get("axis", -1) % rank, rank)
    elif name in ("lrn", "local_response_norm"):
        over = ()
    else:
        raise UnfollowedError
    result = mixed(field, over)
    return _with_dynamic_weights(result, (*operands.reads[1:], *operands.weights), shape)


def _softmax(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    d = spec.attrs.get("dim", spec.attrs.get("axis", -1))
    return mixed(_elementwise(spec, operands, shape), {d % len(shape)} if shape else ())


def _linear(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    data = merged(operands.reads[0]) if operands.reads else None
    others = (*operands.reads[1:], *operands.weights)
    if data is None or spec.attrs.get("transA") or "cross_entropy" in spec.name:
        raise UnfollowedError
    last = len(data.dims) - 1
    return _with_dynamic_weights(mixed(data, {last}, keep=False).with_dim(last, plain(shape[-1])), others, shape)


def _matmul(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    if not any(word in spec.name.lower() for word in ("matmul", "mm", "mv", "dot")) or "group" in spec.name:
        raise UnfollowedError
    reads = [*zip(spec.reads, operands.reads, strict=True)]
    weights = [*zip(spec.weights, operands.weights, strict=True)]
    bias = None
    if spec.name.startswith(("addmm", "baddbmm", "_addmm", "addmv")) and len(reads) + len(weights) > 2:
        bias = merged((weights if len(weights) > 1 else reads).pop(0)[1])
    if spec.name.startswith("addbmm") or len(reads) + len(weights) != 2:
        raise UnfollowedError
    first, second = [*reads, *weights]
    orders = [(first, second)]
    if len(reads) == 1:  # the record lists weights behind activations, whichever side they are on
        orders.append((second, first))
    found: list[Field] = []
    for (left_spec, left), (right_spec, right) in orders:
        if _fit(left_spec.shape, right_spec.shape, shape):
            found.append(_product(merged(left), left_spec.shape, merged(right), right_spec.shape, shape))
    if not found or any(f != found[0] for f in found):
        raise UnfollowedError
    return joined([found[0], bias], shape) if isinstance(bias, Field) else found[0]


def _fit(left: Shape, right: Shape, out: Shape) -> bool:
    """Whether the product of these shapes has the shape `out`."""
    if not left or not right:
        return False
    inner = right[-2] if len(right) > 1 else right[-1]
    tail = (*left[-2:-1], *(right[-1:] if len(right) > 1 else ()))
    return left[-1] == inner and tuple(out[len(out) - len(tail) :]) == tail


def _product(left: Field | None, left_shape: Shape, right: Field | None, right_shape: Shape, shape: Shape) -> Field:
    rows = left_shape[-2:-1] if len(left_shape) > 1 else (1,)
    columns = right_shape[-1:] if len(right_shape) > 1 else (1,)
    cut = len(shape) - (len(left_shape) > 1) - (len(right_shape) > 1)
    out = (*shape[:cut], *rows, *columns)
    factors = []
    if left is not None:
        of_left = reshaped(left, (*left_shape[:-2], *rows, left_shape[-1]))
        factors.append(mixed(of_left, {len(of_left.dims) - 1}, keep=False))
    if right is not None:
        of_right = reshaped(
            right, (*right_shape[:-2], right_shape[-2] if len(right_shape) > 1 else right_shape[0], *columns)
        )
        of_right = mixed(of_right, {len(of_right.dims) - 2}, keep=False)
        last = len(of_right.dims) - 1
        if left is not None and factors[0].has_positions(len(factors[0].dims) - 2) and of_right.has_positions(last):
            of_right = mixed(of_right, {last}, keep=False)  # a score depends on two positions; a row on all
        factors.append(of_right)
    return reshaped(joined(factors, out), shape)


def _attention(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    if not any(word in spec.name for word in ("scaled_dot_product", "flex_attention")):
        raise UnfollowedError
    if spec.weights or len(spec.reads) < 3:
        raise UnfollowedError
    query, key, value, *others = operands.reads
    rank = len(shape)
    parts = []
    for operand, over in ((query, {rank - 1}), (key, {rank - 2, rank - 1}), (value, {rank - 2, rank - 1})):
        field = merged(operand)
        if field is not None:
            if len(field.dims) != rank:
                raise UnfollowedError
            part = mixed(field, over, keep=False)
            if part.shape[1] not in (1, shape[1]) and rank == 4:  # grouped queries
                part = unordered_dim(part, 1, shape[1])
            parts.append(part)
    parts += [replace(summary(f), dims=()) for f in map(merged, others) if f is not None]
    return joined(parts, shape)


def _recurrent(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    data = merged(operands.reads[0]) if operands.reads else None
    if data is None or len(shape) != 3 or len(data.dims) != 3:
        raise UnfollowedError
    seq = 1 if spec.attrs.get("batch_first") else 0
    field = mixed(mixed(data, {2}, keep=False), {seq}).with_dim(2, plain(shape[2]))
    return _with_dynamic_weights(field, (*operands.reads[1:], *operands.weights), shape)


def _reduction(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    name = _name(spec)
    fields = _fields(operands)
    before = fields[0].shape
    if name.startswith(("cum", "logcum")):
        d = spec.attrs.get("dim", spec.attrs.get("axis"))
        return mixed(_first(operands), {d % len(shape)} if d is not None and shape else range(len(shape)))
    if len(fields) > 1:  # a loss: its mean, or one for each element
        return summary(joined(fields, before)) if not shape else _elementwise(spec, operands, shape)
    over = _reduced_dims(spec, before, shape)
    result = mixed(fields[0], over, keep=False)
    return reshaped(result, shape)


MOST_CHOICES = 10_000
"""The ways to leave out dimensions that are tried."""


def _reduced_dims(spec: OpSpec, before: Shape, after: Shape) -> Collection[int]:
    named = spec.attrs.get("dim", spec.attrs.get("axes", spec.attrs.get("axis")))
    rank = len(before)
    if named is not None and named != ():
        return {d % rank for d in ((named,) if isinstance(named, int) else named)}
    if all(n == 1 for n in after):
        return range(rank)
    if rank == len(after):
        return {d for d in range(rank) if before[d] != after[d]}
    if comb(rank, len(after)) > MOST_CHOICES:
        raise UnfollowedError
    found = [
        dims for dims in combinations(range(rank), rank - len(after))
        if [n for d, n in enumerate(before) if d not in dims] == list(after)
    ]  # fmt: skip
    if len(found) != 1:
        raise UnfollowedError
    return found[0]


def _embedding(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    field = _first(operands)
    if field.shape != tuple(shape[: len(field.dims)]) or "bag" in spec.name:
        raise UnfollowedError
    return replace(field, dims=(*field.dims, *map(plain, shape[len(field.dims) :])))


def _fourier(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    """Each frequency depends on all positions along the transformed dimensions."""
    field = _first(operands)
    over = spec.attrs.get("dim")
    named = range(len(field.dims)) if not isinstance(over, (int, tuple)) else (over,) if isinstance(over, int) else over
    transformed = {d % len(field.dims) for d in named}
    result = mixed(field, transformed)
    if len(shape) != len(field.dims):
        raise UnfollowedError
    for d in transformed:
        result = _without_positions(result, d, shape[d])
    return result


def _without_positions(field: Field, d: int, size: int) -> Field:
    """The field with elements along dimension `d` that lie nowhere on the input, such as frequencies."""
    for factor in field.dims[d]:
        if factor.axis >= 0 and field.axes[factor.axis].everywhere is not None:
            field = field.with_axis(factor.axis, None)
    return field.with_dim(d, plain(size))


# -- copies of elements -----------------------------------------------------------------------------------

_COPIES = (
    "clone copy contiguous to _to_copy cast castlike bitcast dropout native_dropout feature_dropout alpha_dropout "
    "lift lift_fresh alias_copy detach_copy _lazy_clone tril triu trilu channel_shuffle native_channel_shuffle "
    "masked_fill _fused_dropout _to_dense to_mkldnn"
)
COPIES = frozenset(_COPIES.split())
_CONSTANTS = (
    "zero zeros_like ones_like full_like empty_like rand_like randn_like randint_like new_zeros new_ones new_empty "
    "new_full new_empty_strided zeros ones full empty rand randn arange range shape size eye constantofshape "
    "randomnormallike randomuniformlike fill uniform normal bernoulli random eyelike"
)
CONSTANTS = frozenset(_CONSTANTS.split())


def _is_constant(spec: OpSpec) -> bool:
    """Whether the values of the outputs do not depend on those of the operands."""
    return _name(spec) in CONSTANTS and spec.kind is Kind.DATA


def _copy(spec: OpSpec, operands: Operands, shape: Shape) -> Field | None:
    """The elements of the operand, or of the second one that is written into the first."""
    if _name(spec) == "copy" and len(spec.reads) + len(spec.weights) > 1:
        source = merged(operands.reads[1] if len(operands.reads) > 1 else operands.weights[0])
        return None if source is None else expanded(source, shape)
    return _elementwise(spec, operands, shape)


def _view(spec: OpSpec, operands: Operands, shape: Shape) -> Field | None:
    return merged(viewed(_first(operands), spec))


def _pad(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    field, rank = _first(operands), len(shape)
    pads = spec.attrs.get("pad", spec.attrs.get("padding"))
    if pads is not None:
        ends = (pads,) * 2 * (rank - 2) if isinstance(pads, int) else pads
        before = {rank - 1 - i: ends[2 * i] for i in range(len(ends) // 2)}
    elif "pads" in spec.attrs:
        axes = spec.attrs.get("axes") or range(rank)
        before = {d % rank: spec.attrs["pads"][i] for i, d in enumerate(axes)}
    elif all(field.shape[d] == n or not field.has_positions(d) for d, n in enumerate(shape)):
        before = {}
    else:
        raise UnfollowedError
    return padded(field, before, shape)


def _roll(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    field = _first(operands)
    dims, shifts = spec.attrs.get("dims") or (), spec.attrs["shifts"]
    if not dims:
        raise UnfollowedError
    for d, shift in zip(dims, shifts if isinstance(shifts, tuple) else (shifts,), strict=True):
        if field.has_positions(d % len(shape)):
            size = shape[d]
            shift = (shift + size // 2) % size - size // 2  # the shorter way
            field = windowed(field, d % len(shape), affine(1, -shift, -shift), size)
    return field


def _flip(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    field = _first(operands)
    for d in spec.attrs["dims"]:
        field = windowed(field, d % len(shape), affine(-1, shape[d] - 1, shape[d] - 1), shape[d])
    return field


def _repeat(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    return expanded(_first(operands), shape)


def _shuffle_up(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    return shuffled_up(_first(operands), spec.attrs.get("upscale_factor", spec.attrs.get("blocksize")), shape)


def _shuffle_down(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    return shuffled_down(_first(operands), spec.attrs.get("downscale_factor", spec.attrs.get("blocksize")), shape)


def _im2col(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    return unfolded(_first(operands), spec, shape)


def _col2im(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    if "kernel_size" not in spec.attrs:
        raise UnfollowedError
    return folded(_first(operands), spec, shape)


def _select(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    """Elements at indices that the record does not hold, along one dimension."""
    field = _first(operands)
    axis = spec.attrs.get("dim", spec.attrs.get("axis", 0 if spec.target.startswith("onnx.") else None))
    if axis is None:
        if len(shape) != len(field.dims) or _name(spec) in ("take", "gather"):
            raise UnfollowedError
        changed = [d for d, n in enumerate(shape) if field.shape[d] != n]
        for d in changed or range(len(shape)):
            field = unordered_dim(field, d, shape[d])
        return field
    d = axis % len(field.dims)
    indices = len(shape) - len(field.dims) + 1
    field = unordered_dim(field, d, 1)
    dims = [(Factor(n, UNORDERED),) if field.dims[d][0].axis == UNORDERED else plain(n) for n in shape[d : d + indices]]
    return replace(field, dims=(*field.dims[:d], *dims, *field.dims[d + 1 :]))


def _sort(spec: OpSpec, operands: Operands, shape: Shape) -> Field:
    """Each element may be any of those along the dimension."""
    field = _first(operands)
    d = spec.attrs.get("dim", spec.attrs.get("axis", -1)) % len(shape)
    return unordered_dim(mixed(field, {d}), d, shape[d])


_KINDS: dict[Kind, Rule] = {
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    **dict.fromkeys(POOLS, _pool),
    Kind.ACTIVATION: _elementwise,
    Kind.ELEMENTWISE: _elementwise,
    Kind.NORM: _norm,
    Kind.SOFTMAX: _softmax,
    Kind.LINEAR: _linear,
    Kind.MATMUL: _matmul,
    Kind.ATTENTION: _attention,
    Kind.RECURRENT: _recurrent,
    Kind.REDUCTION: _reduction,
    Kind.RESIZE: _resize,
    Kind.EMBEDDING: _embedding,
    Kind.FFT: _fourier,
}

_PADS = (
    "pad constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d "
    "replication_pad3d _pad_circular"
)
_RULES: dict[str, Rule] = {
    **dict.fromkeys(COPIES, _copy),
    **dict.fromkeys(RESHAPES | TRANSPOSES | SLICES, _view),
    **dict.fromkeys(_PADS.split(), _pad),
    **dict.fromkeys(("repeat", "tile", "expand", "expand_copy"), _repeat),
    **dict.fromkeys(("pixel_shuffle", "depthtospace"), _shuffle_up),
    **dict.fromkeys(("pixel_unshuffle", "spacetodepth"), _shuffle_down),
    **dict.fromkeys(("index", "_unsafe_index", "index_select", "gather"), _select),
    **dict.fromkeys(("topk", "sort", "argsort", "msort"), _sort),
    "glu": _gated,
    "roll": _roll,
    "flip": _flip,
    "im2col": _im2col,
    "col2im": _col2im,
}


def _name(spec: OpSpec) -> str:
    """The name without the underscore of an in-place operation, in lower case, as ONNX's differ."""
    return spec.name.lower().rstrip("_")
