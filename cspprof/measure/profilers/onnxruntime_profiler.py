"""The profile of ONNX Runtime, with all graph optimizations and with the basic ones.

An event has the name of a node of the optimized graph. Where the layout optimization replaces a node, the name of the
new node is the name of the original output tensor with the suffix `_nchwc`, so nodes are matched by output tensor; the
optimized graph is written to find the tensors.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from math import prod
from pathlib import Path
from statistics import mean
from typing import Any

from cspprof.core.temporary import temporary_folder
from cspprof.measure.engines.network import Prepared
from cspprof.measure.engines.onnxruntime_engine import OrtNetwork, session_options
from cspprof.measure.graph_nodes import graph_nodes
from cspprof.measure.profilers import WARM_UP, RawNode, fastest_half, raw_profile, timed_run

LEVELS = ("ORT_ENABLE_ALL", "ORT_ENABLE_BASIC")
"""The first level is the one that is timed."""
LAYOUT_OPERATORS = frozenset({"ReorderInput", "ReorderOutput"})
EVENT_SUFFIX = "_kernel_time"
_SUFFIX = re.compile(r"(_bn)?_nchwc$|/\w*Fusion.*$|_new_reshape$")
"""Endings that optimizations add to the name of a node or of its output tensor."""


def profile(prepared: Prepared, threads: int, runs: int, engine: str) -> list[dict[str, Any]]:
    return [_profile_at(prepared, threads, runs, level) for level in LEVELS]


def _profile_at(prepared: Prepared, threads: int, runs: int, level: str) -> dict[str, Any]:
    import onnxruntime as ort

    with temporary_folder("profile") as folder:
        options = session_options(threads, getattr(ort.GraphOptimizationLevel, level))
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        options.optimized_model_filepath = str(folder / "optimized.onnx")
        network = OrtNetwork(prepared, options)
        for _ in range(WARM_UP):
            network.run()
        seconds = [timed_run(network) for _ in range(runs)]
        events = json.loads(Path(network.session.end_profiling()).read_text(encoding="utf-8"))
        optimized = graph_nodes(folder / "optimized.onnx")
    tensors = {
        node.name: [*node.outputs, *(node.inputs[:1] if node.operator in LAYOUT_OPERATORS else ())]
        for node in optimized["nodes"]
    }
    chosen = fastest_half(seconds)
    nodes = nodes_of_events(events, tensors, [i - runs for i in chosen])
    return raw_profile(
        nodes, mean(seconds[i] for i in chosen), runs, level, graph_nodes(prepared.graph), peak_bytes=arena_peak(events)
    )


def nodes_of_events(
    events: list[dict[str, Any]], tensors: dict[str, list[str]], chosen: Sequence[int]
) -> list[RawNode]:
    """The nodes of the optimized graph in execution order, with their mean time in the chosen runs, such as −1 for the
    last one.

    `tensors` are the output tensors of each node of the optimized graph, by its name, and the input of a node that
    changes the layout.
    """
    by_node: dict[tuple[int, str], list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(EVENT_SUFFIX):
            name = event["name"].removesuffix(EVENT_SUFFIX)
            by_node[int(event["args"].get("node_index", -1)), name].append(event)
    return [_node(name, found, tensors.get(name, []), chosen) for (_, name), found in by_node.items()]


def _node(name: str, events: list[dict[str, Any]], tensors: list[str], chosen: Sequence[int]) -> RawNode:
    args = events[-1]["args"]
    operator = args["op_name"]
    is_layout = operator in LAYOUT_OPERATORS
    anchors = tensors if is_layout else [*tensors, _SUFFIX.sub("", name)]
    return RawNode(
        name,
        operator,
        mean(events[i]["dur"] for i in chosen if -len(events) <= i) * 1e-6,
        anchors,
        activation_bytes=_bytes(args, "activation_size"),
        parameter_bytes=_bytes(args, "parameter_size"),
        output_bytes=_bytes(args, "output_size"),
        macs=_macs(operator, args),
        is_layout=is_layout,
    )


def _bytes(args: dict[str, Any], key: str) -> int | None:
    return int(args[key]) if key in args else None


def _macs(operator: str, args: dict[str, Any]) -> int | None:
    """The multiply-accumulates of a convolution on the shapes that ran: channels may be padded to the block."""
    if operator not in ("Conv", "FusedConv"):
        return None
    shapes = [next(iter(tensor.values())) for tensor in args.get("input_type_shape", [])]
    results = [next(iter(tensor.values())) for tensor in args.get("output_type_shape", [])]
    if len(shapes) < 2 or not results or not shapes[1]:
        return None
    return int(prod(results[0]) * prod(shapes[1][1:]))


def arena_peak(events: list[dict[str, Any]]) -> int | None:
    """The peak of the bytes that the arena had in use in the first run, without those of the weights that it holds
    before; None if the version does not report it. Later runs allocate one block for all tensors of known shape."""
    before: int | None = None
    peak: int | None = None
    for event in events:
        if event["cat"] == "Session" and event["name"] == "model_run":
            break
        args = event.get("args", {})
        if event["cat"] == "Node" and "mem_in_use_peak" in args:
            if before is None:
                before = int(args["mem_bytes_in_use"]) - int(args["mem_in_use_delta"])
            peak = max(peak or 0, int(args["mem_in_use_peak"]))
    return None if peak is None or before is None else peak - before
