"""The nodes of an ONNX graph as plain data: what a profile of an engine is matched with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

SCOPES, STEP = "pkg.torch.onnx.name_scopes", "pkg.torch.onnx.fx_node"
"""Metadata that `torch.onnx.export(dynamo=True)` writes for each node: the modules around the operation of torch, with
the name of the operation behind them, and that operation itself."""
_TARGET = re.compile(r"target=torch\.ops\.\w+\.(\w+)")


class GraphNode(NamedTuple):
    """A node of an ONNX graph with its place in the torch model."""

    name: str
    operator: str
    inputs: list[str]
    """Names of tensors, weights included."""
    outputs: list[str]
    path: str = ""
    """The module that the exporter names; empty for the model itself, or if the exporter names none."""
    step: str = ""
    """The name of the operation of torch in the exported program; several nodes can have the same one."""
    target: str = ""
    """The function of torch: `conv2d`."""


def graph_nodes(path: Path) -> dict[str, Any]:
    """`nodes`: a list of `GraphNode` in execution order, `outputs`: the names of the outputs of the graph."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    return {"nodes": [_graph_node(node) for node in graph.node], "outputs": [o.name for o in graph.output]}


def _graph_node(node: Any) -> GraphNode:
    metadata = {p.key: p.value for p in getattr(node, "metadata_props", ())}
    scopes = re.findall(r"'([^']*)'", metadata.get(SCOPES, ""))
    target = _TARGET.search(metadata.get(STEP, ""))
    path = scopes[-2] if len(scopes) > 1 else "" if scopes else path_of_name(node.name)
    return GraphNode(
        node.name, node.op_type, list(node.input), list(node.output), path,
        scopes[-1] if scopes else "", target[1] if target else "",
    )  # fmt: skip


def path_of_name(name: str) -> str:
    """The module in a name that the TorchScript exporter gave.

    >>> path_of_name("/layer1/layer1.0/conv1/Conv")
    'layer1.0.conv1'
    """
    if not name.startswith("/"):
        return ""
    path, last = "", ""
    for part in name.split("/")[1:-1]:
        if last and part.startswith(f"{last}."):
            path = path.removesuffix(last) + part
        else:
            path = f"{path}.{part}" if path else part
        last = part
    return path
