"""Prove that a CSP stage runs, forward and backward, and as planned, before it replaces a stage."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from cspprof.core.kinds import CONVOLUTIONS, POOLS, Kind
from cspprof.core.record import Record
from cspprof.csp.conversion.channels import CouplingError
from cspprof.csp.conversion.edits import StageEdits
from cspprof.csp.conversion.plan import StagePlan

SMALL_MAP = 8
"""Height and width of the maps in the proof: convolutions run at any size, and large maps take seconds."""


def prove_stage(stage: nn.Module, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Run a copy of the stage on the CPU in training mode, forward and backward, on a batch of two small maps; if that
    fails, on maps of the height and width of `shape` (N, C, H, W).

    Raises CouplingError unless the output has the channels of `expected` and every trainable parameter gets a finite
    gradient. The trace of the whole model checks height and width.
    """
    small = tuple(min(n, SMALL_MAP + n % 2) for n in shape[2:])
    try:
        _prove(stage, (2, shape[1], *small), expected[1])
    except CouplingError:
        if small == tuple(shape[2:]):
            raise
        _prove(stage, (2, *shape[1:]), expected[1])  # the blocks may need their own height and width


def _prove(stage: nn.Module, batch: tuple[int, ...], c_out: int) -> None:
    with torch.random.fork_rng(devices=[]), _without_function_modes():
        torch.manual_seed(0)
        try:
            trial = with_values(stage)
            x = torch.randn(batch, requires_grad=True)
            y = trial(x)
            if not isinstance(y, torch.Tensor) or y.shape[1] != c_out:
                got = f"{y.shape[1]} channels" if isinstance(y, torch.Tensor) else type(y).__name__
                raise CouplingError(f"the CSP stage returns {got}, not {c_out}")
            torch.autograd.backward(y.float().square().mean())
        except CouplingError:
            raise
        except Exception as error:  # the user's blocks may raise anything
            reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
            raise CouplingError(f"the CSP stage does not run: {type(error).__name__}: {reason}") from error
    missing = [n for n, p in trial.named_parameters() if p.requires_grad and p.grad is None]
    broken = [n for n, p in trial.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
    if missing or broken:
        raise CouplingError(f"no finite gradient reaches {(missing + broken)[0]} of the CSP stage")
    if x.grad is None:
        raise CouplingError("no gradient reaches the input of the CSP stage")


def _without_function_modes() -> AbstractContextManager[Any]:
    """No function mode, such as `torch.device("meta")`, under which a factory may convert what it has built."""
    enabled = torch._C._is_torch_function_mode_enabled()
    return torch._C.DisableTorchFunction() if enabled else nullcontext()


def check_operations(before: Record, after: Record, plan: StagePlan, edits: StageEdits) -> None:
    """Raise CouplingError unless the blocks run the operations that they had before, with the planned channels, and the
    stage returns the map of the stage that it replaced. A forward with a condition on its width may run others."""
    place, stage = edits.places[0].path, plan.stage
    factor = Fraction(plan.main, plan.main + plan.bypass)
    for inside, path in edits.blocks.items():
        old = _operations(before, path)
        new = _operations(after, f"{place}.blocks{inside}")
        names = [[record.specs[record.calls.spec[i]].name for i in calls]
                 for record, calls in ((before, old), (after, new))]  # fmt: skip
        if names[0] != names[1]:
            differ = next((i for i, pair in enumerate(zip(*names, strict=False)) if pair[0] != pair[1]), None)
            at = min(map(len, names)) if differ is None else differ
            texts = [found[at] if at < len(found) else "nothing more" for found in names]
            raise CouplingError(f"{path} runs other operations with its new width: {texts[1]} instead of {texts[0]}")
        for i, j in zip(old, new, strict=True):
            _check_arguments(before, i, after, j)
            channels = stage.coupling.outputs.get(i)
            if channels is None or channels.axis < 0:
                continue
            shape = after.specs[after.calls.spec[j]].writes[0].shape
            planned = stage.coupling.new_size(channels.segments, factor)
            if channels.axis >= len(shape) or shape[channels.axis] != planned:
                layer = before.layers[before.calls.layer[i]].path
                raise CouplingError(f"{layer} returns {shape} in it, and not {planned} channels")
    last = [i for i, layer in enumerate(after.calls.layer) if _is_in(after.layers[layer].path, place)][-1]
    shape = after.specs[after.calls.spec[last]].writes[0].shape
    if shape != stage.output:
        raise CouplingError(f"the CSP stage returns {shape}, not {stage.output}")


def _check_arguments(before: Record, i: int, after: Record, j: int) -> None:
    """Raise CouplingError if a convolution, a pool or an activation has other arguments than before, besides its number
    of groups. Factors may follow from the width, as in attention."""
    old, new = before.specs[before.calls.spec[i]], after.specs[after.calls.spec[j]]
    if old.kind not in (*CONVOLUTIONS, *POOLS, Kind.ACTIVATION):
        return
    for name in (old.attrs.keys() | new.attrs.keys()) - {"groups"}:
        values = old.attrs.get(name), new.attrs.get(name)
        if values[0] != values[1]:
            layer = before.layers[before.calls.layer[i]].path or before.model
            raise CouplingError(f"{layer} has {name}={values[1]} with its new width instead of {values[0]}")


def check_surroundings(before: Record, after: Record, plan: StagePlan, place: str) -> None:
    """Raise CouplingError unless the model runs the same operations outside of the stage. Its forward may depend on the
    classes, the number or the attributes of the modules that were replaced. `before` is the trace without the stage at
    `place`, and with the stages that were converted earlier."""
    first = [plan.stage.first] if plan.replaces_first and plan.stage.first is not None else []
    replaced = [block.path for block in (*first, *plan.stage.blocks, *plan.stage.tail)]
    old, new = _outside(before, replaced), _outside(after, [place])
    if old == new:
        return
    at = next((i for i, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), min(len(old), len(new)))
    layer = (old[at] if at < len(old) else new[at])[0] or before.model
    names = [found[at][1].rpartition(".")[2] if at < len(found) else "nothing more" for found in (old, new)]
    how = f"{names[1]} instead of {names[0]}" if names[0] != names[1] else f"{names[0]} with other arguments"
    raise CouplingError(f"{layer} runs other operations around it: {how}")


def _outside(record: Record, paths: Sequence[str]) -> list[tuple[Any, ...]]:
    """The operations outside of some modules that compute, each with its module, arguments and shapes."""
    inside = [any(_is_in(layer.path, path) for path in paths) for layer in record.layers]
    found = []
    for spec_at, layer in zip(record.calls.spec, record.calls.layer, strict=True):
        spec = record.specs[spec_at]
        if not inside[layer] and spec.kind not in (Kind.VIEW, Kind.DATA):
            shapes = [[t.shape for t in tensors] for tensors in (spec.reads, spec.weights, spec.writes)]
            found.append((record.layers[layer].path, spec.target, dict(spec.attrs), shapes))
    return found


def _operations(record: Record, path: str) -> list[int]:
    """The calls inside a module that compute. Views and copies depend on how a map lies in memory."""
    calls = record.calls
    computes = [spec.kind not in (Kind.VIEW, Kind.DATA) for spec in record.specs]
    return [
        i
        for i, (spec, layer) in enumerate(zip(calls.spec, calls.layer, strict=True))
        if computes[spec] and _is_in(record.layers[layer].path, path)
    ]


def _is_in(path: str, module: str) -> bool:
    return path == module or path.startswith(f"{module}.")


def with_values(stage: nn.Module) -> nn.Module:
    """A copy on the CPU in float32 with new random weights."""
    trial = copy.deepcopy(stage)
    trial = trial.to_empty(device="cpu").float()
    for module in trial.modules():
        reset = getattr(module, "reset_parameters", None)
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if callable(reset):
            reset()
        else:
            for tensor in own:
                with torch.no_grad():
                    tensor.fill_(1) if tensor.is_floating_point() else tensor.zero_()
    return trial.train()
