"""The stage graph of the HTML report: one box per stage, and the tensors between stages, bypasses included."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, prod

from cspprof.analysis.layer_rows import LayerRow, RowGroup, layer_rows
from cspprof.core.dataflow import Edge, edges
from cspprof.core.record import CONVOLUTIONS, POOLS, Kind, Record, TensorSpec
from cspprof.core.units import counted, nbytes, shape, shortened, significant
from cspprof.metrics import METRICS, Amount, Sum
from cspprof.report.tables import share

MOST_BOXES = 24
"""If a model enters stages more often, each stage is one box."""
MAP_KINDS = CONVOLUTIONS | POOLS | {Kind.RESIZE}
"""The kinds that write (N, C, H, W); other operations may write (N, H, W, C) or tokens."""
BOX_HEIGHT, BOX_WIDTH, GAP, LANE_WIDTH = 66, 290, 34, 16
LEFT, TOP = 10, 22
CHARACTER, BOLD_CHARACTER = 6.4, 7.6
"""The width of a character in a box, in SVG units; rather too wide than too narrow."""
CORNER = 10
"""The radius of the corners of an arrow beside the boxes."""


@dataclass(frozen=True, slots=True)
class Box:
    """Consecutive operations of one stage."""

    stage: str
    rows: tuple[LayerRow, ...]
    size: str
    """The size of the last feature map that the stage writes: `32×32`; empty if it writes none."""
    bypass: str
    """A sentence about a tensor that bypasses most convolutions of the stage; empty if there is none."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Tensors from one box to another. -1 is the input of the model, the number of boxes its output."""

    source: int
    target: int
    tensors: tuple[TensorSpec, ...]

    @property
    def text(self) -> str:
        first = shape(self.tensors[0].shape[1:]) if self.tensors else ""
        return first if len(self.tensors) == 1 else counted(len(self.tensors), "tensor")

    @property
    def bypasses_a_box(self) -> bool:
        return self.target != self.source + 1


@dataclass(frozen=True, slots=True)
class Route:
    """An arrow beside the boxes: right from (x, start), down at `lane_x`, and left to (end_x, end)."""

    flow: Flow
    x: float
    start: float
    lane_x: float
    end_x: float
    end: float


def stage_graph(record: Record) -> tuple[list[Box], list[Flow]]:
    """Boxes in execution order and the flows between them, from the producer–consumer edges of the record."""
    runs = _runs(layer_rows(record))
    box_of_call = {r.index: i for i, members in enumerate(runs) for r in members}
    inner: dict[int, list[Edge]] = defaultdict(list)
    between: dict[tuple[int, int], dict[int, TensorSpec]] = defaultdict(dict)
    for edge in edges(record):
        source = box_of_call.get(edge.source, -1)
        target = box_of_call.get(edge.target, len(runs))
        if source == target:
            inner[source].append(edge)
        else:
            between[source, target].setdefault(edge.source, edge.tensor)
    boxes = [Box(m[0].stage, tuple(m), _map_size(m), _bypass(m, inner[i])) for i, m in enumerate(runs)]
    return boxes, [Flow(s, t, tuple(tensors.values())) for (s, t), tensors in sorted(between.items())]


def _runs(operations: Sequence[LayerRow]) -> list[list[LayerRow]]:
    """Runs of operations of the same stage; one run per stage if there are more than MOST_BOXES."""
    runs: list[list[LayerRow]] = []
    for row in operations:
        if runs and runs[-1][0].stage == row.stage:
            runs[-1].append(row)
        else:
            runs.append([row])
    if len(runs) <= MOST_BOXES:
        return runs
    by_stage: dict[str, list[LayerRow]] = {}
    for row in operations:
        by_stage.setdefault(row.stage, []).append(row)
    return list(by_stage.values())


def _map_size(members: Sequence[LayerRow]) -> str:
    maps = [t for r in members if r.spec.kind in MAP_KINDS for t in r.spec.writes if len(t.shape) > 3]
    larger_than_1 = [t for t in maps if prod(t.shape[2:]) > 1] or maps
    return shape(larger_than_1[-1].shape[2:]) if larger_than_1 else ""


def _bypass(members: Sequence[LayerRow], inner: Sequence[Edge]) -> str:
    """The tensors that bypass more than half of the convolutions of a stage, as in a cross-stage-partial stage."""
    convolutions = [r.index for r in members if r.spec.kind in CONVOLUTIONS]
    if len(convolutions) < 4:
        return ""
    bypassed: dict[int, tuple[int, Edge]] = {}
    for edge in inner:
        n = bisect_right(convolutions, edge.target - 1) - bisect_right(convolutions, edge.source)
        if 2 * n > len(convolutions) and n > bypassed.get(edge.source, (0, edge))[0]:
            bypassed[edge.source] = n, edge
    if not bypassed:
        return ""
    n, edge = max(bypassed.values(), key=lambda found: found[0])
    what = shape(edge.tensor.shape[1:]) if len(bypassed) == 1 else f"{len(bypassed)} tensors"
    return f"{what} past {n} of {len(convolutions)} convolutions"


# -- drawing ------------------------------------------------------------------------------------------


def stage_graph_svg(record: Record, row_id: Callable[[str], str], traffic: str = "cio_cspnet") -> str:
    """The graph as one `<svg>` element; each box has the MACs and the metric `traffic` of a stage
    and links to the row of its first operation."""
    boxes, flows = stage_graph(record)
    tops, y = [], TOP + GAP
    for box in boxes:
        tops.append(y)
        y += _height(box) + GAP
    ends = [TOP, *(t + _height(b) for t, b in zip(tops, boxes, strict=True)), y + 20]
    starts = [2, *tops, y - 8]
    routes = _routes([f for f in flows if f.bypasses_a_box], starts, ends)
    width = max([LEFT + BOX_WIDTH, *(r.lane_x + LANE_WIDTH for r in routes)]) + LEFT
    totals = {m: METRICS.get(m).total(record) for m in ("macs", traffic)}
    parts = [_end("input", 2), _end("output", y - 8)]
    parts += [_box(box, top, totals, row_id(box.rows[0].path)) for box, top in zip(boxes, tops, strict=True)]
    parts += [_arrow(ends[f.source + 1], starts[f.target + 1], f) for f in flows if not f.bypasses_a_box]
    parts += [_skip_arrow(route, routes) for route in routes]
    label = escape(f"Stages of {record.label}")
    opening = f'<svg viewBox="0 0 {width} {y + 16}" style="--w:{width}" role=group aria-label="{label}" class=stages>'
    return f"{opening}{''.join(parts)}</svg>"


def _height(box: Box) -> int:
    return BOX_HEIGHT + (18 if box.bypass else 0)


def _end(text: str, y: float) -> str:
    return f"<text class=end x={LEFT + BOX_WIDTH / 2:.0f} y={y + 14} text-anchor=middle>{text}</text>"


def _box(box: Box, top: float, totals: dict[str, Amount], row_id: str) -> str:
    group = RowGroup(box.stage, box.rows)
    operations = counted(len(box.rows), "operation")
    most = int((BOX_WIDTH - 22 - (len(operations) + 2) * CHARACTER) / BOLD_CHARACTER)
    size = "" if box.size in ("", box.stage) else f" · {box.size}"
    title = shortened(box.stage, most - len(size)) + size
    parts = [f"<rect class=box x={LEFT} y={top} width={BOX_WIDTH} height={_height(box)} rx=6 />"]
    parts.append(f"<text class=name x=22 y={top + 19}>{escape(title)}</text>")
    parts.append(f"<text class=dim x={BOX_WIDTH} y={top + 19} text-anchor=end>{operations}</text>")
    for i, (metric, whole) in enumerate(totals.items()):
        amount = group.amount(metric) or Sum(0)
        percentage = share(amount.value or 0, whole.value or 0, amount.missed, whole.missed)
        part = percentage.value or 0
        y = top + 38 + 18 * i
        parts.append(f"<rect class=track x=150 y={y - 9} width=80 height=9 />")
        parts.append(f"<rect class=c{i} x=150 y={y - 9} width={80 * part:.1f} height=9 />")
        parts.append(f"<text x=22 y={y}>{NAMES[metric]} {amount_text(metric, amount)}</text>")
        parts.append(f"<text x={BOX_WIDTH} y={y} text-anchor=end>{percentage.text}</text>")
    if box.bypass:
        parts.append(f'<path class=bypass d="M16 {top + 6}V{top + _height(box) - 6}"/>')
        parts.append(f"<text class=dim x=22 y={top + 74}>{escape(box.bypass)}</text>")
    return f"<a href=#{row_id}>{''.join(parts)}</a>" if row_id else f"<g>{''.join(parts)}</g>"


def _arrow(start: float, end: float, flow: Flow) -> str:
    x = LEFT + BOX_WIDTH // 2
    text = f"<text class=dim x={x + 8} y={(start + end) / 2 + 4}>{escape(flow.text)}</text>"
    return f'<path class=flow d="M{x} {start}V{end}" marker-end="url(#arrow)"/>{text}'


def _routes(skips: Sequence[Flow], starts: Sequence[float], ends: Sequence[float]) -> list[Route]:
    """The arrows from the lower corner of a box to the upper corner of another, beside the boxes between them."""
    lanes = _lanes(skips)
    side, middle = LEFT + BOX_WIDTH, LEFT + BOX_WIDTH / 2
    return [
        Route(
            flow,
            middle + 22 if flow.source < 0 else side, ends[flow.source + 1] - 14,
            side + (lanes[flow.source, flow.target] + 1) * LANE_WIDTH,
            middle + 26 if flow.target == len(starts) - 2 else side, starts[flow.target + 1] + 14,
        )
        for flow in skips
    ]  # fmt: skip


def _skip_arrow(route: Route, routes: Sequence[Route]) -> str:
    """The arrow and, along its lane, its label: a lane is as wide as a line of text, so labels do not overprint."""
    down = 1 if route.end > route.start else -1
    turn, back = route.start + down * CORNER, route.end - down * CORNER
    x, lane_x = route.x, route.lane_x
    path = (
        f"M{x:g} {route.start:g}H{lane_x - CORNER:g}Q{lane_x:g} {route.start:g} {lane_x:g} {turn:g}V{back:g}"
        f"Q{lane_x:g} {route.end:g} {lane_x - CORNER:g} {route.end:g}H{route.end_x:g}"
    )
    y = _label_position(route, routes)
    text = (
        f'<text class=dim transform="translate({lane_x + 12:g} {y:g}) rotate(-90)" text-anchor=middle>'
        f"{escape(route.flow.text)}</text>"
    )
    return f'<path class="flow skip" d="{path}" marker-end="url(#arrow)"/>{text}'


def _label_position(route: Route, routes: Sequence[Route]) -> float:
    """The middle of the label of an arrow: as near as possible to the middle of its lane, and clear of the arrows that
    cross the lane on their way to a lane farther out."""
    half = ceil(len(route.flow.text) * CHARACTER / 2) + 4
    low, high = sorted((route.start, route.end))
    crossings = [y for r in routes if r.lane_x > route.lane_x for y in (r.start, r.end)]
    middle = (low + high) / 2
    candidates = [middle, *(y + side * half for y in crossings for side in (-1, 1))]
    clear = [
        y for y in candidates
        if low + half <= y <= high - half and all(abs(y - crossing) >= half for crossing in crossings)
    ]  # fmt: skip
    return min(clear, key=lambda y: (abs(y - middle), y), default=middle)


def _lanes(skips: Sequence[Flow]) -> dict[tuple[int, int], int]:
    """A lane for each flow, so that no two flows overlap; shorter flows are nearer to the boxes."""
    taken: list[list[tuple[int, int]]] = []
    lanes = {}
    for flow in sorted(skips, key=lambda f: (abs(f.target - f.source), f.source)):
        low, high = sorted((flow.source, flow.target))
        free = (i for i, intervals in enumerate(taken) if all(high <= a or b <= low for a, b in intervals))
        lane = next(free, len(taken))
        if lane == len(taken):
            taken.append([])
        taken[lane].append((low, high))
        lanes[flow.source, flow.target] = lane
    return lanes


NAMES = {"macs": "MACs", "cio_cspnet": "CIO", "traffic_bytes": "traffic"}


def amount_text(metric: str, amount: Amount) -> str:
    """`1.2 M`, `≥ 1.2 M` or `?`."""
    value = int(amount.value or 0)
    if amount.missed and not value:
        return "?"
    return ("≥ " if amount.missed else "") + (nbytes(value) if metric == "traffic_bytes" else _prefixed(value))


def _prefixed(value: int) -> str:
    for n, prefix in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= n:
            return f"{significant(value / n)} {prefix}"
    return str(value)
