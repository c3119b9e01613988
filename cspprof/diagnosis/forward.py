"""Why a forward failed: the layer, the user's file and line, the operation, and what to change."""

from __future__ import annotations

import inspect
import linecache
import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from cspprof.core.errors import NeedsValuesError, TraceError
from cspprof.core.tensors import TensorSpec
from cspprof.diagnosis.user_code import definition, file_and_line, user_frame

NEED_VALUES = (
    "meta", "fake impl", "data-dependent", "unknown device type", "incompatible tensor type", "flop_counter"
)  # fmt: skip
"""Words in errors of torch about tensors without values. Attention of jagged tensors on meta looks for a
`flop_counter` (torch 2.14)."""
SHAPE_WORDS = re.compile(r"shape|size|channels|dim|broadcast|expand|kernel|must match|expected input", re.I)
"""Words in errors of torch about shapes, which a wrong input can cause."""
DTYPE_WORDS = re.compile(r"dtype|scalar type|should be the same|same type|data type|type .* (but|found)", re.I)
DEVICE_WORDS = re.compile(r"CUDA|cuda|HIP|NVIDIA|same device|on device")
MEMORY_WORDS = re.compile(r"out of memory|allocate memory", re.I)
GRADIENT_WORDS = re.compile(r"require grad|requires grad|grad_fn|differentia|backward", re.I)
BATCH_WORDS = "Expected more than 1 value per channel when training"
STRUCTURE_WORDS = re.compile(
    r"to unpack|too many indices|not subscriptable|indices must be|only integer tensors|data type 'str'|"
    r"'Tensor' object has no attribute"
)
"""Words in errors of a forward that uses a tensor as a dict, a tuple or another object."""
DEFAULT_SHAPE = (1, 3, 224, 224)
TOKEN_SHAPE = (1, 128)
"""The shape that a hint proposes to a language model, (N, tokens)."""
PLAIN_INPUT = (
    "\nA tuple of integers is the shape of a tensor. Where an argument is such a tuple itself: --input size:=8,8 "
    "(in Python: cspprof.Value((8, 8)))."
)


class FailedOp(NamedTuple):
    """The operation in which a forward raised."""

    error: BaseException
    target: str
    inputs: list[TensorSpec]


def explain_failure(
    error: BaseException, failed: FailedOp | None, path: str, module: torch.nn.Module, model: torch.nn.Module,
    name: str, device: str, inputs: Sequence[torch.Tensor],
) -> TraceError:  # fmt: skip
    """The error to raise when the forward raised `error` in the layer `module` at `path`. `failed` is the last
    operation that failed."""
    where = f"layer {path!r} ({type(module).__name__})" if path else f"forward of {name}"
    frame = user_frame(error)
    line = file_and_line(frame.filename, frame.lineno) if frame else definition(module)
    at_line = f" ({line})" if line else ""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
    what = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    if failed is not None and failed.error is not error:
        failed = None
    at = ""
    if failed is not None:
        at = f" at {failed.target}" + (f" on {', '.join(map(str, failed.inputs))}" if failed.inputs else "")
    if device == "meta" and any(word in str(error).lower() for word in NEED_VALUES):
        return NeedsValuesError(
            f"{name}: {where} needs the values of a tensor{at}: {reason or what}{at_line}",
            "Meta tensors have no values. Trace with real ones: --device cpu (in Python: device='cpu').",
        )
    shapes = ", ".join("×".join(map(str, t.shape)) for t in inputs)
    failure = _Failure(error, failed, module, model, tuple(inputs), frame, line)
    return TraceError(f"{name}: {where} failed{at}, model input {shapes or 'none'}: {what}{at_line}", failure.hint())


@dataclass(frozen=True)
class _Failure:
    """The facts about a failed forward."""

    error: BaseException
    failed: FailedOp | None
    """The operation that raised the error."""
    module: torch.nn.Module
    """The layer in which it happened."""
    model: torch.nn.Module
    inputs: tuple[torch.Tensor, ...]
    frame: traceback.FrameSummary | None
    """The user's frame in which it happened, and its file and line."""
    line: str

    def hint(self) -> str:
        """The hint for the kind of error."""
        error, text = self.error, str(self.error)
        if isinstance(error, TypeError) and re.search(
            r"forward\(\) (missing|takes|got an unexpected|got multiple)", text
        ):
            return self._argument_hint()
        if isinstance(error, NotImplementedError) and self.failed is not None:
            return (
                "The device has no kernel of this operation. Trace without values (--device meta), or on another "
                "device."
            )
        if isinstance(error, NotImplementedError) and "forward" in text:
            return f"Define forward(self, x) in the class {type(self.module).__name__}."
        if isinstance(error, OverflowError):
            return "Give a smaller input, or correct the size of a window or of a layer."
        if isinstance(error, SystemExit):
            return "Remove the call of sys.exit from the forward."
        if MEMORY_WORDS.search(text):
            return "There is too little memory for this tensor: give a smaller input, or make the tensor on x.device."
        if DEVICE_WORDS.search(text):
            return "Make tensors on the device of the input, device=x.device, and replace .cuda() by .to(x.device)."
        if GRADIENT_WORDS.search(text) and not self._raised_by_user():
            return (
                "The forward computes gradients of a tensor that requires none. Call x.requires_grad_() before, not "
                "x.detach()."
            )
        if self.failed is not None and DTYPE_WORDS.search(text):
            return self._dtype_hint(self.failed)
        if self._raised_by_user():
            return self._own_error_hint()
        if BATCH_WORDS in text and self.inputs and self.inputs[0].shape[:1] == (1,):
            batch = _input_text((2, *self.inputs[0].shape[1:]))
            return f"In training mode, batch norm needs more than one value in each channel: {batch}."
        if self.failed is None and STRUCTURE_WORDS.search(text):
            return self._structure_hint()
        if self.failed is not None or (SHAPE_WORDS.search(text) and not isinstance(error, AttributeError)):
            return self._shape_hint()
        if not self.inputs and isinstance(error, TypeError | AttributeError):
            return f"No input is a tensor. If the forward needs one, give its shape: {_input_text(DEFAULT_SHAPE)}."
        return "Run the forward alone to see more, or run again with --debug."

    def _raised_by_user(self) -> bool:
        """Whether a statement `raise` or `assert` of the user's code raised the error."""
        if self.frame is None or traceback.extract_tb(self.error.__traceback__)[-1] != self.frame:
            return False
        statement = linecache.getline(self.frame.filename, self.frame.lineno or 0).strip()
        return re.search(r"\b(raise|assert)\b", statement) is not None

    def _argument_hint(self) -> str:
        """How to give the arguments that a forward has."""
        if self.frame is not None:  # the user's code calls the forward of a layer
            return (
                f"The arguments of {type(self.module).__name__}.forward are {_arguments(self.module)}. Correct the "
                f"call in {self.line}."
            )
        parameters = _parameters(self.model)
        if parameters is None:
            return self._shape_hint()
        required = [p for p in parameters if p.default is p.empty and p.kind in GIVEN_KINDS]
        shape = tuple(self.inputs[0].shape) if self.inputs else DEFAULT_SHAPE
        options = " ".join(_option(p, shape) for p in required)
        values = ", ".join(f"{p.name!r}: {_python_value(p, shape)}" for p in required)
        return (
            f"Its arguments are {_arguments(self.model)}. Give each that it needs, with its own shape: {options} "
            f"(in Python: inputs={{{values}}})."
        )

    def _own_error_hint(self) -> str:
        """The hint for an error that the forward raises on purpose."""
        parameters, given = _parameters(self.model) or [], len(self.inputs)
        other = next((p for p in parameters[given:] if p.kind in GIVEN_KINDS), None)
        if other is None:
            return (
                f"The forward raises this error itself: see {self.line}. If it is about the input, give another, such "
                f"as {_input_text(self._other_shape())}."
            )
        shape = tuple(self.inputs[0].shape) if self.inputs else DEFAULT_SHAPE
        options = " ".join(_option(p, shape) for p in [*parameters[:given], other])
        return (
            f"The forward raises this error itself. If it needs another argument, give it by name: {options}, or a "
            f"value that is no tensor: --input {other.name}:=up. Its arguments are {_arguments(self.model)}."
        )

    def _structure_hint(self) -> str:
        """How to give an argument that is a dict, a tuple or another object that holds tensors."""
        shape = tuple(self.inputs[0].shape) if self.inputs else DEFAULT_SHAPE
        name = next((p.name for p in _parameters(self.model) or [] if p.kind in GIVEN_KINDS), "x")
        return (
            "The forward uses a tensor as a dict, a tuple or another object. Give that object in Python, with shapes "
            f"for its tensors: cspprof.profile(model, {{{name!r}: {{'key': {shape}}}}}) or "
            f"cspprof.profile(model, {{{name!r}: [{shape}, {shape}]}})."
        )

    def _dtype_hint(self, failed: FailedOp) -> str:
        """An input of another dtype if the operation reads the model's input as it is, else to convert in the code."""
        for i, tensor in enumerate(self.inputs):
            dtype, shape = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
            if any(spec.shape == shape and spec.dtype == dtype for spec in failed.inputs):
                others = [spec.dtype for spec in failed.inputs if spec.dtype != dtype]
                wanted = others[0] if others else "int64" if "Long" in str(self.error) else "float32"
                name = self._input_name(i)
                if "embedding" in failed.target and shape == DEFAULT_SHAPE:
                    shape = TOKEN_SHAPE
                given = f"--input {name}{'x'.join(map(str, shape))}:{wanted}"
                return f"Give the input in the dtype that the operation needs: {given}"
        return (
            f"The forward mixes dtypes. Convert one tensor to the dtype of the other, x.to(other.dtype): {self.line}."
        )

    def _input_name(self, i: int) -> str:
        """`mask=` for the input at position `i`; empty if it is the only one."""
        parameters = _parameters(self.model) or []
        return f"{parameters[i].name}=" if len(self.inputs) > 1 and i < len(parameters) else ""

    def _shape_hint(self) -> str:
        """Another input, with the shape that the operation needs if it reads the model's input; of several inputs,
        all by name."""
        if len(self.inputs) > 1:
            options = " ".join(f"--input {self._input_name(i)}{_shape_text(t)}" for i, t in enumerate(self.inputs))
            hint = f"If an input is wrong, give it another shape or dtype than now: {options}."
        else:
            hint = f"If the input is wrong, give another, such as {_input_text(self._other_shape())}."
        if self.frame is not None:
            hint += f" If the code is wrong, correct {self.line}."
        if isinstance(self.error, TypeError) and len(self.inputs) > 1:
            hint += PLAIN_INPUT
        return hint

    def _other_shape(self) -> tuple[int, ...]:
        if not self.inputs:
            return DEFAULT_SHAPE
        shape = list(self.inputs[0].shape)
        specs = self.failed.inputs if self.failed is not None else []
        operation = self.failed.target if self.failed is not None else ""
        if len(specs) > 1 and list(specs[0].shape) == shape and len(specs[1].shape) > 1:
            weight = specs[1].shape
            if "linear" in operation and shape[-1:] != [weight[1]]:
                return (*shape[:-1], weight[1])
            grouped = weight[1] == 1 or len(shape) != len(weight) or "transpose" in operation
            if "conv" in operation and not grouped and shape[1] % weight[1]:
                return (shape[0], weight[1], *shape[2:])
        if len(shape) == 4:
            return (*shape[:2], *((256, 256) if self.inputs[0].shape == (*shape[:2], 224, 224) else (224, 224)))
        return DEFAULT_SHAPE


GIVEN_KINDS = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)


def _parameters(model: torch.nn.Module) -> list[inspect.Parameter] | None:
    """The parameters of the forward; None if they are unknown."""
    try:
        return list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return None


def _arguments(model: torch.nn.Module) -> str:
    """`x, mask=None`."""
    parameters = _parameters(model)
    if parameters is None:
        return "unknown"
    return ", ".join(str(p.replace(annotation=p.empty)) for p in parameters) or "none"


def _plain_value(parameter: inspect.Parameter) -> str | None:
    """An example of the value of a parameter that is annotated as a number, a bool or a string."""
    annotation = parameter.annotation
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return {"int": "1", "float": "0.5", "bool": "True", "str": "up"}.get(name)


def _option(parameter: inspect.Parameter, shape: tuple[int, ...]) -> str:
    """`--input mask=1x3x224x224`, or `--input n:=1` for a number."""
    plain = _plain_value(parameter)
    given = f"={'x'.join(map(str, shape))}" if plain is None else f":={plain}"
    return f"--input {parameter.name}{given}"


def _python_value(parameter: inspect.Parameter, shape: tuple[int, ...]) -> str:
    plain = _plain_value(parameter)
    return str(shape) if plain is None else repr(plain) if plain == "up" else plain


def _shape_text(tensor: torch.Tensor) -> str:
    """`1x128:int64`, without the dtype float32."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    return ("x".join(map(str, tensor.shape)) or "scalar") + ("" if dtype == "float32" else f":{dtype}")


def _input_text(shape: tuple[int, ...]) -> str:
    return f"--input {'x'.join(map(str, shape))} (in Python: inputs={shape})"
