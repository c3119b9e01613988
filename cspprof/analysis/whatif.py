"""A network on other inputs: the input variations, and the result on each of them."""

from __future__ import annotations

import re
from itertools import product
from typing import NamedTuple

from cspprof.core.errors import CspprofError
from cspprof.core.inputs import parse_float_dtype
from cspprof.core.record import Record, TensorSpec


class VariationResult(NamedTuple):
    """The record of the network on one input, or the reason why there is none."""

    input: TensorSpec
    record: Record | None
    problem: str = ""


def input_variations(record: Record, sizes: str | None, batches: str | None, dtypes: str | None) -> list[TensorSpec]:
    """Every combination of comma-separated sizes (`224`, `256x320`), batch sizes and dtypes.

    A dimension that is None keeps the recorded value. Raises CspprofError if the input of the network is not one batch
    of images, or if a text is malformed.
    """
    if len(record.inputs) != 1 or len(record.inputs[0].shape) != 4:
        raise CspprofError(
            f"the input of {record.model} is not one batch of images (N, C, H, W)",
            "Profile one input at a time: cspprof profile SPEC --input …",
        )
    n, c, *size = record.inputs[0].shape
    combinations = product(
        map(parse_float_dtype, _split(dtypes)) if dtypes else [record.dtype],
        map(_positive_integer, _split(batches)) if batches else [n],
        map(_height_and_width, _split(sizes)) if sizes else [tuple(size)],
    )
    return [TensorSpec((batch, c, *hw), dtype) for dtype, batch, hw in combinations]


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _positive_integer(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise CspprofError(f"cannot read the number {text!r}", "Write whole numbers: --batch 1,8 --size 224,256x320")
    return int(text)


def _height_and_width(text: str) -> tuple[int, int]:
    height, *width = map(_positive_integer, re.split("[x×]", text))
    if len(width) > 1:
        raise CspprofError(f"cannot read the size {text!r}", "Write one number, or height and width: 256x320")
    return height, (width or [height])[0]
