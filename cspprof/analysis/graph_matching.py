"""Two networks block by block: which blocks match, and what was added and removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from cspprof.analysis.blocks import Block, blocks
from cspprof.analysis.layer_matching import RowMatches, computation, match_all_rows
from cspprof.analysis.layer_rows import LayerRow, layer_rows
from cspprof.analysis.stages import has_stage_tags
from cspprof.core.record import Record

State = Literal["same", "changed", "removed", "added"]
ALONE: tuple[State, State] = ("removed", "added")
"""The state of a layer without a counterpart, in the base and in the other network."""


@dataclass(frozen=True, slots=True)
class Link:
    """A block of the base and a block of the other network, by position, with layers that match."""

    base: int
    other: int


class MatchedGraphs:
    """The blocks of a base and of another network, and the links between blocks with matching layers.

    A layer has one of four states: it computes the `same` as its counterpart, it has a `changed` counterpart, or it was
    `removed` (a layer of the base only) or `added` (a layer of the other network only). A block has the state of its
    layers if all have the same one, else it has `changed`.
    """

    def __init__(self, base: Record, other: Record) -> None:
        self.records = (base, other)
        self.use_tags = has_stage_tags(base) and has_stage_tags(other)
        """Whether the stages are those that the authors tagged. Both networks have the same kind of stages."""
        self.rows: tuple[Sequence[LayerRow], Sequence[LayerRow]] = (
            layer_rows(base, self.use_tags),
            layer_rows(other, self.use_tags),
        )
        self.blocks: tuple[Sequence[Block], Sequence[Block]] = (
            blocks(base, self.use_tags),
            blocks(other, self.use_tags),
        )
        macs = ([row.spec.macs for row in self.rows[0]], [row.spec.macs for row in self.rows[1]])
        self.matches: RowMatches = match_all_rows(self.rows, macs)

    @cached_property
    def layer_states(self) -> tuple[Sequence[State], Sequence[State]]:
        """The state of each layer of both networks."""
        states: tuple[list[State], list[State]] = ([ALONE[0]] * len(self.rows[0]), [ALONE[1]] * len(self.rows[1]))
        for group in self.matches.matched:
            single = len(group[0]) == len(group[1]) == 1
            differs = single and computation(self.rows[0][group[0][0]]) != computation(self.rows[1][group[1][0]])
            for side, positions in enumerate(group):
                for position in positions:
                    states[side][position] = "changed" if differs else "same"
        return states

    def count(self, side: int, state: State) -> int:
        """The number of layers of a network (0: the base) with this state."""
        return self.layer_states[side].count(state)

    @cached_property
    def block_states(self) -> tuple[Sequence[State], Sequence[State]]:
        """The state of each block of both networks."""

        def of(side: int, block: Block) -> State:
            states = {self.layer_states[side][position] for position in block.positions}
            return states.pop() if len(states) == 1 else "changed"

        return [of(0, block) for block in self.blocks[0]], [of(1, block) for block in self.blocks[1]]

    @cached_property
    def links(self) -> Sequence[Link]:
        """Each block with matching layers is linked with the block that has most of their counterparts, so every such
        block has a link, and every other one has none."""
        block_of = [{p: i for i, block in enumerate(side) for p in block.positions} for side in self.blocks]
        shared: Counter[tuple[int, int]] = Counter()
        for group in self.matches.matched:
            shared.update((block_of[0][i], block_of[1][j]) for i in group[0] for j in group[1])
        best: dict[tuple[int, int], tuple[int, int]] = {}
        for pair in sorted(shared):
            for side, position in enumerate(pair):
                if (side, position) not in best or shared[pair] > shared[best[side, position]]:
                    best[side, position] = pair
        return [Link(*pair) for pair in sorted({*best.values()})]
