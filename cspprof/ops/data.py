"""Operations that move, look up or create elements: no MACs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cspprof.core.backward import Backward, Saved
from cspprof.core.kinds import Kind
from cspprof.core.tensors import TensorMeta
from cspprof.ops.layouts import (
    all_contiguous_or_channel_slices,
    contiguous_output,
    is_contiguous_to_torch,
    output_like,
)
from cspprof.ops.op_rules import (
    Operand,
    backward,
    backward_rule,
    ends_gradients,
    keeps_nothing,
    kept,
    kept_bytes,
    output_rule,
    register_without_macs,
)

# -- concatenation ----------------------------------------------------------------------------------

register_without_macs(
    Kind.CONCAT, "cat stack hstack vstack dstack concat concatenate column_stack block_diag _chunk_cat"
)
register_without_macs(Kind.CONCAT, "cat cat_relu", namespace="quantized")


@output_rule("aten.cat")
def cat_output(tensors: Sequence[TensorMeta], dim: int = 0) -> TensorMeta | None:
    first = tensors[0]
    rank = len(first.shape)
    if not rank or not -rank <= dim < rank or not all_contiguous_or_channel_slices(*tensors):
        return None
    dim %= rank
    before, after = first.shape[:dim], first.shape[dim + 1 :]
    if any(len(t.shape) != rank or t.shape[:dim] != before or t.shape[dim + 1 :] != after for t in tensors):
        return None
    if rank == 4 and 1 in first.shape[1:]:
        return None
    return contiguous_output((*before, sum(t.shape[dim] for t in tensors), *after), first)


# -- copies, padding, sorting, factories ------------------------------------------------------------

register_without_macs(Kind.DATA, "nms", namespace="torchvision")
register_without_macs(
    Kind.DATA,
    "clone copy copy_ contiguous to _to_copy reshape flatten unflatten fill zero fill_ zero_ pad constant_pad_nd "
    "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d "
    "_pad_circular "
    ""
    "masked_select masked_scatter masked_fill nonzero nonzero_static roll flip rot90 repeat repeat_interleave tile "
    "unfold im2col col2im pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle max_unpool2d "
    "max_unpool3d tril triu lu_unpack topk sort argsort msort searchsorted bucketize unique _unique2 unique_dim "
    "unique_consecutive one_hot meshgrid diag_embed select_scatter slice_scatter as_strided_scatter diagonal_scatter "
    "dropout native_dropout feature_dropout alpha_dropout feature_alpha_dropout bernoulli uniform_ normal_ random_ "
    "exponential_ cauchy_ geometric_ log_normal_ uniform exponential cauchy geometric log_normal normal_functional "
    "random "
    "multinomial poisson binomial _standard_gamma _sample_dirichlet _efficientzerotensor empty empty_like "
    "empty_strided empty_permuted new_empty "
    "new_empty_strided zeros zeros_like new_zeros ones ones_like new_ones full full_like new_full arange linspace "
    "logspace eye scalar_tensor rand rand_like randn randn_like randint randint_like randperm normal tril_indices "
    "triu_indices hann_window hamming_window bartlett_window blackman_window kaiser_window range "
    "affine_grid_generator lift lift_fresh _local_scalar_dense item is_nonzero equal _assert_async "
    "set_ resize_ resize_as_ set resize resize_as unsafe_split "
    "unsafe_split_with_sizes _lazy_clone _fused_dropout _to_dense to_mkldnn _mkldnn_reshape to_padded_tensor "
    "_jagged_to_padded_dense_forward "
    "_padded_dense_to_jagged_forward _unique unique_dim_consecutive embedding_renorm combinations cartesian_prod "
    "_pack_padded_sequence _pad_packed_sequence int_repr "
    "q_per_channel_scales q_per_channel_zero_points _empty_affine_quantized _empty_per_channel_affine_quantized",
)
register_without_macs(  # the copying forms of views
    Kind.DATA,
    "alias_copy detach_copy expand_copy lift_fresh_copy permute_copy "
    "split_copy split_with_sizes_copy squeeze_copy t_copy transpose_copy unbind_copy "
    "unfold_copy unsqueeze_copy view_as_complex_copy view_as_real_copy view_copy",
)
register_without_macs(Kind.VIEW, "squeeze_ unsqueeze_ transpose_ t_ swapaxes_ swapdims_ as_strided_")


@output_rule("aten.contiguous")
def contiguous_copy_output(input: TensorMeta, memory_format: Any = None) -> TensorMeta | None:
    if memory_format is not None or is_contiguous_to_torch(input):  # the input itself
        return None
    return contiguous_output(input.shape, input)


@output_rule("aten.roll")
def roll_output(input: TensorMeta, shifts: Sequence[int], dims: Sequence[int] = ()) -> TensorMeta | None:
    rank = len(input.shape)
    valid = len(shifts) == len(dims) > 0 and all(-rank <= d < rank and input.shape[d] > 1 for d in dims)
    return output_like(input) if valid and input.contiguous and 1 not in input.shape[1:] else None


@output_rule("aten.pad")
def pad_output(
    input: TensorMeta, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> TensorMeta | None:
    rank, n = len(input.shape), len(pad) // 2
    if mode != "constant" or len(pad) % 2 or not 0 < n <= rank or min(pad) < 0 or not input.contiguous:
        return None
    if rank in (4, 5) and 1 in input.shape[1:]:
        return None
    ends = [(0, 0)] * (rank - n) + [(pad[2 * i], pad[2 * i + 1]) for i in reversed(range(n))]
    return contiguous_output(tuple(size + a + b for size, (a, b) in zip(input.shape, ends, strict=True)), input)


# -- backward ---------------------------------------------------------------------------------------

keeps_nothing(
    "cat stack hstack vstack dstack concat concatenate column_stack contiguous clone copy copy_ to _to_copy reshape "
    "flatten unflatten fill fill_ zero zero_ constant_pad_nd roll flip rot90 repeat tile pixel_shuffle "
    "pixel_unshuffle channel_shuffle native_channel_shuffle unfold im2col col2im tril triu diag_embed unsafe_split "
    "unsafe_split_with_sizes slice_scatter select_scatter expand_copy permute_copy transpose_copy view_copy "
    "unsqueeze_copy squeeze_copy split_copy unbind_copy"
)
ends_gradients(
    "bernoulli uniform_ normal_ random_ exponential_ empty empty_like empty_strided new_empty new_empty_strided zeros "
    "zeros_like new_zeros ones ones_like new_ones full full_like new_full arange linspace eye scalar_tensor rand "
    "rand_like randn randn_like randint randint_like"
)


@backward_rule("aten.reflection_pad1d", "aten.reflection_pad2d", "aten.reflection_pad3d", "aten.replication_pad1d",
               "aten.replication_pad2d", "aten.replication_pad3d")  # fmt: skip
def pad_gradients(input: Operand, *args: Any, out: Operand) -> Backward:
    return backward(kept(input))


@backward_rule("aten.pad")
def pad_of_mode_gradients(input: Operand, pad: Any, mode: str = "constant", *args: Any, out: Operand) -> Backward:
    return backward(kept(input) if mode in ("reflect", "replicate") else [])


@backward_rule("aten.dropout")
def dropout_gradients(input: Operand, p: float, train: bool, *, out: Operand) -> Backward:
    """The scaled mask, of the input's dtype, as on the CPU. (The CUDA kernel keeps one byte for each element.)"""
    return backward(kept_bytes(input.nbytes) if train and p else [])


@backward_rule("aten.feature_dropout")
def feature_dropout_gradients(input: Operand, p: float, train: bool, *, out: Operand) -> Backward:
    """The scaled mask, with one element for each channel of each image."""
    size = input.nbytes // max(input.numel, 1)
    return backward(kept_bytes(input.shape[0] * input.shape[1] * size) if train and p else [])


@backward_rule("aten.native_dropout")
def native_dropout_gradients(input: Operand, *args: Any, out: Operand) -> Backward:
    return backward(kept_bytes(input.numel))


@backward_rule("aten.masked_fill")
def masked_fill_gradients(input: Operand, mask: Operand, value: Any, *, out: Operand) -> Backward:
    return backward(kept(mask))


@backward_rule("aten.topk", "aten.sort")
def selection_gradients(input: Operand, *args: Any, out: Operand, **kwargs: Any) -> Backward:
    """The indices, of eight bytes each."""
    return backward([Saved(~1)])


@backward_rule("aten.repeat_interleave")
def repeat_interleave_gradients(
    input: Operand, repeats: Any, dim: Any = None, *args: Any, out: Operand, **kwargs: Any
) -> Backward:
    """With a number of repeats nothing; with one for each element, the indices of eight bytes."""
    if not isinstance(repeats, Operand):
        return backward()
    return backward(kept_bytes(8 * (out.numel if dim is None else out.shape[dim])))
