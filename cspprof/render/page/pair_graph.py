"""Two networks side by side in the HTML report: the blocks of each stage, and links between blocks that match.

Consecutive blocks that are alike share one line of the drawing, so that it stays compact.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import NamedTuple

from cspprof.analysis.blocks import Block
from cspprof.analysis.comparison import Comparison, Contribution
from cspprof.analysis.graph_matching import ALONE, MatchedGraphs, State
from cspprof.analysis.layer_matching import longest_increasing
from cspprof.core import units
from cspprof.core.units import MINUS, counted, shortened
from cspprof.metrics import METRICS, Amount, Sum
from cspprof.render.page.stage_graph import BOLD_CHARACTER, CHARACTER, NAMES, amount_text

MOST_LINES = 40
"""If a network has more lines, blocks that differ share a line too."""
MOST_STAGES = 12
"""If a network has more stages, such as a transformer, in which each block is one, its blocks are in one box."""
SIGNS: dict[State, str] = {"same": "=", "changed": "≠", "removed": MINUS, "added": "+"}
PAD = 6
"""Between a box and its lines."""
WIDE_CHARACTER = 7.2
"""The width of a character of numbers, which are wider than words."""

RowId = Callable[[str], str]


class Layout(NamedTuple):
    """The sizes of a drawing in SVG units."""

    box: int
    """The width of a network."""
    gap: int
    """Between the networks."""
    line: int
    """The height of a line; that of a narrow drawing has two lines of text."""
    narrow: bool

    @property
    def width(self) -> int:
        return 2 * self.box + self.gap


WIDE = Layout(400, 140, 24, False)
NARROW = Layout(157, 46, 40, True)


@dataclass(frozen=True, slots=True)
class Line:
    """Blocks of one network in one line of the drawing: consecutive ones, or all of a stage with the same state."""

    members: tuple[int, ...]
    """The positions of the blocks."""
    state: State


@dataclass(frozen=True, slots=True)
class StageBox:
    """The lines of a stage, in execution order; `stage` is None for a box of all stages."""

    stage: str | None
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class LineLink:
    """A link between two lines, each by the number of its box and of its line in the box."""

    base: tuple[int, int]
    other: tuple[int, int]
    state: State


class PairGraph:
    """The contents of the drawing: the boxes of both networks, and the links between their lines."""

    def __init__(self, graphs: MatchedGraphs) -> None:
        self.graphs = graphs
        self._links: tuple[dict[int, list[int]], dict[int, list[int]]] = (defaultdict(list), defaultdict(list))
        for link in graphs.links:
            self._links[0][link.base].append(link.other)
            self._links[1][link.other].append(link.base)
        self._stages = [self._stage_names(side) for side in (0, 1)]
        lines = [self._lines(side, self._alike) for side in (0, 1)]
        if max(map(len, lines)) > MOST_LINES:
            lines = [self._lines(side, self._joined) for side in (0, 1)]
        if max(map(len, lines)) > MOST_LINES:
            lines = [self._lines_by_state(side) for side in (0, 1)]
        self.boxes: tuple[Sequence[StageBox], Sequence[StageBox]] = (self._boxes(0, lines[0]), self._boxes(1, lines[1]))

    def _stage_names(self, side: int) -> list[str | None]:
        """The stage of each block, or None of all if there are too many stages."""
        names = [block.stage for block in self.graphs.blocks[side]]
        return [*names] if len({*names}) <= MOST_STAGES else [None] * len(names)

    def _joined(self, side: int, block: int) -> bool:
        """Whether a block can share a line with the block before it: both have the same stage and state, and their
        links are parallel."""
        stages, states = self._stages[side], self.graphs.block_states[side]
        if block == 0 or stages[block - 1] != stages[block] or states[block - 1] != states[block]:
            return False
        before, own = (self._links[side].get(i, []) for i in (block - 1, block))
        if not before and not own:
            return True
        if len(before) != 1 or len(own) != 1 or own[0] != before[0] + 1:
            return False
        other, at = 1 - side, own[0]
        stages, states = self._stages[other], self.graphs.block_states[other]
        single = len(self._links[other][at - 1]) == len(self._links[other][at]) == 1
        return single and stages[at - 1] == stages[at] and states[at - 1] == states[at]

    def _alike(self, side: int, block: int) -> bool:
        """Whether a block and the one before are also repetitions of each other, in both networks."""
        if not self._joined(side, block) or not _repeats(self.graphs.blocks[side], block):
            return False
        own = self._links[side].get(block, [])
        return not own or _repeats(self.graphs.blocks[1 - side], own[0])

    def _lines(self, side: int, shares_line: Callable[[int, int], bool]) -> list[Line]:
        members: list[list[int]] = []
        for block in range(len(self.graphs.blocks[side])):
            if shares_line(side, block):
                members[-1].append(block)
            else:
                members.append([block])
        return [Line(tuple(m), self.graphs.block_states[side][m[0]]) for m in members]

    def _lines_by_state(self, side: int) -> list[Line]:
        """One line for all blocks of a stage with the same state."""
        members: dict[tuple[str | None, State], list[int]] = defaultdict(list)
        for block, key in enumerate(zip(self._stages[side], self.graphs.block_states[side], strict=True)):
            members[key].append(block)
        return [Line(tuple(m), state) for (_, state), m in members.items()]

    def _boxes(self, side: int, lines: Sequence[Line]) -> list[StageBox]:
        members: dict[str | None, list[Line]] = {}
        for line in lines:
            members.setdefault(self._stages[side][line.members[0]], []).append(line)
        return [StageBox(stage, tuple(of_stage)) for stage, of_stage in members.items()]

    @cached_property
    def links(self) -> Sequence[LineLink]:
        """The links between lines: `same` if both lines are the same, else `changed`."""
        line_of: list[dict[int, tuple[int, int]]] = [{}, {}]
        for side in (0, 1):
            for i, box in enumerate(self.boxes[side]):
                line_of[side] |= {block: (i, j) for j, line in enumerate(box.lines) for block in line.members}
        pairs = sorted({(line_of[0][link.base], line_of[1][link.other]) for link in self.graphs.links})

        def state(side: int, at: tuple[int, int]) -> State:
            return self.boxes[side][at[0]].lines[at[1]].state

        return [LineLink(a, b, "same" if state(0, a) == state(1, b) == "same" else "changed") for a, b in pairs]

    def aligned_boxes(self) -> list[tuple[int, int]]:
        """The boxes of both networks that stand side by side: of the same stage, or with most links to each other."""
        if (None in self._stages[0]) != (None in self._stages[1]):
            return []
        shared: dict[tuple[int, int], int] = defaultdict(int)
        for link in self.links:
            shared[link.base[0], link.other[0]] += 1
        candidates = {
            (i, j)
            for i, a in enumerate(self.boxes[0])
            for j, b in enumerate(self.boxes[1])
            if a.stage == b.stage
        }  # fmt: skip
        for pair, n in shared.items():
            rivals = [
                m for other, m in shared.items() if other != pair and (other[0] == pair[0] or other[1] == pair[1])
            ]
            if n > max(rivals, default=0):
                candidates.add(pair)
        return longest_increasing(sorted(candidates, key=lambda pair: (pair[0], -pair[1])))


def _repeats(blocks: Sequence[Block], position: int) -> bool:
    """Whether a block repeats the one before it: the same class, number of layers and channels."""
    before, own = blocks[position - 1], blocks[position]

    def shape(block: Block) -> tuple[object, ...]:
        return block.repeated, block.class_name, len(block.positions), block.width_in, block.width_out

    return own.repeated and shape(before) == shape(own)


# -- drawing ------------------------------------------------------------------------------------------


def pair_graph_svg(graphs: MatchedGraphs, row_ids: tuple[RowId, RowId], traffic: str = "cio_cspnet") -> str:
    """The drawing as two `<svg>` elements, for a wide page and for a phone. Each stage has its MACs and the metric
    `traffic`; each line links to the row of its first layer."""
    graph = PairGraph(graphs)
    return "".join(_Drawing(graph, layout, row_ids, traffic).svg() for layout in (WIDE, NARROW))


class _Drawing:
    """One `<svg>` element."""

    def __init__(self, graph: PairGraph, layout: Layout, row_ids: tuple[RowId, RowId], traffic: str) -> None:
        self.graph, self.layout, self.row_ids = graph, layout, row_ids
        self.metrics = ("macs", traffic)
        comparison = Comparison(graph.graphs.records)
        self.stages: dict[str, dict[str, Contribution]] = {
            metric: {c.name: c for c in comparison.by_stage(metric)} for metric in self.metrics
        }
        boxes = graph.boxes
        beside = [(boxes[0][i].stage, boxes[1][j].stage) for i, j in graph.aligned_boxes()]
        self.beside_itself = {stage for stage, other in beside if stage == other}
        """The stages that both networks have, side by side."""
        costs = (self._cost(1, box.stage, metric) for box in boxes[1] for metric in self.metrics)
        longest = max((len(value) + len(change) + 1 for value, change in costs if change), default=0)
        self.changes_below = longest * WIDE_CHARACTER > layout.box - 24
        """Whether a change has no room behind the value and has a line of its own."""

    def svg(self) -> str:
        tops, height = self._tops()
        parts: list[str] = []
        for side in (0, 1):
            label = self.graph.graphs.records[side].label
            x = self._left(side) + self.layout.box / 2
            most = int(0.9 * self.layout.box / BOLD_CHARACTER)
            parts.append(f"<text class=end x={x:g} y=14 text-anchor=middle>{escape(shortened(label, most))}</text>")
        parts += [self._link(link, tops) for link in self.graph.links]
        parts += [
            self._box(side, box, tops[side][i])
            for side in (0, 1) for i, box in enumerate(self.graph.boxes[side])
        ]  # fmt: skip
        name = "pair narrow" if self.layout.narrow else "pair"
        label = escape(" and ".join(record.label for record in self.graph.graphs.records))
        opening = f'<svg viewBox="0 0 {self.layout.width} {height:g}" role=group aria-label="{label}" class="{name}">'
        return f"{opening}{''.join(parts)}</svg>"

    def _left(self, side: int) -> int:
        """The left end of a network."""
        return side * (self.layout.box + self.layout.gap)

    @property
    def _header(self) -> int:
        """The height of the name and the costs of a stage."""
        return 62 + 17 * (self.layout.narrow + len(self.metrics) * self.changes_below)

    def _height(self, box: StageBox) -> int:
        return self._header + len(box.lines) * self.layout.line + PAD

    def _tops(self) -> tuple[tuple[list[float], list[float]], float]:
        """The upper end of each box of both networks, and the height of the drawing."""
        tops: tuple[list[float], list[float]] = ([], [])
        y = [26.0, 26.0]
        boxes = self.graph.boxes

        def place(side: int, until: int) -> None:
            while len(tops[side]) < until:
                tops[side].append(y[side])
                y[side] += self._height(boxes[side][len(tops[side]) - 1]) + 14

        for pair in [*self.graph.aligned_boxes(), (len(boxes[0]), len(boxes[1]))]:
            for side in (0, 1):
                place(side, pair[side])
            y = [max(y)] * 2
        return tops, max(y)

    def _line_top(self, side: int, at: tuple[int, int], tops: tuple[list[float], list[float]]) -> float:
        return tops[side][at[0]] + self._header + at[1] * self.layout.line

    def _link(self, link: LineLink, tops: tuple[list[float], list[float]]) -> str:
        """A curve from the right end of a line to the left end of another."""
        middle = (self.layout.line - 4) / 2
        start, end = (self._line_top(side, at, tops) + middle for side, at in enumerate((link.base, link.other)))
        x, bend = self.layout.box - PAD, (self.layout.gap + 2 * PAD) / 2
        end_x = x + 2 * bend
        return (
            f'<path class="link {link.state}" d="M{x:g} {start:g}C{x + bend:g} {start:g} {end_x - bend:g} {end:g} '
            f'{end_x:g} {end:g}"/>'
        )

    def _box(self, side: int, box: StageBox, top: float) -> str:
        x, right = self._left(side), self._left(side) + self.layout.box - 12
        members = [self.graph.graphs.blocks[side][i] for line in box.lines for i in line.members]
        repeated = len({block.path for block in members if block.repeated})
        layers = sum(len(block.positions) for block in members)
        depth = counted(repeated, "block") if repeated else counted(layers, "layer")
        parts = [f"<rect class=box x={x} y={top:g} width={self.layout.box} height={self._height(box)} rx=6 />"]
        most = int((self.layout.box - 24 - (0 if self.layout.narrow else len(depth) + 1) * CHARACTER) / BOLD_CHARACTER)
        stage = "all stages" if box.stage is None else box.stage
        parts.append(f"<text class=name x={x + 12} y={top + 18:g}>{escape(shortened(stage, most))}</text>")
        y = top + 18
        if self.layout.narrow:
            y += 17
            parts.append(f"<text class=dim x={x + 12} y={y:g}>{depth}</text>")
        else:
            parts.append(f"<text class=dim x={right} y={y:g} text-anchor=end>{depth}</text>")
        for metric in self.metrics:
            y += 17
            value, change = self._cost(side, box.stage, metric)
            parts.append(f"<text x={x + 12} y={y:g}>{value}</text>")
            y += 17 * self.changes_below
            if change:
                parts.append(f"<text class=dim x={right} y={y:g} text-anchor=end>{change}</text>")
        for i, line in enumerate(box.lines):
            parts.append(self._line(side, line, top + self._header + i * self.layout.line))
        return "".join(parts)

    def _cost(self, side: int, stage: str | None, metric: str) -> tuple[str, str]:
        """The value of a stage, and in the second network its change from the stage of that name beside it."""

        def text(amount: Amount) -> str:
            return f"{NAMES[metric]} {amount_text(metric, amount)}"

        if stage is None:
            return text(METRICS.get(metric).total(self.graph.graphs.records[side])), ""
        c = self.stages[metric][stage]
        value, missed = (c.base, c.base_missed) if side == 0 else (c.value, c.missed)
        is_compared = side == 1 and stage in self.beside_itself and c.base and not c.bound
        return text(Sum(value or 0, 1, missed)), units.change(c.difference / c.base) if c.base and is_compared else ""

    def _line(self, side: int, line: Line, top: float) -> str:
        """A frame with the sign of the state, the names of the blocks and their channels."""
        graphs, layout = self.graph.graphs, self.layout
        x, width, height = self._left(side) + PAD, layout.box - 2 * PAD, layout.line - 4
        members = [graphs.blocks[side][i] for i in line.members]
        widths, alone = _widths(members), self._alone(side, members)
        behind = alone if layout.narrow else " · ".join(filter(None, (widths, alone)))
        room = width - 34 - (len(behind) + 1) * WIDE_CHARACTER * bool(behind)
        name = shortened(_name(members), max(int(room / WIDE_CHARACTER), 8))
        y = top + 14
        parts = [
            f"<title>{escape(self._title(side, members))}</title>",
            f'<rect class="unit {line.state}" x={x} y={top:g} width={width} height={height} rx=4 />',
            f'<text class="sign {line.state}" x={x + 8} y={y:g}>{SIGNS[line.state]}</text>',
            f"<text x={x + 24} y={y:g}>{escape(name)}</text>",
        ]
        if behind:
            parts.append(f"<text class=dim x={x + width - 8} y={y:g} text-anchor=end>{behind}</text>")
        if widths and layout.narrow:
            parts.append(f"<text class=dim x={x + 24} y={y + 16:g}>{widths}</text>")
        row_id = self.row_ids[side](graphs.rows[side][members[0].positions[0]].path)
        return f"<a href=#{row_id}>{''.join(parts)}</a>" if row_id else f"<g>{''.join(parts)}</g>"

    def _alone(self, side: int, members: Sequence[Block]) -> str:
        """How many layers have no counterpart, if others have one: `−1`."""
        alone = self._count(side, members, ALONE[side])
        return f"{SIGNS[ALONE[side]]}{alone}" if 0 < alone < sum(len(block.positions) for block in members) else ""

    def _count(self, side: int, members: Sequence[Block], state: State) -> int:
        states = self.graph.graphs.layer_states[side]
        return sum(states[position] == state for block in members for position in block.positions)

    def _title(self, side: int, members: Sequence[Block]) -> str:
        """The tooltip: the whole names, and the number of layers of each state."""
        words = {"same": "compute the same", "changed": "changed", "removed": "removed", "added": "added"}
        states: tuple[State, ...] = ("same", "changed", ALONE[side])
        counts = {state: self._count(side, members, state) for state in states}
        names = members[0].path if len(members) == 1 else f"{members[0].path} … {members[-1].path}"
        layers = counted(sum(counts.values()), "layer")
        return f"{names}: {layers}, " + ", ".join(f"{n} {words[state]}" for state, n in counts.items() if n)


def _name(members: Sequence[Block]) -> str:
    """The paths of the first and of the last block, without what they have in common: `blocks.1 … 2`."""
    first, last = _short_path(members[0]), _short_path(members[-1])
    if first == last:
        return first
    parent, _, name = last.rpartition(".")
    return f"{first} … {name if parent == first.rpartition('.')[0] else last}"


def _widths(members: Sequence[Block]) -> str:
    """The number of blocks and their channels: `3 × 256`."""
    known = [block for block in members if block.widths]
    each = {block.widths for block in known}
    widths = "".join(each)
    if len(each) > 1:
        first, last = known[0].width_in, known[-1].width_out
        widths = f"{first}→…→{last}" if first == last else f"{first}→{last}"
    return f"{len(members)} × {widths}".rstrip() if len(members) > 1 else widths


def _short_path(block: Block) -> str:
    """The path without the name of the stage, unless only a number would remain of the module: `stage1.0.conv`."""
    path = block.path.removeprefix(f"{block.stage}.")
    return block.path if path[:1].isdecimal() else path
