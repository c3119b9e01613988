"""Files for Model Explorer: the graph itself with numbers on it, and node data for a graph that it opened itself."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from cspprof.analysis.layer_rows import LayerRow, RowGroup, kind_label, layer_rows
from cspprof.core.dataflow import INPUT, edges
from cspprof.core.errors import OutputError
from cspprof.core.record import Record
from cspprof.core.units import shape, share
from cspprof.metrics import METRICS
from cspprof.render import Canvas, renderer
from cspprof.render.netron import OF_NODES, one_model, rows_by_node
from cspprof.report.profile import label
from cspprof.report.tables import Report, quantity

SCALE = ("#ffffff", "#fff3e0", "#ffdcae", "#ffb866", "#f08c2e", "#c75a00")
"""From nothing to the largest: lighter for less, and readable in black but for the last."""


@renderer("model-explorer", ".explorer.json")
def as_graph(report: Report, canvas: Canvas) -> str:
    """The graph of every model in Model Explorer's own JSON: modules nest, and a node's colour is its share."""
    if not report.profiles:
        raise OutputError("model-explorer shows graphs of models; this answer is about none", "cspprof profile SPEC")
    graphs = [_graph(p, report.focus) for p in report.profiles]
    return json.dumps({"label": "cspprof", "graphs": graphs}, ensure_ascii=False, separators=(",", ":")) + "\n"


@renderer("node-data", ".node-data.json")
def as_node_data(report: Report, canvas: Canvas) -> str:
    """The number that the answer is about, for the nodes of an ONNX graph that Model Explorer opened itself."""
    profile = one_model(report, "node-data")
    named, _ = rows_by_node(profile)
    values = {name: _value(row, report.focus) for name, row in named.items()}
    gradient = [{"stop": i / (len(SCALE) - 1), "bgColor": colour} for i, colour in enumerate(SCALE)]
    results = {name: {"value": value} for name, value in values.items() if value is not None}
    document = {"name": METRICS.get(report.focus).title, "results": results, "gradient": gradient}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _value(row: LayerRow, metric: str) -> Any:
    return RowGroup(row.path, (row,)).value(metric)


def _graph(record: Record, focus: str) -> dict[str, Any]:
    listed = layer_rows(record)
    values = [_value(r, focus) or 0 for r in listed]
    largest, total = max(values, default=0), sum(values)
    incoming: dict[int, list[str]] = {}
    for edge in edges(record):
        incoming.setdefault(edge.target, []).append("input" if edge.source == INPUT else str(edge.source))
    nodes = [{"id": "input", "label": "input", "namespace": "", "attrs": _attrs(
        [("shape", ", ".join(shape(t.shape) for t in record.inputs))])}]  # fmt: skip
    for row, value in zip(listed, values, strict=True):
        node: dict[str, Any] = {"id": str(row.index), "label": kind_label(row.spec), "namespace": _namespace(row)}
        node["attrs"] = _attrs(_facts(row, focus, value, total))
        node["incomingEdges"] = _sources(incoming, row.index)
        if value and largest:
            step = min(int(value / largest * (len(SCALE) - 1)) + 1, len(SCALE) - 1)
            node["style"] = {"backgroundColor": SCALE[step]} | ({"textColor": "#ffffff"} if step == 5 else {})
        nodes.append(node)
    out = len(record.calls.spec)
    nodes.append({"id": "output", "label": "output", "namespace": "", "incomingEdges": _sources(incoming, out)})
    return {"id": record.model, "nodes": nodes}


def _sources(incoming: dict[int, list[str]], index: int) -> list[dict[str, str]]:
    return [{"sourceNodeId": source, "targetNodeInputId": str(i)} for i, source in enumerate(incoming.get(index, ()))]


def _facts(row: LayerRow, focus: str, value: Any, total: Any) -> list[tuple[str, str]]:
    facts = [("layer", row.path), ("stage", row.stage)]
    facts += [(side, ", ".join(shape(t.shape) for t in specs))
              for side, specs in (("in", row.spec.reads), ("out", row.spec.writes))]  # fmt: skip
    facts += [(label(m), "?" if m == "macs" and row.spec.macs is None else quantity(m, _value(row, m)).text)
              for m in OF_NODES]  # fmt: skip
    if total and METRICS.get(focus).additive:
        facts.append((f"share of {METRICS.get(focus).title}", share(value / total)))
    return facts


def _attrs(facts: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in facts]


def _namespace(row: LayerRow) -> str:
    return row.path.rpartition(".")[0].replace(".", "/")
