"""The kinds of operations, and groups of kinds."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """The kind of an operation. The MACs of an `UNKNOWN` operation are unknown, not zero."""

    __hash__ = str.__hash__  # Enum's own hash is slow and differs from the hash of the equal string

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
    DATA = "data"
    """Copies, gathers, sorts, factories: elements move or appear, without arithmetic."""
    VIEW = "view"
    """A new shape of the same storage, at no cost."""
    GRADIENT = "gradient"
    """The gradient of another operation, computed in a forward that takes a gradient."""
    CUSTOM = "custom"
    """Counted by a formula that the user registered with torch."""
    UNKNOWN = "unknown"


CONVOLUTIONS = frozenset({Kind.CONV, Kind.CONV_TRANSPOSE})
POOLS = frozenset({Kind.MAX_POOL, Kind.AVG_POOL})
COMPUTE = CONVOLUTIONS | {Kind.LINEAR, Kind.MATMUL, Kind.ATTENTION, Kind.RECURRENT, Kind.GRADIENT, Kind.CUSTOM}
