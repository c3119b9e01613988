"""The inputs of a model: parsing `--input`, and nested inputs of the Python API. Also dtypes and devices by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from cspprof.core.errors import CspprofError
from cspprof.core.tensors import ITEM_SIZES, TensorSpec

Inputs = Any
"""A shape `(1, 3, 224, 224)`, a `TensorSpec`, a tensor, or a container of these: a list or tuple of positional
arguments, a dict of keyword arguments. Containers within an argument are passed to the model as they are."""

_FORM = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<shape>\d+(?:[x×,]\d+)*|scalar)(?::(?P<dtype>\w+))?")


def parse_inputs(texts: Iterable[str], dtype: str = "float32") -> Inputs | None:
    """The inputs that texts such as `"1x3x224x224"` and `"mask=1x8:bool"` describe; None if there are no texts.

    A text with a name becomes a keyword argument. A dtype after the colon replaces `dtype` for that input. Raises
    CspprofError.
    """
    positional: list[TensorSpec] = []
    named: dict[str, TensorSpec] = {}
    for text in texts:
        name, spec = parse_input(text, dtype)
        if name in named:
            raise CspprofError(f"the input {name!r} is given twice", "Give each name once.")
        if name:
            named[name] = spec
        else:
            positional.append(spec)
    if not positional and not named:
        return None
    return ModelArguments(tuple(positional), named)


def parse_input(text: str, dtype: str) -> tuple[str | None, TensorSpec]:
    """The name and the tensor of one `--input`; see `parse_inputs`. Raises CspprofError."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise CspprofError(
            f"cannot read the input {text!r}",
            "Write dimensions joined by x: --input 1x3x256x256, with a name or a dtype: --input ids=1x128:int64",
        )
    shape = () if match["shape"] == "scalar" else tuple(map(int, re.split("[x×,]", match["shape"])))
    return match["name"], TensorSpec(shape, parse_dtype(match["dtype"] or dtype))


class ModelArguments:
    """Positional and keyword arguments of a model."""

    __slots__ = ("args", "kwargs")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args = args
        self.kwargs = kwargs

    def __repr__(self) -> str:
        return f"ModelArguments({self.args!r}, {self.kwargs!r})"


def parse_dtype(name: str) -> str:
    """The full name of a dtype: `float16` for `half`. Raises CspprofError."""
    aliases = {"half": "float16", "float": "float32", "double": "float64", "long": "int64", "int": "int32",
               "fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}  # fmt: skip
    name = aliases.get(name, name)
    if name not in ITEM_SIZES:
        raise CspprofError(f"no dtype named {name!r}", f"There are: {', '.join(sorted(ITEM_SIZES))}")
    return name


def parse_float_dtype(name: str) -> str:
    """The full name of a floating dtype, which parameters can have. Raises CspprofError."""
    dtype = parse_dtype(name)
    if "float" not in dtype:
        raise CspprofError(
            f"{name} is not a floating dtype", "For one input, give its dtype after a colon: --input ids=1x128:int64"
        )
    return dtype


DEVICES = ("meta", "cpu", "cuda", "mps", "xpu")


def parse_device(name: str) -> str:
    """`name` if a trace can run on that device: `cpu`, `cuda:1`. Raises CspprofError."""
    if name.partition(":")[0] not in DEVICES:
        raise CspprofError(f"no device named {name!r}", f"There are: {', '.join(DEVICES)}; meta computes nothing.")
    return name


def is_shape(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and bool(value) and all(type(n) is int for n in value)


def arguments(inputs: Inputs, leaf: Callable[[Any], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments, with `leaf(x)` in the place of each shape, spec or tensor x. A shape reaches
    `leaf` as a `TensorSpec` with an empty dtype."""

    def convert(value: Any) -> Any:
        if isinstance(value, TensorSpec) or hasattr(value, "untyped_storage"):
            return leaf(value)
        if is_shape(value):
            return leaf(TensorSpec(tuple(value), ""))
        if isinstance(value, dict):
            return {k: convert(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            items = map(convert, value)
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)  # a named tuple
        return value

    if isinstance(inputs, ModelArguments):
        return tuple(convert(a) for a in inputs.args), convert(inputs.kwargs)
    if isinstance(inputs, dict):
        return (), convert(inputs)
    if isinstance(inputs, (list, tuple)) and not isinstance(inputs, TensorSpec) and not is_shape(inputs):
        return tuple(convert(a) for a in inputs), {}
    return (convert(inputs),), {}
