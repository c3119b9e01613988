"""Two networks side by side: every layer matches, was removed or was added, in the drawing and in Model Explorer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Result, conv_spec, quick, relu_spec
from torch import nn

import cspprof
from cspprof.analysis.blocks import blocks
from cspprof.analysis.comparison import Comparison
from cspprof.analysis.graph_matching import MatchedGraphs, State
from cspprof.analysis.layer_matching import computation
from cspprof.analysis.layer_rows import layer_rows
from cspprof.analysis.stages import stage_depths
from cspprof.core.errors import OutputError
from cspprof.core.record import Calls, Layer, Storage, TensorSpec
from cspprof.profiles import Profile
from cspprof.render import render
from cspprof.render.node_mapping import shown_modules
from cspprof.render.page.document import html_page
from cspprof.render.page.pair_graph import MOST_LINES, PairGraph, pair_graph_svg
from cspprof.report.layer_tables import Breakdown
from cspprof.report.profile import profile_report

Run = Callable[..., Result]

PAIRS = [
    "resnext50 csp_resnext50", "hardnet68 hardnet85", "yolov3_tiny yolov3_tiny_prn", "resnet50 resnet50",
    "resnet50 csp_resnet50", "densenet121 csp_densenet121", "vgg16 efficientnet_b0_darknet",
    "csp_peleenet_efm peleenet_yolo",
]  # fmt: skip


@cache
def profiles_of(names: str) -> tuple[Profile, Profile]:
    base, other = names.split()
    return cspprof.profile(base), cspprof.profile(other)


def convs(*widths: int, wrapped: int = -1) -> nn.Sequential:
    """Pairs of a 3×3 convolution and a ReLU; the pair number `wrapped` is a module of its own."""
    layers: list[nn.Module] = []
    for i, (c_in, c_out) in enumerate(zip((3, *widths), widths, strict=False)):
        both = [nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU()]
        layers += [nn.Sequential(*both)] if i == wrapped else both
    return nn.Sequential(*layers)


def profiled(module: nn.Module, name: str, size: int = 8) -> Profile:
    return cspprof.profile(module, (1, 3, size, size), name=name)


def paths(graphs: MatchedGraphs) -> dict[str, list[Any]]:
    """The matching, removed and added layers by their paths."""
    return {
        "matched": [tuple([graphs.rows[s][p].path for p in side] for s, side in enumerate(m))
                    for m in graphs.matches.matched],
        "removed": [graphs.rows[0][i].path for i in graphs.matches.removed],
        "added": [graphs.rows[1][j].path for j in graphs.matches.added],
    }  # fmt: skip


# -- layers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", quick(PAIRS, 2))
def test_each_layer_is_matched_removed_or_added(names: str) -> None:
    base, other = profiles_of(names)
    graphs = MatchedGraphs(base, other)
    matched, alone = graphs.matches.matched, (graphs.matches.removed, graphs.matches.added)
    for side, record in enumerate((base, other)):
        places = [position for group in matched for position in group[side]] + [*alone[side]]
        assert sorted(places) == list(range(len(layer_rows(record))))
        in_blocks = [position for block in graphs.blocks[side] for position in block.positions]
        assert in_blocks == list(range(len(layer_rows(record))))
        own: State = "added" if side else "removed"
        states: list[State] = ["same", "changed", own]
        assert sum(graphs.count(side, state) for state in states) == len(layer_rows(record))
        assert graphs.count(side, own) == len(alone[side])


@pytest.mark.parametrize("names", quick(PAIRS, 1))
def test_removed_and_added_layers_are_those_of_the_table_of_changes(names: str) -> None:
    """The MACs of the layers without a counterpart, and the change of the others, are the whole difference; and the
    table has a row for each layer without a counterpart."""
    base, other = profiles_of(names)
    graphs = MatchedGraphs(base, other)
    macs = [[row.spec.macs or 0 for row in rows] for rows in graphs.rows]
    removed = {graphs.rows[0][i].path for i in graphs.matches.removed if macs[0][i]}
    added = {graphs.rows[1][j].path for j in graphs.matches.added if macs[1][j]}
    changed = sum(sum(macs[1][j] for j in b) - sum(macs[0][i] for i in a) for a, b in graphs.matches.matched)
    alone = sum(macs[1][j] for j in graphs.matches.added) - sum(macs[0][i] for i in graphs.matches.removed)
    assert changed + alone == other.total("macs") - base.total("macs")
    table = {c.name: c for c in Comparison((base, other)).by_layer("macs")}
    assert removed | added <= table.keys()
    assert {name for name, c in table.items() if c.value is None} <= removed
    assert {name for name, c in table.items() if c.base is None} <= added


def test_activations_follow_the_convolutions_around_them() -> None:
    """An insertion moves the names of a Sequential, and all activations have the same size."""
    graphs = MatchedGraphs(profiled(convs(4, 4, 5, 4), "base"), profiled(convs(4, 4, 4, 5, 4), "deeper"))
    found = paths(graphs)
    assert (found["removed"], len(found["added"])) == ([], 2)
    assert {int(path) % 2 for path in found["added"]} == {0, 1}, "a convolution and its activation"
    pairs = [(int(a[0]), int(b[0])) for a, b in found["matched"]]
    assert [b - a for a, b in pairs if a >= 4] == [2, 2, 2, 2]
    assert graphs.count(0, "changed") == 0


def test_a_layer_of_another_width_is_changed_and_not_removed() -> None:
    graphs = MatchedGraphs(profiled(convs(4, 8, 4), "base"), profiled(convs(4, 6, 4), "thin"))
    assert paths(graphs)["removed"] == paths(graphs)["added"] == []
    assert list(graphs.layer_states[0]) == ["same", "same", "changed", "changed", "changed", "same"]


def test_attention_matches_its_two_products() -> None:
    """Several layers that add up to the MACs of one are its counterpart together."""

    class Attention(nn.Module):
        def __init__(self, fused: bool) -> None:
            super().__init__()
            self.first, self.last, self.fused = nn.Linear(8, 8), nn.Linear(8, 4), fused

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q = self.first(x)
            fused = nn.functional.scaled_dot_product_attention
            mixed = fused(q, q, q) if self.fused else (q @ q.transpose(1, 2)).softmax(-1) @ q
            y: torch.Tensor = self.last(mixed)
            return y

    fused, parts = (cspprof.profile(Attention(fused), (1, 6, 8), name="net") for fused in (True, False))
    graphs = MatchedGraphs(fused, parts)
    group = next(m for m in graphs.matches.matched if len(m[1]) == 2)
    assert [graphs.rows[0][i].spec.name for i in group[0]] == ["scaled_dot_product_attention"]
    assert [graphs.rows[1][j].spec.name for j in group[1]] == ["matmul", "matmul"]
    assert paths(graphs)["removed"] == []
    assert paths(graphs)["added"] == ["softmax"]


# -- blocks and links ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", quick(["csp_resnext50", "densenet121", "hardnet68", "resnet50_v1"], 1))
def test_blocks_are_those_of_the_depth_per_stage(name: str) -> None:
    record = cspprof.profile(name)
    depths: dict[str, set[str]] = {}
    for block in blocks(record):
        if block.repeated:
            depths.setdefault(block.stage, set()).add(block.path)
    assert [len(found) for found in depths.values()] == list(stage_depths(record))


@pytest.mark.parametrize("names", quick(PAIRS, 2))
def test_blocks_with_matching_layers_have_a_link_and_others_have_none(names: str) -> None:
    graphs = MatchedGraphs(*profiles_of(names))
    linked = [{link.base for link in graphs.links}, {link.other for link in graphs.links}]
    for side, alone in enumerate((graphs.matches.removed, graphs.matches.added)):
        expected = {i for i, block in enumerate(graphs.blocks[side]) if {*block.positions} - {*alone}}
        assert linked[side] == expected
    counterparts = {(i, j) for a, b in graphs.matches.matched for i in a for j in b}
    for link in graphs.links:
        base, other = graphs.blocks[0][link.base], graphs.blocks[1][link.other]
        assert any((i, j) in counterparts for i in base.positions for j in other.positions)


@pytest.mark.parametrize("names", quick(PAIRS, 1))
def test_each_block_is_in_one_line_of_the_drawing(names: str) -> None:
    graph = PairGraph(MatchedGraphs(*profiles_of(names)))
    for side in (0, 1):
        members = sorted(i for box in graph.boxes[side] for line in box.lines for i in line.members)
        assert members == list(range(len(graph.graphs.blocks[side])))
        assert sum(len(box.lines) for box in graph.boxes[side]) <= MOST_LINES
        for box in graph.boxes[side]:
            assert all(graph.graphs.block_states[side][i] == line.state for line in box.lines for i in line.members)


# -- the drawing -----------------------------------------------------------------------------------------


class Drawing(HTMLParser):
    """The frames (left, right, middle, state) and the links (x, y, x, y, state) of an `<svg>` element, and its text."""

    def __init__(self, svg: str) -> None:
        super().__init__()
        self.frames: list[tuple[float, float, float, str]] = []
        self.links: list[tuple[float, float, float, float, str]] = []
        self.words: list[str] = []
        self.tags: set[str] = set()
        self.feed(svg)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        held = {name: value or "" for name, value in attrs}
        kind, _, state = held.get("class", "").partition(" ")
        if kind == "unit":
            x, y, width, height = (float(held[name]) for name in ("x", "y", "width", "height"))
            self.frames.append((x, x + width, y + height / 2, state))
        if kind == "link":
            x, y, *_, end_x, end_y = (float(n) for n in re.findall(r"-?[\d.]+", held["d"]))
            self.links.append((x, y, end_x, end_y, state))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def drawings(base: Profile, other: Profile) -> list[Drawing]:
    """The wide drawing and that for a phone."""
    svg = pair_graph_svg(MatchedGraphs(base, other), (lambda path: "a", lambda path: "b"))
    return [Drawing(f"<svg{part}") for part in svg.split("<svg")[1:]]


@pytest.mark.parametrize("names", quick(PAIRS, 1))
def test_links_end_at_frames_and_all_but_removed_and_added_ones_have_a_link(names: str) -> None:
    for drawing in drawings(*profiles_of(names)):
        right_ends = {(right, middle): state for _, right, middle, state in drawing.frames}
        left_ends = {(left, middle): state for left, _, middle, state in drawing.frames}
        for x, y, end_x, end_y, state in drawing.links:
            ends = {right_ends[x, y], left_ends[end_x, end_y]}
            assert ends <= {"same", "changed"}
            assert (state == "same") == (ends == {"same"})
        linked = {end[1:] for end in (("", x, y) for x, y, *_ in drawing.links)} | {
            (x, y) for _, _, x, y, _ in drawing.links
        }
        for left, right, middle, state in drawing.frames:
            assert ((left, middle) in linked or (right, middle) in linked) == (state in ("same", "changed"))


def test_states_have_signs_and_not_only_colors() -> None:
    base, other = profiled(convs(4, 8, 4, 9), "base"), profiled(convs(4, 6, 4), "thin")
    for drawing in drawings(base, other):
        signs = {"same": "=", "changed": "≠", "removed": "−", "added": "+"}
        counts = {state: sum(f[3] == state for f in drawing.frames) for state in signs}
        assert {state: drawing.words.count(sign) for state, sign in signs.items()} == counts
        assert counts["removed"] == 2 > counts["added"] == 0


@pytest.mark.parametrize("traffic", ["cio_cspnet", "traffic_bytes"])
def test_texts_on_one_height_do_not_overprint(traffic: str) -> None:
    """With an estimate of their widths; test_report_browser measures them."""
    svg = pair_graph_svg(MatchedGraphs(*profiles_of("hardnet68 hardnet85")), (lambda _: "", lambda _: ""), traffic)
    for drawing in svg.split("<svg")[1:]:
        lines: dict[str, list[tuple[float, float]]] = {}
        for x, y, end, text in re.findall(r"<text[^>]*? x=(\S+) y=([\d.]+)( text-anchor=end)?>([^<]+)", drawing):
            left = float(x) - (7 * len(text) if end else 0)
            lines.setdefault(y, []).append((left, left + 7 * len(text)))
        assert len(lines) > 30
        for extents in lines.values():
            extents.sort()
            assert all(a[1] < b[0] for a, b in pairwise(extents))


def test_repeated_blocks_share_a_line() -> None:
    """resnet50 has 3-4-6-3 blocks. Between equal networks each stage is its first block and the others."""
    profile = cspprof.profile("resnet50")
    wide, narrow = drawings(profile, profile)
    assert [f[3] for f in wide.frames] == [f[3] for f in narrow.frames] == ["same"] * len(wide.frames)
    assert {"blocks.1 … 2", "blocks.1 … 3", "blocks.1 … 5"} <= {*wide.words}
    assert {"3 blocks", "4 blocks", "6 blocks"} <= {*wide.words} & {*narrow.words}
    assert any(word.startswith("5 × ") for word in wide.words)


def test_a_chain_of_300_layers_is_compact() -> None:
    base, other = profiled(convs(*[4] * 150), "deep"), profiled(convs(*[4] * 70, 6, *[4] * 79), "edited")
    wide, _ = drawings(base, other)
    assert len(wide.frames) <= 12
    assert "≠" in wide.words
    assert len(layer_rows(base)) == 300


def test_networks_without_a_common_layer_have_no_links() -> None:
    base = profiled(convs(4, 8), "base")
    other = cspprof.profile(nn.Sequential(nn.Flatten(), nn.LayerNorm(192), nn.Tanh()), (1, 3, 8, 8), name="other")
    for drawing in drawings(base, other):
        assert drawing.links == []
        assert {f[3] for f in drawing.frames} == {"removed", "added"}


def hostile(name: str) -> Profile:
    """conv → ReLU → conv; `name` is the name of the model, of its first layer, and of a stage."""
    specs = conv_spec(3, 8, 4), relu_spec(8, 4), conv_spec(8, 8, 4)
    return Profile(
        model=name, source=name, inputs=(TensorSpec((1, 3, 4, 4)),),
        layers=(Layer("", "Net", 0, 1, 0), Layer(name, name, 1, 1, 216, stage=name), Layer("act", "ReLU", 1, 1, 0),
                Layer("b", "Conv2d", 1, 1, 576)),
        specs=specs, calls=Calls([0, 1, 2], [1, 2, 3], [0, 1, 3, 3, 3, 3, 2, 4]),
        storages=(Storage(0, "input", "input", TensorSpec((1, 3, 4, 4))),
                  Storage(1, "v", "parameter", TensorSpec((8, 3, 3, 3))),
                  Storage(2, "w", "parameter", TensorSpec((8, 8, 3, 3)))),
        params=792, outputs=(4,),
    )  # fmt: skip


@pytest.mark.parametrize(
    "name", ["</svg><script>alert('x')</script>\"&", "a\x1b[2J\nb\u202ec", "</title><b onclick=x>", "{{ 1 }}"]
)
def test_names_cannot_leave_their_place(name: str) -> None:
    base, other = hostile(name), hostile(name[:-1] + "y")
    for drawing in drawings(base, other):
        assert drawing.tags <= {"svg", "text", "path", "rect", "a", "g", "title"}
    page = html_page([base, other])
    assert page.count("<script>") == page.count("</script>") == 1
    assert "onclick=x>" not in page.replace("&lt;b onclick=x&gt;", "")
    mapping = json.loads(render("node-mapping", report(base, other)))
    assert mapping["type"] == "sync_navigation"


# -- the page --------------------------------------------------------------------------------------------


def test_only_the_page_of_two_models_has_the_section() -> None:
    base, other = profiled(convs(4, 8, 4, 9), "base"), profiled(convs(4, 6, 4), "thin")
    page = html_page([base, other])
    assert page.count("<h2 id=h-side-by-side>") == page.count('href="#side-by-side"') == 1
    counts = re.search(r"<caption>Layers of both networks</caption>(.*?)</table>", page, re.S)
    assert counts
    numbers = [re.findall(r"<td[^>]*>([^<]*)", row) for row in counts[1].split("<tr>")[2:]]
    assert numbers == [["3", "3"], ["3", "3"], ["2", "–"], ["–", "0"], ["8", "6"]]
    assert "<summary>2 removed layers of base</summary>" in page
    assert "added layer" not in page.partition("<h2 id=h-stages>")[0].partition("Layers of both networks")[2]
    for profiles in ([base], [base, other, base]):
        assert "h-side-by-side" not in html_page(profiles)


def test_costs_of_stages_are_those_of_the_table_of_changes() -> None:
    base, other = cspprof.profile("resnext50"), cspprof.profile("csp_resnext50")
    wide, _ = drawings(base, other)
    for c in Comparison((base, other)).by_stage("macs"):
        assert c.base
        assert c.value
        change = f"{abs(100 * c.difference / c.base):.1f} %" if c.difference else "0 %"
        assert any(change in word for word in wide.words), c.name


# -- Model Explorer --------------------------------------------------------------------------------------


def report(*profiles: Profile) -> Any:
    return profile_report("compare", profiles, ["macs"], "macs", Breakdown())


def modules_of(graph: dict[str, Any]) -> set[str]:
    """The nodes of modules as Model Explorer makes them from the namespaces: a module that contains only one
    operation is replaced by it, again and again."""
    children: dict[str, set[str]] = {}
    parent = {node["id"]: node["namespace"] for node in graph["nodes"]}
    for namespace in {*parent.values()} - {""}:
        names = namespace.split("/")
        for n in range(1, len(names) + 1):
            parent[f"{'/'.join(names[:n])}___group___"] = "/".join(names[: n - 1])
    while True:
        children = {}
        for node, namespace in parent.items():
            children.setdefault(f"{namespace}___group___", set()).add(node)
        single = [(m, *c) for m, c in children.items() if m in parent and len(c) == 1 and "___group___" not in min(c)]
        if not single:
            return {node for node in parent if node.endswith("___group___")}
        for module, operation in single:
            parent[operation] = parent.pop(module)


@pytest.mark.parametrize("names", quick(PAIRS, 1))
def test_node_mapping_has_the_structure_that_model_explorer_reads(names: str) -> None:
    """`SyncNavigationData`: entries of two lists of ids, and no id in two entries of a side. The ids are those of the
    graphs that the format model-explorer writes."""
    both = profiles_of(names)
    mapping = json.loads(render("node-mapping", report(*both)))
    left, right = json.loads(render("model-explorer", report(*both)))["graphs"]
    assert left["id"] != right["id"]
    assert mapping["type"] == "sync_navigation"
    assert mapping["disableMappingFallback"] is mapping["showDiffHighlights"] is True
    assert f"{left['id']} in the left pane, {right['id']} in the right pane" in mapping["label"]
    for key, graph in (("leftNodeIds", left), ("rightNodeIds", right)):
        ids = [node for entry in mapping["mappingEntries"] for node in entry[key]]
        assert len(ids) == len({*ids})
        known = {node["id"] for node in graph["nodes"]} | modules_of(graph)
        assert {*ids} <= known
        assert all(entry[key] for entry in mapping["mappingEntries"])
    matched = MatchedGraphs(*both).matches.matched
    operations = [e for e in mapping["mappingEntries"] if e["leftNodeIds"][0].isdecimal()]
    assert len(operations) == len(matched)
    if left["id"] == both[1].model:
        assert all(e["leftNodeIds"] == e["rightNodeIds"] for e in mapping["mappingEntries"])
        assert len(mapping["mappingEntries"]) == len(left["nodes"]) + len(modules_of(left))


def mapped_modules(base: Profile, other: Profile) -> list[tuple[str, str]]:
    """The modules that a mapping pairs."""
    entries = json.loads(render("node-mapping", report(base, other)))["mappingEntries"]
    pairs = [(entry["leftNodeIds"][0], entry["rightNodeIds"][0]) for entry in entries]
    ending = "___group___"
    return [(a.removesuffix(ending), b.removesuffix(ending)) for a, b in pairs if a.endswith(ending)]


def test_modules_match_those_with_most_of_their_operations() -> None:
    base, other = profiled(convs(4, 8, 4, wrapped=1), "base"), profiled(convs(4, 8, 8, 4, wrapped=2), "longer")
    assert mapped_modules(base, profiled(convs(4, 8, 4, 9, wrapped=1), "longer")) == [("2", "2")]
    assert mapped_modules(base, profiled(convs(9, 4, 8, 4, wrapped=2), "wider")) == [("2", "4")], "another path"
    assert mapped_modules(base, other) == []


def test_a_stage_matches_the_stage_of_its_name_whatever_was_added_in_it() -> None:
    """In csp_resnext50 the blocks of a stage are closer to the stage of resnext50, which contains nothing else."""
    pairs = dict(mapped_modules(*profiles_of("resnext50 csp_resnext50")))
    assert {path: pairs[path] for path in ("stage1", "stage2/blocks", "head")} == {
        "stage1": "stage1", "stage2/blocks": "stage2/blocks", "head": "head"
    }  # fmt: skip


def test_a_module_with_a_single_operation_is_no_node() -> None:
    net = nn.Sequential(nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1))), nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()))
    assert {path: len(found) for path, found in shown_modules(layer_rows(profiled(net, "net"))).items()} == {"1": 2}


@pytest.mark.parametrize("n", [1, 3])
def test_a_node_mapping_needs_two_models(n: int) -> None:
    with pytest.raises(OutputError, match=rf"links the graphs of two models; this report is about {n}"):
        render("node-mapping", report(*[profiled(convs(4), "net")] * n))


def test_command_writes_the_mapping_and_the_graphs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for ending in ("explorer", "node-mapping"):
        for message in ("wrote", "replaced"):
            done = run("compare", "resnet10", "resnet10", "-o", f"pair.{ending}.json")
            assert (done.code, done.err.splitlines()[-1]) == (0, f"{message} pair.{ending}.json")
    assert "resnet10 (2)" in (tmp_path / "pair.explorer.json").read_text()


def test_equal_computations_of_a_changed_class_are_the_same() -> None:
    """The state of a layer is that of what it computes, not of its class."""
    base = profiled(convs(4, 4), "base")
    renamed = replace(base, layers=tuple(layer._replace(class_name="Other") for layer in base.layers))
    graphs = MatchedGraphs(base, renamed)
    assert graphs.count(0, "same") == graphs.count(1, "same") == len(layer_rows(base))
    assert computation(graphs.rows[0][0]) == computation(graphs.rows[1][0])
