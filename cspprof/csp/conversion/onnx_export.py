"""The converted network as an ONNX graph."""

from __future__ import annotations

import copy
import inspect
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from cspprof.core.errors import CspprofError, pip_install
from cspprof.core.inputs import Inputs, arguments
from cspprof.core.relative_error import WrongOutputError, relative_error
from cspprof.csp.conversion.proof import with_values

HEAD = 64
"""The bytes of an ONNX file in which the name of its producer is."""
PRODUCER = b"\x12\x07cspprof"
"""The field `producer_name` of an ONNX file that cspprof wrote: a later run replaces only such a file."""


def is_own_onnx(head: bytes) -> bool:
    return PRODUCER in head[:HEAD]


CODE_INSTEAD = "Write code instead: -o net_csp.py"
TOLERANCE, TOLERANCE_OF_HALF = 1e-3, 5e-2
"""Largest relative error of the outputs in ONNX Runtime. Rounding of float32 gives 1e-7 to 1e-5, and a wrong operation
1e-2 and more."""


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """An exported network."""

    data: bytes
    not_compared: str
    """Why its outputs were not compared with those of torch; empty if they were, and are equal."""


def onnx_graph(model: nn.Module, inputs: Inputs) -> OnnxGraph:
    """The graph of `model` in eval mode, for inputs of these shapes. Weights that have no values get random ones.

    Raises CspprofError if torch cannot export it, or if ONNX Runtime computes other outputs than torch.
    """
    with torch.random.fork_rng(devices=[]):
        on_meta = any(p.is_meta for p in model.parameters())
        real = (with_values(model) if on_meta else copy.deepcopy(model).cpu()).eval()
        args, kwargs = arguments(inputs, _values)
        floating = {x.dtype for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor) and x.is_floating_point()}
        if len(floating) == 1:  # the trace casts weights to the dtype of the inputs too
            real = real.to(floating.pop())
        file: Any = io.BytesIO()  # the exporter writes to files too, but its types say only names
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                # The inputs of the graph have the order of the signature.
                bound = inspect.signature(real.forward).bind(*args, **kwargs)
                args, kwargs = bound.args, bound.kwargs
                torch.onnx.export(real, args, file, kwargs=kwargs, dynamo=False, opset_version=17)
        except Exception as error:  # the exporter raises errors of many classes
            raise CspprofError(f"torch cannot export the network: {_text(error)}", CODE_INSTEAD) from error
        data = file.getvalue()
        data = data[:HEAD].replace(b"\x12\x07pytorch", PRODUCER) + data[HEAD:]
        return OnnxGraph(data, _compare(data, real, args, kwargs))


def _values(tensor: Any) -> torch.Tensor:
    """Random values for a shape; zeros for integers, which may be indices."""
    dtype = getattr(torch, str(tensor.dtype or "float32").removeprefix("torch."))
    shape = tuple(tensor.shape)
    return torch.randn(shape).to(dtype) if dtype.is_floating_point else torch.zeros(shape, dtype=dtype)


def _compare(data: bytes, model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Compare the outputs in ONNX Runtime with those of torch. Returns why that is impossible, or an empty text.

    Raises CspprofError if they differ.
    """
    if find_spec("onnxruntime") is None:
        return f"ONNX Runtime is not installed: {pip_install('measure')}"
    import onnxruntime

    tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)]
    with torch.no_grad():
        expected = [y for y in _flat(model(*copy.deepcopy(args), **copy.deepcopy(kwargs))) if y is not None]
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        names = [i.name for i in session.get_inputs()]
        if len(names) != len(tensors):
            return f"the graph has {len(names)} inputs, and the network {len(tensors)}"
        got = session.run(None, {name: x.numpy() for name, x in zip(names, tensors, strict=True)})
    except Exception as error:  # for example a dtype that ONNX Runtime has no kernel for
        return f"ONNX Runtime cannot run it: {_text(error)}"
    if len(got) != len(expected):
        return f"the graph has {len(got)} outputs, and the network {len(expected)}"
    if not all(y.isfinite().all() for y in expected):
        return "an output of the network has values that are not finite"
    try:
        distance = relative_error(got, [y.double().numpy() for y in expected])
    except WrongOutputError as wrong:
        raise CspprofError(f"ONNX Runtime computes another result than torch: {wrong.message}", CODE_INSTEAD) from None
    half = any(y.dtype in (torch.float16, torch.bfloat16) for y in expected)
    if distance > (TOLERANCE_OF_HALF if half else TOLERANCE):
        raise CspprofError(
            f"ONNX Runtime computes another result than torch: its relative error is {distance:.1e}", CODE_INSTEAD
        )
    return ""


def _flat(value: Any) -> list[Any]:
    """The tensors of an output, in the order of the exporter."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    return [y for part in value for y in _flat(part)] if isinstance(value, (tuple, list)) else [value]


def _text(error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
    return f"{type(error).__name__}: {reason}"
