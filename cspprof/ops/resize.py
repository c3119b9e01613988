"""Resampling of feature maps: no MACs, one scalar operation for each element of the output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cspprof.core.backward import Backward
from cspprof.core.kinds import Kind
from cspprof.core.tensors import TensorMeta
from cspprof.ops.layouts import (
    all_contiguous_or_channel_slices,
    channels_last_output,
    contiguous_output,
    is_channels_last,
)
from cspprof.ops.op_rules import (
    Operand,
    backward,
    backward_rule,
    keeps_nothing,
    kept,
    output_numel,
    output_rule,
    register_without_macs,
)

register_without_macs(
    Kind.RESIZE,
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d "
    "_upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d "
    "_upsample_bilinear2d_aa _upsample_bicubic2d_aa _upsample_lanczos2d_aa grid_sampler grid_sampler_2d "
    "grid_sampler_3d",
    output_numel,
)
register_without_macs(Kind.RESIZE, "roi_align roi_pool ps_roi_align ps_roi_pool", output_numel, "torchvision")


@output_rule("aten.upsample_nearest2d")
def upsample_nearest2d_output(input: TensorMeta, size: Sequence[int] | None, *scales: Any) -> TensorMeta | None:
    if len(input.shape) != 4 or not input.is_floating or 1 in input.shape[1:]:
        return None
    if not (all_contiguous_or_channel_slices(input) or is_channels_last(input)):
        return None
    if size is None:
        size = [int(n * scale) for n, scale in zip(input.shape[2:], scales[0], strict=True)]
    if len(size) != 2 or min(size) < 1:
        return None
    shape = (*input.shape[:2], *size)
    return channels_last_output(shape, input) if is_channels_last(input) else contiguous_output(shape, input)


@output_rule("aten.upsample_bilinear2d", "aten.upsample_bicubic2d")
def upsample2d_output(
    input: TensorMeta, size: Sequence[int] | None, align_corners: bool, *scales: Any
) -> TensorMeta | None:
    return upsample_nearest2d_output(input, size, *scales)


# -- backward ---------------------------------------------------------------------------------------

keeps_nothing(
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d "
    "_upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d "
    "_upsample_bilinear2d_aa _upsample_bicubic2d_aa _upsample_lanczos2d_aa"
)


@backward_rule("aten.grid_sampler", "aten.grid_sampler_2d", "aten.grid_sampler_3d")
def grid_sample_gradients(input: Operand, grid: Operand, *args: Any, out: Operand) -> Backward:
    return backward(kept(input), kept(grid))
