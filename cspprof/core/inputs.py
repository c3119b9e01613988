"""The inputs of a model: parsing `--input`, and nested inputs of the Python API. Also dtypes and devices by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from operator import is_
from typing import Any

from cspprof.core.errors import CspprofError
from cspprof.core.literals import TooLargeError, parse_literal
from cspprof.core.tensors import ITEM_SIZES, TensorSpec, is_possible
from cspprof.core.units import shortened

Inputs = Any
"""A shape `(1, 3, 224, 224)`, a `TensorSpec`, a tensor, or a container of these: a list or tuple of positional
arguments, a dict of keyword arguments. Containers within an argument are passed to the model as they are; a `Value`
and everything else too."""

_FORM = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<shape>[0-9]+(?:[x×,][0-9]+)*|scalar)(?::(?P<dtype>\w+))?")
MAX_INPUT = 1_000
"""Characters of the shape of an input."""
SHOWN = 80
"""Characters of a text of the user that a message repeats."""
_VALUE_FORM = re.compile(
    r"(?:(?P<name>[A-Za-z_]\w*)?:=|(?:(?P<of>[A-Za-z_]\w*)=)?(?=[(\[{]))(?P<literal>.*)", re.DOTALL
)


class Value:
    """An argument of a model that is passed as it is, in a place where a tuple of integers would mean a shape.

    >>> import cspprof, torch
    >>> class Resize(torch.nn.Module):
    ...     def forward(self, x, size):
    ...         return torch.nn.functional.interpolate(x, size=size)
    >>> inputs = {"x": (1, 3, 4, 4), "size": cspprof.Value((8, 8))}
    >>> cspprof.profile(Resize(), inputs).ops[-1].writes[0].shape
    (1, 3, 8, 8)
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Value({self.value!r})"


def parse_inputs(texts: Iterable[str], dtype: str = "float32") -> Inputs | None:
    """The inputs that texts such as `"1x3x224x224"` and `"mask=1x8:bool"` describe; None if there are no texts.

    A text with a name becomes a keyword argument. A dtype after the colon replaces `dtype` for that input. `size:=8,8`
    and `size=(8, 8)` are values, not tensors. Raises CspprofError.
    """
    positional: list[TensorSpec | Value] = []
    named: dict[str, TensorSpec | Value] = {}
    for text in texts:
        name, spec = parse_value(text) or parse_input(text, dtype)
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
    match = _FORM.fullmatch(text.strip()) if len(text) <= MAX_INPUT else None
    if match is None:
        raise CspprofError(
            f"cannot read the input {shortened(text, SHOWN)!r}",
            "Write dimensions joined by x: --input 1x3x256x256, with a name or a dtype: --input ids=1x128:int64\n"
            "For an argument that is no tensor: --input scale:=0.5",
        )
    shape = () if match["shape"] == "scalar" else tuple(map(int, re.split("[x×,]", match["shape"])))
    spec = TensorSpec(shape, parse_dtype(match["dtype"] or dtype))
    if not is_possible(spec):
        raise CspprofError(
            f"the input {shortened(text, SHOWN)!r} has more dimensions or bytes than a tensor can have",
            "Write a smaller shape: --input 1x3x224x224",
        )
    return match["name"], spec


def parse_value(text: str) -> tuple[str | None, Value] | None:
    """The name and the value of an `--input` that is no tensor, `size:=8,8`, `size=(8, 8)` or `mode:=up`; else None.

    A value that is no Python literal is a string. Raises CspprofError for a bracket that is not closed, and for a value
    beyond the limits of literals.
    """
    match = _VALUE_FORM.fullmatch(text.strip())
    if match is None:
        return None
    literal = match["literal"].strip()
    try:
        value = parse_literal(literal)
    except ValueError as error:
        if literal[:1] in ("(", "[", "{", "") or isinstance(error, TooLargeError):
            raise CspprofError(
                f"cannot read the value {shortened(literal, SHOWN)!r}: {error}",
                "Write a Python literal: --input size:=8,8, scale:=0.5, mode:=up",
            ) from None
        value = literal
    return match["name"] or match["of"], Value(value)


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
        raise CspprofError(f"no dtype named {shortened(name, SHOWN)!r}", f"There are: {', '.join(sorted(ITEM_SIZES))}")
    return name


def parse_float_dtype(name: str) -> str:
    """The full name of a floating dtype, which parameters can have. Raises CspprofError."""
    dtype = parse_dtype(name)
    if "float" not in dtype:
        raise CspprofError(
            f"{name} is not a floating dtype",
            "For one input, give its dtype after a colon: --input ids=1x128:int64\n"
            "To count the bytes of a quantized network: --dtype int8, in profile, cio, flops, compare and whatif",
        )
    return dtype


INT8 = "int8"
"""In the place of a floating dtype: bytes are counted as if every floating tensor were quantized to 8 bits."""


def parse_counted_dtype(name: str) -> str:
    """`int8`, or the full name of a floating dtype. Raises CspprofError."""
    return INT8 if name == INT8 else parse_float_dtype(name)


DEVICES = ("meta", "cpu", "cuda", "mps", "xpu")


def parse_device(name: str) -> str:
    """`name` if a trace can run on that device: `cpu`, `cuda:1`. Raises CspprofError."""
    kind, colon, index = name.partition(":")
    if kind not in DEVICES or (colon and re.fullmatch("[0-9]{1,2}", index) is None):
        raise CspprofError(
            f"no device named {shortened(name, SHOWN)!r}", f"There are: {', '.join(DEVICES)}; meta computes nothing."
        )
    return name


def is_shape(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and bool(value) and all(type(n) is int for n in value)


def arguments(
    inputs: Inputs,
    leaf: Callable[[Any], Any],
    value: Callable[[Value], Any] = lambda v: v.value,
    permutation: Callable[[Any], Any] = lambda p: p,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments, with `leaf(x)` in the place of each shape, spec or tensor x, and `value(v)` in
    that of each `Value` v. A shape reaches `leaf` as a `TensorSpec` with an empty dtype. The batch sizes of a
    `PackedSequence` stay, and its permutations p become `permutation(p)`: their values are known.

    Containers are new objects of the same class. So are objects that hold tensors in attributes, where integers are
    never a shape.
    """
    convert = _Conversion(leaf, value, permutation)
    if isinstance(inputs, ModelArguments):
        return tuple(map(convert, inputs.args)), {k: convert(v) for k, v in inputs.kwargs.items()}
    if type(inputs) is dict:
        return (), {k: convert(v) for k, v in inputs.items()}
    if type(inputs) in (list, tuple) and not is_shape(inputs):
        return tuple(map(convert, inputs)), {}
    return (convert(inputs),), {}


class _Conversion:
    """Replaces shapes, specs, tensors and values in nested arguments."""

    def __init__(
        self, leaf: Callable[[Any], Any], value: Callable[[Value], Any], permutation: Callable[[Any], Any]
    ) -> None:
        self.leaf = leaf
        self.value = value
        self.permutation = permutation
        self.within: set[int] = set()
        """The objects whose attributes are being converted: an object may refer to itself."""

    def __call__(self, item: Any) -> Any:
        if is_shape(item):
            return self.leaf(TensorSpec(tuple(item), ""))
        return self._convert(item, self)

    def _convert(self, item: Any, convert: Callable[[Any], Any]) -> Any:
        if isinstance(item, TensorSpec) or hasattr(item, "untyped_storage"):
            return self.leaf(item)
        if isinstance(item, Value):
            return self.value(item)
        if isinstance(item, (list, tuple)):
            return self._convert_sequence(item, convert)
        if isinstance(item, Mapping):
            return _rebuilt_mapping(item, {key: convert(value) for key, value in item.items()})
        return self._convert_attributes(item)

    def _convert_sequence(self, items: Any, convert: Callable[[Any], Any]) -> Any:
        """A list, tuple or named tuple of the same class."""
        names = getattr(items, "_fields", None)
        if names is None:
            return type(items)(map(convert, items))
        if names[:2] == ("data", "batch_sizes"):  # a PackedSequence
            data, sizes, *permutations = items
            known = [None if p is None else self.permutation(p) for p in permutations]
            return type(items)(convert(data), sizes, *known)
        return type(items)(*map(convert, items))

    def _convert_attributes(self, item: Any) -> Any:
        """The object itself, or a shallow copy with other attributes if some of them hold tensors."""
        if callable(item) or isinstance(item, type) or id(item) in self.within:
            return item
        names = [f.name for f in fields(item)] if is_dataclass(item) else list(getattr(item, "__dict__", ()))
        self.within.add(id(item))
        try:
            before = {name: getattr(item, name, None) for name in names}
            after = {name: self._convert_attribute(value) for name, value in before.items()}
        finally:
            self.within.remove(id(item))
        changed = {name: value for name, value in after.items() if value is not before[name]}
        if not changed:
            return item
        result = copy(item)
        for name, value in changed.items():
            object.__setattr__(result, name, value)
        return result

    def _convert_attribute(self, item: Any) -> Any:
        result = self._convert(item, self._convert_attribute)
        if isinstance(item, (list, tuple)):
            return item if all(map(is_, item, result)) else result
        if isinstance(item, Mapping):
            return item if all(result[key] is value for key, value in item.items()) else result
        return result


def _rebuilt_mapping(items: Mapping[Any, Any], converted: dict[Any, Any]) -> Any:
    """A mapping of the same class: a dict, or a shallow copy with other items."""
    if type(items) is dict:
        return converted
    result: Any = copy(items)
    for key, value in converted.items():
        if value is not items[key]:
            result[key] = value
    return result
