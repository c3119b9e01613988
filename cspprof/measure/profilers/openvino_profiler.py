"""The profile of OpenVINO: `get_profiling_info`, with the nodes that each operation of the runtime model replaces."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from cspprof.measure.engines.network import Prepared
from cspprof.measure.engines.openvino_engine import OpenVinoNetwork, properties
from cspprof.measure.graph_nodes import graph_nodes
from cspprof.measure.profilers import WARM_UP, RawNode, raw_profile, timed_run

LAYOUT_TYPES = frozenset({"Reorder"})
EXECUTED = "Status.EXECUTED"


def profile(prepared: Prepared, threads: int, runs: int, engine: str) -> list[dict[str, Any]]:
    network = OpenVinoNetwork(prepared, {**properties(threads), "PERF_COUNT": True})
    for _ in range(WARM_UP):
        network.run()
    before = _averages(network)
    seconds = mean(timed_run(network) for _ in range(runs))
    after = _averages(network)
    originals = {}
    for operation in network.compiled.get_runtime_model().get_ordered_ops():
        value = operation.get_rt_info()
        names = str(value["originalLayersNames"].astype(str)) if "originalLayersNames" in value else ""
        originals[operation.get_friendly_name()] = [name for name in names.split(",") if name]
    nodes = nodes_of_averages(before, WARM_UP, after, WARM_UP + runs, originals)
    return [raw_profile(nodes, seconds, runs, graph=graph_nodes(prepared.graph))]


def _averages(network: OpenVinoNetwork) -> list[tuple[str, str, float, bool]]:
    """Name, type, mean seconds over all runs so far, and whether it ran, for each operation."""
    return [
        (info.node_name, info.node_type, info.real_time.total_seconds(), str(info.status) == EXECUTED)
        for info in network.request.get_profiling_info()
    ]


def nodes_of_averages(
    before: Sequence[tuple[str, str, float, bool]],
    runs_before: int,
    after: Sequence[tuple[str, str, float, bool]],
    runs_after: int,
    originals: dict[str, list[str]],
) -> list[RawNode]:
    """The operations that ran, with the mean of the runs between `runs_before` and `runs_after`.

    OpenVINO reports the mean of all runs since the model was compiled, and no single run. The first runs pack weights,
    so their share is subtracted. `originals` are the nodes that an operation of the runtime model replaces, by the name
    of the operation.
    """
    earlier = {(name, kind): seconds for name, kind, seconds, _ in before}
    nodes = []
    for name, kind, seconds, has_run in after:
        if not has_run:
            continue
        total = seconds * runs_after - earlier.get((name, kind), 0.0) * runs_before
        is_layout = kind in LAYOUT_TYPES
        anchors = [] if is_layout else [*originals.get(name, [name])]
        nodes.append(RawNode(name, kind, max(total, 0.0) / (runs_after - runs_before), anchors, is_layout=is_layout))
    return nodes
