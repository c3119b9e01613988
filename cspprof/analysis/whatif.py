"""A network on other inputs: the input variations, and the result on each of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from cspprof.core.errors import CspprofError
from cspprof.core.inputs import INT8, SHOWN, ModelArguments, Value, parse_counted_dtype, parse_input, parse_value
from cspprof.core.record import Record
from cspprof.core.tensors import TensorSpec
from cspprof.core.units import shortened


class Variation(NamedTuple):
    """One input of the network: its tensors by name, None for a positional argument, and the requested dtype."""

    named: tuple[tuple[str | None, TensorSpec | Value], ...]
    dtype: str | None = None
    """The floating dtype of weights and inputs, or `int8`; None for that of the network."""

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        return tuple(tensor for _, tensor in self.named if isinstance(tensor, TensorSpec))

    @property
    def arguments(self) -> ModelArguments:
        positional = tuple(tensor for name, tensor in self.named if name is None)
        return ModelArguments(positional, {name: tensor for name, tensor in self.named if name is not None})


class VariationResult(NamedTuple):
    """The record of the network on one input, or the reason why there is none."""

    variation: Variation
    record: Record | None
    problem: str = ""
    hint: str = ""
    """The hint of an input that failed; empty for the others."""


def image_variations(record: Record, sizes: str | None, batches: str | None, dtypes: str | None) -> list[Variation]:
    """Every combination of comma-separated sizes (`224`, `256x320`), batch sizes and dtypes.

    A dimension that is None keeps the recorded value. Raises CspprofError if the input of the network is not one batch
    of images, or if a text is malformed.
    """
    if len(record.inputs) != 1 or len(record.inputs[0].shape) != 4:
        shapes = ", ".join("x".join(map(str, t.shape)) for t in record.inputs)
        raise CspprofError(
            f"the input of {record.model} is not one batch of images (N, C, H, W): {shapes}",
            "Write the shapes to compare, as in: cspprof whatif SPEC --input 1x128:int64,1x512:int64",
        )
    n, c, *size = record.inputs[0].shape
    combinations = product(
        _dtypes(dtypes),
        _batches(batches, n),
        map(_height_and_width, _split(sizes)) if sizes is not None else [tuple(size)],
    )
    return [
        Variation(
            ((None, _with_batch(TensorSpec((n, c, *hw), _traced(dtype) or record.inputs[0].dtype), batch)),), dtype
        )
        for dtype, batch, hw in combinations
    ]


def input_variations(texts: Sequence[str], batches: str | None, dtypes: str | None) -> list[Variation]:
    """The variations that the values of `--input` list, for every dtype and batch size.

    A value is a list of shapes, `1x128:int64,1x512:int64`. Values of the same name, and values without a name, make
    one list. A further input has a name of its own: `mask=1x128,1x512`, or one shape for all variations. So has a
    value that is no tensor: `scale:=0.5`. Raises CspprofError.
    """
    values = [value for value in map(parse_value, texts) if value is not None]
    texts = [text for text in texts if parse_value(text) is None]
    if not texts:
        raise CspprofError("no --input has a shape to compare", "Write for example: --input 1x3x224x224,1x3x256x256")
    variations = []
    for dtype, batch in product(_dtypes(dtypes), _batches(batches, None)):
        inputs: dict[str | None, list[TensorSpec]] = {}
        for text in texts:
            name, shapes = _shapes(text)
            inputs.setdefault(name, []).extend(parse_input(shape, _traced(dtype) or "float32")[1] for shape in shapes)
        n = max(map(len, inputs.values()))
        for name, tensors in inputs.items():
            if len(tensors) not in (1, n):
                raise CspprofError(
                    f"the input {name or '(without a name)'} has {len(tensors)} shapes, another one has {n}",
                    f"Write {n} shapes, or one for all variations.",
                )
        variations += [
            Variation(
                tuple((name, _with_batch(t[i if len(t) > 1 else 0], batch)) for name, t in inputs.items())
                + tuple(values),
                dtype,
            )
            for i in range(n)
        ]
    return variations


def _shapes(text: str) -> tuple[str | None, list[str]]:
    """The name in front of a list of shapes, and the shapes. `1,3,224,224` is one shape."""
    name, equals, shapes = text.rpartition("=")
    parts = _split(shapes)
    return (name.strip() if equals else None), [shapes] if all(part.isdecimal() for part in parts) else parts


def _with_batch(tensor: TensorSpec, batch: int | None) -> TensorSpec:
    """The tensor with another first dimension."""
    return tensor if batch is None or not tensor.shape else TensorSpec((batch, *tensor.shape[1:]), tensor.dtype)


def _dtypes(text: str | None) -> list[str | None]:
    return [None] if text is None else [parse_counted_dtype(part) for part in _split(text)]


def _traced(dtype: str | None) -> str | None:
    """The dtype of the trace: bytes at int8 are computed from the record in the dtype of the network."""
    return None if dtype == INT8 else dtype


def _batches(text: str | None, default: int | None) -> list[int | None]:
    return [default] if text is None else [_positive_integer(part, "--batch", "1,8") for part in _split(text)]


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _positive_integer(text: str, option: str, example: str) -> int:
    if re.fullmatch("[0-9]{1,18}", text) is None or int(text) < 1:
        raise CspprofError(
            f"{option} {shortened(text, SHOWN)!r} is not a whole number of 1 or more",
            f"Write for example: {option} {example}",
        )
    return int(text)


def _height_and_width(text: str) -> tuple[int, int]:
    height, *width = (_positive_integer(part, "--size", "224,256x320") for part in re.split("[x×]", text))
    if len(width) > 1:
        raise CspprofError(
            f"--size {shortened(text, SHOWN)!r} has more than two numbers",
            "Write one number, or height and width: --size 256x320",
        )
    return height, (width or [height])[0]
