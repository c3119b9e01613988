"""Layers of torch's own, answered without running them where one like it was run before on the like.

A layer of the table below does one operation on its input and its own tensors, and which one depends on nothing but
the settings named there. So once such a layer was run, the operation's entry is known for every other with the same
settings on tensors of the same specs. Anything else about a layer, a hook, a forward of its own, a second argument, and
it is run like any module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from threading import get_ident
from typing import Any

import torch
from torch import nn

from cspprof.trace.describe import Entry
from cspprof.trace.memo import ANSWERED, LIMIT
from cspprof.trace.metas import Tag
from cspprof.trace.recorder import Recorder
from cspprof.trace.relations import SAME

Getter = Callable[[Mapping[str, Any]], tuple[Any, ...]]


class Form:
    """What the operation of a class of layers depends on, besides its input: attributes, parameters and buffers."""

    def __init__(
        self, settings: tuple[str, ...], parameters: tuple[str, ...] = (), buffers: tuple[str, ...] = ()
    ) -> None:
        self.settings = _getter(settings)
        self.parameters = _getter(parameters)
        self.buffers = _getter(buffers)


def _getter(names: tuple[str, ...]) -> Getter:
    """The values of these keys, as a tuple."""
    if len(names) > 1:
        return itemgetter(*names)
    return (lambda table: (table[names[0]],)) if names else (lambda table: ())


AFFINE = ("weight", "bias")
_CONV = Form(("stride", "padding", "dilation", "groups", "padding_mode"), AFFINE)
_BATCH_NORM = Form(("training", "momentum", "eps", "track_running_stats"), AFFINE, ("running_mean", "running_var"))

FORMS: dict[type[nn.Module], Form] = {
    nn.Identity: Form(()),
    nn.Dropout: Form(("training", "p", "inplace")),
    nn.Conv1d: _CONV,
    nn.Conv2d: _CONV,
    nn.Conv3d: _CONV,
    nn.Linear: Form((), AFFINE),
    nn.BatchNorm1d: _BATCH_NORM,
    nn.BatchNorm2d: _BATCH_NORM,
    nn.BatchNorm3d: _BATCH_NORM,
    nn.LayerNorm: Form(("normalized_shape", "eps"), AFFINE),
    nn.GroupNorm: Form(("num_groups", "eps"), AFFINE),
    nn.ReLU: Form(("inplace",)),
    nn.ReLU6: Form(("inplace", "min_val", "max_val")),
    nn.LeakyReLU: Form(("inplace", "negative_slope")),
    nn.SiLU: Form(("inplace",)),
    nn.GELU: Form(("approximate",)),
    nn.Hardswish: Form(("inplace",)),
    nn.Hardsigmoid: Form(("inplace",)),
    nn.Mish: Form(("inplace",)),
    nn.Sigmoid: Form(()),
    nn.Tanh: Form(()),
    nn.Softmax: Form(("dim",)),
    nn.MaxPool2d: Form(("kernel_size", "stride", "padding", "dilation", "return_indices", "ceil_mode")),
    nn.AvgPool2d: Form(("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")),
    nn.AdaptiveAvgPool2d: Form(("output_size",)),
}
FORWARDS = {kind: kind.forward for kind in FORMS}
"""As torch has them: a class that was given another is run like any module."""


def short(
    module: nn.Module, own: dict[str, Any], layer: int, form: Form, recorder: Recorder, /, *args: Any, **kwargs: Any
) -> Any:
    """What stands for a call of such a layer during a trace; `own` are its attributes."""
    hooks = own["_forward_pre_hooks"] or own["_forward_hooks"]
    if len(args) != 1 or kwargs or hooks or get_ident() != recorder.thread:
        return module._call_impl(*args, **kwargs)
    x, held = args[0], recorder.held
    tag = x.__dict__.get("_cspprof") if type(x) is torch.Tensor else None
    if tag is None or tag.owner is not recorder or tag.constant:
        return module._call_impl(x)
    tensors, tags, key = [x], [tag], [form, tag.meta, form.settings(own)]
    try:
        for tensor in form.parameters(own["_parameters"]) + form.buffers(own["_buffers"]):
            if tensor is None:
                key.append(None)
            else:
                tag = held[id(tensor)]
                key.append(tag.meta)
                tensors.append(tensor)
                tags.append(tag)
        frozen = tuple(key)
        entry = ANSWERED.get(frozen)
    except (KeyError, TypeError):  # no such tensor in this trace; a setting that is a list
        return module._call_impl(x)
    recorder.calls[layer] += 1
    outer, recorder.layer, guard = recorder.layer, layer, None
    try:
        if entry is None:
            return _learn(module, x, frozen, tags, recorder)
        guard = torch._C._DisableTorchDispatch()  # a tensor made here is not the model's doing
        return recorder.answer(entry, tensors, tags)
    finally:
        del guard
        recorder.layer = outer


def _learn(module: nn.Module, x: torch.Tensor, key: tuple[Any, ...], tags: list[Tag], recorder: Recorder) -> Any:
    """Run the layer, and remember what it did where that was at most one operation, on just these tensors."""
    seen: list[tuple[Entry | None, list[Tag], Any]] = []
    recorder.watched, looks = seen, len(recorder.looks)
    try:
        result = module.forward(x)
    finally:
        recorder.watched = None
    if len(recorder.looks) > looks:
        return result  # each such layer is to be seen asking
    if len(ANSWERED) >= LIMIT:
        ANSWERED.clear()
    if not seen and result is x:
        ANSWERED[key] = Entry(None, (), ((SAME, 0, tags[0].meta),), 0, False)
    elif len(seen) == 1:
        entry, given, made = seen[0]
        same = len(given) == len(tags) and all(a is b for a, b in zip(given, tags, strict=True))
        if entry is not None and not entry.real and same and made is result:
            ANSWERED[key] = entry
    return result
