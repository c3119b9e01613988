"""The layer table of the HTML report: operations below their modules, or only modules for a very large model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cspprof.analysis.headline import cio_describes_all
from cspprof.analysis.layer_rows import LayerRow, RowGroup, group_by_kind, group_by_module, kind_label, layer_rows
from cspprof.core.record import Record
from cspprof.core.units import counted
from cspprof.metrics import METRICS, Amount, Sum
from cspprof.metrics.memory import live_bytes
from cspprof.report.metric_labels import metric_label
from cspprof.report.tables import Cell, Column, part, quantity, shapes, share, text

MOST_ROWS = 10_000
"""The number of operations on one page; with more, the tables list modules instead of operations."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of the table: an operation, or a module with the sums of the operations in it."""

    id: str
    depth: int
    parent_path: str
    """The path up to the name, with its last dot."""
    name: str
    cells: tuple[Cell, ...]
    module: bool


@dataclass(slots=True)
class PathNode:
    """A module of the path tree, or the operations at the end of a path."""

    children: dict[str, PathNode] = field(default_factory=dict)
    rows: list[LayerRow] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LayerTable:
    """The rows of one model, and the id of the row of each path."""

    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    row_ids: dict[str, str]
    grouping_note: str
    """A sentence for a table that lists groups of operations; empty if it lists every operation."""

    def row_id(self, path: str) -> str:
        """The id of the row of a path or of the nearest module above it; empty if there is none."""
        while path not in self.row_ids and "." in path:
            path = path.rpartition(".")[0]
        return self.row_ids.get(path, "")


def layer_metrics(profiles: Sequence[Record]) -> tuple[str, ...]:
    """The metrics of the layer tables; traffic and CIO of all operations if CIO does not describe a model."""
    if cio_describes_all(profiles):
        return "macs", "cio_cspnet", "moc", "params"
    return "macs", "traffic_bytes", "cio_all", "params"


def layer_tables(profiles: Sequence[Record]) -> list[LayerTable]:
    """One table per model. If all models together have too many operations, the large models list modules."""
    metrics = layer_metrics(profiles)
    operations = [layer_rows(p) for p in profiles]
    most = MOST_ROWS // len(profiles)
    too_many = sum(map(len, operations)) > MOST_ROWS
    return [
        _module_table(i, p, metrics, most)
        if too_many and len(listed) > most
        else _operation_table(i, p, metrics, listed)
        for i, (p, listed) in enumerate(zip(profiles, operations, strict=True))
    ]


def _columns(first: str, metrics: Sequence[str]) -> tuple[Column, ...]:
    numbers = [metric_label(metrics[0]), "share", *(metric_label(m) for m in metrics[1:]), "live memory"]
    return (*(Column(h) for h in (first, "stage", "in", "out")), *(Column(h, numeric=True) for h in numbers))


def _operation_table(model: int, record: Record, metrics: Sequence[str], operations: Sequence[LayerRow]) -> LayerTable:
    root = PathNode()
    for row in operations:
        node = root
        for name in row.path.split("."):
            node = node.children.setdefault(name, PathNode())
        node.rows.append(row)
    table_rows = tuple(_rows_below(root, "", 0, model, record, metrics))
    row_ids: dict[str, str] = {}
    for line in table_rows:
        row_ids.setdefault(line.parent_path + line.name, line.id)
    return LayerTable(_columns("kind", metrics), table_rows, row_ids, "")


def _rows_below(
    node: PathNode, parent_path: str, depth: int, model: int, record: Record, metrics: Sequence[str]
) -> Iterator[TableRow]:
    for name, child in node.children.items():
        while len(child.children) == 1 and not child.rows and next(iter(child.children.values())).children:
            ((inner, child),) = child.children.items()  # a chain of modules is one row
            name = f"{name}.{inner}"
        path = parent_path + name
        operations = _operations_below(child)
        if child.children:
            group = RowGroup(path, tuple(operations))
            module_cells = (*_group_cells(operations), *_metric_cells(record, metrics, group))
            row_id = f"m{model}-{operations[0].index}-{depth}"
            yield TableRow(row_id, depth, parent_path, name, module_cells, module=True)
        for row in child.rows:
            cells = (text(kind_label(row.spec)), text(row.stage), shapes(row.spec.reads), shapes(row.spec.writes))
            own_depth = depth + 1 if child.children else depth
            yield TableRow(f"r{model}-{row.index}", own_depth, parent_path, name,
                           (*cells, *_metric_cells(record, metrics, RowGroup(path, (row,)))), module=False)  # fmt: skip
        yield from _rows_below(child, f"{path}.", depth + 1, model, record, metrics)


def _operations_below(node: PathNode) -> list[LayerRow]:
    found = [*node.rows, *(row for child in node.children.values() for row in _operations_below(child))]
    return sorted(found, key=lambda row: row.index)


def _group_cells(operations: Sequence[LayerRow]) -> tuple[Cell, ...]:
    """The text cells of several operations: their number and their stages."""
    stages = list(dict.fromkeys(r.stage for r in operations))
    stage = stages[0] if len(stages) == 1 else f"{stages[0]} … {stages[-1]}"
    return text(counted(len(operations), "operation")), text(stage), text(""), text("")


def _metric_cells(record: Record, metrics: Sequence[str], group: RowGroup) -> tuple[Cell, ...]:
    macs, whole = group.amount("macs") or Sum(0), METRICS.get("macs").total(record)
    part_of_macs = share(macs.value or 0, whole.value or 0, macs.missed, whole.missed)
    live = live_bytes(record)
    peak = max(live[r.index] for r in group.rows)
    first, *others = (_cell(m, group.amount(m)) for m in metrics)
    share_cell = part_of_macs if macs.value or macs.missed else text("")
    return first, share_cell, *others, quantity("peak_bytes", peak)


def _cell(metric: str, amount: Amount | None) -> Cell:
    """A value; empty for a metric that the operations do not have."""
    return text("") if amount is None or (amount.value is None and not amount.missed) else part(metric, amount)


def _module_table(model: int, record: Record, metrics: Sequence[str], most: int) -> LayerTable:
    """The deepest modules of which at most `most` exist; if there are more at any depth, kinds of operations."""
    deepest = max(layer.depth for layer in record.layers)
    by_depth = (groups for d in range(deepest, 0, -1) if len(groups := group_by_module(record, d)) <= most)
    groups = next(by_depth, [])
    what = "modules" if groups else "kinds of operations"
    groups = groups or group_by_kind(record)
    table_rows = tuple(
        TableRow(
            f"r{model}-{i}", 0, "", g.name, (*_group_cells(g.rows), *_metric_cells(record, metrics, g)), module=False
        )
        for i, g in enumerate(groups)
    )
    n = sum(len(g.rows) for g in groups)
    note = f"{record.label} has {n:,} operations; this table shows its {len(groups):,} {what}."
    row_ids = {row.name: row.id for row in table_rows} if what == "modules" else {}
    return LayerTable(_columns("operations", metrics), table_rows, row_ids, note)
