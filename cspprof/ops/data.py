"""Operations that move, look up or make elements and compute nothing."""

from __future__ import annotations

from typing import Any

from cspprof.core.record import Kind
from cspprof.ops import Facts, Spec, no_macs, op_rule

no_macs(Kind.CONCAT, "cat stack hstack vstack dstack concat concatenate column_stack block_diag _chunk_cat")
no_macs(Kind.CONCAT, "cat cat_relu", room="quantized")
no_macs(Kind.EMBEDDING, "embedding")
no_macs(Kind.EMBEDDING, "embedding_byte embedding_4bit", room="quantized")


@op_rule("aten.embedding_bag", "aten._embedding_bag")
def embedding_bag(weight: Spec, indices: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    """Every row looked up is added to its bag or compared with it."""
    return Facts(Kind.EMBEDDING, elementwise=indices.numel * weight.shape[-1], outputs=1)


@op_rule("quantized.embedding_bag_byte", "quantized.embedding_bag_4bit")
def quantised_embedding_bag(packed: Any, indices: Spec, *args: Any, out: Spec, **kwargs: Any) -> Facts:
    return Facts(Kind.EMBEDDING, elementwise=indices.numel * out.shape[-1])


no_macs(Kind.DATA, "nms", room="torchvision")
no_macs(
    Kind.DATA,
    "clone copy copy_ contiguous to _to_copy reshape flatten unflatten fill zero fill_ zero_ pad constant_pad_nd "
    "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d "
    "_pad_circular index index_select gather take take_along_dim scatter scatter_add scatter_reduce index_put "
    "index_add index_fill index_copy index_reduce _unsafe_masked_index _unsafe_masked_index_put_accumulate put "
    "masked_select masked_scatter masked_fill nonzero nonzero_static roll flip rot90 repeat repeat_interleave tile "
    "unfold im2col col2im pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle max_unpool2d "
    "max_unpool3d tril triu lu_unpack topk sort argsort msort searchsorted bucketize unique _unique2 unique_dim "
    "unique_consecutive one_hot meshgrid diag_embed select_scatter slice_scatter as_strided_scatter diagonal_scatter "
    "dropout native_dropout feature_dropout alpha_dropout feature_alpha_dropout bernoulli uniform_ normal_ random_ "
    "exponential_ cauchy_ geometric_ log_normal_ multinomial empty empty_like empty_strided empty_permuted new_empty "
    "new_empty_strided zeros zeros_like new_zeros ones ones_like new_ones full full_like new_full arange linspace "
    "logspace eye scalar_tensor rand rand_like randn randn_like randint randint_like randperm normal tril_indices "
    "triu_indices hann_window hamming_window lift lift_fresh _local_scalar_dense item is_nonzero equal _assert_async "
    "set_ resize_ resize_as_ combinations cartesian_prod _pack_padded_sequence _pad_packed_sequence int_repr "
    "q_per_channel_scales q_per_channel_zero_points _empty_affine_quantized _empty_per_channel_affine_quantized",
)
no_macs(  # views by another name, carried out
    Kind.DATA,
    "alias_copy as_strided_copy detach_copy diagonal_copy expand_copy lift_fresh_copy narrow_copy permute_copy "
    "select_copy slice_copy split_copy split_with_sizes_copy squeeze_copy t_copy transpose_copy unbind_copy "
    "unfold_copy unsqueeze_copy view_as_complex_copy view_as_real_copy view_copy",
)
no_macs(Kind.VIEW, "squeeze_ unsqueeze_ transpose_ t_ swapaxes_ swapdims_ as_strided_")
