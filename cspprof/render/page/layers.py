"""The layer table: operations under the modules that they run in, or, of a very large model, modules alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cspprof.analysis.layer_rows import LayerRow, RowGroup, group_by_kind, group_by_module, kind_label, layer_rows
from cspprof.core.record import Record
from cspprof.metrics import METRICS, value_of
from cspprof.metrics.memory import live_bytes
from cspprof.report.profile import label
from cspprof.report.tables import Cell, Column, quantity, shapes, share, text

MOST_ROWS = 10_000
"""Operations that a page lists one by one; with more, models are rolled up to modules."""
NUMBERS = ("macs", "cio_cspnet", "moc", "params")


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the table: an operation, or a module with what is below it."""

    id: str
    depth: int
    above: str
    """The path up to the name, its dot included."""
    name: str
    cells: tuple[Cell, ...]
    module: bool


@dataclass(slots=True)
class Node:
    """A module, or at the end of a path the operations there."""

    children: dict[str, Node] = field(default_factory=dict)
    rows: list[LayerRow] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LayerTable:
    """One model's lines under their columns, and the id of the line that stands for a path."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    anchors: dict[str, str]
    rolled_up: str
    """What was folded together, in words; empty where every operation is listed."""

    def anchor(self, path: str) -> str:
        """The id of the line of a path or of the module that it was rolled up to; empty where there is none."""
        while path not in self.anchors and "." in path:
            path = path.rpartition(".")[0]
        return self.anchors.get(path, "")


def layer_tables(profiles: Sequence[Record]) -> list[LayerTable]:
    """A table for each model. Past 10⁴ operations in all, each model with more than its part is rolled up."""
    listed = [layer_rows(p) for p in profiles]
    part = MOST_ROWS // len(profiles)
    large = sum(map(len, listed)) > MOST_ROWS
    return [
        _rolled_up(i, p, part) if large and len(found) > part else _all(i, p, found)
        for i, (p, found) in enumerate(zip(profiles, listed, strict=True))
    ]


def _columns(first: str) -> tuple[Column, ...]:
    numbers = [label("macs"), "share", *(label(m) for m in NUMBERS[1:]), "live memory"]
    return (*(Column(h) for h in (first, "stage", "in", "out")), *(Column(h, numeric=True) for h in numbers))


def _all(model: int, record: Record, listed: Sequence[LayerRow]) -> LayerTable:
    root = Node()
    for row in listed:
        node = root
        for part in row.path.split("."):
            node = node.children.setdefault(part, Node())
        node.rows.append(row)
    lines = tuple(_walk(root, "", 0, model, record))
    anchors: dict[str, str] = {}
    for line in lines:
        anchors.setdefault(line.above + line.name, line.id)
    return LayerTable(_columns("sort"), lines, anchors, "")


def _walk(node: Node, above: str, depth: int, model: int, record: Record) -> Iterator[Line]:
    for name, child in node.children.items():
        while len(child.children) == 1 and not child.rows and next(iter(child.children.values())).children:
            ((inner, child),) = child.children.items()
            name = f"{name}.{inner}"
        path = above + name
        inside = _below(child)
        if child.children:
            group = RowGroup(path, tuple(inside))
            yield Line(f"m{model}-{inside[0].index}-{depth}", depth, above, name,
                       (*_summed(inside), *_numbers(record, group)), module=True)  # fmt: skip
        for row in child.rows:
            cells = (text(kind_label(row.spec)), text(row.stage), shapes(row.spec.reads), shapes(row.spec.writes))
            own = depth + 1 if child.children else depth
            yield Line(f"r{model}-{row.index}", own, above, name,
                       (*cells, *_numbers(record, RowGroup(path, (row,)))), module=False)  # fmt: skip
        yield from _walk(child, f"{path}.", depth + 1, model, record)


def _below(node: Node) -> list[LayerRow]:
    found = [*node.rows, *(row for child in node.children.values() for row in _below(child))]
    return sorted(found, key=lambda row: row.index)


def _summed(members: Sequence[LayerRow]) -> tuple[Cell, ...]:
    """What stands for several operations in the columns that have words."""
    found = list(dict.fromkeys(r.stage for r in members))
    stage = found[0] if len(found) == 1 else f"{found[0]} … {found[-1]}"
    return text(f"{len(members)} operations"), text(stage), text(""), text("")


def _numbers(record: Record, group: RowGroup) -> tuple[Cell, ...]:
    macs, *others = ((m, group.value(m)) for m in NUMBERS)
    first = Cell(None, "?") if macs[1] is None else quantity(*macs)
    part = share(macs[1], value_of(record, "macs")) if macs[1] else text("")
    alive = live_bytes(record)
    live = max(alive[r.index] for r in group.rows)
    return (first, part, *(text("") if v is None else quantity(m, v) for m, v in others), quantity("peak_bytes", live))


def _rolled_up(model: int, record: Record, most: int) -> LayerTable:
    """The deepest modules that fit; sorts of operations where not even the outermost ones do."""
    deepest = max(layer.depth for layer in record.layers)
    fitting = (groups for d in range(deepest, 0, -1) if len(groups := group_by_module(record, d)) <= most)
    groups = next(fitting, [])
    what = "modules" if groups else "sorts of operations"
    groups = groups or group_by_kind(record)
    lines = tuple(
        Line(f"r{model}-{i}", 0, "", g.name, (*_summed(g.rows), *_numbers(record, g)), module=False)
        for i, g in enumerate(groups)
    )
    n = sum(len(g.rows) for g in groups)
    told = f"{record.label} has {n:,} operations; this table shows its {len(groups):,} {what}."
    anchors = {line.name: line.id for line in lines} if what == "modules" else {}
    return LayerTable(_columns("operations"), lines, anchors, told)


def definitions() -> list[tuple[str, str, str, str, str]]:
    """(name, heading, definition, what it is not, source) of every registered number."""
    return [(name, f"{m.title} ({m.unit})", m.definition, m.is_not, m.paper) for name, m in METRICS.items()]
