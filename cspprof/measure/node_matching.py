"""Which calls of a record each operation of an engine executes.

There are two steps. Nodes of the ONNX graph are assigned to operations of the engine: an engine fuses nodes, removes
them, and adds changes of the layout. Nodes of the graph are matched with calls of the record: exporters fold and split
operations. Both are pure functions of recorded names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from cspprof.core.kinds import Kind
from cspprof.core.record import Record
from cspprof.measure.graph_nodes import GraphNode
from cspprof.measure.profilers import RawNode

COMPUTE_OPERATORS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Attention", "LSTM", "GRU", "RNN"})
PREPARATION = frozenset({"Pad", "Transpose", "Identity", "Cast", "Reshape", "Unsqueeze", "Squeeze", "Constant"})
"""Nodes before a computing node that an engine can make part of it."""
SEPARATE = frozenset({
    "Concat", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "Resize", "Upsample",
    "Split", "Slice", "Gather", "Reshape", "Flatten", "Identity", "Dropout", "Constant", "Squeeze", "Unsqueeze",
    "Shape", "Transpose", "Pad", "Cast",
})  # fmt: skip
"""Nodes that no engine computes in the operation that produces their input. Without an operation of their own, they are
removed."""

KINDS: dict[str, tuple[Kind, ...]] = {
    "Conv": (Kind.CONV,),
    "ConvTranspose": (Kind.CONV_TRANSPOSE,),
    "Gemm": (Kind.LINEAR, Kind.MATMUL),
    "MatMul": (Kind.LINEAR, Kind.MATMUL),
    "MaxPool": (Kind.MAX_POOL,),
    "GlobalMaxPool": (Kind.MAX_POOL,),
    "AveragePool": (Kind.AVG_POOL,),
    "GlobalAveragePool": (Kind.AVG_POOL,),
    "ReduceMean": (Kind.AVG_POOL, Kind.REDUCTION),
    "ReduceSum": (Kind.REDUCTION,),
    "ReduceMax": (Kind.REDUCTION,),
    "BatchNormalization": (Kind.NORM,),
    "InstanceNormalization": (Kind.NORM,),
    "LayerNormalization": (Kind.NORM,),
    "GroupNormalization": (Kind.NORM,),
    "Concat": (Kind.CONCAT,),
    "Softmax": (Kind.SOFTMAX,),
    "Resize": (Kind.RESIZE,),
    "Relu": (Kind.ACTIVATION,),
    "LeakyRelu": (Kind.ACTIVATION,),
    "PRelu": (Kind.ACTIVATION,),
    "Sigmoid": (Kind.ACTIVATION,),
    "HardSigmoid": (Kind.ACTIVATION,),
    "HardSwish": (Kind.ACTIVATION,),
    "Gelu": (Kind.ACTIVATION,),
    "Clip": (Kind.ACTIVATION, Kind.ELEMENTWISE),
    "Tanh": (Kind.ACTIVATION,),
    "Add": (Kind.ELEMENTWISE,),
    "Mul": (Kind.ELEMENTWISE, Kind.ACTIVATION),
    "Sub": (Kind.ELEMENTWISE,),
    "Div": (Kind.ELEMENTWISE,),
}
"""The kinds of calls that a node can compute, where the exporter does not name the function of torch."""


def match_torch(record: Record, nodes: Sequence[RawNode]) -> list[list[int]]:
    """The call of each operation of torch: the n-th call of a function in a module is the same in record and profile.

    Operations on views and other operations that the record leaves out have no call.
    """
    calls: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, (spec, layer) in enumerate(zip(record.calls.spec, record.calls.layer, strict=True)):
        if record.specs[spec].kind is not Kind.VIEW:
            calls[record.layers[layer].path, record.specs[spec].name].append(i)
    seen: dict[tuple[str, str], int] = defaultdict(int)
    found = []
    for node in nodes:
        key = (node.path, node.operator)
        own = calls[key][seen[key] : seen[key] + 1]
        seen[key] += 1
        found.append(own)
    return found


def match_graph(record: Record, graph: Sequence[GraphNode]) -> list[list[int]]:
    """The calls that each node of the exported graph computes. Several nodes can compute one call; views have none."""
    if any(record.calls.name):
        return _match_names(record, graph)
    unused: dict[str, list[int]] = defaultdict(list)
    for i, (spec, layer) in enumerate(zip(record.calls.spec, record.calls.layer, strict=True)):
        if record.specs[spec].kind is not Kind.VIEW:
            unused[record.layers[layer].path].append(i)
    paths = {layer.path for layer in record.layers}
    steps: dict[tuple[str, str], list[int]] = {}
    found: list[list[int]] = []
    for node in graph:
        step = (node.path, node.step)
        if node.step and step in steps:
            found.append(steps[step])
            continue
        path = _path_of_weights(node, paths) if node.operator in COMPUTE_OPERATORS else None
        own = _first_call(record, unused[node.path if path is None else path], node)
        for i in own:
            unused[record.layers[record.calls.layer[i]].path].remove(i)
        if node.step:
            steps[step] = own
        found.append(own)
    return found


def _match_names(record: Record, graph: Sequence[GraphNode]) -> list[list[int]]:
    """The calls of a record that was made from the ONNX graph itself: they have the names of its nodes."""
    by_name: dict[str, list[int]] = defaultdict(list)
    for i, (name, spec) in enumerate(zip(record.calls.name, record.calls.spec, strict=True)):
        if record.specs[spec].kind is not Kind.VIEW:
            by_name[name].append(i)
    return [by_name.get(node.name, []) if node.name else [] for node in graph]


def _path_of_weights(node: GraphNode, paths: set[str]) -> str | None:
    """The module whose weights the node reads. The exporter moves a convolution into the module of the batch norm that
    it folds, but keeps the name of the weights."""
    for tensor in node.inputs[1:2]:  # the exporter shares equal biases of different modules
        owner = tensor.rpartition(".")[0]
        if owner and owner in paths:
            return owner
    return None


def _first_call(record: Record, unused: Sequence[int], node: GraphNode) -> list[int]:
    """The first unused call in the module that has the name of the node's function, else one of the node's kinds."""
    specs = record.specs
    kinds = KINDS.get(node.operator, ())
    computes = node.operator in COMPUTE_OPERATORS
    for i in unused:
        spec = specs[record.calls.spec[i]]
        if node.target and spec.name.strip("_") == node.target.strip("_") and (not computes or spec.kind in kinds):
            return [i]
    return next(([i] for i in unused if specs[record.calls.spec[i]].kind in kinds), [])


def assign_nodes(
    graph: Sequence[GraphNode], graph_outputs: Iterable[str], executed: Sequence[RawNode], names_first: bool = False
) -> list[list[int]]:
    """The nodes of the graph that each operation of the engine computes, as indices in order.

    1. An operation computes the nodes that its anchors name.
    2. It also computes the nodes before them whose only readers it computes, up to a computing node: engines name an
       operation after its last node, such as the activation behind a convolution.
    3. Each remaining pointwise node or norm is computed by the operation that produces its inputs; with several
       producers, by the last one that runs, because the others have finished before.

    With `names_first`, operations have the name of their first node, and step 3 comes before step 2. Nodes that remain
    were removed, or took no time.
    """
    owner = named_nodes(graph, executed)
    producer = {tensor: i for i, node in enumerate(graph) for tensor in node.outputs if tensor}
    kept = {producer[tensor] for tensor in graph_outputs if tensor in producer}
    if names_first:
        _add_nodes_behind(graph, producer, owner)
    _add_nodes_before(graph, producer, kept, owner, executed)
    _add_nodes_behind(graph, producer, owner)
    groups: list[list[int]] = [[] for _ in executed]
    for i in sorted(owner):
        groups[owner[i]].append(i)
    return groups


def _add_nodes_before(
    graph: Sequence[GraphNode], producer: Mapping[str, int], kept: set[int], owner: dict[int, int],
    executed: Sequence[RawNode],
) -> None:  # fmt: skip
    """Step 2 of `assign_nodes`. Outputs of the graph, `kept`, leave their operation."""
    readers: dict[int, set[int]] = defaultdict(set)
    for i, node in enumerate(graph):
        for tensor in node.inputs:
            if tensor in producer:
                readers[producer[tensor]].add(i)
    for i in range(len(graph) - 1, -1, -1):
        owners = {owner.get(reader) for reader in readers[i]}
        if i in owner or i in kept or len(owners) != 1:
            continue
        (only,) = owners
        if only is not None and _can_precede(graph, i, readers[i], executed[only]):
            owner[i] = only


def _add_nodes_behind(graph: Sequence[GraphNode], producer: Mapping[str, int], owner: dict[int, int]) -> None:
    """Step 3 of `assign_nodes`."""
    for i, node in enumerate(graph):
        if i not in owner and node.operator not in COMPUTE_OPERATORS and node.operator not in SEPARATE:
            before = [owner[producer[t]] for t in node.inputs if t in producer and producer[t] in owner]
            if before:
                owner[i] = max(before)


def named_nodes(graph: Sequence[GraphNode], executed: Sequence[RawNode]) -> dict[int, int]:
    """The operation of each node that the anchors of an operation name, both as indices."""
    names = {node.name: i for i, node in enumerate(graph) if node.name}
    tensors = {tensor: i for i, node in enumerate(graph) for tensor in node.outputs if tensor}
    owner: dict[int, int] = {}
    for position, operation in enumerate(executed):
        for anchor in () if operation.is_layout else operation.anchors:
            i = tensors.get(anchor, names.get(anchor))
            if i is not None:
                owner.setdefault(i, position)
    return owner


def _can_precede(graph: Sequence[GraphNode], i: int, readers: set[int], operation: RawNode) -> bool:
    """Whether the operation that computes all readers of node i computes it too: nothing but preparations joins a
    computing node or a pooling from before."""
    node = graph[i]
    stops = COMPUTE_OPERATORS | SEPARATE
    if "Attention" in operation.operator or node.operator in PREPARATION:
        return True
    return all(graph[reader].operator not in stops for reader in readers)
