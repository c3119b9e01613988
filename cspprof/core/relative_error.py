"""How far outputs of a network are from those that are correct, for engines that should differ by rounding alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cspprof.core.errors import CspprofError

if TYPE_CHECKING:
    import numpy as np


class WrongOutputError(CspprofError):
    """The number or the shape of outputs differs, or a value is not finite."""


def relative_error(outputs: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """The largest relative error ‖a − b‖₂ / ‖b‖₂ of an output. Raises WrongOutputError if they cannot be compared."""
    import numpy as np

    if len(outputs) != len(expected):
        raise WrongOutputError(f"wrong output: {len(outputs)} tensors instead of {len(expected)}")
    worst = 0.0
    for i, (a, b) in enumerate(zip(outputs, expected, strict=True)):
        if a.shape != b.shape:
            raise WrongOutputError(f"wrong output {i}: shape {a.shape} instead of {b.shape}")
        a64, b64 = a.astype(np.float64), b.astype(np.float64)
        if not np.isfinite(a64).all():
            raise WrongOutputError(f"wrong output {i}: values that are not finite")
        size = float(np.linalg.norm(b64))
        distance = float(np.linalg.norm(a64 - b64))
        worst = max(worst, distance / size if size else distance)
    return worst
