"""Stages: which one an operation belongs to, and how many blocks deep each is.

A stage is the layers at one resolution. Where a model's author tagged modules (`cspprof_stage`), the tag is the
stage; elsewhere it is read off the feature maps.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import prod

from cspprof.core.cached import cached
from cspprof.core.record import COMPUTE, CONVOLUTIONS, POOLS, Kind, OpSpec, Record

HEAD = "head"
BEYOND = ("neck", HEAD)
"""Tags of what comes after a backbone."""
_CONTAINERS = ("Sequential", "ModuleList", "ModuleDict")


@cached
def stages(record: Record, tags: bool = True) -> Sequence[str]:
    """The stage of every call, in execution order. `tags=False` goes by resolution alone.

    By resolution: the spatial size of the map that a convolution, pool or resize writes, kept by what follows;
    1×1 maps within the network (squeeze-and-excitation) stay in the stage they serve, those at its end are the head.
    """
    specs, calls = record.specs, record.calls
    labels = [_resolution(spec) for spec in specs]
    positions = [_positions(spec) for spec in specs]
    last_spatial = max((i for i, s in enumerate(calls.spec) if positions[s] > 1), default=-1)
    current = "input"
    result = []
    for i, (s, layer) in enumerate(zip(calls.spec, calls.layer, strict=True)):
        current = labels[s] or current
        tag = record.layers[layer].stage if tags else None
        result.append(tag or (HEAD if i > last_spatial else current))
    return result


def tagged(record: Record) -> bool:
    """Whether the model's author named its stages."""
    return any(layer.stage for layer in record.layers)


def _resolution(spec: OpSpec) -> str | None:
    if spec.kind not in CONVOLUTIONS and spec.kind not in POOLS and spec.kind is not Kind.RESIZE:
        return None
    size = spec.writes[0].shape[2:]
    return "×".join(map(str, size)) if size and prod(size) > 1 else None


def _positions(spec: OpSpec) -> int:
    """Places of the written map: pixels of (N, C, H, W), tokens of (N, L, C)."""
    if spec.kind is Kind.VIEW or not spec.writes:
        return 0
    shape = spec.writes[0].shape
    return prod(shape[2:]) if len(shape) > 3 else shape[1] if len(shape) == 3 else 1


@cached
def depths(record: Record) -> Sequence[int]:
    """Blocks per stage, such as 3-4-6-3; empty where the model repeats no block.

    A block is a module with at least two computing operations that stands beside another of its class in one
    parent, and holds no such repetition itself. What its author tagged neck or head does not count: the depths of a
    detector are those of its backbone.
    """
    layers = record.layers
    index = {layer.path: i for i, layer in enumerate(layers)}
    parent = [index.get(layer.path.rpartition(".")[0], 0) if layer.path else -1 for layer in layers]
    compute, last = _compute_below(record, parent)
    groups: dict[tuple[int, str], list[int]] = defaultdict(list)
    for i, layer in enumerate(layers):
        if i and compute[i] >= 2 and layer.class_name.rpartition(".")[2] not in _CONTAINERS:
            groups[parent[i], layer.class_name].append(i)
    repeated = {cls for (_, cls), members in groups.items() if len(members) >= 2}
    nesting = set()
    for i, layer in enumerate(layers):
        if layer.class_name in repeated:
            above = parent[i]
            while above > 0:
                if layers[above].class_name != layer.class_name:
                    nesting.add(layers[above].class_name)
                above = parent[above]
    blocks = [i for members in groups.values() for i in members if layers[i].class_name in repeated - nesting]
    label = stages(record)
    body = [last[i] for i in blocks if layers[i].stage not in BEYOND]
    return list(Counter(label[call] for call in sorted(body)).values())


def _compute_below(record: Record, parent: list[int]) -> tuple[list[int], list[int]]:
    """Per layer: computing calls in it and below, and the last call in it and below that writes a map."""
    compute = [0] * len(parent)
    last = [0] * len(parent)
    for i, (s, layer) in enumerate(zip(record.calls.spec, record.calls.layer, strict=True)):
        computes = record.specs[s].kind in COMPUTE
        at = layer
        while at >= 0:
            compute[at] += computes
            last[at] = i
            at = parent[at]
    return compute, last
