"""Whether the outputs of an engine are the correct ones: those of torch in eager mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cspprof.core.relative_error import WrongOutputError, relative_error
from cspprof.measure.engines.network import EngineError

if TYPE_CHECKING:
    import numpy as np

TOLERANCE = 1e-4
"""Largest relative error ‖a − b‖₂ / ‖b‖₂ of an output. Engines sum float32 numbers in different orders and use other
algorithms for convolutions, which gives 1e-7 to 1e-5; a wrong operation gives 1e-2 and more."""

LARGEST_TOLERANCE = 1e-2
"""Largest tolerance for a network whose output reacts strongly to small changes."""
NEARBY = 1e-6
"""Relative change of the input whose effect on the output says how strongly it reacts: ten times the rounding error of
float32."""


def tolerance_for(change: float) -> float:
    """The tolerance for a network whose output changes by `change` if its input changes by `NEARBY`.

    Deep networks without normalization multiply rounding errors: then the outputs of two correct engines differ by as
    much.
    """
    return min(max(TOLERANCE, 2 * change), LARGEST_TOLERANCE)


def check_parity(outputs: Sequence[np.ndarray], expected: Sequence[np.ndarray], tolerance: float = TOLERANCE) -> float:
    """The relative error of the outputs. Raises EngineError if they are wrong or the error is above the tolerance: a
    time of a network that computes something else is no time of this network."""
    try:
        error = relative_error(outputs, expected)
    except WrongOutputError as wrong:
        raise EngineError(wrong.message) from None
    if error > tolerance:
        raise EngineError(
            f"wrong output: its relative error is {error:.1e}, above the tolerance {tolerance:.0e}",
            "No time is printed for a wrong result. Use another engine, or another version of this one.",
        )
    return error
