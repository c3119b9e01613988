"""An attachment for Netron: a file that is dropped onto the open model, and adds numbers to its nodes.

Netron takes a JSON file whose `signature` is `netron:attachment`, with items under `metadata` and `metrics` that name
what they belong to by `kind` and `target`. A node is found by its name, so the model has to be one that names them.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from cspprof.analysis.layer_rows import LayerRow, RowGroup, layer_rows
from cspprof.core.errors import OutputError
from cspprof.core.record import Record
from cspprof.metrics import METRICS, value_of
from cspprof.render import Canvas, renderer
from cspprof.report.profile import label
from cspprof.report.tables import Report, quantity

OF_NODES = ("macs", "cio_hardnet", "cio_cspnet", "moc", "traffic_bytes", "params")
OF_MODEL = (*OF_NODES, "peak_bytes")


@renderer("netron", ".netron.json")
def as_netron(report: Report, canvas: Canvas) -> str:
    """Raises OutputError for more than one model, and for one whose source has no names for its nodes."""
    profile = one_model(report, "netron")
    named, left_out = rows_by_node(profile)
    metadata, metrics = [], []
    for name, row in named.items():
        metadata += [_item("node", name, "layer", row.path), _item("node", name, "stage", row.stage)]
        group = RowGroup(row.path, (row,))
        metrics += [_metric("node", name, m, group.value(m)) for m in OF_NODES]
    metrics += [_metric("model", "", m, value_of(profile, m)) for m in OF_MODEL]
    if left_out:
        metadata.append(
            _item("model", "", "cspprof", f"operations left out, without a name that is theirs alone: {left_out}")
        )
    document = {"signature": "netron:attachment", "metadata": metadata, "metrics": [m for m in metrics if m]}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _item(kind: str, target: str, name: str, value: Any) -> dict[str, Any]:
    return {"kind": kind, "target": target, "name": name, "value": value}


def _metric(kind: str, target: str, metric: str, value: Any) -> dict[str, Any] | None:
    """The number as people read it: Netron shows text as it is, and cuts a long name short."""
    m = METRICS.get(metric)
    unit = label(metric).removeprefix(m.title).strip(" []")
    text = f"{quantity(metric, value).text} {unit}".strip()
    return None if value is None else _item(kind, target, m.title, text)


def one_model(report: Report, format_name: str) -> Record:
    if len(report.profiles) != 1:
        raise OutputError(
            f"{format_name} shows the graph of one model; this answer is about {len(report.profiles) or 'none'}",
            "Write for example: cspprof profile model.onnx -o model.netron.json",
        )
    return report.profiles[0]


def rows_by_node(record: Record) -> tuple[dict[str, LayerRow], int]:
    """Rows by the name of their node, and how many rows have none that is theirs alone.

    Raises OutputError where the source names no nodes at all.
    """
    if not record.calls.name:
        raise OutputError(
            f"{record.model} has no names for the nodes of its graph; an ONNX graph has",
            "Export it (torch.onnx.export) and name the .onnx; or let Model Explorer show cspprof's own graph: "
            "--format model-explorer",
        )
    listed = layer_rows(record)
    names = [record.calls.name[r.index] for r in listed]
    seen = Counter(names)
    named = {n: r for n, r in zip(names, listed, strict=True) if n and "\n" not in n and seen[n] == 1}
    return named, len(listed) - len(named)
