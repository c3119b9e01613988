"""The receptive fields of operations with a sliding window: convolutions, pooling, resizing, folding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil, floor, gcd
from typing import Any

from cspprof.analysis.receptive_field.field import Field, mixed, on_grid, plain, windowed
from cspprof.analysis.receptive_field.intervals import Intervals, Span, UnfollowedError, affine, periodic, positions
from cspprof.core import formulas as f
from cspprof.core.record import Kind, OpSpec

LINEAR, CUBIC, LANCZOS = 1, 2, 3
"""How many elements on each side an interpolation reads."""


def convolved(field: Field, spec: OpSpec, shape: Sequence[int]) -> Field:
    """The output of a convolution. Each element depends on all channels."""
    if "deform" in spec.name.lower():
        raise UnfollowedError  # the offsets are values
    kernel = spec.attrs["kernel"]
    n = len(kernel)
    spatial, channels = range(len(shape) - n, len(shape)), len(shape) - n - 1
    if spec.name == "conv_tbc":
        spatial, channels = range(1), 2
    field = mixed(field, {channels}, keep=False)
    for i, d in enumerate(spatial):
        reads = _transposed if spec.kind is Kind.CONV_TRANSPOSE else _window
        field = windowed(field, d, reads(spec.attrs, i, n, field.shape[d], shape[d]), shape[d])
    return field.with_dim(channels, plain(shape[channels]))


def pooled(field: Field, spec: OpSpec, shape: Sequence[int]) -> Field:
    """The output of pooling over windows, adaptive ones too."""
    attrs = spec.attrs
    if "unpool" in spec.name or "fractional" in spec.name:
        raise UnfollowedError  # the places are values, or random
    if attrs.get("global"):
        n = len(attrs["kernel"])
        return mixed(field, range(len(field.dims) - n, len(field.dims)), keep=False)
    sizes = attrs["output_size"] if "kernel" not in attrs else attrs["kernel"]
    for i, d in enumerate(range(len(shape) - len(sizes), len(shape))):
        before, after = field.shape[d], shape[d]
        reads = _window(attrs, i, len(sizes), before, after) if "kernel" in attrs else _adaptive(before, after)
        field = windowed(field, d, reads, after)
    return field


def resized(field: Field, spec: OpSpec, shape: Sequence[int]) -> Field:
    """The output of nearest, linear or cubic interpolation. Sampling at positions that are values is not followed."""
    name = spec.name.lower()
    if not name.startswith(("upsample", "_upsample", "resize")):
        raise UnfollowedError
    scales = spec.attrs.get("scale_factors", spec.attrs.get("scales")) or ()
    n = len(shape) - 2
    for i, d in enumerate(range(2, len(shape))):
        scale = scales[i] if len(scales) == n else None
        field = windowed(field, d, _resize(spec, name, field.shape[d], shape[d], scale), shape[d])
    return field


def unfolded(field: Field, spec: OpSpec, shape: Sequence[int]) -> Field:
    """The output (N, C·kernel, positions of the window) of im2col."""
    attrs = {**spec.attrs, "kernel": spec.attrs["kernel_size"]}
    for i, d in enumerate(range(len(field.dims) - 2, len(field.dims))):
        k, s, p, dil = (_entry(attrs, name, i, 2, default) for name, default in _DEFAULTS)
        count = f.window_size(field.shape[d], k, s, p, dil)
        field = windowed(field, d, _window(attrs, i, 2, field.shape[d], count), count)
    *before, _, rows, columns = field.dims
    return Field((*before, plain(shape[-2]), (*rows, *columns)), field.axes, field.at_least)


def folded(field: Field, spec: OpSpec, shape: Sequence[int]) -> Field:
    """The output (N, C, H, W) of col2im, the sum of the windows at all positions."""
    attrs = {**spec.attrs, "kernel": spec.attrs["kernel_size"]}
    *before, _, places = field.dims
    counts = []
    for i, size in enumerate(shape[-2:]):
        k, s, p, dil = (_entry(attrs, name, i, 2, default) for name, default in _DEFAULTS)
        counts.append(f.window_size(size, k, s, p, dil))
    if [factor.size for factor in places] != counts:
        raise UnfollowedError
    field = Field((*before, plain(shape[-3]), *((factor,) for factor in places)), field.axes, field.at_least)
    for i, d in enumerate(range(len(shape) - 2, len(shape))):
        field = windowed(field, d, _transposed(attrs, i, 2, field.shape[d], shape[d]), shape[d])
    return field


def shuffled_up(field: Field, factor: int, shape: Sequence[int]) -> Field:
    """The output of pixel shuffle: `factor` neighbors come from the channels of one position."""
    for d in range(len(shape) - 2, len(shape)):
        field = windowed(field, d, periodic([(0, 0) for _ in positions(factor)], 1), shape[d])
    return field.with_dim(len(shape) - 3, plain(shape[-3]))


def shuffled_down(field: Field, factor: int, shape: Sequence[int]) -> Field:
    """The output of pixel unshuffle: the channels of a position come from `factor` neighbors."""
    for d in range(len(shape) - 2, len(shape)):
        field = windowed(field, d, affine(factor, 0, factor - 1), shape[d])
    return field.with_dim(len(shape) - 3, plain(shape[-3]))


def padded(field: Field, before: Mapping[int, int], shape: Sequence[int]) -> Field:
    """The output of padding by `before[d]` positions in front of dimension d. Every mode counts as positions beyond the
    border."""
    for d, size in enumerate(shape):
        if size != field.shape[d] or before.get(d):
            _, axis = on_grid(field, d)
            left = before.get(d, 0)
            field = (
                field.with_dim(d, plain(size)) if axis is None else windowed(field, d, affine(1, -left, -left), size)
            )
    return field


# -- one axis -----------------------------------------------------------------------------------------

_DEFAULTS = (("kernel", 1), ("stride", 1), ("padding", 0), ("dilation", 1))


def _entry(attrs: Mapping[str, Any], name: str, i: int, n: int, default: int) -> int:
    """The entry of an argument for the i-th of n spatial dimensions."""
    value = attrs.get(name)
    if value is None or value == ():
        return default
    return int(value) if isinstance(value, int) else int(value[i if len(value) >= n else 0])


def _window(attrs: Mapping[str, Any], i: int, n: int, before: int, after: int) -> Intervals:
    """A window over a dimension of size `before`, at `after` positions."""
    kernel = _entry(attrs, "kernel", i, n, 1)
    default_stride = kernel if "kernel_size" in attrs else 1  # as torch's pooling
    stride = _entry(attrs, "stride", i, n, default_stride)
    dilation = _entry(attrs, "dilation", i, n, 1)
    reach = (kernel - 1) * dilation
    padding, automatic = attrs.get("padding"), str(attrs.get("auto_pad", ""))
    if automatic.startswith("SAME"):
        total = max((after - 1) * stride + reach + 1 - before, 0)
        left = total - total // 2 if automatic == "SAME_LOWER" else total // 2
    elif isinstance(padding, str):
        left = reach // 2 if padding == "same" else 0
    else:
        left = _entry(attrs, "padding", i, n, 0)
    return affine(stride, -left, reach - left)


def _transposed(attrs: Mapping[str, Any], i: int, n: int, before: int, after: int) -> Intervals:
    """Output o reads the inputs j with o = j·stride − padding + k·dilation for a k of the kernel."""
    if str(attrs.get("auto_pad", "NOTSET")) != "NOTSET" or "output_shape" in attrs:
        raise UnfollowedError
    kernel, stride, padding, dilation = (_entry(attrs, name, i, n, default) for name, default in _DEFAULTS)
    pattern: list[Span | None] = []
    positions(stride * kernel)
    for o in range(stride):
        places = [o + padding - k * dilation for k in range(kernel)]
        read = [place // stride for place in places if place % stride == 0]
        pattern.append((min(read), max(read)) if read else None)
    return periodic(pattern, 1)


def _adaptive(before: int, after: int) -> Intervals:
    """The windows of adaptive pooling from one size to another."""
    period = after // gcd(before, after)
    pattern = [(i * before // after, -(-(i + 1) * before // after) - 1) for i in positions(period)]
    return periodic(pattern, before // gcd(before, after))


def _resize(spec: OpSpec, name: str, before: int, after: int, factor: float | None) -> Intervals:
    """An interpolation from one size to another. `factor` is that of the call, which may not fit the sizes exactly."""
    attrs = spec.attrs
    if before == after and factor in (None, 1):
        return affine(1)
    scale = Fraction(before, after) if not factor else 1 / Fraction(factor).limit_denominator(1000)
    mode = str(attrs.get("mode", name))
    where = str(attrs.get("coordinate_transformation_mode", "asymmetric" if name == "upsample" else "half_pixel"))
    if attrs.get("align_corners"):
        where = "align_corners"
    if name.endswith("_aa") or attrs.get("antialias"):
        return _antialiased(scale, LINEAR if "linear" in mode else CUBIC if "cubic" in mode else LANCZOS)
    if "nearest" in mode:
        rounding = str(attrs.get("nearest_mode", "floor" if name == "upsample" else "round_prefer_floor"))
        if name.startswith("upsample_nearest"):
            where, rounding = "asymmetric", "floor"
        elif "exact" in name:
            where, rounding = "half_pixel", "round_prefer_ceil"
        rounded = _ROUNDINGS[rounding]
        return _sampled(scale, where, before, after, lambda at: (rounded(at), rounded(at)))
    if not any(word in mode for word in ("linear", "cubic")):
        raise UnfollowedError
    reach = CUBIC if "cubic" in mode else LINEAR
    return _sampled(scale, where, before, after, lambda at: _neighbors(at, reach))


_ROUNDINGS = {
    "floor": floor,
    "ceil": ceil,
    "round_prefer_floor": lambda at: ceil(at - Fraction(1, 2)),
    "round_prefer_ceil": lambda at: floor(at + Fraction(1, 2)),
}


def _neighbors(at: Fraction, reach: int) -> Span:
    """The elements that an interpolation at a position reads: the position itself if an element lies there."""
    return (floor(at), floor(at)) if at.denominator == 1 else (floor(at) - reach + 1, floor(at) + reach)


def _sampled(scale: Fraction, where: str, before: int, after: int, read: Any) -> Intervals:
    half = Fraction(1, 2)
    shift = half * scale - half
    if where == "align_corners":
        scale, shift = (Fraction(before - 1, after - 1) if after > 1 else Fraction(0)), Fraction(0)
    elif where == "asymmetric":
        shift = Fraction(0)
    elif where not in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"):
        raise UnfollowedError
    pattern = [read(i * scale + shift) for i in positions(scale.denominator)]
    return periodic(pattern, scale.numerator)


def _antialiased(scale: Fraction, reach: int) -> Intervals:
    """A filter that covers `reach` elements on each side, of the input or of the output, whichever are larger."""
    support = reach * max(scale, Fraction(1))
    half = Fraction(1, 2)
    centers = [(i + half) * scale - half for i in positions(scale.denominator)]
    pattern = [(floor(c - support) + 1, ceil(c + support) - 1) for c in centers]
    return periodic(pattern, scale.numerator)
