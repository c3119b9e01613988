"""The operations of a record as rows, each with its place in the model, and rows grouped by module, kind or stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cspprof.analysis.stages import has_stage_tags, stage_labels
from cspprof.core.cached import cached
from cspprof.core.errors import CspprofError
from cspprof.core.record import CONVOLUTIONS, POOLS, Kind, OpSpec, Record
from cspprof.metrics import METRICS, Amount, Number, Peak, Sum
from cspprof.metrics.memory import live_bytes

PER_CALL = ("params", "peak_bytes")
"""Metrics of layers that depend on the call and not only on its `OpSpec`."""


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One call of an operation that is not a view."""

    index: int
    """The number of the call."""
    path: str
    """The path of the module if it runs only this operation, else the path of the module and the operation's name."""
    spec: OpSpec
    stage: str
    params: int
    """Elements of the parameters that no earlier call reads. The sum over all rows is that of all parameters read."""
    live_bytes: int
    """Activation memory that is alive while it runs; see the metric `peak_bytes`."""


@cached
def layer_rows(record: Record, use_tags: bool = True) -> Sequence[LayerRow]:
    """One row for each call that is not a view, in execution order. For `use_tags` see `stage_labels`."""
    calls, specs, layers = record.calls, record.specs, record.layers
    indices = [i for i, s in enumerate(calls.spec) if specs[s].kind is not Kind.VIEW]
    parents = {layer.path.rpartition(".")[0] for layer in layers if layer.path}
    calls_in_layer = Counter(calls.layer[i] for i in indices)
    stages = stage_labels(record, use_tags)
    params = first_read_params(record, indices)
    live = live_bytes(record)
    rows = []
    for i in indices:
        layer = layers[calls.layer[i]]
        spec = specs[calls.spec[i]]
        is_leaf = layer.path and layer.path not in parents
        single_operation = is_leaf and calls_in_layer[calls.layer[i]] <= max(layer.calls, 1)
        path = layer.path if single_operation else f"{layer.path}.{spec.name}".lstrip(".")
        rows.append(LayerRow(i, path, spec, stages[i], params.get(i, 0), live[i]))
    return rows


def first_read_params(record: Record, indices: Iterable[int]) -> dict[int, int]:
    """Parameter elements that each call is the first to read."""
    unread = {s.id: s.spec.numel for s in record.storages if s.role == "parameter"}
    params: dict[int, int] = {}
    for i in indices:
        for storage in record.storages_read(i):
            if storage in unread:
                params[i] = params.get(i, 0) + unread.pop(storage)
    return params


def kind_label(spec: OpSpec) -> str:
    """The kind of operation with its kernel: conv 1×1, grouped conv 3×3, depthwise conv 3×3, linear, max pool …"""
    if spec.kind not in CONVOLUTIONS:
        return spec.kind.value.replace("_", " ")
    kernel = "×".join(map(str, spec.attrs.get("kernel", ())))
    groups = spec.attrs.get("groups", 1)
    channels = spec.reads[0].shape[1] if len(spec.reads[0].shape) > 1 else 1
    prefix = "" if groups == 1 else "depthwise " if groups == channels else "grouped "
    return f"{prefix}{spec.kind.value.replace('_', ' ')} {kernel}"


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows with a common name."""

    name: str
    rows: tuple[LayerRow, ...]

    @property
    def params(self) -> int:
        return sum(r.params for r in self.rows)

    def amount(self, metric: str) -> Amount | None:
        """The value of a metric over the rows, with the number of rows that it misses; None for a metric of the whole
        model. That of `peak_bytes` is the largest memory that is alive while one of the rows runs."""
        if metric == "params":
            return Sum(self.params)
        if metric == "peak_bytes":
            return Peak(max((r.live_bytes for r in self.rows), default=0))
        m = METRICS.get(metric)
        return None if m.of_op is None else m.group_value([(r.spec, 1) for r in self.rows])

    def value(self, metric: str) -> Number:
        """The value of a metric over the rows; None for a metric of the whole model, and if nothing is known."""
        amount = self.amount(metric)
        return None if amount is None else known_value(amount)


def known_value(amount: Amount) -> Number:
    """The value of a part of a model, or its lower bound; None if the part misses operations and the rest is 0."""
    return None if amount.missed and not amount.value else amount.value


def group_by_module(record: Record, depth: int) -> list[RowGroup]:
    """Rows of each module at `depth` levels below the model. An operation above that level has a group of its own."""
    return _grouped((".".join(r.path.split(".")[:depth]) if depth else record.model, r) for r in layer_rows(record))


def group_by_kind(record: Record) -> list[RowGroup]:
    """Rows of each kind of operation; see `kind_label`."""
    return _grouped((kind_label(r.spec), r) for r in layer_rows(record))


def group_by_stage(record: Record, use_tags: bool = True) -> list[RowGroup]:
    """Rows of each stage."""
    rows = layer_rows(record) if use_tags or not has_stage_tags(record) else layer_rows(record, False)
    return _grouped((r.stage, r) for r in rows)


def group_by_path(record: Record) -> list[RowGroup]:
    """Rows of each path: several if a module is called several times."""
    return _grouped((r.path, r) for r in layer_rows(record))


def _grouped(named: Iterable[tuple[str, LayerRow]]) -> list[RowGroup]:
    """The groups, in the order of their first rows."""
    groups: dict[str, list[LayerRow]] = {}
    for name, row in named:
        groups.setdefault(name, []).append(row)
    return [RowGroup(name, tuple(rows)) for name, rows in groups.items()]


GROUPINGS: dict[str, Callable[[Record], list[RowGroup]]] = {"kind": group_by_kind, "stage": group_by_stage}


def group_rows(record: Record, by: str) -> list[RowGroup]:
    """The groups of the grouping `by`: "kind" or "stage"."""
    if by not in GROUPINGS:
        raise CspprofError(f"cannot group by {by!r}", f"Group by one of: {', '.join(GROUPINGS)}")
    return GROUPINGS[by](record)


def layer_records(record: Record) -> list[dict[str, Any]]:
    """One dict for each operation that is not a view, in execution order. The values add up to the totals.

    Keys: path, kind, stage, in, out (lists of shapes), macs, params, cio_hardnet, cio_cspnet. A value is None if it is
    unknown.
    """
    hardnet, cspnet = values_by_spec(record, "cio_hardnet"), values_by_spec(record, "cio_cspnet")
    called = record.calls.spec
    return [
        {
            "path": r.path,
            "kind": r.spec.kind.value,
            "stage": r.stage,
            "in": [list(t.shape) for t in r.spec.reads],
            "out": [list(t.shape) for t in r.spec.writes],
            "macs": r.spec.macs,
            "params": r.params,
            "cio_hardnet": hardnet[called[r.index]],
            "cio_cspnet": cspnet[called[r.index]],
        }
        for r in layer_rows(record)
    ]


LAYER_FIELDS = ("path", "kind", "stage", "in", "out", "macs", "params", "cio_hardnet", "cio_cspnet")
"""The keys of `layer_records`."""
ARGUMENTS = ("kernel", "stride", "padding", "dilation", "groups")
"""Arguments of convolutions and pools that are columns of `layer_columns`."""
_TEXTS = ("path", "kind", "stage", "in", "out", "op", "class", "dtype", *ARGUMENTS[:-1])


def layer_columns(record: Record) -> dict[str, list[Any]]:
    """Every fact and number of the rows of `layer_rows`, as columns: first those of `layer_records`, then all other
    metrics of operations, the live memory, and what the operation is."""
    records, rows = layer_records(record), layer_rows(record)
    columns = {name: [r[name] for r in records] for name in LAYER_FIELDS}
    of_rows = [record.calls.spec[r.index] for r in rows]
    for metric in METRICS.names():
        if METRICS.get(metric).of_op is not None and metric not in columns:
            values = values_by_spec(record, metric)
            columns[metric] = [values[i] for i in of_rows]
    columns["live_bytes"] = [r.live_bytes for r in rows]
    columns["op"] = [r.spec.name for r in rows]
    columns["class"] = [record.layers[record.calls.layer[r.index]].class_name for r in rows]
    for name in ARGUMENTS:
        has_it = [r.spec.kind in CONVOLUTIONS or r.spec.kind in POOLS for r in rows]
        columns[name] = [r.spec.attrs.get(name) if has else None for r, has in zip(rows, has_it, strict=True)]
    columns["dtype"] = [r.spec.writes[0].dtype if r.spec.writes else None for r in rows]
    return columns


def layer_numbers(columns: Iterable[str]) -> list[str]:
    """Those of the columns of `layer_columns` that contain numbers."""
    return [name for name in columns if name not in _TEXTS]


def values_by_spec(record: Record, metric: str) -> list[Any]:
    """The value of a metric for each entry of `record.specs`; None if it is unknown. A call has the value of its
    spec."""
    m = METRICS.get(metric)
    return [known_value(m.group_value([(spec, 1)])) for spec in record.specs]
