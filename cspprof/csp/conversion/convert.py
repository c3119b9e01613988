"""Convert a network: find its stages, plan and build each CSP stage, and keep those that are proven to work."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from cspprof.core.errors import CspprofError
from cspprof.core.kinds import CONVOLUTIONS
from cspprof.core.record import Record
from cspprof.csp.conversion.channels import CouplingError
from cspprof.csp.conversion.edits import Setting, StageEdits, apply_edits, stage_edits
from cspprof.csp.conversion.plan import Options, StagePlan, plan
from cspprof.csp.conversion.proof import check_operations, check_surroundings, prove_stage
from cspprof.csp.conversion.stage_names import is_inside, stages_named
from cspprof.csp.conversion.stages import find_stages

Trace = Callable[[nn.Module], Record]
"""Traces a model on the inputs of the record."""


@dataclass(frozen=True, slots=True)
class StageResult:
    """The result for one stage: a plan if it was converted, else the reason why not."""

    name: str
    plan: StagePlan | None
    reason: str = ""
    settings: tuple[Setting, ...] = ()
    """Attributes of modules in the blocks that were equal to a number of channels, and have the new one."""

    @property
    def path(self) -> str:
        """The path of the new stage in the converted network."""
        if self.plan is None:
            return ""
        first = self.plan.stage.first
        return first.path if self.plan.replaces_first and first is not None else self.plan.stage.blocks[0].path


@dataclass(frozen=True, slots=True)
class ConvertedModel:
    """A converted copy of a model."""

    model: nn.Module
    record: Record
    """Of the converted model."""
    stages: tuple[StageResult, ...]
    edits: tuple[StageEdits, ...]


def convert_model(
    model: nn.Module, record: Record, trace: Trace, options: Options, names: Sequence[str] = ()
) -> ConvertedModel:
    """A copy of `model` in which the stages, or those in `names`, are cross stage partial. `record` is the trace of
    `model`.

    A stage that cannot be converted stays as it is; its result has the reason. Raises CspprofError if a name is no
    stage, or if the model cannot be copied.
    """
    search = find_stages(record)
    chosen = stages_named(search, record, names) if names else search.stages
    try:
        converted = copy.deepcopy(model)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise CspprofError(
            f"the model cannot be copied: {type(error).__name__}: {reason}",
            "copy.deepcopy(model) must work: remove locks and files, and make pruning permanent with "
            "torch.nn.utils.prune.remove.",
        ) from error
    results = [
        StageResult(path, None, reason)
        for path, reason in search.left.items()
        if not names or any(is_inside(path, name) for name in names)
    ]
    kept: list[StageEdits] = []
    after = record
    with torch.random.fork_rng(gpus(model)):  # new layers draw random weights
        for stage in chosen:
            try:
                stage_plan = plan(record, stage, options)
                edits = stage_edits(converted, record, stage_plan)
                prove_stage(edits.stage, stage_plan.input, stage.output)
                after = _put_in(converted, stage_plan, edits, trace, record, after)
            except CouplingError as error:
                results.append(StageResult(stage.name, None, error.message))
                continue
            kept.append(edits)
            results.append(StageResult(stage.name, stage_plan, settings=edits.settings))
    if not chosen and not results:
        results.append(StageResult(record.label, None, _why_nothing(record)))
    return ConvertedModel(converted, after, tuple(results), tuple(kept))


def gpus(model: nn.Module) -> list[int]:
    """The numbers of the GPUs on which weights are."""
    return sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})


def _put_in(
    model: nn.Module, plan: StagePlan, edits: StageEdits, trace: Trace, record: Record, before: Record
) -> Record:
    """Put a stage into the model, and return the record of the changed model. `record` is that of the plain model,
    `before` that of the model so far. Takes the stage out again and raises CouplingError if the model fails or returns
    other shapes, or if it runs other operations than planned."""
    undo = apply_edits(model, edits)
    try:
        after = trace(model)
        if output_shapes(record) != output_shapes(after):
            raise CouplingError("the model returns other shapes with it")
        check_operations(record, after, plan, edits)
        check_surroundings(before, after, plan, edits.places[0].path)
    except CouplingError:
        undo()
        raise
    except CspprofError as error:
        undo()
        raise CouplingError(f"the model does not run with it: {error.message}") from error
    return after


def output_shapes(record: Record) -> list[tuple[int, ...]]:
    """The shapes of the tensors that the forward returned, sorted."""
    shapes: dict[int, tuple[int, ...]] = {}
    for op in record.ops:
        for tensor in op.writes:
            if tensor.storage in record.outputs:
                shapes[tensor.storage] = tensor.shape
    return sorted(shapes.values())


def _why_nothing(record: Record) -> str:
    """Why a model has no stage."""
    total = sum((s.macs or 0) * n for s, n in record.spec_counts)
    convolution = sum((s.macs or 0) * n for s, n in record.spec_counts if s.kind in CONVOLUTIONS)
    if total and convolution < total / 2:
        share = f"{1 - convolution / total:.0%}"
        return f"{share} of its MACs are in attention and linear layers, and it has no row of convolutions"
    return "no row of blocks keeps its width and its resolution, and none concatenates its input"
