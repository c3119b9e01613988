"""Find the nodes of an ONNX graph that an engine cannot run: run one node of each kind as a graph of its own.

An engine stops at the first node that it refuses. Here every kind of node is tried, so that all unsupported operations
are known at once. A node that runs is compared with ONNX Runtime without optimization, if that is installed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from cspprof.measure.engines.network import save_arrays
from cspprof.measure.parity import TOLERANCE

MOST_KINDS = 200
"""Kinds of nodes that are tried; a network has about 40."""
MOST_ELEMENTS = 50_000_000
"""A node with larger tensors is left out: it would take seconds."""


class SingleNode(NamedTuple):
    """A folder as `preparation` writes it, for a graph of one node."""

    folder: Path
    name: str
    op: str
    """Operator and version of its operator set: `GridSample, opset 20`."""
    times: int
    """Nodes of this kind in the whole graph."""

    @property
    def label(self) -> str:
        more = f" and {self.times - 1} more" if self.times > 1 else ""
        return f"node {self.name!r}{more} ({self.op})"


def single_nodes(graph: Path, folder: Path) -> Iterator[SingleNode]:
    """One graph for each kind of node: operator, attributes, and the dtypes and ranks of its inputs."""
    model = onnx.shape_inference.infer_shapes(onnx.load(str(graph)), data_prop=True)
    types = {v.name: v for v in (*model.graph.input, *model.graph.value_info, *model.graph.output)}
    constants = _constants(model.graph)
    versions = {o.domain: o.version for o in model.opset_import}
    kinds: dict[Any, list[NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type != "Constant":
            kinds.setdefault(_kind(node, types, constants), []).append(node)
    for i, nodes in enumerate(list(kinds.values())[:MOST_KINDS]):
        single = _model_of(nodes[0], model, types, constants)
        if single is None:
            continue
        own = folder / str(i)
        own.mkdir(parents=True)
        _write(single, own)
        node = nodes[0]
        domain = f"{node.domain}." if node.domain else ""
        op = f"{domain}{node.op_type}, opset {versions.get(node.domain, '?')}"
        yield SingleNode(own, node.name or node.output[0], op, len(nodes))


def _constants(graph: GraphProto) -> dict[str, TensorProto]:
    """Initializers, and the values of `Constant` nodes, by name."""
    found = {t.name: t for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            found[node.output[0]] = node.attribute[0].t
    return found


def _kind(node: NodeProto, types: dict[str, Any], constants: dict[str, TensorProto]) -> Any:
    inputs = []
    for name in node.input:
        if name in constants:
            inputs.append(("constant", constants[name].data_type, len(constants[name].dims)))
        elif name in types:
            tensor = types[name].type.tensor_type
            inputs.append(("input", tensor.elem_type, len(tensor.shape.dim)))
        else:
            inputs.append(("", 0, 0))
    attributes = sorted(a.SerializeToString() for a in node.attribute)
    return node.domain, node.op_type, tuple(inputs), tuple(attributes)


def _model_of(
    node: NodeProto, model: ModelProto, types: dict[str, Any], constants: dict[str, TensorProto]
) -> ModelProto | None:
    """A graph of one node with its constants; None if a shape is not known or a tensor is very large."""
    own_constants, inputs = [], []
    for name in dict.fromkeys(filter(None, node.input)):
        if name in constants:
            tensor = TensorProto()
            tensor.CopyFrom(constants[name])
            tensor.name = name
            own_constants.append(tensor)
        elif name in types and _shape(types[name]) is not None:
            inputs.append(types[name])
        else:
            return None
    outputs = [types.get(name) or helper.make_empty_tensor_value_info(name) for name in node.output if name]
    sizes = [numpy.prod(_shape(v) or (1,)) for v in (*inputs, *outputs)]
    if any(a.HasField("g") for a in node.attribute) or max(sizes) > MOST_ELEMENTS:
        return None
    graph = helper.make_graph([node], "node", inputs, outputs, own_constants)
    functions = [f for f in model.functions if f.domain == node.domain]
    return helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version, functions=functions or None
    )


def _shape(value: Any) -> tuple[int, ...] | None:
    dims = value.type.tensor_type.shape.dim
    known = all(d.HasField("dim_value") for d in dims)
    return tuple(d.dim_value for d in dims) if known and value.type.tensor_type.elem_type else None


def _write(model: ModelProto, folder: Path) -> None:
    """Write the graph, random inputs, and the correct outputs if ONNX Runtime can compute them."""
    path = folder / "model.onnx"
    onnx.save(model, str(path))
    random = numpy.random.default_rng(0)
    feeds = {}
    for value in model.graph.input:
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        numbers = numpy.asarray(random.standard_normal(_shape(value)))
        feeds[value.name] = (numbers if dtype.kind == "f" else numpy.zeros_like(numbers)).astype(dtype)  # 0: an index
    save_arrays(folder / "inputs.npz", list(feeds.values()))
    export = {"failure": "", "path": str(path), "inputs": list(feeds), "outputs": [o.name for o in model.graph.output]}
    (folder / "model.json").write_text(
        json.dumps({"spec": "", "inputs": [], "tolerance": TOLERANCE, "export": export}), encoding="utf-8"
    )
    if find_spec("onnxruntime"):
        from cspprof.measure.engines.onnxruntime_engine import run_without_optimization

        try:
            outputs = run_without_optimization(path, feeds)
        except Exception:  # an operation without a kernel; the comparison is left out
            return
        if all(a.dtype.kind != "f" or numpy.isfinite(a).all() for a in outputs):  # a root of a negative number is not
            save_arrays(folder / "outputs.npz", outputs)
