"""A trace, repeated in another way if the forward cannot run in the first: with gradients, or on a real device.

Each way is tried once. What an attempt changed is undone before the next one, but the forward's Python code runs again.
"""

from __future__ import annotations

import sys
from functools import partial
from itertools import chain
from typing import Any

from torch import nn

from cspprof.core.errors import NeedsValuesError, TraceError
from cspprof.core.inputs import Inputs, arguments
from cspprof.core.plain_arguments import with_plain_values
from cspprof.core.record import Record
from cspprof.core.tensors import TensorSpec
from cspprof.isolation.collection import without_collection
from cspprof.modules.prepared_model import unwrap_compiled
from cspprof.trace.gradients import may_concern_gradients
from cspprof.trace.run import trace_once

WITH_GRADIENTS = "traced with gradients enabled: the forward fails without them"
PLAIN_VALUES = "passed as numbers, as a tensor is given beside them: {} (cspprof.TensorSpec((8, 8)) makes a tensor)"
ON_DEVICE = (
    "traced on the {device}, because the forward needs the values of tensors: counts may depend on the values of the "
    "input (--device meta does not compute)"
)

MOST_INPUT_BYTES = 8 * 2**30
"""Larger inputs are not made on a real device unless the user names the device."""


def trace(
    model: nn.Module,
    inputs: Inputs,
    *,
    device: str | None = "meta",
    notes: tuple[str, ...] = (),
    **options: Any,
) -> Record:
    """Run `model` once on `inputs` and return the record of what it did; see `trace_once`.

    If `device` is None, the forward runs on meta and, if it needs the values of tensors there, on the device of the
    model's weights. A forward that fails without gradients runs with them. A note says each of these.

    Raises TraceError, with the layer, its input shapes and what to try, if the forward fails.
    """
    return without_collection(partial(_trace_on, unwrap_compiled(model), inputs, device, notes, options))


def _trace_on(
    model: nn.Module, inputs: Inputs, device: str | None, notes: tuple[str, ...], options: dict[str, Any]
) -> Record:
    """The record of a trace on the device, or, without one, on meta or with the values of the weights."""
    if device is not None:
        return _trace_readings(model, inputs, device, notes, options)
    try:
        return _trace_readings(model, inputs, "meta", notes, options)
    except NeedsValuesError as error:
        real = device_of_weights(model)
        if real is None:
            raise NeedsValuesError(error.message, "The model's weights have no values: build it on the CPU.") from error
        return trace_with_values(error, model, inputs, real, notes, options)


def trace_with_values(
    error: NeedsValuesError, model: nn.Module, inputs: Inputs, device: str, notes: tuple[str, ...], options: Any
) -> Record:
    """The record of a forward that failed on meta with `error`, traced on a real device with a note. If it fails there
    too, the TraceError tells both failures."""
    name = "CPU" if device == "cpu" else device
    size = _input_bytes(inputs)
    if size > MOST_INPUT_BYTES:
        raise NeedsValuesError(
            f"{error.message}\nand the input takes {size / 2**30:.1f} GiB, too much to be made unasked",
            f"Trace with values nevertheless: --device {device} (in Python: device={device!r}).",
        ) from error
    try:
        return _trace_readings(model, inputs, device, (*notes, ON_DEVICE.format(device=name)), options)
    except TraceError as second:
        raise TraceError(f"{error.message}\nand on the {name}: {second.message}", second.hint) from second


def _input_bytes(inputs: Inputs) -> int:
    """Bytes of the tensors that shapes and specs among the inputs describe."""
    sizes: list[int] = []

    def leaf(item: Any) -> Any:
        if isinstance(item, TensorSpec):
            sizes.append(TensorSpec(item.shape, item.dtype or "float32").nbytes)
        return item

    arguments(inputs, leaf)
    return sum(sizes)


def device_of_weights(model: nn.Module) -> str | None:
    """The device of the first parameter or buffer, `cpu` without any. None if a parameter or buffer is on meta."""
    tensors = list(chain(model.parameters(), model.buffers()))
    if any(tensor.is_meta for tensor in tensors):
        return None
    return str(tensors[0].device) if tensors else "cpu"


def _trace_readings(
    model: nn.Module, inputs: Inputs, device: str, notes: tuple[str, ...], options: dict[str, Any]
) -> Record:
    """The record with bare tuples of integers read as `with_plain_values` says; if the forward fails, as shapes."""
    read, assumed = with_plain_values(model.forward, inputs)
    more = (PLAIN_VALUES.format(", ".join(assumed)),) if assumed else ()
    try:
        return _trace_gradients(model, read, device, (*notes, *more), options)
    except TraceError as error:
        if read is inputs or isinstance(error, NeedsValuesError):
            raise
        try:
            return _trace_gradients(model, inputs, device, notes, options)
        except NeedsValuesError:
            raise
        except TraceError:
            raise error from error.__cause__


def _trace_gradients(
    model: nn.Module, inputs: Inputs, device: str, notes: tuple[str, ...], options: dict[str, Any]
) -> Record:
    """The record without gradients; with them if the forward fails in a way that they may prevent."""
    had_compiler = "torch._dynamo" in sys.modules
    try:
        return trace_once(model, inputs, device=device, notes=notes, **options)
    except TraceError as error:
        first = error
    if not had_compiler and "torch._dynamo" in sys.modules:  # now the trace keeps it from compiling
        return _trace_gradients(model, inputs, device, notes, options)
    if not may_concern_gradients(first):
        raise first
    try:
        return trace_once(model, inputs, device=device, notes=(*notes, WITH_GRADIENTS), gradients=True, **options)
    except NeedsValuesError:
        raise
    except TraceError:
        raise first from first.__cause__
