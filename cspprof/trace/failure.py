"""Why a forward failed: the layer, the user's file and line, the operation, and what to change."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

from cspprof.core.errors import NeedsValuesError, TraceError
from cspprof.core.files import display_path
from cspprof.trace.dispatch import FailedOp
from cspprof.trace.module_tree import ModuleTree

NEED_VALUES = (
    "meta", "fake impl", "data-dependent", "unknown device type", "incompatible tensor type", "flop_counter"
)  # fmt: skip
"""Words in errors of torch about tensors without values. Attention of jagged tensors on meta looks for a
`flop_counter` (torch 2.14)."""
LIBRARIES = (Path(torch.__file__).parent, Path(__file__).parent.parent)
"""Folders of torch and of cspprof: a frame in them is not the user's code."""
SHAPE_WORDS = re.compile(
    r"shape|size|channels|dim|broadcast|expand|out of range|kernel|must match|expected input", re.I
)
"""Words in errors of torch that a wrong input causes."""
OTHER_INPUT = "If the input is wrong, give another, such as --input 1x3x224x224 (in Python: inputs=(1, 3, 224, 224))."
PLAIN_INPUT = (
    "\nA tuple of integers is the shape of a tensor. Where an argument is such a tuple itself: --input size:=8,8 "
    "(in Python: cspprof.Value((8, 8)))."
)


def explain_failure(
    error: BaseException, failed: FailedOp | None, tree: ModuleTree, name: str, device: str,
    inputs: Sequence[torch.Tensor],
) -> TraceError:  # fmt: skip
    """The error to raise when the forward raised `error`. `failed` is the last operation that failed."""
    layer = tree.failing_layer(error.__traceback__)
    path = tree.paths[layer]
    module = tree.modules[layer]
    where = f"layer {path!r} ({type(module).__name__})" if path else f"forward of {name}"
    line = user_line(error)
    at_line = f" ({line})" if line else ""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
    what = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    at = ""
    if failed is not None and failed.error is error:
        at = f" at {failed.target} on {', '.join(map(str, failed.inputs))}"
    if device == "meta" and any(word in str(error).lower() for word in NEED_VALUES):
        return NeedsValuesError(
            f"{name}: {where} needs the values of a tensor{at}: {reason or what}{at_line}",
            "Meta tensors have no values. Trace with real ones: --device cpu (in Python: device='cpu').",
        )
    shapes = ", ".join("×".join(map(str, t.shape)) for t in inputs)
    hint = _hint(error, tree, bool(at))
    if isinstance(error, TypeError) and len(inputs) > 1 and hint == OTHER_INPUT:
        hint += PLAIN_INPUT
    return TraceError(f"{name}: {where} failed{at}, model input {shapes or 'none'}: {what}{at_line}", hint)


def user_line(error: BaseException) -> str:
    """`net.py, line 12`: the innermost line of the traceback outside of torch and cspprof; empty if there is none."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(Path(frame.filename).is_relative_to(folder) for folder in LIBRARIES) and frame.filename[:1] != "<"
    ]
    return f"{display_path(Path(frames[-1].filename))}, line {frames[-1].lineno}" if frames else ""


def _hint(error: BaseException, tree: ModuleTree, in_operation: bool) -> str:
    """What to change, by the kind of error."""
    text = str(error)
    root = tree.model
    if isinstance(error, TypeError) and re.search(r"forward\(\) (missing|takes|got an unexpected|got multiple)", text):
        return _argument_hint(root)
    if isinstance(error, NotImplementedError) and in_operation:
        return "The device has no kernel of this operation. Trace without values (--device meta), or on another device."
    if isinstance(error, NotImplementedError) and "forward" in text:
        return f"Define forward(self, x) in the class {type(root).__name__}."
    if isinstance(error, SystemExit):
        return "Remove the call of sys.exit from the forward."
    if re.search(r"CUDA|cuda|HIP|NVIDIA|same device|on device", text):
        return "Make tensors on the device of the input, device=x.device, and replace .cuda() by .to(x.device)."
    if in_operation:
        return OTHER_INPUT
    if isinstance(error, (ValueError, AssertionError, RuntimeError)) and not in_operation:
        return (
            "The forward raises this error itself. If it needs another argument, give it by name: --input "
            f"mask=1x8:bool, --input mode:=up; its arguments are {_arguments(root)}."
        )
    if SHAPE_WORDS.search(text):
        return OTHER_INPUT
    return "Run the forward alone to see more, or run again with --debug."


def _argument_hint(model: torch.nn.Module) -> str:
    """How to give the arguments that a forward has."""
    try:
        parameters = [p for p in inspect.signature(model.forward).parameters.values() if p.kind is not p.VAR_KEYWORD]
    except (TypeError, ValueError):
        return OTHER_INPUT
    required = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    options = " ".join(f"--input {name}=1x3x224x224" for name in required)
    values = ", ".join(f"{name!r}: (1, 3, 224, 224)" for name in required)
    return (
        f"Its arguments are {_arguments(model)}. Give each that it needs, with its own shape: {options} "
        f"(in Python: inputs={{{values}}})."
    )


def _arguments(model: torch.nn.Module) -> str:
    """`x, mask=None`."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return "unknown"
    return ", ".join(str(p.replace(annotation=p.empty)) for p in parameters) or "none"
