"""ONNX models that are made node by node, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
from onnx import TensorProto, helper, numpy_helper
from onnx import save as save_model

F, I32, I64, BOOL = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL
Shape = Sequence[int | str]


def node(op: str, *inputs: str, outputs: Sequence[str] = ("y",), domain: str = "", **attrs: Any) -> Any:
    return helper.make_node(op, list(inputs), list(outputs), domain=domain, **attrs)


def value(name: str, shape: Shape | None = None, dtype: int = F) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def array(weight: Any) -> numpy.ndarray:
    """A weight that is given as a shape or as an array."""
    return weight if isinstance(weight, numpy.ndarray) else numpy.ones(weight, numpy.float32)


def tensors(weights: Mapping[str, Any]) -> list[Any]:
    return [numpy_helper.from_array(array(weight), name) for name, weight in weights.items()]


def constant(name: str, weight: Any) -> Any:
    """A node `Constant`."""
    return node("Constant", outputs=[name], value=numpy_helper.from_array(array(weight)))


def graph_of(
    nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], weights: Mapping[str, Any] = {}
) -> Any:
    return helper.make_graph(list(nodes), "g", list(inputs), list(outputs), tensors(weights))


def save_graph(
    path: Path, nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], weights: Mapping[str, Any] = {},
    opset: int = 21, declared: Sequence[Any] = (), functions: Sequence[Any] = (), domains: Sequence[str] = (),
) -> str:  # fmt: skip
    """Write a model. `declared` are the shapes that it states for values between nodes."""
    graph = graph_of(nodes, inputs, outputs, weights)
    graph.value_info.extend(declared)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=list(functions))
    save_model(model, path)
    return str(path)


def function_of(
    name: str, inputs: Sequence[str], outputs: Sequence[str], nodes: Sequence[Any], opset: int = 21, **attrs: Any
) -> Any:
    """A function of the domain `local`."""
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, list(inputs), list(outputs), list(nodes), opsets, **attrs)
