"""A network as a sequence of blocks, which together contain each of its layers once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from cspprof.analysis.layer_rows import LayerRow, layer_rows
from cspprof.analysis.stages import LISTS, block_paths
from cspprof.core.cached import cached
from cspprof.core.kinds import CONVOLUTIONS, POOLS, Kind
from cspprof.core.record import OpSpec, Record

MAPS = CONVOLUTIONS | POOLS
"""Kinds with channels in the second dimension: (N, C, H, W)."""
PRODUCTS = frozenset({Kind.LINEAR, Kind.MATMUL})
"""Kinds with channels in the last dimension."""
MOST_LAYERS = 16
"""A module with more layers is a block only if the network has several modules of its class."""


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive layers: a repeated block, a module outside of them, or an operation of a module that contains
    blocks."""

    path: str
    stage: str
    """The stage of its last layer, as in `stage_depths`."""
    positions: tuple[int, ...]
    """The positions of its layers in `layer_rows`."""
    repeated: bool
    class_name: str
    """The class of the module; empty for an operation, or if the source names no classes."""
    width_in: int | None
    width_out: int | None
    """Channels that the first convolution, pool or matrix product reads and that the last one writes; None without
    any."""

    @property
    def widths(self) -> str:
        """`64→256`, or `256` if both are equal; empty if they are unknown."""
        if self.width_in is None or self.width_out is None:
            return ""
        return str(self.width_out) if self.width_in == self.width_out else f"{self.width_in}→{self.width_out}"


@cached
def blocks(record: Record, use_tags: bool = True) -> Sequence[Block]:
    """The blocks of a record in execution order. For `use_tags` see `stage_labels`.

    A layer outside of the repeated blocks belongs to the outermost module around it that contains no block, stays in
    one stage, and is small or one of several of its class; without such a module it is a block of its own. A module
    that runs twice with other layers between is two blocks.
    """
    rows = layer_rows(record, use_tags)
    layers, calls = record.layers, record.calls
    repeated = block_paths(record)
    containing = {""}
    for path in repeated:
        while path := path.rpartition(".")[0]:
            containing.add(path)
    stages: dict[str, set[str]] = defaultdict(set)
    sizes: Counter[str] = Counter()
    for row in rows:
        for path in _prefixes(layers[calls.layer[row.index]].path):
            stages[path].add(row.stage)
            sizes[path] += 1
    classes = {layer.path: layer.class_name for layer in layers}
    uses = Counter(classes.values())

    def is_part(path: str) -> bool:
        name = classes.get(path, "")
        several = uses[name] > 1 and name.rpartition(".")[2] not in ("", *LISTS)
        return len(stages[path]) == 1 and (sizes[path] <= MOST_LAYERS or several)

    parts = {path for path in stages.keys() - containing if is_part(path)}

    def block_of(row: LayerRow) -> tuple[str, bool]:
        """The path of the block of a row, and whether it is a repeated one."""
        paths = _prefixes(layers[calls.layer[row.index]].path)
        if block := next((path for path in paths if path in repeated), ""):
            return block, True
        return next((path for path in paths if path in parts), row.path), False

    found: list[Block] = []
    position = 0
    for (path, is_repeated), members in groupby(rows, block_of):
        own = list(members)
        positions = tuple(range(position, position + len(own)))
        position += len(own)
        widths = [w for w in (_widths(row.spec) for row in own) if w is not None]
        first, last = (widths[0][0], widths[-1][1]) if widths else (None, None)
        found.append(Block(path, own[-1].stage, positions, is_repeated, classes.get(path, ""), first, last))
    return found


def _prefixes(path: str) -> list[str]:
    """The module and the modules around it, the outermost first, without the model: `a`, `a.b`, `a.b.c`."""
    names = path.split(".")
    return [".".join(names[:n]) for n in range(1, len(names) + 1)] if path else []


def _widths(spec: OpSpec) -> tuple[int, int] | None:
    """The channels that an operation reads and writes; None if it is not clear which dimension they have."""
    if not spec.reads or not spec.writes:
        return None
    read, written = spec.reads[0].shape, spec.writes[0].shape
    if spec.kind in MAPS and min(len(read), len(written)) > 2:
        return read[1], written[1]
    if spec.kind in PRODUCTS and min(len(read), len(written)) > 1:
        return read[-1], written[-1]
    return None
