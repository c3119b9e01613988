"""Every output that a node of an ONNX graph computes and the graph uses is recorded: traffic, memory and outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest

import cspprof

onnx = pytest.importorskip("onnx", reason="the library onnx is not installed: it is in the extra onnx")
from onnx_models import I32, I64, node, save_graph, value  # noqa: E402

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


KEYS = {"seqlens": ("s", numpy.array([5, 2], numpy.int32)), "total": ("t", numpy.array(6, numpy.int32))}


@pytest.mark.parametrize(("known", "keys"), [(("seqlens",), 6 + 3), (("total",), 2 * 6), ((), None)])
def test_keys_of_attention_in_a_buffer_that_past_and_present_share(
    known: tuple[str, ...], keys: int | None, tmp_path: Path
) -> None:
    """One new key for each of two sequences, in buffers for 16 keys of 2 heads with 4 channels each."""
    inputs = [value("q", [2, 1, 16]), value("k", [2, 1, 8]), value("v", [2, 1, 8]),
              value("pk", [2, 2, 16, 4]), value("pv", [2, 2, 16, 4])]  # fmt: skip
    inputs += [value(name, elements.shape, I32) for key, (name, elements) in KEYS.items() if key not in known]
    made = node("GroupQueryAttention", "q", "k", "v", "pk", "pv", "s", "t", outputs=["y", "nk", "nv"],
                domain="com.microsoft", num_heads=4, kv_num_heads=2)  # fmt: skip
    outputs = [value("y", [2, 1, 16]), value("nk", [2, 2, 16, 4]), value("nv", [2, 2, 16, 4])]
    weights = {name: elements for key, (name, elements) in KEYS.items() if key in known}
    p = profile(tmp_path, [made], inputs, outputs, weights, domains=["com.microsoft"])
    assert output_shapes(p) == [(2, 1, 16), (2, 2, 16, 4), (2, 2, 16, 4)]
    if keys is None:
        assert p.uncounted == {"com.microsoft.GroupQueryAttention": 1}
    else:
        assert (p.total("macs"), p.uncounted) == (4 * keys * (4 + 4), {})


def test_keys_of_attention_with_a_projection_in_a_shared_buffer(tmp_path: Path) -> None:
    made = node("Attention", "x", "w", "", "", "p", "", "n", outputs=["y", "np"], domain="com.microsoft", num_heads=2,
                past_present_share_buffer=1)  # fmt: skip
    inputs = [value("x", [1, 1, 8]), value("p", [2, 1, 2, 16, 4])]
    outputs = [value("y", [1, 1, 8]), value("np", [2, 1, 2, 16, 4])]
    weights = {"w": (8, 24), "n": numpy.array([5], numpy.int32)}
    p = profile(tmp_path, [made], inputs, outputs, weights, domains=["com.microsoft"])
    assert p.total("macs") == 8 * 24 + 2 * 6 * (4 + 4)
    unknown = profile(
        tmp_path, [made], [*inputs, value("n", [1], I32)], outputs, {"w": (8, 24)}, domains=["com.microsoft"]
    )
    assert unknown.uncounted == {"com.microsoft.Attention": 1}


@pytest.mark.parametrize(
    ("made", "updates", "reads"),
    [
        (node("ScatterND", "x", "i", "u"), [3, 8], 0),
        (node("ScatterND", "x", "i", "u", reduction="add"), [3, 8], 1),
        (node("ScatterElements", "x", "i", "u", axis=0), [3, 1], 0),
    ],
)
def test_a_scatter_moves_only_the_elements_that_it_writes(
    made: Any, updates: list[int], reads: int, tmp_path: Path
) -> None:
    """As `scatter_` and `index_put_` in torch: rows of a table of 1,000, and their updates."""
    inputs = [value("x", [1000, 8]), value("u", updates)]
    p = profile(tmp_path, [made], inputs, [value("y")], {"i": numpy.zeros((3, 1), numpy.int64)}, opset=18)
    elements = updates[0] * updates[1]
    assert p.total("traffic_bytes") == 4 * elements * (2 + reads)


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
