"""The stage whose conversion to a cross stage partial one saves most MACs (`cspprof convert`)."""

from __future__ import annotations

from math import prod

from cspprof.core.record import Record
from cspprof.csp.advice.proposal import LEAST_GAIN, Proposal, StageConversion, adviser
from cspprof.csp.conversion.channels import CouplingError
from cspprof.csp.conversion.plan import Options, StagePlan, plan
from cspprof.csp.conversion.stages import find_stages
from cspprof.metrics import value_of


@adviser("stage", most=1)
def best_stage(record: Record) -> list[Proposal]:
    """The stage whose conversion to a cross stage partial one saves most MACs."""
    if not record.complete:
        return []
    before = value_of(record, "macs")
    found = []
    for stage in find_stages(record).stages:
        try:
            stage_plan = plan(record, stage, Options())
        except CouplingError:
            continue
        after = before + macs_change(record, stage_plan)
        if before - after >= LEAST_GAIN * before:
            width = stage.input[1]
            found.append(
                Proposal(
                    stage.name,
                    f"its blocks process all {width} channels",
                    f"{stage_plan.bypass} of {width} channels bypass the blocks: "
                    f"cspprof convert --stages {stage.name.replace('–', '-')}",
                    "macs",
                    StageConversion(stage.name, stage_plan.options),
                    after,
                )
            )
    return sorted(found, key=lambda p: p.computed or 0)


def macs_change(record: Record, stage_plan: StagePlan) -> int:
    """The MACs that the conversion of a stage with sliced channels adds, computed from shapes; negative if it saves."""
    stage, difference = stage_plan.stage, 0
    stored = {s.id: s.spec.shape for s in record.storages}
    for i in stage.calls:
        spec = record.specs[record.calls.spec[i]]
        if not spec.macs or not spec.weights:
            continue
        storage = record.calls.storage[record.offsets[i] + len(spec.reads)]
        new = stage_plan.shapes.get(storage)
        if new is not None:
            difference += spec.macs * prod(new) // prod(stored[storage]) - spec.macs
    for block in stage.tail:
        difference -= sum(record.specs[record.calls.spec[i]].macs or 0 for i in block.calls)
    batch = stage.input[0]
    if stage_plan.options.fusion != "first":
        difference += batch * prod(stage.input[2:]) * stage_plan.c_blocks * stage_plan.c_transition
    if stage_plan.options.fusion != "last":
        difference += batch * prod(stage.output[2:]) * stage_plan.joined * stage_plan.c_out
    return difference
