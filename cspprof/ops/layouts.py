"""Memory layouts of tensors, for the rules of outputs: which inputs have a layout that determines the output's.

Torch prefers one of several layouts by the strides of its inputs. Where a dimension has size 1, its stride is arbitrary
and torch's choice hard to predict; the predicates here are then False, and torch computes the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from cspprof.core.formulas import contiguous_strides
from cspprof.core.tensors import TensorMeta, contiguous_meta, tensor_meta


def contiguous_output(shape: tuple[int, ...], input: TensorMeta) -> TensorMeta:
    """A contiguous activation with the dtype of `input`."""
    return contiguous_meta(shape, input.dtype)


def channels_last_output(shape: tuple[int, ...], input: TensorMeta) -> TensorMeta:
    """An activation (N, C, H, W) whose channels lie together in memory, with the dtype of `input`."""
    _, c, h, w = shape
    return tensor_meta(shape, (c * h * w, 1, c * w, c), input.dtype)


def output_like(input: TensorMeta) -> TensorMeta:
    """An activation with the shape, strides and dtype of `input`."""
    return tensor_meta(input.shape, input.strides, input.dtype)


def packed_like(input: TensorMeta) -> TensorMeta:
    """An activation with the shape and dtype of `input` and its order of dimensions, without gaps."""
    strides = elementwise_strides(input.shape, [(input.shape, input.strides)])
    return tensor_meta(input.shape, strides, input.dtype)


def same_dtype(first: TensorMeta, *others: TensorMeta) -> bool:
    return all(t.dtype == first.dtype for t in others)


def all_contiguous(first: TensorMeta, *others: TensorMeta | None) -> bool:
    """Whether all tensors are contiguous and of one dtype."""
    return first.contiguous and all(t is None or (t.contiguous and t.dtype == first.dtype) for t in others)


def all_contiguous_or_channel_slices(first: TensorMeta, *others: TensorMeta | None) -> bool:
    """Whether all tensors are of one dtype, and contiguous or some channels of a contiguous map."""
    if not (first.contiguous or is_channel_slice(first)):
        return False
    return all(t is None or (t.dtype == first.dtype and (t.contiguous or is_channel_slice(t))) for t in others)


def is_channels_last(tensor: TensorMeta) -> bool:
    """Whether the channels of a map (N, C, H, W) lie together in memory, and nothing lies between its elements."""
    if len(tensor.shape) != 4 or 1 in tensor.shape[1:]:
        return False
    _, c, h, w = tensor.shape
    return tensor.dense and tensor.strides == (c * h * w, 1, c * w, c)


def is_channel_slice(tensor: TensorMeta) -> bool:
    """Whether each image is contiguous, as in `x[:, :c]`: the images lie further apart than their size."""
    strides = contiguous_strides(tensor.shape)
    apart = bool(strides) and tensor.strides[1:] == strides[1:] and tensor.strides[0] >= strides[0]
    return tensor.dense and apart and 1 not in tensor.shape[1:]


def has_definite_order(tensor: TensorMeta) -> bool:
    """Whether the tensor is contiguous, or has no gaps and an order of dimensions that its strides determine."""
    if tensor.contiguous:
        return True
    shape, strides = tensor.shape, tensor.strides
    return 1 not in shape[1:] and strides[0] == prod(shape[1:]) and has_no_gaps(shape, strides)


def is_contiguous_to_torch(tensor: TensorMeta) -> bool:
    """What `Tensor.is_contiguous` returns: strides of dimensions of size 1 do not matter."""
    pairs = zip(tensor.shape, tensor.strides, contiguous_strides(tensor.shape), strict=True)
    return all(n == 1 or stride == expected for n, stride, expected in pairs)


def has_no_gaps(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the elements lie without gaps and overlaps, in any order of the dimensions.

    >>> has_no_gaps((2, 3, 4), (12, 1, 3)), has_no_gaps((2, 3), (4, 1))
    (True, False)
    """
    step = 1
    for stride, n in sorted((s, n) for s, n in zip(strides, shape, strict=True) if n != 1):
        if stride != step or n == 0:
            return False
        step *= n
    return True


def elementwise_strides(
    shape: Sequence[int], operands: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> tuple[int, ...]:
    """Strides that torch gives the result of an elementwise operation on operands with these (shape, strides).

    The result has no gaps. Two of its dimensions are ordered as in the first operand whose strides differ there; see
    `compute_perm` in ATen's TensorIterator.

    >>> elementwise_strides((2, 8, 4, 4), [((2, 8, 4, 4), (128, 1, 32, 8)), ((8, 1, 1), (1, 1, 1))])
    (128, 1, 32, 8)
    """
    rank = len(shape)
    broadcast_strides = []
    for sizes, strides in operands:
        missing = rank - len(sizes)
        own = [0 if n == 1 != shape[missing + i] else s for i, (n, s) in enumerate(zip(sizes, strides, strict=True))]
        broadcast_strides.append([0] * missing + own)

    def order(a: int, b: int) -> int:
        for strides in broadcast_strides:
            if strides[a] and strides[b]:
                if strides[a] != strides[b]:
                    return -1 if strides[a] < strides[b] else 1
                if shape[a] > shape[b]:
                    return 1
        return 0

    dims = list(reversed(range(rank)))  # the fastest first
    for i in range(1, rank):  # insertion sort, as in torch: the order need not be transitive
        at = i
        for before in reversed(range(i)):
            comparison = order(dims[before], dims[at])
            if comparison > 0:
                dims[before], dims[at] = dims[at], dims[before]
                at = before
            elif comparison < 0:
                break
    result, step = [0] * rank, 1
    for d in dims:
        result[d] = step
        step *= max(shape[d], 1)
    return tuple(result)


def reshape_copies(tensor: TensorMeta, shape: Sequence[int]) -> bool:
    """Whether `reshape` to this shape makes a copy, because the strides of the tensor allow no view of that shape."""
    if not tensor.spec.numel:
        return False
    merged: list[list[int]] = []  # runs of dimensions that lie one after the other in memory: size, last stride
    for n, stride in zip(tensor.shape, tensor.strides, strict=True):
        if n == 1:
            continue
        if merged and merged[-1][1] == n * stride:
            merged[-1] = [merged[-1][0] * n, stride]
        else:
            merged.append([n, stride])
    wanted = [n for n in shape if n != 1]
    for n, _ in merged:
        while n > 1 and wanted and n % wanted[0] == 0:
            n //= wanted.pop(0)
        if n != 1:
            return True
    return bool(wanted)
