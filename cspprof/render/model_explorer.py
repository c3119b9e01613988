"""Files for Model Explorer: a graph of the model with metrics, and node data for an ONNX graph that is already open."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from cspprof.analysis.layer_rows import LayerRow, RowGroup, kind_label, layer_rows
from cspprof.core.dataflow import INPUT, edges
from cspprof.core.errors import OutputError
from cspprof.core.printable import printable
from cspprof.core.record import Record
from cspprof.core.units import shape
from cspprof.metrics import METRICS, Amount, Sum
from cspprof.render.netron import MODEL_METRICS, NODE_METRICS, rows_by_node, single_model
from cspprof.render.registry import Canvas, renderer
from cspprof.report.metric_labels import metric_label
from cspprof.report.notes import cio_notes, model_notes
from cspprof.report.tables import Report, part, share, total

COLORS = ("#ffffff", "#fff3e0", "#ffdcae", "#ffb866", "#f08c2e", "#c75a00")
"""Background colors from 0 to the largest value; black text is readable on all but the last."""


@renderer("model-explorer", ".explorer.json", is_own=lambda head: head.startswith(b'{"label":"cspprof"'))
def as_graph(report: Report, canvas: Canvas) -> str:
    """The graph of every model in the JSON format of Model Explorer: nested modules, and colors by value."""
    if not report.profiles:
        raise OutputError(
            "model-explorer shows graphs of models; this report is about none",
            "Write for example: cspprof profile SPEC -o model.explorer.json",
        )
    graphs = [_graph(p, report.focus) for p in report.profiles]
    for graph, name in zip(graphs, graph_ids(report.profiles), strict=True):
        graph["id"] = name
    return json.dumps({"label": "cspprof", "graphs": graphs}, ensure_ascii=False, separators=(",", ":")) + "\n"


@renderer("node-data", ".node-data.json", is_own=lambda head: head.startswith(b'{\n "name": ') and b'"results"' in head)
def as_node_data(report: Report, canvas: Canvas) -> str:
    """The main metric of the report for the nodes of an ONNX graph that Model Explorer has opened."""
    profile = single_model(report, "node-data")
    by_node, _ = rows_by_node(profile)
    values = {name: _value(row, report.focus) for name, row in by_node.items()}
    gradient = [{"stop": i / (len(COLORS) - 1), "bgColor": color} for i, color in enumerate(COLORS)]
    results = {name: {"value": value} for name, value in values.items() if value is not None}
    document = {"name": METRICS.get(report.focus).title, "results": results, "gradient": gradient}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def graph_ids(records: Sequence[Record]) -> list[str]:
    """The names of the graphs in a file. Each is used once: `resnet50`, `resnet50 (2)`."""
    ids: list[str] = []
    for record in records:
        name, n = printable(record.model), 1
        while name in ids:
            n += 1
            name = f"{printable(record.model)} ({n})"
        ids.append(name)
    return ids


def namespace(row: LayerRow) -> str:
    """The modules around an operation, as Model Explorer writes them: `stage1/blocks/0`. A slash in a name is `%2F`."""
    return printable(row.path.rpartition(".")[0]).replace("/", "%2F").replace(".", "/")


def _value(row: LayerRow, metric: str) -> Any:
    return RowGroup(row.path, (row,)).value(metric)


def _graph(record: Record, focus: str) -> dict[str, Any]:
    layers = layer_rows(record)
    values = [_value(r, focus) or 0 for r in layers]
    largest, whole = max(values, default=0), METRICS.get(focus).total(record)
    incoming: dict[int, list[str]] = {}
    for edge in edges(record):
        incoming.setdefault(edge.target, []).append("input" if edge.source == INPUT else str(edge.source))
    shapes = ", ".join(shape(t.shape) for t in record.inputs)
    nodes = [{"id": "input", "label": "input", "namespace": "", "attrs": _attributes([("shape", shapes)])}]
    for row, value in zip(layers, values, strict=True):
        node: dict[str, Any] = {
            "id": str(row.index),
            "label": printable(kind_label(row.spec)),
            "namespace": namespace(row),
            "attrs": _attributes(_facts(row, focus, whole)),
            "incomingEdges": _incoming_edges(incoming, row.index),
        }
        if value and largest:
            step = min(int(value / largest * (len(COLORS) - 1)) + 1, len(COLORS) - 1)
            white_text = {"textColor": "#ffffff"} if step == len(COLORS) - 1 else {}
            node["style"] = {"backgroundColor": COLORS[step]} | white_text
        nodes.append(node)
    output = len(record.calls.spec)
    outgoing = _incoming_edges(incoming, output)
    nodes.append({"id": "output", "label": "output", "namespace": "", "incomingEdges": outgoing})
    # The attributes of the namespace "" are those of the graph: shown while no node is selected.
    return {"id": record.model, "nodes": nodes, "groupNodeAttributes": {"": _model_facts(record)}}


def _incoming_edges(incoming: dict[int, list[str]], index: int) -> list[dict[str, str]]:
    return [{"sourceNodeId": source, "targetNodeInputId": str(i)} for i, source in enumerate(incoming.get(index, ()))]


def _facts(row: LayerRow, focus: str, whole: Amount) -> list[tuple[str, str]]:
    facts = [("layer", row.path), ("stage", row.stage)]
    facts += [(side, ", ".join(shape(t.shape) for t in specs))
              for side, specs in (("in", row.spec.reads), ("out", row.spec.writes))]  # fmt: skip
    group = RowGroup(row.path, (row,))
    facts += [(metric_label(m), part(m, group.amount(m)).text) for m in NODE_METRICS]
    if METRICS.get(focus).additive:
        of_focus = group.amount(focus) or Sum(0)
        percentage = share(of_focus.value or 0, whole.value or 0, of_focus.missed, whole.missed)
        facts.append((f"share of {METRICS.get(focus).title}", percentage.text))
    return facts


def _model_facts(record: Record) -> dict[str, str]:
    """The totals of the model, and the notes on them."""
    facts = {metric_label(m): total(m, METRICS.get(m).total(record)).text for m in MODEL_METRICS}
    return facts | {
        f"note {i}": printable(note) for i, note in enumerate([*model_notes(record), *cio_notes([record])], 1)
    }


def _attributes(facts: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"key": key, "value": printable(value)} for key, value in facts]
