"""`LayerProfile`: the time of each operation that an engine ran, with the calls of the record that it executed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cspprof.analysis.layer_rows import layer_rows
from cspprof.core.cached import cached
from cspprof.core.record import Kind, Record
from cspprof.core.validation import Count, Name, Seconds, Text
from cspprof.measure.graph_nodes import GraphNode
from cspprof.measure.node_matching import assign_nodes, match_graph, match_torch, named_nodes
from cspprof.measure.profilers import RawNode


@dataclass
class ExecutedNode:
    """The calls of the record that the engine ran as one operation."""

    name: Text
    operator: Text
    seconds: Seconds
    """Mean of the runs; the profile itself takes time, so only shares are compared."""
    calls: list[Count] = field(default_factory=list)
    """The calls of the record that it executes; empty if the engine added it, or if it could not be matched."""
    is_layout: bool = False
    activation_bytes: Count | None = None
    """Bytes of activations that it read, as the engine says; None if it does not. Likewise the following two."""
    parameter_bytes: Count | None = None
    output_bytes: Count | None = None
    macs: Count | None = None
    """Multiply-accumulates on the shapes that ran; None if the engine does not say."""
    allocated_bytes: Count | None = None
    """Bytes that the allocator gave to it and that it kept; None if the engine does not say."""
    belongs_to: list[Count] = field(default_factory=list)
    """Calls that other operations execute: those of which it is a part, or those that write the tensor whose layout it
    changes."""


@dataclass
class LayerProfile:
    """One model in one engine with one setting."""

    engine: Name
    model: Count
    """Index in `Measurement.models`."""
    level: Name = ""
    """The setting, such as `ORT_ENABLE_BASIC`; empty if the engine has one only."""
    runs: Count = 0
    seconds: Seconds = 0.0
    """Mean time of the runs whose operations are in `nodes`."""
    nodes: list[ExecutedNode] = field(default_factory=list)
    """In execution order."""
    peak_bytes: Count | None = None
    """Peak of the allocator: for torch what the runs allocated, for ONNX Runtime what its arena had in use."""
    peak_without_workspace: Count | None = None
    """For torch: the peak at the ends of operations, when their workspace is free again."""
    failure: Text = ""

    @property
    def label(self) -> str:
        return f"{self.engine} {self.level.removeprefix('ORT_ENABLE_')}".strip()

    @property
    def between_seconds(self) -> float:
        """The time that no operation took."""
        return self.total_seconds - sum(node.seconds for node in self.nodes)

    @property
    def total_seconds(self) -> float:
        """The time to which shares are relative: that of the runs, and at least that of all operations."""
        return max(self.seconds, sum(node.seconds for node in self.nodes))


def layer_profile(record: Record, engine: str, model: int, raw: Mapping[str, Any]) -> LayerProfile:
    """The profile that `profilers` returned, matched with the record."""
    nodes = [RawNode(**node) for node in raw["nodes"]]
    others: list[list[int]] = [[] for _ in nodes]
    if raw["graph"] is None:
        calls = match_torch(record, nodes)
    else:
        graph = [GraphNode(*node) for node in raw["graph"]["nodes"]]
        of_node = match_graph(record, graph)
        groups = assign_nodes(graph, raw["graph"]["outputs"], nodes, raw.get("names_first", False))
        named = named_nodes(graph, nodes)
        calls = _once(groups, of_node, named)
        producer = {tensor: i for i, node in enumerate(graph) for tensor in node.outputs}
        near = [
            [producer[tensor] for tensor in node.anchors if tensor in producer] if node.is_layout else group
            for node, group in zip(nodes, groups, strict=True)
        ]
        others = [
            [] if own else sorted({call for i in indices for call in of_node[i]})
            for own, indices in zip(calls, near, strict=True)
        ]
    return LayerProfile(
        engine,
        model,
        raw["level"],
        raw["runs"],
        raw["seconds"],
        [
            ExecutedNode(
                node.name, node.operator, node.seconds, found, node.is_layout, node.activation_bytes,
                node.parameter_bytes, node.output_bytes, node.macs, node.allocated_bytes, other,
            )
            for node, found, other in zip(nodes, calls, others, strict=True)
        ],
        raw.get("peak_bytes"),
        raw.get("peak_without_workspace"),
    )  # fmt: skip


def _once(groups: Sequence[Sequence[int]], of_node: Sequence[list[int]], named: Mapping[int, int]) -> list[list[int]]:
    """The calls of each operation. A call belongs to one operation, so that no cost is counted twice: to the first one
    that names a node of the call, else to the first one that computes such a node."""
    owner: dict[int, int] = {}
    for i in sorted(named):
        for call in of_node[i]:
            owner.setdefault(call, named[i])
    for position, group in enumerate(groups):
        for i in group:
            for call in of_node[i]:
                owner.setdefault(call, position)
    found: list[list[int]] = [[] for _ in groups]
    for call in sorted(owner):
        found[owner[call]].append(call)
    return found


@cached
def call_paths(record: Record) -> dict[int, str]:
    """The path of each call that is not a view, as tables of layers show it."""
    return {row.index: row.path for row in layer_rows(record)}


def node_label(record: Record, node: ExecutedNode) -> str:
    """The layers that an operation executes: `stem.0 + stem.1`; its own name if it executes none of the model."""
    paths = call_paths(record)
    if node.belongs_to:
        return f"{'layout' if node.is_layout else 'part'} of {paths[node.belongs_to[-1]]}"
    return " + ".join(paths[call] for call in node.calls) or node.name


def main_call(record: Record, node: ExecutedNode) -> int | None:
    """The call that names the operation: the one with the most MACs, else the first; None if it executes none."""
    return max(node.calls, key=lambda call: record.specs[record.calls.spec[call]].macs or 0, default=None)


def fused_into(record: Record, profile: LayerProfile) -> dict[int, int]:
    """For each call that runs inside the operation of another call, that other call."""
    found = {}
    for node in profile.nodes:
        main = main_call(record, node)
        found.update({call: main for call in node.calls if main is not None and call != main})
    return found


def not_executed(record: Record, profile: LayerProfile) -> list[int]:
    """Calls that no operation of the engine executes: folded into weights, removed, or not matched."""
    done = {call for node in profile.nodes for call in node.calls}
    return [row.index for row in layer_rows(record) if row.index not in done and row.spec.kind is not Kind.VIEW]


def call_seconds(record: Record, profile: LayerProfile) -> dict[int, float]:
    """The time of each operation that executes calls, by its main call. Parts of a call count for that call."""
    found: dict[int, float] = {}
    for node in profile.nodes:
        main = main_call(record, node)
        if main is None and node.belongs_to and not node.is_layout:
            main = node.belongs_to[-1]
        if main is not None:
            found[main] = found.get(main, 0.0) + node.seconds
    return found


def added_nodes(profile: LayerProfile) -> Iterator[ExecutedNode]:
    """Operations that execute no call of the record, nor a part of one."""
    return (n for n in profile.nodes if not n.calls and (n.is_layout or not n.belongs_to))
