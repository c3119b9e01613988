"""Convert a network: find its stages, plan and build each CSP stage, and keep those that are proven to work."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from torch import nn

from cspprof.core.errors import CspprofError
from cspprof.core.kinds import CONVOLUTIONS
from cspprof.core.record import Record
from cspprof.csp.conversion.channels import CouplingError
from cspprof.csp.conversion.edits import StageEdits, apply_edits, stage_edits
from cspprof.csp.conversion.plan import Options, StagePlan, plan
from cspprof.csp.conversion.proof import prove_stage
from cspprof.csp.conversion.stages import Search, Stage, find_stages

Trace = Callable[[nn.Module], Record]
"""Traces a model on the inputs of the record."""


@dataclass(frozen=True, slots=True)
class StageResult:
    """The result for one stage: a plan if it was converted, else the reason why not."""

    name: str
    plan: StagePlan | None
    reason: str = ""

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
    chosen = _chosen(search, names)
    try:
        converted = copy.deepcopy(model)
    except Exception as error:
        raise CspprofError(f"the model cannot be copied: {type(error).__name__}: {error}", "") from error
    results: list[StageResult] = [StageResult(n, None, r) for n, r in search.left.items() if not names or n in names]
    kept: list[StageEdits] = []
    after = record
    for stage in chosen:
        try:
            stage_plan = plan(record, stage, options)
            edits = stage_edits(converted, record, stage_plan)
            prove_stage(edits.stage, stage_plan.input, stage.output)
            undo = apply_edits(converted, edits)
            try:
                after = _trace_as_before(converted, trace, record)
            except CouplingError:
                undo()
                raise
        except CouplingError as error:
            results.append(StageResult(stage.name, None, error.message))
            continue
        kept.append(edits)
        results.append(StageResult(stage.name, stage_plan))
    if not chosen and not results:
        results.append(StageResult(record.label, None, _why_nothing(record)))
    return ConvertedModel(converted, after, tuple(results), tuple(kept))


def _trace_as_before(model: nn.Module, trace: Trace, record: Record) -> Record:
    """The record of the changed model. Raises CouplingError if the model fails or returns other shapes."""
    try:
        after = trace(model)
    except CspprofError as error:
        raise CouplingError(f"the model does not run with it: {error.message}") from error
    shapes = [sorted(_output_shapes(r)) for r in (record, after)]
    if shapes[0] != shapes[1]:
        raise CouplingError("the model returns other shapes with it")
    return after


def _output_shapes(record: Record) -> list[tuple[int, ...]]:
    shapes: dict[int, tuple[int, ...]] = {}
    for op in record.ops:
        for tensor in op.writes:
            if tensor.storage in record.outputs:
                shapes[tensor.storage] = tensor.shape
    return list(shapes.values())


def _chosen(search: Search, names: Sequence[str]) -> list[Stage]:
    """The stages with these names, or all. A name may also be a module that contains stages."""
    if not names:
        return search.stages
    chosen = []
    for name in names:
        inside = [s for s in search.stages if name in (s.name, s.container) or s.name.startswith(f"{name}.")]
        if not inside and name not in search.left:
            known = [*(s.name for s in search.stages), *search.left]
            near = get_close_matches(name, known, n=3, cutoff=0.4) or known[:5]
            hint = f"There are: {', '.join(near)}" if near else "No stage of it can be converted."
            raise CspprofError(f"{name!r} is no stage", hint)
        chosen += [s for s in inside if s not in chosen]
    return chosen


def _why_nothing(record: Record) -> str:
    """Why a model has no stage."""
    total = sum((s.macs or 0) * n for s, n in record.spec_counts)
    convolution = sum((s.macs or 0) * n for s, n in record.spec_counts if s.kind in CONVOLUTIONS)
    if total and convolution < total / 2:
        share = f"{1 - convolution / total:.0%}"
        return f"{share} of its MACs are in attention and linear layers, and it has no row of convolutions"
    return "no row of blocks keeps its width and its resolution, and none concatenates its input"
