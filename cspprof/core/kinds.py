"""Sorts of operations."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What sort of work an operation is. `UNKNOWN` has no MACs, which is not the same as zero MACs."""

    __hash__ = str.__hash__  # an enumeration's own is no hash of the string that it equals, and slow

    CONV = "conv"
    CONV_TRANSPOSE = "conv_transpose"
    LINEAR = "linear"
    MATMUL = "matmul"
    ATTENTION = "attention"
    RECURRENT = "recurrent"
    MAX_POOL = "max_pool"
    AVG_POOL = "avg_pool"
    NORM = "norm"
    ACTIVATION = "activation"
    ELEMENTWISE = "elementwise"
    SOFTMAX = "softmax"
    REDUCTION = "reduction"
    CONCAT = "concat"
    RESIZE = "resize"
    EMBEDDING = "embedding"
    FFT = "fft"
    """Fourier transforms."""
    DATA = "data"
    """Copies, gathers, sorts, factories: elements move or appear, nothing is multiplied."""
    VIEW = "view"
    """A new shape over the same storage: free."""
    CUSTOM = "custom"
    """Counted by a formula of the user's."""
    UNKNOWN = "unknown"


CONVOLUTIONS = frozenset({Kind.CONV, Kind.CONV_TRANSPOSE})
POOLS = frozenset({Kind.MAX_POOL, Kind.AVG_POOL})
COMPUTE = CONVOLUTIONS | {Kind.LINEAR, Kind.MATMUL, Kind.ATTENTION, Kind.RECURRENT, Kind.CUSTOM}
