"""The stages of a model as boxes, and who feeds whom: what passes a stage by is drawn beside it."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import prod

from cspprof.analysis.layer_rows import LayerRow, RowGroup, layer_rows
from cspprof.core.dataflow import Edge, edges
from cspprof.core.record import CONVOLUTIONS, POOLS, Kind, Record, TensorSpec
from cspprof.core.units import shape, share, significant
from cspprof.metrics import value_of

MOST = 24
"""Boxes that a reader can follow; where a model enters stages more often, each stage is one box."""
MAPS = CONVOLUTIONS | POOLS | {Kind.RESIZE}
"""What writes (N, C, H, W); other operations may write (N, H, W, C) or tokens."""
BOX, WIDE, GAP, LANE = 66, 290, 34, 16


@dataclass(frozen=True, slots=True)
class Box:
    """Consecutive operations of one stage."""

    stage: str
    rows: tuple[LayerRow, ...]
    size: str
    """Of the last map that it writes: 32×32; empty where it writes none."""
    bypass: str
    """What passes most of it by, in words; empty where nothing does."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Tensors from one box to another. -1 is the model's input, the number of boxes its output."""

    source: int
    target: int
    tensors: tuple[TensorSpec, ...]

    @property
    def text(self) -> str:
        first = shape(self.tensors[0].shape[1:]) if self.tensors else ""
        return first if len(self.tensors) == 1 else f"{len(self.tensors)} tensors"


def stage_graph(record: Record) -> tuple[list[Box], list[Flow]]:
    """Boxes in execution order and the flows between them, from the record's storages."""
    runs = _runs(layer_rows(record))
    of_call = {r.index: i for i, members in enumerate(runs) for r in members}
    inner: dict[int, list[Edge]] = defaultdict(list)
    between: dict[tuple[int, int], dict[int, TensorSpec]] = defaultdict(dict)
    for edge in edges(record):
        source = of_call.get(edge.source, -1)
        target = of_call.get(edge.target, len(runs))
        if source == target:
            inner[source].append(edge)
        else:
            between[source, target].setdefault(edge.source, edge.tensor)
    boxes = [Box(m[0].stage, tuple(m), _size(m), _bypass(m, inner[i])) for i, m in enumerate(runs)]
    return boxes, [Flow(s, t, tuple(tensors.values())) for (s, t), tensors in sorted(between.items())]


def _runs(listed: Sequence[LayerRow]) -> list[list[LayerRow]]:
    found: list[list[LayerRow]] = []
    for row in listed:
        if found and found[-1][0].stage == row.stage:
            found[-1].append(row)
        else:
            found.append([row])
    if len(found) <= MOST:
        return found
    by_stage: dict[str, list[LayerRow]] = {}
    for row in listed:
        by_stage.setdefault(row.stage, []).append(row)
    return list(by_stage.values())


def _size(members: Sequence[LayerRow]) -> str:
    maps = [t for r in members if r.spec.kind in MAPS for t in r.spec.writes if len(t.shape) > 3]
    wide = [t for t in maps if prod(t.shape[2:]) > 1] or maps
    return shape(wide[-1].shape[2:]) if wide else ""


def _bypass(members: Sequence[LayerRow], inner: Sequence[Edge]) -> str:
    """What passes more than half of a stage's convolutions by, as the other part of a partial stage does."""
    convolutions = [r.index for r in members if r.spec.kind in CONVOLUTIONS]
    if len(convolutions) < 4:
        return ""
    passed: dict[int, tuple[int, Edge]] = {}
    for edge in inner:
        n = bisect_right(convolutions, edge.target - 1) - bisect_right(convolutions, edge.source)
        if 2 * n > len(convolutions) and n > passed.get(edge.source, (0, edge))[0]:
            passed[edge.source] = n, edge
    if not passed:
        return ""
    n, edge = max(passed.values(), key=lambda found: found[0])
    what = shape(edge.tensor.shape[1:]) if len(passed) == 1 else f"{len(passed)} tensors"
    return f"{what} past {n} of {len(convolutions)} convolutions"


def drawing(record: Record, row_of: Callable[[str], str]) -> str:
    """The graph as one `<svg>`; a box links to the row of its first operation."""
    boxes, flows = stage_graph(record)
    tops, y = [], 22 + GAP
    for box in boxes:
        tops.append(y)
        y += _height(box) + GAP
    ends = [22, *(t + _height(b) for t, b in zip(tops, boxes, strict=True)), y + 20]
    skips = [f for f in flows if f.target != f.source + 1]
    lanes = _lanes(skips)
    wide = 20 + WIDE + (max(lanes.values(), default=-1) + 1) * LANE + (84 if skips else 0)
    whole = {m: value_of(record, m) or 0 for m in ("macs", "cio_cspnet")}
    parts = [_end("input", 2), _end("output", y - 8)]
    parts += [_box(box, top, whole, row_of(box.rows[0].path)) for box, top in zip(boxes, tops, strict=True)]
    starts = [2, *tops, y - 8]
    for flow in flows:
        a, b = ends[flow.source + 1], starts[flow.target + 1]
        if flow.target == flow.source + 1:
            parts.append(_arrow(a, b, flow))
        else:
            parts.append(_arc(a, b, lanes[flow.source, flow.target], flow))
    label = escape(f"Stages of {record.label}")
    opened = f'<svg viewBox="0 0 {wide} {y + 16}" style="--w:{wide}" role=group aria-label="{label}" class=stages>'
    return f"{opened}{''.join(parts)}</svg>"


def _height(box: Box) -> int:
    return BOX + (18 if box.bypass else 0)


def _end(text: str, y: float) -> str:
    return f"<text class=end x={10 + WIDE / 2:.0f} y={y + 14} text-anchor=middle>{text}</text>"


def _box(box: Box, top: float, whole: dict[str, int], row: str) -> str:
    group = RowGroup(box.stage, box.rows)
    title = box.stage if box.size in ("", box.stage) else f"{box.stage} · {box.size}"
    parts = [f"<rect class=box x=10 y={top} width={WIDE} height={_height(box)} rx=6 />"]
    parts.append(f"<text class=name x=22 y={top + 19}>{escape(title)}</text>")
    parts.append(f"<text class=dim x={WIDE} y={top + 19} text-anchor=end>{len(box.rows)} operations</text>")
    for i, (metric, name) in enumerate((("macs", "MACs"), ("cio_cspnet", "CIO"))):
        value = int(group.value(metric) or 0)
        part = value / whole[metric] if whole[metric] else 0
        y = top + 38 + 18 * i
        parts.append(f"<rect class=track x=150 y={y - 9} width=80 height=9 />")
        parts.append(f"<rect class=t{i} x=150 y={y - 9} width={80 * part:.1f} height=9 />")
        parts.append(f"<text x=22 y={y}>{name} {_short(value)}</text>")
        parts.append(f"<text x={WIDE} y={y} text-anchor=end>{share(part)}</text>")
    if box.bypass:
        parts.append(f'<path class=loop d="M16 {top + 6}V{top + _height(box) - 6}"/>')
        parts.append(f"<text class=dim x=22 y={top + 74}>{escape(box.bypass)}</text>")
    return f"<a href=#{row}>{''.join(parts)}</a>" if row else f"<g>{''.join(parts)}</g>"


def _arrow(a: float, b: float, flow: Flow) -> str:
    x = 10 + WIDE // 2
    text = f"<text class=dim x={x + 8} y={(a + b) / 2 + 4}>{escape(flow.text)}</text>"
    return f'<path class=flow d="M{x} {a}V{b}" marker-end="url(#arrow)"/>{text}'


def _arc(a: float, b: float, lane: int, flow: Flow) -> str:
    """Out of a box's lower corner, past what lies between, into another's upper corner."""
    x, out = 10 + WIDE, 10 + WIDE + (lane + 1) * LANE
    start, end = a - 14, b + 14
    middle = (start + end) / 2
    way = f"M{x} {start}C{out} {start} {out} {start} {out} {middle}S{out} {end} {x} {end}"
    text = f"<text class=dim x={out + 4} y={middle + 4 + 13 * (lane % 2)}>{escape(flow.text)}</text>"
    return f'<path class="flow skip" d="{way}" marker-end="url(#arrow)"/>{text}'


def _lanes(skips: Sequence[Flow]) -> dict[tuple[int, int], int]:
    """A lane for each flow, the shorter ones nearer to the boxes, so that none runs over another."""
    taken: list[list[tuple[int, int]]] = []
    lanes = {}
    for flow in sorted(skips, key=lambda f: (abs(f.target - f.source), f.source)):
        low, high = sorted((flow.source, flow.target))
        lane = next((i for i, held in enumerate(taken) if all(high <= a or b <= low for a, b in held)), len(taken))
        if lane == len(taken):
            taken.append([])
        taken[lane].append((low, high))
        lanes[flow.source, flow.target] = lane
    return lanes


def _short(value: int) -> str:
    for n, prefix in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= n:
            return f"{significant(value / n)} {prefix}"
    return str(value)
