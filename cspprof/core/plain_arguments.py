"""Which bare tuples of integers among the inputs are values of the forward, and which are shapes of tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from cspprof.core.inputs import Inputs, ModelArguments, Value, arguments, is_shape
from cspprof.core.tensors import TensorSpec


def with_plain_values(forward: Callable[..., Any], inputs: Inputs) -> tuple[Inputs, list[str]]:
    """The inputs, with a `Value` in the place of each argument that is a bare tuple of integers and no shape; and those
    about which the signature says nothing, as text.

    The signature of the forward decides: an annotation or a default of integers means a value, one with `Tensor` a
    shape. If it says nothing, such a tuple is a value if a tensor or a `TensorSpec` is among the inputs, else a shape;
    then this also holds for tuples in a list or dict.
    """
    if isinstance(inputs, ModelArguments):
        args, kwargs = inputs.args, inputs.kwargs
    elif type(inputs) is dict:
        args, kwargs = (), inputs
    elif type(inputs) in (list, tuple) and not is_shape(inputs):
        args, kwargs = tuple(inputs), {}
    else:
        return inputs, []
    parameters = _parameters(forward)
    by_position = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    has_tensor = _holds_tensor(inputs)
    marked = False
    assumed: list[str] = []

    def convert(argument: Any, parameter: inspect.Parameter | None, name: str) -> Any:
        nonlocal marked
        if has_tensor and not is_shape(argument):  # `{"size": (16, 16)}` beside a tensor
            if type(argument) is dict:
                return {key: convert(held, None, f"{name}[{key!r}]") for key, held in argument.items()}
            if type(argument) in (list, tuple):
                return type(argument)(convert(held, None, f"{name}[{i}]") for i, held in enumerate(argument))
        if not is_shape(argument):
            return argument
        stated = None if parameter is None else _takes_integers(parameter)
        if stated is False or (stated is None and not has_tensor):
            return argument
        if stated is None:
            assumed.append(f"{parameter.name if parameter is not None else name}={argument!r}")
        marked = True
        return Value(argument)

    positional = [
        convert(argument, by_position[i] if i < len(by_position) else None, f"argument {i}")
        for i, argument in enumerate(args)
    ]
    named = {name: convert(argument, parameters.get(name), name) for name, argument in kwargs.items()}
    return (ModelArguments(tuple(positional), named) if marked else inputs), assumed


def _parameters(forward: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(forward).parameters)
    except (TypeError, ValueError):  # a scripted module
        return {}


def _takes_integers(parameter: inspect.Parameter) -> bool | None:
    """Whether the parameter takes integers: by its annotation, else by its default. None if neither says so."""
    if parameter.annotation is not parameter.empty:
        annotation = parameter.annotation if isinstance(parameter.annotation, str) else repr(parameter.annotation)
        if "Tensor" in annotation:
            return False
        if "int" in annotation or "Size" in annotation:
            return True
    return True if type(parameter.default) is int or is_shape(parameter.default) else None


def _holds_tensor(inputs: Inputs) -> bool:
    """Whether a tensor or a `TensorSpec` with a dtype is among the inputs."""
    found = False

    def leaf(item: Any) -> Any:
        nonlocal found
        found = found or not isinstance(item, TensorSpec) or item.dtype != ""
        return item

    arguments(inputs, leaf)
    return found
