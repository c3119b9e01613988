"""Apply a proposed change to a copy of a model, so that it can be traced again."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

from cspprof.core.record import Record
from cspprof.csp.advice.network_widths import NetworkWidths, WidthChange
from cspprof.csp.advice.proposal import Change, FoldNorms, InPlace, StageConversion
from cspprof.csp.conversion.channels import CouplingError
from cspprof.csp.conversion.convert import convert_model, gpus, output_shapes
from cspprof.csp.conversion.edits import refuse_other_weights, renumber, set_module
from cspprof.csp.conversion.layers import RULES, resize
from cspprof.csp.conversion.refusals import refuse_unconvertible


def trace_with_change(model: nn.Module, record: Record, change: Change, trace: Callable[[nn.Module], Record]) -> Record:
    """The record of a copy of `model` with the change. `record` is the trace of `model`.

    Raises CspprofError if the change is impossible, or if the changed model fails or returns other shapes.
    """
    refuse_unconvertible(model)
    if isinstance(change, StageConversion):
        result = convert_model(model, record, trace, change.options, [change.stage])
        if all(stage.plan is None for stage in result.stages):
            raise CouplingError(result.stages[0].reason)
        return result.record
    with torch.random.fork_rng(gpus(model)):  # new layers draw random weights
        changed = with_change(model, record, change)
    after = trace(changed)
    if output_shapes(record) != output_shapes(after):
        raise CouplingError("the model returns other shapes with it")
    return after


def with_change(model: nn.Module, record: Record, change: WidthChange | InPlace | FoldNorms) -> nn.Module:
    """A copy of `model` with the change. `record` is the trace of `model`.

    Raises CouplingError if a module cannot be changed in this way.
    """
    try:
        changed = copy.deepcopy(model)
    except Exception as error:  # the modules of a user may raise anything
        raise CouplingError(f"the model cannot be copied: {type(error).__name__}") from error
    if isinstance(change, InPlace):
        for path in change.layers:
            module = changed.get_submodule(path)
            if getattr(module, "inplace", None) is not False:
                raise CouplingError(f"{path} has no setting inplace")
            module.inplace = True  # type: ignore[assignment]  # an attribute, no module
    elif isinstance(change, FoldNorms):
        _fold_norms(changed, change)
    else:
        _resize_layers(changed, record, change)
    return changed


def _fold_norms(model: nn.Module, change: FoldNorms) -> None:
    for convolution, norm in change.pairs:
        first, second = model.get_submodule(convolution), model.get_submodule(norm)
        if not isinstance(first, nn.Conv2d) or not isinstance(second, nn.BatchNorm2d):
            raise CouplingError(f"{norm} is no BatchNorm2d behind a Conv2d")
        set_module(model, convolution, fuse_conv_bn_eval(first.eval(), second.eval()))
        set_module(model, norm, nn.Identity())


def _resize_layers(model: nn.Module, record: Record, change: WidthChange) -> None:
    widths = NetworkWidths(record)
    shapes = widths.new_shapes(change)
    names = {s.id: s.name for s in record.storages}
    _refuse_shared_weights(model, {names[storage] for storage in shapes.weights})
    by_layer: dict[str, dict[str, tuple[int, ...]]] = {path: {} for path in change.dense}
    for storage, shape in shapes.weights.items():
        path, _, name = names[storage].rpartition(".")
        by_layer.setdefault(path, {})[name] = shape
    for path, new in by_layer.items():
        module = model.get_submodule(path)
        refuse_other_weights(module, path)
        if path in change.dense:
            if not isinstance(module, nn.Conv2d):
                raise CouplingError(f"{path} is no Conv2d")
            module = copy.copy(module)
            module.groups = 1
        try:
            resized = resize(module, new).module
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CouplingError(f"{path} cannot be built with other channels: {error}") from error
        if path:
            set_module(model, path, resized)
        else:
            model.__dict__.update(resized.__dict__)
    for path, numbers in shapes.numbers.items():
        module = model.get_submodule(path)
        if not type(module).__module__.startswith("torch.nn.") and not (
            path in by_layer and isinstance(module, tuple(RULES))
        ):
            renumber(module, numbers)


def _refuse_shared_weights(model: nn.Module, resized: set[str]) -> None:
    """Raise CouplingError if a weight that changes has two names: its layers would get different weights."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for shared in names.values():
        if len(shared) > 1 and resized & set(shared):
            raise CouplingError(f"{shared[0]} and {shared[1]} are one weight, and the change would separate them")
