"""A profile's operations as rows: where each stands in the model, and how rows fold into modules, kinds, stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cspprof.analysis.stages import stages, tagged
from cspprof.core.cached import cached
from cspprof.core.errors import CspprofError
from cspprof.core.record import CONVOLUTIONS, Kind, OpSpec, Record
from cspprof.metrics import METRICS, Number


@dataclass(frozen=True, slots=True)
class Row:
    """One call that is not a view."""

    index: int
    path: str
    """The module's path where the module is this one operation; else the module's path plus the operation."""
    spec: OpSpec
    stage: str
    params: int
    """Parameter elements that this call is the first to read, so that rows add up to the model's."""


@cached
def rows(record: Record, tags: bool = True) -> Sequence[Row]:
    """Every operation in execution order, one row per call, views left out."""
    calls, specs, layers = record.calls, record.specs, record.layers
    shown = [i for i, s in enumerate(calls.spec) if specs[s].kind is not Kind.VIEW]
    parents = {layer.path.rpartition(".")[0] for layer in layers if layer.path}
    per_layer = Counter(calls.layer[i] for i in shown)
    label = stages(record, tags)
    new = _first_reads(record, shown)
    result = []
    for i in shown:
        layer = layers[calls.layer[i]]
        spec = specs[calls.spec[i]]
        alone = layer.path and layer.path not in parents and per_layer[calls.layer[i]] <= max(layer.calls, 1)
        path = layer.path if alone else f"{layer.path}.{spec.name}".lstrip(".")
        result.append(Row(i, path, spec, label[i], new.get(i, 0)))
    return result


def _first_reads(record: Record, shown: list[int]) -> dict[int, int]:
    sizes = {s.id: s.spec.numel for s in record.storages if s.role == "parameter"}
    first: dict[int, int] = {}
    for i in shown:
        spec = record.specs[record.calls.spec[i]]
        at = record.offsets[i]
        for storage in record.calls.storage[at : at + len(spec.reads) + len(spec.weights)]:
            if storage in sizes:
                first[i] = first.get(i, 0) + sizes.pop(storage)
    return first


def sort_of(spec: OpSpec) -> str:
    """The sort of layer as people name it: conv 1×1, grouped conv 3×3, depthwise conv 3×3, linear, max pool …"""
    if spec.kind not in CONVOLUTIONS:
        return spec.kind.value.replace("_", " ")
    kernel = "×".join(map(str, spec.attrs.get("kernel", ())))
    groups = spec.attrs.get("groups", 1)
    channels = spec.reads[0].shape[1] if len(spec.reads[0].shape) > 1 else 1
    prefix = "" if groups == 1 else "depthwise " if groups == channels else "grouped "
    return f"{prefix}{spec.kind.value.replace('_', ' ')} {kernel}"


@dataclass(frozen=True, slots=True)
class Group:
    """Rows folded together under one name."""

    name: str
    rows: tuple[Row, ...]

    @property
    def params(self) -> int:
        return sum(r.params for r in self.rows)

    def value(self, metric: str) -> Number:
        """The group's value; None where it is a number of whole models only, or an operation is unknown."""
        if metric == "params":
            return self.params
        m = METRICS.get(metric)
        if m.of_op is None:
            return None
        value = m.group_value([(r.spec, 1) for r in self.rows]).value
        if not value and m.name in ("macs", "flops") and self.rows and all(r.spec.macs is None for r in self.rows):
            return None
        return value


def by_module(record: Record, depth: int) -> list[Group]:
    """Rows rolled up to modules at most `depth` names deep; what runs above that stays under its own name."""
    return _group((".".join(r.path.split(".")[:depth]) if depth else record.model, r) for r in rows(record))


def by_kind(record: Record) -> list[Group]:
    return _group((sort_of(r.spec), r) for r in rows(record))


def by_stage(record: Record, tags: bool = True) -> list[Group]:
    same = tags or not tagged(record)
    return _group((r.stage, r) for r in (rows(record) if same else rows(record, False)))


def by_path(record: Record) -> list[Group]:
    return _group((r.path, r) for r in rows(record))


def _group(named: Iterable[tuple[str, Row]] | Iterator[tuple[str, Row]]) -> list[Group]:
    found: dict[str, list[Row]] = {}
    for name, row in named:
        found.setdefault(name, []).append(row)
    return [Group(name, tuple(members)) for name, members in found.items()]


FOLDS: dict[str, Callable[[Record], list[Group]]] = {"kind": by_kind, "stage": by_stage}


def fold(record: Record, by: str) -> list[Group]:
    if by not in FOLDS:
        raise CspprofError(f"cannot group by {by!r}", f"Group by one of: {', '.join(FOLDS)}")
    return FOLDS[by](record)


def layer_records(record: Record) -> list[dict[str, Any]]:
    """One dict per operation that is not a view, in execution order; they add up to the totals.

    Keys: path, kind, stage, in, out (lists of shapes), macs (None where unknown), params, cio_hardnet, cio_cspnet.
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
        for r in rows(record)
    ]


def values_by_spec(record: Record, metric: str) -> list[Any]:
    """The value of each spec: a hundred thousand calls have a few hundred."""
    m = METRICS.get(metric)
    return [m.group_value([(spec, 1)]).value for spec in record.specs]
