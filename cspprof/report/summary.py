"""The report of `summary`, and of `print(profile)`: the tree of modules with the cost of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from cspprof.analysis.headline import cio_describes, headline
from cspprof.analysis.module_summary import ModuleSummary, default_depth, module_summaries, peak_path
from cspprof.core import units
from cspprof.core.record import Record
from cspprof.metrics import METRICS, value_of
from cspprof.metrics.memory import activation_bytes
from cspprof.report.metric_labels import cio_remark
from cspprof.report.notes import cio_notes, model_notes
from cspprof.report.tables import UNKNOWN, Cell, Column, Report, Table, at_least, text, total

WIDTH = 100
"""The longest line, in characters. Names of modules are shortened to fit."""
SHORTEST_NAME = 24


def summary_report(profiles: Sequence[Record], depth: int | None = None) -> Report:
    """For each model the tree of modules down to `depth` (default: as many levels as fit on a screen), and totals."""
    tables = [table for p in profiles for table in summary_tables(p, depth)]
    records = [_fields(p, m) for p in profiles for m in _listed(p, depth)]
    notes = [note for p in profiles for note in model_notes(p)] + cio_notes(profiles)
    return Report(tables, records, partial(_document, profiles, depth), tuple(dict.fromkeys(notes)), profiles)


def summary_tables(record: Record, depth: int | None = None) -> list[Table]:
    """The tree of modules, and the totals of parameters, compute and memory."""
    return [_tree(record, depth), _totals(record)]


def _listed(record: Record, depth: int | None) -> list[ModuleSummary]:
    limit = default_depth(record) if depth is None else depth
    return [m for m in module_summaries(record) if m.layer.depth <= limit]


# -- the tree ---------------------------------------------------------------------------------------


def _tree(record: Record, depth: int | None) -> Table:
    modules = _listed(record, depth)
    traffic = "CIO" if cio_describes(record) else "traffic"
    numbers = ("params", "MACs", traffic, "memory")
    rows = []
    for module, prefix in zip(modules, _branches([m.layer.depth for m in modules]), strict=True):
        layer = module.layer
        name = layer.path.rpartition(".")[2] or record.label
        class_name = layer.class_name.rpartition(".")[2]
        label = f"{prefix}{name} ({class_name})" if class_name else f"{prefix}{name}"  # a graph has no classes
        rows.append([
            text(label + (f" ×{layer.calls}" if layer.calls > 1 else "")),
            text("–" if module.output is None else str(module.output)),
            _count(module.params),
            _lower_bound(module.macs, module.unknown),
            _lower_bound(module.cio, module.cio_missed) if traffic == "CIO" else _bytes(module.traffic),
            Cell(module.live_bytes, units.nbytes(module.live_bytes) if module.output else "–"),
        ])  # fmt: skip
    widths = [max(len(c.text) for c in column) for column in zip(*(row[1:] for row in rows), strict=True)]
    longest = max(WIDTH - sum(max(w, len("params")) + 2 for w in widths), SHORTEST_NAME)
    for row in rows:
        row[0] = Cell(row[0].value, units.shortened(row[0].text, longest))
    columns = [Column("module", shortens=True), Column("output", priority=2)]
    columns += [Column(name, True, priority) for name, priority in zip(numbers, (1, 0, 3, 4), strict=True)]
    return Table("", columns, rows)


def _count(n: int) -> Cell:
    return Cell(n, units.count(n) if n else "–")


def _bytes(n: int) -> Cell:
    return Cell(n, units.nbytes(n) if n else "–")


def _lower_bound(n: int, missed: int) -> Cell:
    """A count, marked if it misses operations."""
    if not missed:
        return _count(n)
    return at_least(_count(n)) if n else UNKNOWN


def _branches(depths: Sequence[int]) -> Iterator[str]:
    """The lines of a tree in front of each node, from the depths of the nodes in order: `│  ├─ `."""
    for i, depth in enumerate(depths):
        lines = []
        for level in range(1, depth + 1):
            continues = next((d == level for d in depths[i + 1 :] if d <= level), False)
            if level == depth:
                lines.append("├─ " if continues else "└─ ")
            else:
                lines.append("│  " if continues else "   ")
        yield "".join(lines)


# -- totals -----------------------------------------------------------------------------------------


def _totals(record: Record) -> Table:
    frozen = sum(layer.frozen for layer in record.layers)
    weight_bytes = sum(s.spec.nbytes for s in record.storages if s.role == "parameter")
    peak = value_of(record, "peak_bytes")
    place = peak_path(record)
    facts = [
        ("input", " + ".join(map(str, record.inputs)), units.nbytes(sum(t.nbytes for t in record.inputs))),
        ("params", units.count(record.params), units.nbytes(weight_bytes)),
        ("  trainable", units.count(record.params - frozen), ""),
        ("  frozen", units.count(frozen), ""),
        ("MACs", total("macs", METRICS.get("macs").total(record)).text, ""),
        ("traffic", "", units.nbytes(value_of(record, "traffic_bytes"))),
        (
            "CIO",
            total("cio_cspnet", METRICS.get("cio_cspnet").total(record)).text + cio_remark("cio_cspnet", [record]),
            "",
        ),
        ("activations", "of all operations", units.nbytes(activation_bytes(record))),
        ("peak memory", f"at {place}" if place else "", units.nbytes(peak)),
        ("params + peak memory", "", units.nbytes(weight_bytes + peak)),
    ]
    if cio_describes(record):
        facts = [fact for fact in facts if fact[0] != "traffic"]
    if not frozen:
        facts = [fact for fact in facts if not fact[0].startswith("  ")]
    return Table("", [Column("total"), Column(""), Column("bytes", numeric=True)], [[*map(text, f)] for f in facts])


# -- records and JSON ------------------------------------------------------------------------------


def _fields(record: Record, module: ModuleSummary) -> dict[str, Any]:
    layer = module.layer
    return {
        "model": record.model,
        "path": layer.path,
        "class": layer.class_name,
        "depth": layer.depth,
        "calls": layer.calls,
        "output": None if module.output is None else list(module.output.shape),
        "params": module.params,
        "frozen_params": module.frozen,
        "macs": module.macs if module.macs or not module.unknown else None,
        "complete": not module.unknown,
        "cio_cspnet": module.cio if module.cio or not module.cio_missed else None,
        "cio_complete": not module.cio_missed,
        "traffic_bytes": module.traffic,
        "live_bytes": module.live_bytes,
    }


def _document(profiles: Sequence[Record], depth: int | None) -> dict[str, Any]:
    models = []
    for p in profiles:
        modules = [_fields(p, m) for m in _listed(p, depth)]
        models.append({"model": p.model, "status": p.status, "inputs": [[list(t.shape), t.dtype] for t in p.inputs],
                       "params": p.params, "frozen_params": sum(layer.frozen for layer in p.layers),
                       "peak_bytes": value_of(p, "peak_bytes"), "peak_path": peak_path(p), "complete": p.complete,
                       "conv_share": value_of(p, "conv_share"), "headline": headline([p]),
                       "modules": [{k: v for k, v in m.items() if k != "model"} for m in modules]})  # fmt: skip
    return {"schema": "cspprof.summary/1", "models": models}
