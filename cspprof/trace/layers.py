"""Layers of torch's own, answered without running them where one like it was run before on the like.

A layer of the table below does one operation on its input and its own tensors, and which one depends on nothing but
the settings named there. So once such a layer was run, the operation's entry is known for every other with the same
settings on tensors of the same specs. Anything else about a layer, a hook, a forward of its own, a second argument, and
it is run like any module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules import module as torch_module

from cspprof.trace.describe import SAME, Entry
from cspprof.trace.memo import ANSWERED, LIMIT
from cspprof.trace.metas import Tag
from cspprof.trace.recorder import Recorder
from cspprof.trace.scope import Scope


class Form(NamedTuple):
    """What the operation of a class of layers depends on, besides its input."""

    settings: tuple[str, ...]
    parameters: tuple[str, ...] = ()
    buffers: tuple[str, ...] = ()


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
_FORWARDS = {kind: kind.forward for kind in FORMS}


@contextmanager
def shortcuts(scope: Scope, recorder: Recorder) -> Iterator[None]:
    """For the time of a trace, the slot of a compiled call holds a short way through each layer of the table."""
    known = [(m, i) for i, m in enumerate(scope.modules) if type(m) in FORMS] if recorder.on_meta else []
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        known = []  # somebody else wants to see every call
    taken: list[dict[str, Any]] = []
    try:
        for module, layer in known:
            own = module.__dict__
            plain = "forward" not in own and "_compiled_call_impl" not in own
            if plain and type(module).forward is _FORWARDS[type(module)]:
                own["_compiled_call_impl"] = _short(module, layer, scope.calls, recorder)
                taken.append(own)
        yield
    finally:
        for own in taken:
            own.pop("_compiled_call_impl", None)


def _short(module: nn.Module, layer: int, calls: list[int], recorder: Recorder) -> Callable[..., Any]:
    kind, own, thread, held = type(module), module.__dict__, get_ident(), recorder.held
    form = FORMS[kind]
    before, after = module._forward_pre_hooks, module._forward_hooks
    tables: list[tuple[Any, tuple[str, ...]]] = [(module._parameters, form.parameters), (module._buffers, form.buffers)]

    def call(*args: Any, **kwargs: Any) -> Any:
        if len(args) != 1 or kwargs or before or after or get_ident() != thread:
            return module._call_impl(*args, **kwargs)
        x = args[0]
        tag = x.__dict__.get("_cspprof") if type(x) is torch.Tensor else None
        if tag is None or tag.owner is not recorder or tag.constant:
            return module._call_impl(x)
        tensors, tags = [x], [tag]
        key: list[Any] = [kind, tag.meta]
        try:
            for name in form.settings:
                value = own[name]
                key.append(value)
                key.append(type(value))
            for table, names in tables:
                for name in names:
                    tensor = table[name]
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
        if entry is None:
            return _learn(module, x, frozen, tags, recorder)
        calls[layer] += 1
        outer, recorder.layer = recorder.layer, layer
        with torch._C._DisableTorchDispatch():  # a tensor made here is not the model's doing
            made = recorder.answer(entry, tensors, tags)
        recorder.layer = outer
        return made

    return call


def _learn(module: nn.Module, x: torch.Tensor, key: tuple[Any, ...], tags: list[Tag], recorder: Recorder) -> Any:
    """Run the layer, and remember what it did where that was at most one operation, on just these tensors."""
    seen: list[tuple[Entry | None, list[Tag], Any]] = []
    recorder.watched = seen
    try:
        result = module._call_impl(x)
    finally:
        recorder.watched = None
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
