"""Short ways through known layers, answered without running them.

What a layer of the table in `forms` does is known from its settings (`asks`), or once one like it was run: on tensors
of the same specs from its entry, on others from the operation that it asks for. Anything else about a layer, a hook, a
forward of its own, a second argument, and it is run like any module.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from torch import nn

from cspprof.trace.asks import Slot, shown
from cspprof.trace.describe import Entry, alike
from cspprof.trace.forms import Form, form_of
from cspprof.trace.given import Given, given_to
from cspprof.trace.memo import ANSWERED, LIMIT, RECIPES, Recipe, as_before, genuine
from cspprof.trace.metas import Meta, Tag, operator
from cspprof.trace.nests import tensors_in
from cspprof.trace.recorder import Recorder, Seen, result_of
from cspprof.trace.relations import SAME

Forward = Callable[[nn.Module, Any], Any]
Way = tuple[Callable[..., Any], Any]
"""What stands for a call of a module during a trace: a function of the module, its number, the recorder, what is
known of its class, and the arguments of the call; and what is known of its class."""


def way_through(kind: type[nn.Module]) -> Way | None:
    """Into layers of a known class; None where a class is not known."""
    form = form_of(kind)
    if form is None:
        return None
    if form.idle is not None:
        return _idle, form.idle
    return _short, (form, kind.forward if form.does is None else form.does.forward)


def _idle(
    module: nn.Module, layer: int, recorder: Recorder, idle: Callable[[Any], bool], /, *args: Any, **kwargs: Any
) -> Any:
    own = module.__dict__
    hooks = own["_forward_pre_hooks"] or own["_forward_hooks"]
    plain = len(args) == 1 and type(args[0]) is torch.Tensor and not (kwargs or hooks)
    if plain and idle(own) and "forward" not in own and recorder.alone():
        recorder.calls[layer] += 1
        return args[0]
    return module._call_impl(*args, **kwargs)


def _short(
    module: nn.Module, layer: int, recorder: Recorder, known: tuple[Form, Forward], /, *args: Any, **kwargs: Any
) -> Any:
    form, forward = known
    own, held = module.__dict__, recorder.held
    x: Any = args[0] if len(args) == 1 and not kwargs else None
    tag = (x.__dict__.get("_cspprof") or held.get(id(x))) if type(x) is torch.Tensor else None
    if tag is None or tag[0] is not recorder or tag[3] or own["_forward_pre_hooks"] or own["_forward_hooks"]:
        return module._call_impl(*args, **kwargs)
    if not recorder.alone() or "forward" in own or (form.counts and own["training"]):
        return module._call_impl(*args, **kwargs)
    tensors, tags = [x], [tag]
    try:
        settings = form.settings(own)
        key = [form, settings, tuple(map(type, settings)), tag[2]]  # 1 == True == 1.0
        for tensor in form.parameters(own["_parameters"]) + form.buffers(own["_buffers"]):
            if tensor is None:
                key.append(None)
            else:
                tag = held[id(tensor)]
                key.append(tag[2])
                tensors.append(tensor)
                tags.append(tag)
        frozen = tuple(key)
        entry = ANSWERED.get(frozen)
    except (KeyError, TypeError):  # no such tensor in this trace; a setting that is a list
        return module._call_impl(*args, **kwargs)
    recorder.calls[layer] += 1
    outer, recorder.layer, guard = recorder.layer, layer, None
    try:
        entry = entry or _worked_out(frozen, tensors, tags, recorder)
        if entry is None:
            found = _learn(module, forward, tensors, frozen, tags, recorder)
        else:
            guard = torch._C._DisableTorchDispatch()  # a tensor made here is not the model's doing
            found = recorder.answer(entry, tensors, tags)
            guard = None
        for name in form.then:  # layers in it that are called one after the other
            found = (own["_modules"].get(name) or getattr(module, name))(found)
        return found
    finally:
        del guard
        recorder.layer = outer


def _outline(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """What decides which operation a layer does: its class and settings, the rank and dtype of the input, and which
    of its tensors there are; and what else decides how that is written down."""
    form, settings, types, x, *others = key
    return (form, settings, types, len(x.shape), x.dtype, x.weight, x.dense, *[m and m.dense for m in others])


def _worked_out(key: tuple[Any, ...], tensors: list[torch.Tensor], tags: list[Tag], recorder: Recorder) -> Entry | None:
    """The entry of a layer whose operation is known, since one like it was run or from its settings; None where it is
    to be run."""
    outline = _outline(key)
    if outline in RECIPES:
        recipe = RECIPES[outline]
        entry = nothing(tags[0]) if recipe is None else _cooked(recipe, tags)
    else:
        entry = _from_settings(key, outline, tensors, tags, recorder)
    if entry is not None:
        _keep(key, entry)
    return entry


def _cooked(recipe: Recipe, tags: list[Tag]) -> Entry | None:
    op, args, (_, named_metas, _, named_specs, reads, weights, attrs), known = recipe
    metas = [tags[a][2] if type(a) is Slot else a for a in args]
    result = result_of(op, metas, named_metas, tags)
    if result is None:
        return None
    specs = [m.spec if type(m) is Meta else m for m in metas]
    given = Given(metas, named_metas, specs, named_specs, reads, weights, {**attrs})
    return alike(known, op, given, result, tags)


def _from_settings(
    key: tuple[Any, ...], outline: tuple[Any, ...], tensors: list[torch.Tensor], tags: list[Tag], recorder: Recorder
) -> Entry | None:
    form, settings, _, x, *others = key
    numbers = count(1)
    places = [Slot(0), *[m and Slot(next(numbers)) for m in others]]
    asked = form.asks(settings, len(x.shape), places) if form.asks is not None and genuine() else None
    if asked is None:
        return None
    op, args = shown(*asked)
    given = given_to(op, tuple([tensors[a] if type(a) is Slot else a for a in args]), {}, tags)
    pristine = given._replace(attrs={**given.attrs})
    entry = recorder.answered(op, given, tags)
    if entry is not None and entry.spec is not None:
        RECIPES[outline] = Recipe(op, args, pristine, entry)
        return entry
    return None


def _learn(
    module: nn.Module, forward: Forward, tensors: list[torch.Tensor], key: tuple[Any, ...], tags: list[Tag],
    recorder: Recorder,
) -> Any:  # fmt: skip
    """Run the layer, and remember what it did where that was at most one operation, on just these tensors."""
    seen: list[Seen] = []
    recorder.watched, looks = seen, len(recorder.looks)
    try:
        result = forward(module, tensors[0])
    finally:
        recorder.watched = None
    if len(recorder.looks) > looks or not as_before():
        return result  # each such layer is to be seen asking; what a replaced function did is not the layer's
    if not seen and result is tensors[0]:
        _keep(key, nothing(tags[0]))
        RECIPES[_outline(key)] = None
    elif len(seen) == 1:
        entry, func, args, kwargs, given, made = seen[0]
        same = len(given) == len(tags) and all(a is b for a, b in zip(given, tags, strict=True))
        if entry is not None and not entry.real and same and made is result:
            _keep(key, entry)
            if entry == nothing(tags[0]):
                RECIPES[_outline(key)] = None
            elif entry.spec is not None and not any(tensors_in(kwargs)):
                slots = {id(t): Slot(i) for i, t in enumerate(tensors)}
                op, places = operator(func), tuple([slots.get(id(a), a) for a in args])
                RECIPES[_outline(key)] = Recipe(op, places, given_to(op, args, kwargs, given), entry)
    return result


def nothing(tag: Tag) -> Entry:
    """What does nothing to a tensor, and would do nothing to any."""
    return Entry(None, (), ((SAME, 0, tag.meta),), 0, False)


def _keep(key: tuple[Any, ...], entry: Entry) -> None:
    if len(ANSWERED) >= LIMIT:
        ANSWERED.clear()
        RECIPES.clear()
    ANSWERED[key] = entry
