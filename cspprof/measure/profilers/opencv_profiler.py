"""The profile of OpenCV's DNN module: `getPerfProfile`, with one time per layer of the network.

The classic engine keeps a fused layer with the time 0 and writes `onnx_node!` before the name of its node. The new
engine removes fused layers, keeps the names of nodes, and adds `TransformLayout` layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

import cv2

from cspprof.measure.engines import opencv_classic_engine, opencv_engine
from cspprof.measure.engines.network import Prepared
from cspprof.measure.graph_nodes import graph_nodes
from cspprof.measure.profilers import WARM_UP, RawNode, fastest_half, raw_profile, timed_run

PREFIXES = ("onnx_node!", "onnx_node_output_0!")
"""Prefixes that the importer adds to the name of a node, and to that of a tensor for a node without a name."""
LAYOUT_OPERATORS = frozenset({"TransformLayout", "Permute"})


def profile(prepared: Prepared, threads: int, runs: int, engine: str) -> list[dict[str, Any]]:
    choice = opencv_classic_engine.classic_engine() if engine == "opencv-classic" else opencv_engine.new_engine()
    network = opencv_engine.OpenCvNetwork(prepared, *choice)
    for _ in range(WARM_UP):
        network.run()
    seconds, ticks = [], []
    for _ in range(runs):
        seconds.append(timed_run(network))
        ticks.append([float(t) for t in network.net.getPerfProfile()[1]])
    names = list(network.net.getLayerNames())
    types = [network.net.getLayer(network.net.getLayerId(name)).type for name in names]
    graph = graph_nodes(prepared.graph)
    chosen = fastest_half(seconds)
    nodes = nodes_of_times(
        names, types, [ticks[i] for i in chosen], cv2.getTickFrequency(), {n.name for n in graph["nodes"]}
    )
    return [raw_profile(nodes, mean(seconds[i] for i in chosen), runs, graph=graph, names_first=True)]


def nodes_of_times(
    names: Sequence[str], types: Sequence[str], ticks: Sequence[Sequence[float]], frequency: float, known: set[str]
) -> list[RawNode]:
    """The layers that took time, with the mean over the runs. `ticks` has one list per run.

    A layer whose name is no node of the graph and whose type is a layout change is one that the engine added.
    """
    if any(len(times) != len(names) for times in ticks):
        raise RuntimeError(f"OpenCV reports {len(ticks[0])} times for {len(names)} layers")
    nodes = []
    for name, kind, times in zip(names, types, zip(*ticks, strict=True), strict=True):
        spent = mean(times) / frequency
        if spent == 0:
            continue
        plain = name
        for prefix in PREFIXES:
            plain = plain.removeprefix(prefix)
        is_layout = kind in LAYOUT_OPERATORS and plain not in known
        nodes.append(RawNode(plain, kind, spent, [] if is_layout else [plain], is_layout=is_layout))
    return nodes
