"""The node mapping between the graphs of two models in Model Explorer.

In two panes, Model Explorer selects the counterpart of a selected node in the other pane ("Synchronize navigation" in
its user guide). The file has the structure of `SyncNavigationData` in google-ai-edge/model-explorer,
src/ui/src/components/visualizer/common/sync_navigation.ts:

- `mappingEntries`: `leftNodeIds` match `rightNodeIds`; each node is in at most one entry;
- `disableMappingFallback`: a node without an entry has no counterpart, even if the other graph has a node of its id;
- `showDiffHighlights`: nodes without a counterpart get a red frame in the left pane and a green one in the right pane.

The ids are those of the format `model-explorer`. A module is a node too, with the id `path/of/module___group___`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence

from cspprof.analysis.graph_matching import MatchedGraphs
from cspprof.analysis.layer_matching import RowMatches
from cspprof.analysis.layer_rows import LayerRow
from cspprof.core.errors import OutputError
from cspprof.render.model_explorer import graph_ids, namespace
from cspprof.render.registry import Canvas, renderer
from cspprof.report.tables import Report

Modules = dict[str, set[int]]
"""The modules of a graph by their namespace, each with the positions of its operations."""


@renderer(
    "node-mapping",
    ".node-mapping.json",
    is_own=lambda head: head.startswith(b'{\n "label": "cspprof: ') and b'"type": "sync_navigation"' in head,
)
def as_node_mapping(report: Report, canvas: Canvas) -> str:
    """The mapping from the nodes of the first model to those of the second. Raises OutputError unless the report is
    about two models."""
    if len(report.profiles) != 2:
        raise OutputError(
            f"node-mapping links the graphs of two models; this report is about {len(report.profiles) or 'none'}",
            "Write for example: cspprof compare SPEC SPEC -o pair.node-mapping.json",
        )
    graphs = MatchedGraphs(*report.profiles)
    rows, matches = graphs.rows, graphs.matches
    nodes = [([str(rows[0][i].index) for i in base], [str(rows[1][j].index) for j in other])
             for base, other in matches.matched]  # fmt: skip
    modules = [
        ([f"{a}___group___"], [f"{b}___group___"])
        for a, b in matched_modules((shown_modules(rows[0]), shown_modules(rows[1])), matches)
    ]
    left, right = graph_ids(report.profiles)
    document = {
        "label": f"cspprof: {left} in the left pane, {right} in the right pane",
        "type": "sync_navigation",
        "mappingEntries": [
            {"leftNodeIds": a, "rightNodeIds": b}
            for a, b in [(["input"], ["input"]), *nodes, *modules, (["output"], ["output"])]
        ],
        "disableMappingFallback": True,
        "showDiffHighlights": True,
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def shown_modules(rows: Sequence[LayerRow]) -> Modules:
    """The modules that Model Explorer shows as nodes: it shows a module that contains a single operation, and no other
    module, as that operation."""
    modules: Modules = defaultdict(set)
    children: dict[str, set[int | str]] = defaultdict(set)
    for position, row in enumerate(rows):
        inner: int | str = position
        path = namespace(row)
        while path:
            modules[path].add(position)
            children[path].add(inner)
            inner, path = path, path.rpartition("/")[0]
    for path in sorted(modules, key=lambda path: -path.count("/")):  # inner modules first
        (first, *others) = children[path]
        if not others and isinstance(first, int):
            del modules[path]
            parent = path.rpartition("/")[0]
            children[parent] = children[parent] - {path} | {first}
    return modules


def matched_modules(modules: tuple[Modules, Modules], matches: RowMatches) -> list[tuple[str, str]]:
    """Modules of both graphs in pairs that contain matching operations, each module in at most one pair.

    First come modules with the same path, then those that share most operations: at least half of those in the smaller
    module, and most in relation to both. Of equal shares, the same depth comes first.
    """
    around: tuple[dict[int, list[str]], dict[int, list[str]]] = (defaultdict(list), defaultdict(list))
    for side in (0, 1):
        for path, positions in modules[side].items():
            for position in positions:
                around[side][position].append(path)
    shared: Counter[tuple[str, str]] = Counter()
    for base, other in matches.matched:
        shared.update((a, b) for i in base for a in around[0][i] for j in other for b in around[1][j])

    def closeness(pair: tuple[str, str]) -> tuple[bool, float, int]:
        a, b = pair
        share = shared[pair] / (len(modules[0][a]) + len(modules[1][b]))
        return a == b, share, -abs(a.count("/") - b.count("/"))

    pairs: dict[str, str] = {}
    taken: set[str] = set()
    for a, b in sorted(sorted(shared), key=closeness, reverse=True):
        is_most = 2 * shared[a, b] >= min(len(modules[0][a]), len(modules[1][b]))
        if a not in pairs and b not in taken and (a == b or is_most):
            pairs[a] = b
            taken.add(b)
    return sorted(pairs.items())
