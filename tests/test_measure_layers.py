"""Profiles per layer: which calls an engine executes in which operation, traffic as executed, and why models differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from jsonschema import validate

from cspprof.measure.engine_process import EngineProcess
from cspprof.measure.executed import boundary_bytes, executed_traffic
from cspprof.measure.explain import (
    COMPUTE,
    CONCATENATION,
    LAYOUT,
    OVERHEAD,
    PADDING,
    PARTS,
    REST,
    SMALL,
    TRAFFIC,
    Explanation,
    Work,
    explained_difference,
    fitted_rates,
    non_negative_least_squares,
)
from cspprof.measure.graph_nodes import GraphNode, path_of_name
from cspprof.measure.layer_report import verdict, with_layers
from cspprof.measure.layers import (
    ExecutedNode,
    LayerProfile,
    call_paths,
    fused_into,
    layer_profile,
    node_label,
    not_executed,
)
from cspprof.measure.machine import Machine, cpus_for
from cspprof.measure.memory import ActivationPeaks, activation_peaks, allocator_peak
from cspprof.measure.node_matching import assign_nodes
from cspprof.measure.profilers import NO_PROFILER, PROFILERS, RawNode
from cspprof.measure.profilers.torch_profiler import Span, allocator_peaks, nodes_of_spans
from cspprof.measure.report import measurement_report
from cspprof.measure.result import EngineRun, MeasuredModel, Measurement, Timing
from cspprof.measure.worker_process import WorkerProcess
from cspprof.profiles import profile_spec
from cspprof.render import render
from cspprof.sources import Request

SCHEMA = json.loads((resources.files("cspprof") / "schemas" / "measured-1.schema.json").read_text())

NETS = """\
import torch
from torch import nn

class Net(nn.Module):
    example_input_shape = (1, 3, 32, 32)

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.a = nn.Conv2d(16, 10, 1)
        self.b = nn.Conv2d(16, 16, 3, padding=1)
        self.last = nn.Conv2d(26, 26, 1)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(26, 5)

    def forward(self, x):
        x = self.stem(x)
        y = self.b(x).relu() + x
        z = torch.cat([self.a(x), y], 1)
        z = self.pool(self.last(z)).sigmoid()
        return self.fc(z.mean((2, 3)))
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with `nets.py`."""
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def record(nets: Path) -> Any:
    return profile_spec("nets.py:Net", Request())


# -- nodes of the graph in operations of the engine --------------------------------------------------


def graph(*nodes: str) -> list[GraphNode]:
    """`"conv Conv x w > y"`: name, operator, inputs and outputs."""
    found = []
    for text in nodes:
        left, _, right = text.partition(" > ")
        name, operator, *inputs = left.split()
        found.append(GraphNode(name, operator, inputs, right.split()))
    return found


RESIDUAL = graph(
    "c0 Conv x w0 > t0", "r0 Relu t0 > t1", "c1 Conv t1 w1 > t2", "add Add t2 t1 > t3", "r1 Relu t3 > t4",
    "c2 Conv t4 w2 > t5",
)  # fmt: skip


def named(*anchors: str) -> list[RawNode]:
    return [RawNode(a, "Conv", 1.0, a.split("+")) for a in anchors]


def test_an_operation_named_after_its_last_node_computes_the_convolution_before() -> None:
    assert assign_nodes(RESIDUAL, ["t5"], named("t1", "t4", "t5")) == [[0, 1], [2, 3, 4], [5]]


def test_a_sum_is_computed_by_the_last_convolution_that_runs_and_not_by_the_next_one() -> None:
    assert assign_nodes(RESIDUAL, ["t5"], named("t1", "c1", "c2")) == [[0, 1], [2, 3, 4], [5]]


def test_an_activation_between_a_convolution_and_a_sum_belongs_to_the_name_that_comes_first() -> None:
    nodes = graph("c Conv x w > t0", "r Relu t0 > t1", "add Add t1 x > t2")
    assert assign_nodes(nodes, ["t2"], named("c", "add"), names_first=True) == [[0, 1], [2]]
    assert assign_nodes(nodes, ["t2"], named("c", "add")) == [[0], [1, 2]]


def test_an_operation_that_lists_its_nodes_has_them() -> None:
    assert assign_nodes(RESIDUAL, ["t5"], named("c0+r0", "c1+add+r1", "c2")) == [[0, 1], [2, 3, 4], [5]]


def test_the_parts_of_a_function_belong_to_the_operation_of_its_last_part() -> None:
    gelu = graph(
        "fc MatMul x w > t0", "div Div t0 k > t1", "erf Erf t1 > t2", "one Add t2 k1 > t3", "mul Mul t0 t3 > t4",
        "half Mul t4 k2 > t5",
    )  # fmt: skip
    assert assign_nodes(gelu, ["t5"], named("t0", "t5")) == [[0], [1, 2, 3, 4, 5]]


def test_a_concatenation_or_a_pooling_without_an_operation_was_removed() -> None:
    nodes = graph(
        "a Conv x w > t0", "b Conv x v > t1", "cat Concat t0 t1 > t2", "p MaxPool t2 > t3", "c Conv t3 u > t4"
    )
    assert assign_nodes(nodes, ["t4"], named("t0", "t1", "t3", "t4")) == [[0], [1], [3], [4]]


def test_changes_of_the_layout_compute_no_node() -> None:
    layout = RawNode("ReorderOutput", "ReorderOutput", 1.0, ["t5"], is_layout=True)
    assert assign_nodes(RESIDUAL, ["t5"], [*named("t1", "t4", "c2"), layout]) == [[0, 1], [2, 3, 4], [5], []]


def test_an_output_of_the_graph_leaves_its_operation() -> None:
    assert assign_nodes(RESIDUAL, ["t5", "t2"], named("t1", "t4", "t5"))[1] == [3, 4]


def test_names_of_the_torchscript_exporter_name_modules() -> None:
    assert path_of_name("/layer1/layer1.0/conv1/Conv") == "layer1.0.conv1"
    assert path_of_name("/Relu") == ""
    assert path_of_name("node_relu") == ""


# -- a hand-made profile -----------------------------------------------------------------------------


def exported(record: Any) -> dict[str, Any]:
    """The graph that torch's exporter makes from Net: the batch norm is folded into the convolution before it."""
    nodes = [
        GraphNode("n0", "Conv", ["x", "stem.0.weight", "stem.0.weight_bias"], ["t0"], "stem.1", "bn", "batch_norm"),
        GraphNode("n1", "Relu", ["t0"], ["t1"], "stem.2", "relu", "relu"),
        GraphNode("n2", "Conv", ["t1", "b.weight", "b.bias"], ["t2"], "b", "conv2d_1", "conv2d"),
        GraphNode("n3", "Relu", ["t2"], ["t3"], "", "relu_1", "relu"),
        GraphNode("n4", "Add", ["t3", "t1"], ["t4"], "", "add", "add"),
        GraphNode("n5", "Conv", ["t1", "a.weight", "a.bias"], ["t5"], "a", "conv2d_2", "conv2d"),
        GraphNode("n6", "Concat", ["t5", "t4"], ["t6"], "", "cat", "cat"),
        GraphNode("n7", "Conv", ["t6", "last.weight"], ["t7"], "last", "conv2d_3", "conv2d"),
        GraphNode("n8", "MaxPool", ["t7"], ["t8"], "pool", "max_pool2d", "max_pool2d"),
        GraphNode("n9", "Sigmoid", ["t8"], ["t9"], "", "sigmoid", "sigmoid"),
        GraphNode("n10", "ReduceMean", ["t9", "axes"], ["t10"], "", "mean", "mean"),
        GraphNode("n11", "Gemm", ["t10", "fc.weight", "fc.bias"], ["t11"], "fc", "linear", "linear"),
    ]
    return {"nodes": nodes, "outputs": ["t11"]}


def executed(record: Any) -> LayerProfile:
    """What ONNX Runtime ran of it, with the layout changes and the padded channels of `a` (10 channels as 16)."""
    size = 32 * 32 * 4
    nodes = [
        RawNode("t1_nchwc", "Conv", 10e-6, ["t1"], "", 3 * size, 1792, 16 * size, 27 * 16 * 1024),
        RawNode("t5_nchwc", "Conv", 8e-6, ["t5"], "", 16 * size, 1088, 16 * size, 16 * 16 * 1024),
        RawNode("reorder", "ReorderOutput", 3e-6, ["t5"], "", 16 * size, 0, 10 * size, None, True),
        RawNode("t3_nchwc", "Conv", 20e-6, ["t3"], "", 16 * size, 9280, 16 * size, 144 * 16 * 1024),
        RawNode("n4", "Add", 4e-6, ["t4"], "", 32 * size, 0, 16 * size),
        RawNode("n6", "Concat", 5e-6, ["t6"], "", 26 * size, 0, 26 * size),
        RawNode("n7", "Conv", 12e-6, ["t7"], "", 26 * size, 2808, 26 * size, 26 * 26 * 1024),
        RawNode("n8", "MaxPool", 6e-6, ["t8"], "", 26 * size, 0, 26 * size // 4),
        RawNode("n9", "Sigmoid", 2e-6, ["t9"], "", 26 * size // 4, 0, 26 * size // 4),
        RawNode("n10", "ReduceMean", 2e-6, ["t10"], "", 26 * size // 4, 16, 104),
        RawNode("n11", "Gemm", 2e-6, ["t11"], "", 104, 20, 20),
    ]
    raw = {"level": "ORT_ENABLE_ALL", "runs": 10, "seconds": 80e-6, "nodes": [n._asdict() for n in nodes]}
    return layer_profile(record, "onnxruntime", 0, {**raw, "graph": exported(record)})


def test_each_operation_of_the_engine_has_its_layers(record: Any) -> None:
    profile = executed(record)
    assert [node_label(record, node) for node in profile.nodes] == [
        "stem.0 + stem.2", "a", "layout of a", "b + relu", "add", "cat", "last", "pool", "sigmoid", "mean", "fc",
    ]  # fmt: skip
    paths = call_paths(record)
    assert {paths[a]: paths[b] for a, b in fused_into(record, profile).items()} == {"stem.2": "stem.0", "relu": "b"}
    assert [paths[call] for call in not_executed(record, profile)] == ["stem.1"]
    assert profile.between_seconds == pytest.approx(6e-6)


def test_traffic_as_executed_stands_beside_theory_layer_by_layer(record: Any) -> None:
    rows = {row.name: row for row in executed_traffic(record, executed(record))}
    stem, a, layout, add = rows["stem.0 + stem.2"], rows["a"], rows["layout of a"], rows["add"]
    assert (stem.cio, stem.executed_cio) == (19 * 1024, 19 * 1024)
    assert (stem.nbytes, stem.executed_bytes, stem.saved_bytes) == (51 * 4096, 19 * 4096, 32 * 4096)
    assert (a.cio, a.executed_cio, a.saved_bytes) == (26 * 1024, 32 * 1024, -6 * 4096)
    assert (layout.cio, layout.executed_cio, layout.saved_bytes, layout.is_layout) == (0, 0, -26 * 4096, True)
    assert (add.cio, add.executed_cio, add.nbytes, add.executed_bytes) == (0, 0, 48 * 4096, 48 * 4096)
    assert rows["pool"].executed_cio == rows["pool"].cio == 26 * 1024 * 5 // 4
    assert sum(row.cio for row in rows.values()) == 172058


def test_a_fused_operation_moves_what_enters_and_leaves_it(record: Any) -> None:
    calls = {path: call for call, path in call_paths(record).items()}
    conv, relu, add = calls["b"], calls["relu"], calls["add"]
    weights = (16 * 16 * 9 + 16) * 4
    assert boundary_bytes(record, [conv]) == 32 * 4096 + weights
    assert boundary_bytes(record, [conv, relu]) == 32 * 4096 + weights
    assert boundary_bytes(record, [conv, relu, add]) == 32 * 4096 + weights  # the shortcut is the input itself
    assert boundary_bytes(record, [add]) == 48 * 4096
    assert boundary_bytes(record, []) == 0


# -- the parts of a difference -----------------------------------------------------------------------


def test_rates_that_generated_the_times_are_found() -> None:
    works = [Work("", 2 + 3 * m + 5 * b, macs=m, nbytes=b) for m, b in ((1, 1), (4, 2), (2, 7), (0, 3), (9, 9), (5, 0))]
    rates = fitted_rates([*works, Work("cat", 1000.0, part=CONCATENATION)])
    assert (rates.small, rates.compute, rates.traffic) == pytest.approx((2, 3, 5))
    assert rates.determination == pytest.approx(1)


def test_the_fixed_time_of_an_operation_is_at_most_that_of_the_fastest_one() -> None:
    works = [Work("", t, macs=m) for t, m in ((1.0, 0), (10.0, 1), (11.0, 2), (12.0, 3), (13.0, 4))]
    rates = fitted_rates(works)
    assert rates.small == 1.0
    assert rates.compute == pytest.approx((9 + 20 + 33 + 48) / 30)


def test_no_rate_is_negative() -> None:
    assert non_negative_least_squares([(1.0, 0.0), (1.0, 1.0)], [5.0, 3.0]) == pytest.approx([4.0, 0.0])
    assert non_negative_least_squares([(1.0, 1.0), (1.0, 2.0)], [-1.0, -2.0]) == [0.0, 0.0]
    assert non_negative_least_squares([(1.0, 2.0), (2.0, 4.0)], [2.0, 4.0]) == pytest.approx([2.0, 0.0])
    assert non_negative_least_squares([], []) == [0.0, 0.0, 0.0]


def timed(profile: LayerProfile, rates: tuple[float, float, float], record: Any, model: int) -> LayerProfile:
    """The profile with times that follow the rates exactly, 7 µs for concatenations and 2 µs for layout changes."""
    from cspprof.measure.explain import work_of

    nodes = []
    for node, work in zip(profile.nodes, work_of(record, profile, profile.seconds), strict=True):
        seconds = {CONCATENATION: 7e-6, LAYOUT: 2e-6}.get(
            work.part,
            rates[0] + rates[1] * (work.macs + work.padding_macs) + rates[2] * (work.nbytes + work.padding_bytes),
        )
        nodes.append(ExecutedNode(**{**vars(node), "seconds": seconds}))
    total = sum(n.seconds for n in nodes)
    return LayerProfile(profile.engine, model, profile.level, 10, total + 11e-6, nodes)


def two_models(record: Any) -> tuple[LayerProfile, LayerProfile]:
    """All operations, and all without the concatenation, the layout change, the padded `a` and `b`."""
    full = timed(executed(record), (1e-6, 1e-11, 1e-10), record, 1)
    left = [n for n in full.nodes if node_label(record, n) not in ("cat", "layout of a", "a", "b + relu")]
    small = LayerProfile(full.engine, 0, full.level, 10, sum(n.seconds for n in left) + 9e-6, left)
    return small, full


def parts_of(explanation: Explanation) -> dict[str, float]:
    return {part.name: part.seconds for part in explanation.parts}


def test_the_parts_of_a_difference_are_exact_for_times_that_follow_the_model(record: Any) -> None:
    small, full = two_models(record)
    found = explained_difference((record, record), (small, full), (small.seconds, full.seconds))
    weights = {"a": (160 + 10) * 4, "b": (2304 + 16) * 4}
    parts = parts_of(found)
    assert parts[CONCATENATION] == pytest.approx(7e-6)
    assert parts[LAYOUT] == pytest.approx(2e-6)
    assert parts[OVERHEAD] == pytest.approx(2e-6)
    assert parts[SMALL] == pytest.approx(2e-6)
    assert parts[COMPUTE] == pytest.approx((160 + 2304) * 1024 * 1e-11)
    assert parts[TRAFFIC] == pytest.approx((58 * 4096 + weights["a"] + weights["b"]) * 1e-10)
    assert parts[PADDING] == pytest.approx(96 * 1024 * 1e-11 + 6 * 4096 * 1e-10)
    assert parts[REST] == pytest.approx(0, abs=1e-12)
    assert found.knows_padding
    assert {p.name: [layer for layer, _ in p.layers] for p in found.parts}[PADDING] == ["a"]


def test_the_parts_always_add_up_to_the_measured_difference(record: Any) -> None:
    small, full = two_models(record)
    full.nodes[0].seconds *= 3
    for seconds in ((1.0, 2.0), (2.0, 1.0), (0.5, 0.5)):
        found = explained_difference((record, record), (small, full), seconds)
        assert tuple(part.name for part in found.parts) == PARTS
        assert sum(parts_of(found).values()) == pytest.approx(seconds[1] - seconds[0], abs=1e-12)


def test_time_that_the_rates_do_not_give_is_not_explained(record: Any) -> None:
    small, full = two_models(record)
    slow = next(n for n in full.nodes if node_label(record, n) == "b + relu")
    slow.seconds += 100e-6
    full.seconds += 100e-6
    found = explained_difference((record, record), (small, full), (small.seconds, full.seconds))
    rest = next(part for part in found.parts if part.name == REST)
    assert rest.seconds > 0
    assert rest.layers[0][0] == "b + relu"


def explained_measurement(record: Any) -> Measurement:
    small, full = two_models(record)
    result = Measurement(Machine("some CPU", 4, 8 << 30, "Linux", "3.11"), "2026-01-02T03:04:05+00:00", 2, 2, 0.1)
    result.engines = [EngineRun("onnxruntime", {"onnxruntime": "1.2"}, {"threads": 2, "pinned_to": [0, 1]})]
    for i, profile in enumerate((small, full)):
        result.models.append(MeasuredModel(f"net{i}", f"net{i}", [], record))
        result.timings.append(Timing("onnxruntime", i, rounds=[[profile.seconds] * 3] * 2, error=1e-6))
    result.timings.append(Timing("onnxruntime", 0, again=True, rounds=[[small.seconds] * 3] * 2))
    result.layer_profiles = [small, full]
    result.finished_rounds = 2
    return result


def test_a_verdict_names_the_difference_and_its_parts_the_largest_first(record: Any) -> None:
    result = explained_measurement(record)
    text = verdict(result, result.explanations()[0])
    assert text.startswith("onnxruntime: ")
    assert ", which is no difference" not in text
    values = [
        abs(float(part.split()[-1].replace("−", "-"))) for part in text.partition(": ")[2].split(": ")[1].split(", ")
    ]
    assert values == sorted(values, reverse=True)
    result.timings[-1].rounds = [[t * 5 for t in r] for r in result.timings[-1].rounds]
    assert ", which is no difference that this machine can show" in verdict(result, result.explanations()[0])


@pytest.mark.parametrize("format_name", ["rich", "json", "csv", "markdown", "latex", "html"])
def test_every_format_shows_layers_and_explanation(record: Any, format_name: str) -> None:
    result = explained_measurement(record)
    shown = render(format_name, with_layers(measurement_report(result), result, explain=True)).decode()
    assert "concatenation" in shown
    shown = render(format_name, with_layers(measurement_report(result), result, explain=False)).decode()
    assert "layout of a" in shown or format_name == "json"


def test_a_saved_measurement_keeps_its_layers(record: Any, nets: Path, run: Callable[..., Any]) -> None:
    result = explained_measurement(record)
    result.save(nets / "x.measured.json")
    document = json.loads((nets / "x.measured.json").read_text())
    validate(document, SCHEMA)
    assert Measurement.load(nets / "x.measured.json").layer_profiles == result.layer_profiles
    assert "concatenation" in run("measure", "x.measured.json", "--explain").out
    csv = run("measure", "x.measured.json", "--explain", "--format", "csv").out.splitlines()
    assert csv[0] == "engine,base,model,part,ms,share,layers"
    assert len(csv) == 1 + len(PARTS)
    layers = run("measure", "x.measured.json", "--layers", "--format", "csv").out.splitlines()
    assert len(layers) == 1 + 7 + 11
    result.layer_profiles = []
    result.save(nets / "x.measured.json")
    failed = run("measure", "x.measured.json", "--layers")
    assert failed.code == 2
    assert "cspprof measure net0 net1 --layers" in failed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--check", "--layers"), "--check measures no time"), (("--explain",), "compares two models or more")],
)
def test_options_that_cannot_be_met_are_refused(
    nets: Path, run: Callable[..., Any], arguments: tuple[str, ...], message: str
) -> None:
    failed = run("measure", "nets.py:Net", *arguments)
    assert (failed.code, failed.out) == (2, "")
    assert message in failed.err


def test_every_engine_has_a_profile_or_a_reason_why_not() -> None:
    from cspprof.measure.engines import ENGINES

    assert sorted([*PROFILERS, *NO_PROFILER]) == sorted(ENGINES)


# -- times and memory of torch -----------------------------------------------------------------------


def test_an_operation_of_torch_is_the_nth_call_of_a_function_in_a_module() -> None:
    first = [Span("a", "relu", 0, 1), Span("a", "relu", 2, 5), Span("", "cat", 6, 7)]
    second = [Span("a", "relu", 0, 3), Span("a", "relu", 4, 5), Span("", "cat", 6, 9)]
    nodes = nodes_of_spans([first, second])
    assert [(n.name, n.path, n.seconds) for n in nodes] == [("a.relu", "a", 2), ("a.relu", "a", 2), ("cat", "", 2)]
    with pytest.raises(RuntimeError, match="other operations in every forward pass"):
        nodes_of_spans([first, second[:2]])


def test_workspace_counts_in_the_peak_of_the_allocator_but_not_at_the_ends_of_operations() -> None:
    allocations = [(1.0, 100), (1.5, 40), (1.9, -100), (3.0, 60), (4.5, -40)]
    assert allocator_peaks(allocations, [2.0, 4.0]) == (140, 100)
    assert allocator_peaks([], [1.0]) == (0, 0)
    assert allocator_peaks([(1.0, 8)], [2.0]) == (8, 8)


def test_names_of_optimized_nodes_of_onnx_runtime_name_nodes_and_tensors_of_the_graph() -> None:
    from cspprof.measure.profilers.onnxruntime_profiler import arena_peak, nodes_of_events

    def event(name: str, microseconds: int, operator: str = "Conv", **more: Any) -> dict[str, Any]:
        args = {"op_name": operator, "node_index": "1", "activation_size": "8", "output_size": "4", **more}
        return {"cat": "Node", "name": f"{name}_kernel_time", "dur": microseconds, "args": args}

    events = [event("t3_bn_nchwc", n) for n in (900, 10, 30, 20)]
    events += [event("fc/MatMulAddFusion", n, "Gemm") for n in (900, 1, 2, 3)]
    conv, gemm = nodes_of_events(events, {"t3_bn_nchwc": ["reorder"]}, [-3, -1])
    assert (conv.seconds, conv.anchors, conv.activation_bytes) == (pytest.approx(15e-6), ["reorder", "t3"], 8)
    assert (gemm.seconds, gemm.anchors, gemm.macs) == (pytest.approx(2e-6), ["fc"], None)
    shapes = {
        "input_type_shape": [{"float": [1, 8, 4, 4]}, {"float": [16, 4, 3, 3]}],
        "output_type_shape": [{"float": [1, 16, 4, 4]}],
    }
    assert nodes_of_events([event("c", 1, **shapes)], {}, [-1])[0].macs == 16 * 16 * 4 * 9
    memory = [{"mem_in_use_peak": str(p), "mem_bytes_in_use": "140", "mem_in_use_delta": "40"} for p in (150, 300, 900)]
    first, second, later = (event("c", 1, **m) for m in memory)
    assert arena_peak([first, second, {"cat": "Session", "name": "model_run"}, later]) == 200
    assert arena_peak([event("c", 1)]) is None


def test_names_and_times_of_opencv_and_openvino_become_operations() -> None:
    from cspprof.measure.profilers.opencv_profiler import nodes_of_times
    from cspprof.measure.profilers.openvino_profiler import nodes_of_averages

    names, kinds = ["trlayout.0", "onnx_node!c", "r"], ["TransformLayout", "Convolution", "ReLU"]
    nodes = nodes_of_times(names, kinds, [[1, 20, 0], [3, 40, 0]], 10.0, {"c", "r"})
    assert [(n.name, n.seconds, list(n.anchors), n.is_layout) for n in nodes] == [
        ("trlayout.0", 0.2, [], True), ("c", 3.0, ["c"], False),
    ]  # fmt: skip
    with pytest.raises(RuntimeError, match="2 times for 3 layers"):
        nodes_of_times(names, kinds, [[1, 2]], 10.0, set())
    before = [("c", "Convolution", 100.0, True), ("r", "Relu", 0.0, False)]
    after = [("c", "Convolution", 40.0, True), ("r", "Relu", 0.0, False), ("x", "Reorder", 5.0, True)]
    found = nodes_of_averages(before, 3, after, 13, {"c": ["c", "r"]})
    assert [(n.name, n.seconds, list(n.anchors), n.is_layout) for n in found] == [
        ("c", 22.0, ["c", "r"], False), ("x", 6.5, [], True),
    ]  # fmt: skip


# -- memory ------------------------------------------------------------------------------------------


def test_an_argument_of_a_module_lives_until_the_module_returns(nets: Path) -> None:
    (nets / "held.py").write_text("""\
from torch import nn

class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 2, 1, bias=False), nn.Conv2d(2, 8, 1, bias=False)

    def forward(self, x):
        return self.b(self.a(x))

class Net(nn.Module):
    example_input_shape = (1, 3, 4, 4)

    def __init__(self):
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 4, 1, bias=False), Body()

    def forward(self, x):
        y = self.stem(x)
        return self.body(y)
""")
    channel = 4 * 4 * 4
    peaks = activation_peaks(profile_spec("held.py:Net", Request()))
    assert peaks == ActivationPeaks(10 * channel, 14 * channel, 14 * channel)


# -- real engines ------------------------------------------------------------------------------------


def profiles_of(spec: str, engines: Sequence[str], folder: Path) -> list[LayerProfile]:
    """The profiles of a model on engines, each in a process of its own."""
    record = profile_spec(spec, Request())
    with WorkerProcess() as process:
        process.request("prepare", spec=spec, inputs=[], folder=str(folder), needs_graph=engines != ["torch"])
    found = []
    for engine in engines:
        with EngineProcess(EngineRun(engine), 1, cpus_for(1)) as process:
            process.start()
            found += [layer_profile(record, engine, 0, raw) for raw in process.profile_layers(folder, runs=2)]
    return found


@pytest.mark.slow
def test_every_engine_executes_every_layer_of_a_network(record: Any, nets: Path) -> None:
    engines = ["torch", "onnxruntime", "opencv", "opencv-classic", "openvino"]
    profiles = profiles_of("nets.py:Net", engines, nets)
    paths = call_paths(record)
    for profile in profiles:
        calls = [call for node in profile.nodes for call in node.calls]
        assert len(calls) == len(set(calls))
        left_out = {paths[call] for call in not_executed(record, profile)}
        free = {"cat"} if profile.engine == "opencv-classic" else set()  # its inputs are parts of its output
        assert left_out == (set() if profile.engine == "torch" else {"stem.1"} | free), profile.label
        assert sum(n.seconds for n in profile.nodes) <= profile.seconds * 1.05
        fused = {paths[a]: paths[b] for a, b in fused_into(record, profile).items()}
        if profile.engine not in ("torch",) and profile.level != "ORT_ENABLE_BASIC":
            assert fused["stem.2"] == "stem.0", profile.label
    basic = next(p for p in profiles if p.level == "ORT_ENABLE_BASIC")
    rows = executed_traffic(record, basic)
    assert sum(row.executed_cio for row in rows) == sum(row.cio for row in rows) == record.total("cio_cspnet")
    assert all(row.saved_bytes == 0 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["resnet18", "peleenet", "hardnet68", "mobilenet_v2", "yolov3_tiny"])
def test_the_peak_of_eager_torch_follows_from_the_arguments_of_modules(spec: str, tmp_path: Path) -> None:
    (profile,) = profiles_of(spec, ["torch"], tmp_path)
    peaks = activation_peaks(profile_spec(spec, Request()))
    assert allocator_peak(profile) == pytest.approx(peaks.arguments, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["csp_resnext50", "csp_darknet53", "csp_peleenet_efm"])
def test_local_variables_explain_the_rest_of_the_peak_of_eager_torch(spec: str, tmp_path: Path) -> None:
    (profile,) = profiles_of(spec, ["torch"], tmp_path)
    peaks = activation_peaks(profile_spec(spec, Request()))
    assert peaks.arguments < (allocator_peak(profile) or 0) <= peaks.local_variables


@pytest.mark.slow
def test_maxout_saves_75_percent_of_the_memory_of_the_pyramid(tmp_path: Path) -> None:
    allocated = {}
    for maxout in (1, 4):
        spec, folder = f"csp_peleenet_efm,maxout={maxout}", tmp_path / str(maxout)
        folder.mkdir()
        (profile,) = profiles_of(spec, ["torch"], folder)
        joined = [n.allocated_bytes or 0 for n in profile.nodes if n.name == "neck.cat"]
        assert len(joined) == 3
        allocated[maxout] = sum(joined)
    assert allocated[4] / allocated[1] == 0.25
