"""Every output that a node of an ONNX graph computes and the graph uses is recorded: traffic, memory and outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest

import cspprof

onnx = pytest.importorskip("onnx", reason="the library onnx is not installed: it is in the extra onnx")
from onnx_models import I64, node, save_graph, value  # noqa: E402

MAP, HALF = 4 * 8 * 8, 4 * 4 * 4
POOL = node("MaxPool", "x", outputs=["y", "i"], kernel_shape=[2, 2], strides=[2, 2])
IMAGE = [value("x", [1, 4, 8, 8])]


def profile(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: Any = None, **more: Any
) -> Any:
    p = cspprof.profile(save_graph(path / "net.onnx", nodes, inputs, outputs, weights or {}, **more))
    p.self_check()
    return p


def output_shapes(p: Any) -> list[tuple[int, ...]]:
    """The shapes of the outputs of the graph, found by their storages."""
    written = {t.storage: t.shape for op in p.ops for t in op.writes}
    return [written[storage] for storage in p.outputs]


def test_indices_of_max_pooling(tmp_path: Path) -> None:
    """The map has 1024 bytes, the pooled map 256 and its indices, of 8 bytes each, 512."""
    p = profile(tmp_path, [POOL], IMAGE, [value("y"), value("i", dtype=I64)])
    assert output_shapes(p) == [(1, 4, 4, 4)] * 2
    assert p.total("traffic_bytes") == p.total("peak_bytes") == 4 * MAP + 4 * HALF + 8 * HALF
    assert p.total("cio_cspnet") == MAP + HALF


def test_indices_that_a_later_node_reads_stay_alive(tmp_path: Path) -> None:
    """While the second operation runs, the pooled map (256 bytes), its result and the indices (512) are alive."""
    unpool = node("MaxUnpool", "r", "i", outputs=["z"], kernel_shape=[2, 2], strides=[2, 2])
    p = profile(tmp_path, [POOL, node("Relu", "y", outputs=["r"]), unpool], IMAGE, [value("z", [1, 4, 8, 8])])
    assert p.live_bytes == [1024 + 256 + 512, 256 + 256 + 512, 256 + 512 + 1024]


def test_states_of_a_recurrent_layer(tmp_path: Path) -> None:
    lstm = node("LSTM", "x", "w", "r", outputs=["y", "h", "c"], hidden_size=4)
    p = profile(
        tmp_path,
        [lstm],
        [value("x", [7, 2, 3])],
        [value("y"), value("h"), value("c")],
        {"w": (1, 16, 3), "r": (1, 16, 4)},
    )
    assert output_shapes(p) == [(7, 1, 2, 4), (1, 2, 4), (1, 2, 4)]
    assert p.total("traffic_bytes") == 4 * (7 * 2 * 3 + 16 * 7 + 7 * 2 * 4 + 2 * 2 * 4)
    assert p.total("peak_bytes") == 4 * (7 * 2 * 3 + 7 * 2 * 4 + 2 * 2 * 4)


@pytest.mark.parametrize("domain", ["", "com.microsoft"])
def test_present_keys_and_values_of_attention(domain: str, tmp_path: Path) -> None:
    """5 queries, 3 past and 5 new keys of 2 heads with 4 channels each."""
    inputs = [value("q", [1, 5, 8]), value("k", [1, 5, 8]), value("v", [1, 5, 8]),
              value("pk", [1, 2, 3, 4]), value("pv", [1, 2, 3, 4])]  # fmt: skip
    if domain:
        made = node("GroupQueryAttention", "q", "k", "v", "pk", "pv", outputs=["y", "nk", "nv"], domain=domain,
                    num_heads=2, kv_num_heads=2)  # fmt: skip
    else:
        made = node(
            "Attention", "q", "k", "v", "", "pk", "pv", outputs=["y", "nk", "nv"], q_num_heads=2, kv_num_heads=2
        )
    p = profile(tmp_path, [made], inputs, [value("y"), value("nk"), value("nv")], opset=23, domains=["com.microsoft"])
    assert output_shapes(p) == [(1, 5, 8), (1, 2, 8, 4), (1, 2, 8, 4)]
    assert p.total("macs") == 2 * 5 * 8 * (4 + 4)
    elements = 3 * 40 + 2 * 24 + 40 + 2 * 64
    assert p.total("traffic_bytes") == p.total("peak_bytes") == 4 * elements


def test_running_statistics_of_batch_norm_in_training(tmp_path: Path) -> None:
    norm = node("BatchNormalization", "x", "s", "b", "m", "v", outputs=["y", "rm", "rv"], training_mode=1)
    p = profile(tmp_path, [norm], IMAGE, [value("y"), value("rm"), value("rv")], dict.fromkeys("sbmv", (4,)))
    assert output_shapes(p) == [(1, 4, 8, 8), (4,), (4,)]
    assert p.total("traffic_bytes") == 4 * (2 * MAP + 6 * 4)


def test_statistics_of_layer_norm(tmp_path: Path) -> None:
    norm = node("LayerNormalization", "x", "s", outputs=["y", "mean", "inv"])
    p = profile(tmp_path, [norm], [value("x", [2, 5, 8])], [value("y"), value("mean"), value("inv")], {"s": (8,)})
    assert output_shapes(p) == [(2, 5, 8), (2, 5, 1), (2, 5, 1)]
    assert p.total("traffic_bytes") == 4 * (2 * 80 + 8 + 2 * 10)


def test_sum_of_a_fused_skip_connection(tmp_path: Path) -> None:
    """The fourth output of SkipLayerNormalization is the sum before the norm."""
    norm = node("SkipLayerNormalization", "x", "z", "g", outputs=["y", "", "", "sum"], domain="com.microsoft")
    inputs = [value("x", [1, 5, 8]), value("z", [1, 5, 8])]
    p = profile(tmp_path, [norm], inputs, [value("y"), value("sum")], {"g": (8,)}, domains=["com.microsoft"])
    assert output_shapes(p) == [(1, 5, 8), (1, 5, 8)]
    assert p.total("traffic_bytes") == 4 * (4 * 40 + 8)


def test_mask_of_a_fused_embedding(tmp_path: Path) -> None:
    """The second output is the number of valid words of each sequence."""
    made = node(
        "EmbedLayerNormalization", "ids", "", "e", "p", "", "g", "b", outputs=["y", "n"], domain="com.microsoft"
    )
    weights = {"e": (1000, 8), "p": (512, 8), "g": (8,), "b": (8,)}
    outputs = [value("y"), value("n", dtype=onnx.TensorProto.INT32)]
    p = profile(
        tmp_path, [made], [value("ids", [2, 5], onnx.TensorProto.INT32)], outputs, weights, domains=["com.microsoft"]
    )
    assert [(t.shape, t.dtype) for t in p.ops[0].writes] == [((2, 5, 8), "float32"), ((2,), "int32")]
    looked_up, norm, result = 2 * 4 * 80, 2 * 4 * 8, 4 * 80  # each position reads a row of both tables
    assert p.total("traffic_bytes") == 4 * 10 + looked_up + norm + result + 4 * 2


def test_all_parts_of_a_split_and_both_results_of_top_k(tmp_path: Path) -> None:
    nodes = [node("Split", "x", outputs=["a", "b"], axis=1, num_outputs=2), node("TopK", "b", "k", outputs=["v", "i"])]
    p = profile(
        tmp_path, nodes, [value("x", [2, 6])], [value("a"), value("v"), value("i", dtype=I64)], {"k": numpy.array([2])}
    )
    assert output_shapes(p) == [(2, 3), (2, 2), (2, 2)]
    assert p.total("traffic_bytes") == 4 * (12 + 12) + 4 * 6 + (4 + 8) * 4
    assert p.live_bytes == [4 * 24, 4 * 12 + 12 * 4]


def test_input_and_view_of_it_as_outputs(tmp_path: Path) -> None:
    nodes = [node("Flatten", "x", outputs=["f"]), node("Relu", "f")]
    p = profile(tmp_path, nodes, IMAGE, [value("y"), value("f"), value("x")])
    assert len(p.outputs) == 3
    assert p.outputs[1] == p.outputs[2] != p.outputs[0]


def test_dropout_with_a_mask_writes_both(tmp_path: Path) -> None:
    p = profile(tmp_path, [node("Dropout", "x", outputs=["y", "m"])], IMAGE, [value("y"), value("m", dtype=9)])
    assert output_shapes(p) == [(1, 4, 8, 8)] * 2
    assert p.total("traffic_bytes") == MAP * (4 + 4 + 1)


def test_shapes_of_all_outputs_match_onnx_runtime(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    nodes = [
        POOL, node("TopK", "y", "k", outputs=["top", "at"]),
        node("Split", "top", outputs=["s1", "s2"], axis=1, num_outputs=2),
        node("Flatten", "s1", outputs=["f"]), node("Unsqueeze", "f", "axis", outputs=["u"]),
        node("GRU", "u", "w", "r", outputs=["", "h"], hidden_size=3),
    ]  # fmt: skip
    names = ["y", "i", "top", "at", "s2", "h"]
    outputs = [value(name, dtype=I64 if name in ("i", "at") else 1) for name in names]
    weights = {"k": numpy.array([3]), "axis": numpy.array([0]), "w": (1, 9, 24), "r": (1, 9, 3)}
    path = save_graph(tmp_path / "net.onnx", nodes, IMAGE, outputs, weights)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    real = [array.shape for array in session.run(names, {"x": numpy.ones((1, 4, 8, 8), numpy.float32)})]
    assert output_shapes(cspprof.profile(path)) == real
