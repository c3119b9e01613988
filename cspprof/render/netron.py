"""An attachment for Netron: a JSON file that adds metrics to the nodes of the open model when it is dropped on it.

The `signature` of the file is `netron:attachment`; items under `metadata` and `metrics` refer to a node by `kind` and
`target`. Netron finds a node by its name, so the model must be one whose nodes have names.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from cspprof.analysis.layer_rows import LayerRow, RowGroup, layer_rows
from cspprof.core.errors import OutputError
from cspprof.core.printable import printable
from cspprof.core.record import Record
from cspprof.metrics import METRICS, Amount
from cspprof.render.registry import Canvas, renderer
from cspprof.report.metric_labels import metric_label
from cspprof.report.notes import cio_notes, model_notes
from cspprof.report.tables import UNKNOWN, Report, total

NODE_METRICS = ("macs", "cio_hardnet", "cio_cspnet", "cio_all", "moc", "traffic_bytes", "params")
MODEL_METRICS = (*NODE_METRICS, "conv_share", "peak_bytes")


@renderer("netron", ".netron.json", is_own=lambda head: b'"signature": "netron:attachment"' in head)
def as_netron(report: Report, canvas: Canvas) -> str:
    """Raises OutputError for more than one model, and for a model whose nodes have no names."""
    profile = single_model(report, "netron")
    by_node, unnamed = rows_by_node(profile)
    metadata, metrics = [], []
    for name, row in by_node.items():
        metadata += [_item("node", name, "layer", row.path), _item("node", name, "stage", row.stage)]
        group = RowGroup(row.path, (row,))
        metrics += [_metric("node", name, m, group.amount(m)) for m in NODE_METRICS]
    metrics += [_metric("model", "", m, METRICS.get(m).total(profile)) for m in MODEL_METRICS]
    metadata += [_item("model", "", "note", note) for note in [*model_notes(profile), *cio_notes([profile])]]
    if unnamed:
        metadata.append(_item("model", "", "cspprof", f"operations without a unique name, not shown: {unnamed}"))
    document = {"signature": "netron:attachment", "metadata": metadata, "metrics": [m for m in metrics if m]}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _item(kind: str, target: str, name: str, value: str) -> dict[str, Any]:
    """A name or value of a node. `target` is the exact name of the node, by which Netron finds it."""
    return {"kind": kind, "target": target, "name": name, "value": printable(value)}


def _metric(kind: str, target: str, metric: str, amount: Amount | None) -> dict[str, Any] | None:
    """The value as text with its unit, because Netron shows text unchanged and truncates long names."""
    if amount is None or (amount.value is None and not amount.missed):
        return None
    if kind == "node" and amount.missed and not amount.value:
        return _item(kind, target, METRICS.get(metric).title, UNKNOWN.text)
    m = METRICS.get(metric)
    unit = metric_label(metric).removeprefix(m.title).strip(" []")
    return _item(kind, target, m.title, f"{total(metric, amount).text} {unit}".strip())


def single_model(report: Report, format_name: str) -> Record:
    """The only model of a report. Raises OutputError."""
    if len(report.profiles) != 1:
        raise OutputError(
            f"{format_name} shows the graph of one model; this report is about {len(report.profiles) or 'none'}",
            "Write for example: cspprof profile model.onnx -o model.netron.json",
        )
    return report.profiles[0]


def rows_by_node(record: Record) -> tuple[dict[str, LayerRow], int]:
    """Rows by the name of their node, and the number of rows without a unique name.

    Raises OutputError if the model has no names of nodes at all.
    """
    if not record.calls.name:
        raise OutputError(
            f"the nodes of {record.model} have no names; those of an ONNX graph have",
            "Export the model (torch.onnx.export) and use the .onnx file as SPEC; or use the graph of cspprof in Model "
            "Explorer: --format model-explorer",
        )
    layers = layer_rows(record)
    names = [record.calls.name[r.index] for r in layers]
    counts = Counter(names)
    by_node = {n: r for n, r in zip(names, layers, strict=True) if n and "\n" not in n and counts[n] == 1}
    return by_node, len(layers) - len(by_node)
