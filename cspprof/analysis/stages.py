"""The stage of each operation, and the number of blocks in each stage.

A stage is the part of a network at one resolution. If the author of a model tagged its modules (`cspprof_stage`), the
tag is the stage; else the stage follows from the sizes of the feature maps. A network that keeps one resolution, such
as a transformer, has its repeated blocks as stages.
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
LISTS = (*_CONTAINERS, "Module")
"""Classes that hold repeated blocks. An exported program writes Module for a list of modules."""


@cached
def stage_labels(record: Record, use_tags: bool = True) -> Sequence[str]:
    """The stage of every call, in execution order. Without `use_tags` only the resolution counts.

    The resolution is the spatial size of the map that a convolution, pool or resize writes. Other operations have the
    resolution before them. 1×1 maps inside the network (squeeze-and-excitation) belong to the stage around them; 1×1
    maps at the end are the head. If blocks repeat at a single resolution, each block is a stage, and so is each module
    before, between and behind them; see `_block_labels`.
    """
    labels = _resolution_labels(record, use_tags)
    tagged = use_tags and has_stage_tags(record)
    if tagged or len({label for label in labels if label not in ("input", HEAD)}) > 1:
        return labels
    return _block_labels(record) or labels


@cached
def _resolution_labels(record: Record, use_tags: bool) -> list[str]:
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


def _block_labels(record: Record) -> list[str]:
    """The path of the block of each call, or of the outermost module without blocks in which it runs; empty if no
    blocks repeat.

    A call of a module that contains blocks has the label of the call before it. Before the first module it is `input`.
    """
    layers = record.layers
    blocks = {layers[i].path for i in _repeated_in_container(record)}
    if not blocks:
        return []
    containing = {""}
    for path in blocks:
        while path := path.rpartition(".")[0]:
            containing.add(path)
    label = "input"
    labels = []
    for at in record.calls.layer:
        parts = layers[at].path.split(".")
        prefixes = (".".join(parts[:n]) for n in range(1, len(parts) + 1))
        label = next((p for p in prefixes if p and p not in containing), label)
        labels.append(label)
    return labels


def _repeated_in_container(record: Record) -> list[int]:
    """The outermost modules that a list or a sequence repeats: at least two siblings of one class, each with at least
    two computing operations. A graph has no classes: there, the siblings have a number as their name, as in
    `blocks.0`, and equally many computing operations."""
    layers, parent = record.layers, _parents(record)
    computing, _ = _calls_below(record, parent)
    siblings: dict[tuple[int, str], list[int]] = defaultdict(list)
    for i, layer in enumerate(layers):
        class_name = layer.class_name.rpartition(".")[2]
        container = layers[parent[i]].class_name.rpartition(".")[2] if i else ""
        in_list = container in LISTS and class_name not in _CONTAINERS if class_name else _is_numbered(layer.path)
        if i and computing[i] >= 2 and in_list:
            siblings[parent[i], layer.class_name or str(computing[i])].append(i)
    found = {i for members in siblings.values() if len(members) >= 2 for i in members}

    def is_outermost(i: int) -> bool:
        while (i := parent[i]) > 0:
            if i in found:
                return False
        return True

    return [i for i in sorted(found) if is_outermost(i)]


def _is_numbered(path: str) -> bool:
    return path.rpartition(".")[2].isdecimal()


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

    For a block see `repeated_blocks`. Modules tagged neck or head do not count: the depths of a detector are those of
    its backbone.
    """
    layers = record.layers
    _, last_call = _calls_below(record, _parents(record))
    labels, resolutions = stage_labels(record), _resolution_labels(record, True)
    blocks = repeated_blocks(record)
    chosen = sorted((last_call[i], layers[i].path) for i in blocks if layers[i].stage not in AFTER_BACKBONE)
    stages = [resolutions[call] if labels[call] == path else labels[call] for call, path in chosen]
    return list(Counter(stages).values())


def block_paths(record: Record) -> set[str]:
    """The paths of the repeated blocks. If the source names no classes, those of numbered siblings."""
    return {record.layers[i].path for i in repeated_blocks(record) or _repeated_in_container(record)}


@cached
def repeated_blocks(record: Record) -> Sequence[int]:
    """The positions in `record.layers` of the blocks of a network; empty if its source names no classes.

    A block is a module with at least two computing operations and a sibling of the same class, and contains no such
    repetition.
    """
    layers = record.layers
    parent = _parents(record)
    computing, _ = _calls_below(record, parent)
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
    return [i for members in siblings.values() for i in members if layers[i].class_name in repeated - containing]


def _parents(record: Record) -> list[int]:
    """The position of the module around each module; −1 for the model."""
    index = {layer.path: i for i, layer in enumerate(record.layers)}
    return [index.get(layer.path.rpartition(".")[0], 0) if layer.path else -1 for layer in record.layers]


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
