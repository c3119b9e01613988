"""The stage of each operation, and the number of blocks in each stage.

A stage is the part of a network at one resolution. If the author of a model tagged its modules (`cspprof_stage`), the
tag is the stage; else the stage follows from the sizes of the feature maps.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import prod

from cspprof.core.cached import cached
from cspprof.core.record import COMPUTE, CONVOLUTIONS, POOLS, Kind, OpSpec, Record

HEAD = "head"
AFTER_BACKBONE = ("neck", HEAD)
"""Tags of the parts that follow the backbone."""
_CONTAINERS = ("Sequential", "ModuleList", "ModuleDict")


@cached
def stage_labels(record: Record, use_tags: bool = True) -> Sequence[str]:
    """The stage of every call, in execution order. Without `use_tags` only the resolution counts.

    The resolution is the spatial size of the map that a convolution, pool or resize writes. Other operations have the
    resolution before them. 1×1 maps inside the network (squeeze-and-excitation) belong to the stage around them; 1×1
    maps at the end are the head.
    """
    specs, calls = record.specs, record.calls
    resolutions = [_resolution(spec) for spec in specs]
    positions = [_positions(spec) for spec in specs]
    last_spatial = max((i for i, s in enumerate(calls.spec) if positions[s] > 1), default=-1)
    resolution = "input"
    labels = []
    for i, (s, layer) in enumerate(zip(calls.spec, calls.layer, strict=True)):
        resolution = resolutions[s] or resolution
        tag = record.layers[layer].stage if use_tags else None
        labels.append(tag or (HEAD if i > last_spatial else resolution))
    return labels


def has_stage_tags(record: Record) -> bool:
    """Whether the author of the model tagged its stages."""
    return any(layer.stage for layer in record.layers)


def _resolution(spec: OpSpec) -> str | None:
    if spec.kind not in CONVOLUTIONS and spec.kind not in POOLS and spec.kind is not Kind.RESIZE:
        return None
    size = spec.writes[0].shape[2:]
    return "×".join(map(str, size)) if size and prod(size) > 1 else None


def _positions(spec: OpSpec) -> int:
    """The number of positions in the written map: pixels of (N, C, H, W), tokens of (N, L, C)."""
    if spec.kind is Kind.VIEW or not spec.writes:
        return 0
    shape = spec.writes[0].shape
    return prod(shape[2:]) if len(shape) > 3 else shape[1] if len(shape) == 3 else 1


@cached
def stage_depths(record: Record) -> Sequence[int]:
    """Blocks in each stage, such as 3-4-6-3; empty if the model repeats no block, or if its source names no classes.

    A block is a module with at least two computing operations and a sibling of the same class, and contains no such
    repetition. Modules tagged neck or head do not count: the depths of a detector are those of its backbone.
    """
    layers = record.layers
    index = {layer.path: i for i, layer in enumerate(layers)}
    parent = [index.get(layer.path.rpartition(".")[0], 0) if layer.path else -1 for layer in layers]
    computing, last_call = _calls_below(record, parent)
    siblings: dict[tuple[int, str], list[int]] = defaultdict(list)
    for i, layer in enumerate(layers):
        class_name = layer.class_name.rpartition(".")[2]
        if i and computing[i] >= 2 and class_name and class_name not in _CONTAINERS:
            siblings[parent[i], layer.class_name].append(i)
    repeated = {cls for (_, cls), members in siblings.items() if len(members) >= 2}
    containing = set()
    """Classes that contain a repeated class."""
    for i, layer in enumerate(layers):
        if layer.class_name in repeated:
            above = parent[i]
            while above > 0:
                if layers[above].class_name != layer.class_name:
                    containing.add(layers[above].class_name)
                above = parent[above]
    blocks = [i for members in siblings.values() for i in members if layers[i].class_name in repeated - containing]
    labels = stage_labels(record)
    last_calls = [last_call[i] for i in blocks if layers[i].stage not in AFTER_BACKBONE]
    return list(Counter(labels[call] for call in sorted(last_calls)).values())


def _calls_below(record: Record, parent: list[int]) -> tuple[list[int], list[int]]:
    """For each layer with its submodules: the number of computing calls, and the last call."""
    computing = [0] * len(parent)
    last_call = [0] * len(parent)
    for i, (s, layer) in enumerate(zip(record.calls.spec, record.calls.layer, strict=True)):
        computes = record.specs[s].kind in COMPUTE
        at = layer
        while at >= 0:
            computing[at] += computes
            last_call[at] = i
            at = parent[at]
    return computing, last_call
