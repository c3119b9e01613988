"""Checks of an operation from a file: metrics and analyses rely on properties that a trace guarantees."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from cspprof.core.backward import Backward
from cspprof.core.record import COMPUTE, CONVOLUTIONS, POOLS, Kind, OpSpec
from cspprof.core.validation import Count, Integer, Name, Positive, validated

NEED_TENSORS = (COMPUTE - {Kind.CUSTOM, Kind.GRADIENT}) | POOLS | {
    Kind.NORM, Kind.ACTIVATION, Kind.SOFTMAX, Kind.RESIZE,
}  # fmt: skip
"""Kinds of operations that read and write a tensor."""


class Arguments(Struct):
    """Arguments with which metrics compute. Other arguments of an operation can have any value."""

    kernel: tuple[Positive, ...] | UnsetType = UNSET
    groups: Positive | UnsetType = UNSET
    flops: Count | UnsetType = UNSET
    table_bytes: Count | UnsetType = UNSET
    bytes_read: Count = 0
    bytes_written: Count = 0
    within: Annotated[tuple[Name, ...], Meta(min_length=1)] | UnsetType = UNSET


class WindowArguments(Struct):
    """Arguments of convolutions and pools."""

    kernel: tuple[Positive, ...] | UnsetType = UNSET
    stride: tuple[Integer, ...] | Integer | None = None
    padding: tuple[Integer, ...] | Integer | Name | None = None
    dilation: tuple[Integer, ...] | Integer | None = None


def check_operation(spec: OpSpec) -> None:
    """Raise ValueError if an argument has a wrong type, or if tensors and arguments do not fit together."""
    arguments = validated(spec.attrs, Arguments)
    if spec.kind in NEED_TENSORS and not (spec.writes and (spec.reads or spec.weights)):
        raise ValueError(f"an operation of the kind {spec.kind.value} reads and writes tensors, and this one does not")
    if spec.kind in CONVOLUTIONS or spec.kind in POOLS:
        _check_windows(spec)
    if spec.kind in CONVOLUTIONS and (arguments.kernel is UNSET or arguments.groups is UNSET):
        raise ValueError("a convolution needs the arguments kernel and groups")
    if arguments.table_bytes is not UNSET:
        read, written = (sum(t.nbytes for t in ts) for ts in ((*spec.reads, *spec.weights), spec.writes))
        if arguments.table_bytes > read or ("bytes_written" in spec.attrs and arguments.table_bytes > written):
            raise ValueError("table_bytes is more than its tensors have")
    if arguments.within is not UNSET and arguments.within[0].endswith("einsum") and len(arguments.within) < 2:
        raise ValueError("a part of an einsum needs its equation, the second entry of within")
    if spec.backward is not None:
        _check_backward(spec.backward, len(spec.reads) + len(spec.weights), len(spec.writes))


def _check_windows(spec: OpSpec) -> None:
    if not spec.reads or min(len(spec.reads[0].shape), len(spec.writes[0].shape)) < 2:
        raise ValueError("a convolution or pool reads and writes maps with at least two dimensions")
    validated(spec.attrs, WindowArguments)


def _check_backward(backward: Backward, operands: int, outputs: int) -> None:
    """Raise ValueError if a number is negative, or if an operand or output does not exist."""
    saves = backward.saves or ()
    _check_positions((i for _, needed_by in backward.macs for i in needed_by), 0, operands)
    _check_positions((i for kept in saves for i in (*kept.needed_by, *kept.unless)), 0, operands)
    _check_positions((kept.tensor for kept in saves if kept.tensor is not None), -outputs, operands)
    if min([n for n, _ in backward.macs] + [kept.nbytes for kept in saves], default=0) < 0:
        raise ValueError("its backward pass has a negative number")


def _check_positions(positions: Iterable[int], first: int, end: int) -> None:
    for position in positions:
        if not first <= position < end:
            raise ValueError(f"its backward pass names the tensor {position}, which it does not have")
