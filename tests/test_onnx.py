"""ONNX graphs: the arithmetic of each operator, totals equal to the exported model's, and invalid files."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
from conftest import Result

import cspprof
from cspprof.analysis.module_summary import module_summaries
from cspprof.analysis.stages import stage_labels
from cspprof.core.errors import SourceError
from cspprof.core.record import Kind
from cspprof.profiles import Profile

onnx = pytest.importorskip("onnx", reason="the library onnx is not installed: it is in the extra onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from cspprof.sources.onnx_graph.operators import ONNX_RULES, WITHOUT_RULE  # noqa: E402

F = TensorProto.FLOAT
Shape = Sequence[int | str]


def save(
    path: Path, nodes: list[Any], inputs: dict[str, Shape], weights: dict[str, Any], output: str = "y", opset: int = 21,
    declared: Shape | None = None, domains: Sequence[str] = (),
) -> Path:  # fmt: skip
    """A model of these nodes. A weight is given as a shape or an array."""
    made = [
        numpy_helper.from_array(w if isinstance(w, numpy.ndarray) else numpy.ones(w, numpy.float32), name)
        for name, w in weights.items()
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(n, F, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(output, F, declared)], made,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.fixture
def graph(tmp_path: Path) -> Callable[..., Path]:
    return lambda *args, **kwargs: save(tmp_path / "net.onnx", *args, **kwargs)


def node(op: str, *inputs: str, outputs: Sequence[str] = ("y",), **attrs: Any) -> Any:
    return helper.make_node(op, list(inputs), list(outputs), **attrs)


def contrib(op: str, *inputs: str, **attrs: Any) -> Any:
    return helper.make_node(op, list(inputs), ["y"], domain="com.microsoft", **attrs)


I64 = numpy.int64
SCALE, ZERO = numpy.array(0.1, numpy.float32), numpy.array(0, numpy.uint8)
ROWS: dict[str, tuple[Any, dict[str, Shape], dict[str, Any], int, str, Shape]] = {
    # name: node, inputs, weights, MACs, kind, output shape
    "conv": (node("Conv", "x", "w", "b", pads=[1] * 4), {"x": (1, 3, 8, 8)}, {"w": (4, 3, 3, 3), "b": (4,)},
             27 * 4 * 64, Kind.CONV, (1, 4, 8, 8)),
    "conv, groups": (node("Conv", "x", "w", group=2, strides=[2, 2]), {"x": (1, 4, 9, 9)}, {"w": (6, 2, 3, 3)},
                     18 * 6 * 16, Kind.CONV, (1, 6, 4, 4)),
    "conv, dilated": (node("Conv", "x", "w", dilations=[2, 2]), {"x": (1, 3, 9, 9)}, {"w": (4, 3, 3, 3)},
                      27 * 4 * 25, Kind.CONV, (1, 4, 5, 5)),
    "conv, auto_pad": (node("Conv", "x", "w", auto_pad="SAME_UPPER", strides=[2, 2]), {"x": (1, 3, 9, 9)},
                       {"w": (4, 3, 3, 3)}, 27 * 4 * 25, Kind.CONV, (1, 4, 5, 5)),
    "conv, 1-d": (node("Conv", "x", "w"), {"x": (2, 3, 10)}, {"w": (5, 3, 4)}, 2 * 12 * 5 * 7, Kind.CONV,
                     (2, 5, 7)),
    "transposed": (node("ConvTranspose", "x", "w", strides=[2, 2]), {"x": (1, 3, 4, 4)}, {"w": (3, 5, 2, 2)},
                   3 * 5 * 4 * 16, Kind.CONV_TRANSPOSE, (1, 5, 8, 8)),
    "Gemm": (node("Gemm", "x", "w", "b", transB=1), {"x": (2, 6)}, {"w": (5, 6), "b": (5,)}, 2 * 6 * 5,
                     Kind.LINEAR, (2, 5)),
    "Gemm, transposed": (node("Gemm", "x", "w", transA=1), {"x": (6, 2)}, {"w": (6, 5)}, 2 * 6 * 5,
                     Kind.LINEAR, (2, 5)),
    "MatMul": (node("MatMul", "x", "w"), {"x": (2, 3, 4)}, {"w": (4, 5)}, 2 * 3 * 4 * 5, Kind.MATMUL, (2, 3, 5)),
    "MatMul, broadcast": (node("MatMul", "x", "z"), {"x": (2, 1, 3, 4), "z": (5, 4, 6)}, {}, 10 * 3 * 4 * 6,
                     Kind.MATMUL,
                          (2, 5, 3, 6)),
    "Einsum": (node("Einsum", "x", "z", equation="bij,bjk->bik"), {"x": (2, 3, 4), "z": (2, 4, 5)}, {},
               2 * 3 * 4 * 5, Kind.MATMUL, (2, 3, 5)),
    "Einsum, ellipsis": (node("Einsum", "x", "z", equation="...ij,...jk->...ik"), {"x": (2, 3, 4), "z": (2, 4, 6)}, {},
                     2 * 3 * 4 * 6, Kind.MATMUL, (2, 3, 6)),
    "LSTM": (node("LSTM", "x", "w", "r", hidden_size=4), {"x": (7, 2, 3)}, {"w": (1, 16, 3), "r": (1, 16, 4)},
             7 * 2 * 16 * 7, Kind.RECURRENT, (7, 1, 2, 4)),
    "max pool": (node("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2]), {"x": (1, 3, 8, 8)}, {}, 0, Kind.MAX_POOL,
                 (1, 3, 4, 4)),
    "average pool": (node("AveragePool", "x", kernel_shape=[3, 3]), {"x": (1, 3, 8, 8)}, {}, 0, Kind.AVG_POOL,
                     (1, 3, 6, 6)),
    "global pool": (node("GlobalAveragePool", "x"), {"x": (1, 3, 8, 8)}, {}, 0, Kind.AVG_POOL, (1, 3, 1, 1)),
    "spatial mean": (node("ReduceMean", "x", "a"), {"x": (1, 3, 8, 8)}, {"a": numpy.array([2, -1], I64)}, 0,
                        Kind.AVG_POOL, (1, 3, 1, 1)),
    "mean": (node("ReduceMean", "x", "a"), {"x": (1, 3, 8, 8)}, {"a": numpy.array([1], I64)}, 0, Kind.REDUCTION,
             (1, 1, 8, 8)),
    "norm": (node("BatchNormalization", "x", "s", "b", "m", "v"), {"x": (1, 3, 8, 8)},
             {"s": (3,), "b": (3,), "m": (3,), "v": (3,)}, 0, Kind.NORM, (1, 3, 8, 8)),
    "Relu": (node("Relu", "x"), {"x": (1, 3)}, {}, 0, Kind.ACTIVATION, (1, 3)),
    "Add": (node("Add", "x", "z"), {"x": (1, 3, 4, 4), "z": (1, 3, 4, 4)}, {}, 0, Kind.ELEMENTWISE, (1, 3, 4, 4)),
    "Concat": (node("Concat", "x", "z", axis=1), {"x": (1, 3, 4), "z": (1, 2, 4)}, {}, 0, Kind.CONCAT, (1, 5, 4)),
    "Resize": (node("Resize", "x", "", "s"), {"x": (1, 3, 4, 4)}, {"s": numpy.array([1, 1, 2, 2], numpy.float32)}, 0,
               Kind.RESIZE, (1, 3, 8, 8)),
    "Reshape": (node("Reshape", "x", "s"), {"x": (2, 3, 4)}, {"s": numpy.array([0, -1], I64)}, 0, Kind.VIEW, (2, 12)),
    "quantized conv": (
        node("QLinearConv", "q", "s", "z", "w", "s", "z", "s", "z", outputs=("y",)), {"q": (1, 3, 8, 8)},
        {"s": SCALE, "z": ZERO, "w": numpy.ones((4, 3, 3, 3), numpy.uint8)}, 27 * 4 * 36, Kind.CONV, (1, 4, 6, 6),
    ),
    "FusedConv": (contrib("FusedConv", "x", "w", activation="Relu", pads=[1] * 4), {"x": (1, 3, 8, 8)},
                  {"w": (4, 3, 3, 3)}, 27 * 4 * 64, Kind.CONV, (1, 4, 8, 8)),
    "FusedMatMul": (contrib("FusedMatMul", "x", "w", transB=1), {"x": (2, 3, 4)}, {"w": (5, 4)}, 2 * 3 * 4 * 5,
                    Kind.MATMUL, (2, 3, 5)),
    "packed attention": (contrib("Attention", "x", "w", "b", num_heads=2), {"x": (1, 5, 8)}, {"w": (8, 24),
                     "b": (24,)},
                         5 * 8 * 24 + 2 * 5 * 5 * (4 + 4), Kind.ATTENTION, (1, 5, 8)),
    "SkipLayerNormalization": (contrib("SkipLayerNormalization", "x", "z", "g"), {"x": (1, 5, 8), "z": (1, 5, 8)},
                               {"g": (8,)}, 0, Kind.NORM, (1, 5, 8)),
    "FusedMatMul, transposed batch": (
        contrib("FusedMatMul", "x", "z", transBatchA=1, transBatchB=1, transB=1),
        {"x": (17, 1, 4, 16), "z": (17, 1, 4, 16)}, {}, 4 * 17 * 17 * 16, Kind.MATMUL, (1, 4, 17, 17),
    ),
    "FusedGemm": (contrib("FusedGemm", "x", "w", "b", transB=1, activation="Relu"), {"x": (2, 6)},
                  {"w": (5, 6), "b": (5,)}, 2 * 6 * 5, Kind.LINEAR, (2, 5)),
    "attention with past": (
        contrib("Attention", "x", "w", "b", "", "p", num_heads=2, qkv_hidden_sizes=[8, 8, 12]),
        {"x": (1, 5, 8), "p": (2, 1, 2, 3, 4)}, {"w": (8, 28), "b": (28,)},
        5 * 8 * 28 + 2 * 5 * 8 * (4 + 6), Kind.ATTENTION, (1, 5, 12),
    ),
    "cross-attention": (
        contrib("MultiHeadAttention", "x", "k", "v", num_heads=2),
        {"x": (1, 5, 8), "k": (1, 7, 8), "v": (1, 7, 12)}, {}, 2 * 5 * 7 * (4 + 6), Kind.ATTENTION, (1, 5, 12),
    ),
    "attention, keys by head": (
        contrib("MultiHeadAttention", "x", "k", "v", num_heads=2),
        {"x": (1, 5, 8), "k": (1, 2, 7, 4), "v": (1, 2, 7, 4)}, {}, 2 * 5 * 7 * 8, Kind.ATTENTION, (1, 5, 8),
    ),
    "attention, packed": (
        contrib("MultiHeadAttention", "x", num_heads=2), {"x": (1, 5, 2, 3, 4)}, {}, 2 * 5 * 5 * 8,
        Kind.ATTENTION, (1, 5, 8),
    ),
    "grouped queries": (
        contrib("GroupQueryAttention", "x", "k", "v", "p", "q", num_heads=4, kv_num_heads=2),
        {"x": (1, 5, 16), "k": (1, 5, 8), "v": (1, 5, 8), "p": (1, 2, 3, 4), "q": (1, 2, 3, 4)}, {},
        4 * 5 * 8 * 8, Kind.ATTENTION, (1, 5, 16),
    ),
    "grouped queries, packed": (
        contrib("GroupQueryAttention", "x", num_heads=4, kv_num_heads=2), {"x": (1, 5, 32)}, {},
        4 * 5 * 5 * 8, Kind.ATTENTION, (1, 5, 16),
    ),
    "NhwcConv": (contrib("NhwcConv", "x", "w", pads=[1] * 4, strides=[2, 2]), {"x": (1, 8, 8, 3)},
                 {"w": (4, 3, 3, 3)}, 27 * 4 * 16, Kind.CONV, (1, 4, 4, 4)),
    "NhwcMaxPool": (contrib("NhwcMaxPool", "x", kernel_shape=[2, 2], strides=[2, 2]), {"x": (1, 9, 9, 3)}, {}, 0,
                    Kind.MAX_POOL, (1, 4, 4, 3)),
    "FusedConv with a sum": (contrib("FusedConv", "x", "w", "", "z", pads=[1] * 4),
                            {"x": (1, 3, 8, 8), "z": (1, 4, 8, 8)}, {"w": (4, 3, 3, 3)}, 27 * 4 * 64, Kind.CONV,
                            (1, 4, 8, 8)),
    "blocked conv": (
        helper.make_node("Conv", ["x", "w"], ["y"], domain="com.microsoft.nchwc", pads=[1] * 4, strides=[2, 2],
                         kernel_shape=[3, 3]),
        {"x": (1, 3, 8, 8)}, {"w": (8, 3, 3, 3)}, 27 * 8 * 16, Kind.CONV, (1, 8, 4, 4),
    ),
    "ReorderOutput": (
        helper.make_node("ReorderOutput", ["x"], ["y"], domain="com.microsoft.nchwc", channels=5),
        {"x": (1, 8, 4, 4)}, {}, 0, Kind.DATA, (1, 5, 4, 4),
    ),
    "MatMulNBits": (contrib("MatMulNBits", "x", "w", "s", K=32, N=6, bits=4, block_size=32), {"x": (2, 3, 32)},
                    {"w": numpy.ones((6, 1, 16), numpy.uint8), "s": (6,)}, 2 * 3 * 32 * 6, Kind.LINEAR, (2, 3, 6)),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_operator_macs_kind_and_output_shape(name: str, graph: Callable[..., Path]) -> None:
    made, inputs, weights, macs, kind, shape = ROWS[name]
    path = graph([made], inputs, weights, domains=["com.microsoft", "com.microsoft.nchwc"])
    if name == "quantized conv":  # `save` declares floats
        model = onnx.load(path)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.elem_type = TensorProto.UINT8
        onnx.save(model, path)
    p = cspprof.profile(str(path))
    p.self_check()
    assert p.complete
    assert (p.total("macs"), p.ops[0].kind, p.ops[0].writes[0].shape) == (macs, kind, tuple(shape))


def test_omitted_first_output(graph: Callable[..., Path]) -> None:
    lstm = node("LSTM", "x", "w", "r", outputs=("", "y"), hidden_size=4)
    p = cspprof.profile(str(graph([lstm], {"x": (7, 2, 3)}, {"w": (1, 16, 3), "r": (1, 16, 4)})))
    assert (p.total("macs"), p.ops[0].writes[0].shape) == (7 * 2 * 16 * 7, (1, 2, 4))


def test_output_without_an_inferred_shape_has_the_declared_one(graph: Callable[..., Path]) -> None:
    nodes = [node("NonZero", "x", outputs=["n"]), node("Transpose", "n", perm=[1, 0])]
    path = graph(nodes, {"x": (2, 3)}, {})
    with pytest.raises(SourceError, match="'n' does not follow from the shapes of its inputs") as error:
        cspprof.profile(str(path))
    assert "Declare it in the file" in str(error.value.hint)
    model = onnx.load(path)
    model.graph.value_info.append(helper.make_tensor_value_info("n", TensorProto.INT64, (2, 5)))
    onnx.save(model, path)
    p = cspprof.profile(str(path))
    assert [op.writes[0].shape for op in p.ops] == [(2, 5), (5, 2)]


def test_every_standard_operator_has_a_rule_or_a_reason() -> None:
    standard = {s.name for s in onnx.defs.get_all_schemas() if not s.domain}
    assert standard - set(ONNX_RULES.names()) - WITHOUT_RULE.keys() == set()
    assert set(WITHOUT_RULE) & set(ONNX_RULES.names()) == set()


def test_operator_without_a_rule_is_uncounted(graph: Callable[..., Path]) -> None:
    made = node("TfIdfVectorizer", "x", max_gram_length=1, max_skip_count=0, min_gram_length=1, mode="TF",
                ngram_counts=[0], ngram_indexes=[0, 1], pool_int64s=[2, 3])  # fmt: skip
    model = onnx.load(graph([made], {"x": (12,)}, {}))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    path = graph([node("Relu", "x")], {"x": (1,)}, {})
    onnx.save(model, path)
    assert cspprof.profile(str(path)).uncounted == {"onnx.TfIdfVectorizer": 1}


def test_custom_operator_is_uncounted_if_the_file_declares_its_shape(
    graph: Callable[..., Path], run: Callable[..., Result]
) -> None:
    own = helper.make_node("Detect", ["c"], ["y"], domain="my.domain")
    nodes, weights = [node("Conv", "x", "w", outputs=["c"]), own], {"w": (4, 3, 1, 1)}
    declared = graph(nodes, {"x": (1, 3, 8, 8)}, weights, declared=(1, 100, 6), domains=["my.domain"])
    p = cspprof.profile(str(declared))
    assert (p.total("macs"), p.uncounted) == (3 * 4 * 64, {"my.domain.Detect": 1})
    undeclared = run("cio", str(graph(nodes, {"x": (1, 3, 8, 8)}, weights, domains=["my.domain"])))
    assert (undeclared.code, undeclared.out) == (2, "")
    assert "node 'y' (Detect): cspprof does not know my.domain.Detect" in undeclared.err


@pytest.mark.slow
@pytest.mark.parametrize("quantized", [False, True])
def test_graph_optimized_by_onnx_runtime_has_equal_macs(quantized: bool, tmp_path: Path) -> None:
    """All levels of ONNX Runtime's optimizer, after its quantizer or not: fused, blocked, channels last."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    import torch
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1, groups=16))
            self.pool, self.attend = nn.AvgPool2d(2), nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
            self.head = nn.Linear(16, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.attend(self.pool(self.stem(x)).flatten(2).transpose(1, 2))
            return self.head(y.mean(1))

    plain, model = tmp_path / "plain.onnx", Net().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.randn(1, 3, 32, 32),), str(plain), dynamo=False, opset_version=17)
    macs = cspprof.profile(model, (1, 3, 32, 32)).total("macs")
    if quantized:

        class Images(CalibrationDataReader):  # type: ignore[misc]
            left = 2

            def get_next(self) -> Any:
                self.left -= 1
                name = onnx.load(plain).graph.input[0].name
                return {name: numpy.random.rand(1, 3, 32, 32).astype("float32")} if self.left >= 0 else None

        quantize_static(plain, tmp_path / "q.onnx", Images(), quant_format=QuantFormat.QDQ)
        plain = tmp_path / "q.onnx"
    assert cspprof.profile(str(plain)).total("macs") == macs
    kinds = set()
    for level in ("BASIC", "EXTENDED", "ALL"):
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
        options.optimized_model_filepath = str(tmp_path / f"{level}.onnx")
        runtime.InferenceSession(str(plain), options, providers=["CPUExecutionProvider"])
        p = cspprof.profile(str(tmp_path / f"{level}.onnx"))
        assert (p.total("macs"), p.complete) == (macs, True), level
        kinds |= {op.target for op in p.ops}
    assert any(name.startswith("com.microsoft") for name in kinds)


def test_shape_arithmetic_leaves_no_operation(graph: Callable[..., Path]) -> None:
    """`x.view(x.size(0), -1)` as older exporters write it."""
    nodes = [
        node("Shape", "x", outputs=["s"]), node("Gather", "s", "zero", outputs=["n"]),
        node("Unsqueeze", "n", "axis", outputs=["n1"]), node("Concat", "n1", "rest", axis=0, outputs=["to"]),
        node("Reshape", "x", "to", outputs=["flat"]), node("Gemm", "flat", "w"),
    ]  # fmt: skip
    constants = {"zero": numpy.array(0, I64), "axis": numpy.array([0], I64), "rest": numpy.array([-1], I64)}
    p = cspprof.profile(str(graph(nodes, {"x": (2, 3, 4)}, {**constants, "w": (12, 5)})))
    assert [op.target for op in p.ops] == ["onnx.Reshape", "onnx.Gemm"]
    assert p.total("macs") == 2 * 12 * 5


def test_dequantized_weights_have_their_stored_size(graph: Callable[..., Path]) -> None:
    nodes = [node("DequantizeLinear", "q", "s", outputs=["w"]), node("Conv", "x", "w")]
    p = cspprof.profile(str(graph(nodes, {"x": (1, 3, 8, 8)}, {"q": numpy.ones((4, 3, 3, 3), numpy.int8), "s": SCALE})))
    (op,) = p.ops
    assert (op.weights[0].dtype, op.weights[0].nbytes, p.params) == ("int8", 108, 108)


def test_constant_condition_selects_a_branch(graph: Callable[..., Path]) -> None:
    def branch(name: str, op: str) -> Any:
        out = helper.make_tensor_value_info(name, F, None)
        return helper.make_graph([node(op, "x", outputs=[name])], name, [], [out])

    made = node("If", "c", then_branch=branch("a", "Relu"), else_branch=branch("b", "Tanh"))
    p = cspprof.profile(str(graph([made], {"x": (1, 3)}, {"c": numpy.array(False)})))
    assert [op.target for op in p.ops] == ["onnx.Tanh"]


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 20, onnx.defs.onnx_opset_version()])
def test_opsets(opset: int, graph: Callable[..., Path]) -> None:
    nodes = [node("Conv", "x", "w", pads=[1] * 4, outputs=["c"]), node("Relu", "c", outputs=["r"]),
             node("GlobalAveragePool", "r", outputs=["p"]), node("Flatten", "p", outputs=["f"]),
             node("Gemm", "f", "g", "b")]  # fmt: skip
    path = graph(nodes, {"x": (1, 3, 8, 8)}, {"w": (4, 3, 3, 3), "g": (4, 5), "b": (5,)}, opset=opset)
    assert cspprof.profile(str(path)).total("macs") == 27 * 4 * 64 + 20


@pytest.mark.parametrize("imported", ["", "ai.onnx"])
def test_domain_ai_onnx_is_the_domain_of_the_standard_operators(imported: str, graph: Callable[..., Path]) -> None:
    inner = helper.make_node("Conv", ["x", "w"], ["t"], domain="ai.onnx")
    branch = helper.make_graph([inner], "b", [], [helper.make_tensor_value_info("t", F, None)])
    nodes = [helper.make_node("If", ["c"], ["i"], domain="ai.onnx", then_branch=branch, else_branch=branch),
             helper.make_node("Relu", ["i"], ["y"], domain="ai.onnx")]  # fmt: skip
    path = graph(nodes, {"x": (1, 3, 8, 8)}, {"w": (4, 3, 1, 1), "c": numpy.array(True)}, opset=13)
    model = onnx.load(path)
    model.opset_import[0].domain = imported
    onnx.save(model, path)
    p = cspprof.profile(str(path))
    assert ([op.target for op in p.ops], p.total("macs"), p.complete) == (["onnx.Conv", "onnx.Relu"], 3 * 4 * 64, True)


# -- equal to the exported model ----------------------------------------------------------------------

TOTALS = ("macs", "cio_hardnet", "cio_cspnet", "activations", "conv_weights")
FAST = ["zoo:csp_peleenet", "torchvision:resnet18"]
SLOW = ["zoo:resnext50", "zoo:csp_resnext50", "zoo:csp_darknet53", "torchvision:densenet121",
        "torchvision:mobilenet_v3_small", "torchvision:efficientnet_b0", "torchvision:vit_b_16",
        "torchvision:convnext_tiny"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "dynamo"),
    [*((n, False) for n in FAST), *(pytest.param(n, n in FAST, marks=pytest.mark.slow) for n in FAST + SLOW)],
)
def test_exported_network_has_equal_totals(name: str, dynamo: bool, tmp_path: Path) -> None:
    import torch

    source, _, model_name = name.partition(":")
    if source == "zoo":
        from cspprof.zoo import catalog

        # The newer exporter is slow. Two layers in each stage have all operators of the network.
        model = catalog().get(model_name).factory(**({"depths": (2, 2, 2, 2)} if dynamo else {}))
    else:
        torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
        model = torchvision.models.get_model(model_name, weights=None)
    if dynamo:
        pytest.importorskip("onnxscript", reason="torch's newer exporter needs onnxscript")
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model.eval(), (torch.randn(1, 3, 224, 224),), str(path), dynamo=dynamo)
    ours, exported = cspprof.profile(model, (1, 3, 224, 224)), cspprof.profile(str(path))
    exported.self_check()
    assert exported.complete
    assert {m: exported.total(m) for m in TOTALS} == {m: ours.total(m) for m in TOTALS}
    if not dynamo:  # the newer exporter folds a norm into the convolution and keeps the name of the norm
        paths = {layer.path for layer in exported.layers}
        assert {op.layer for op in ours.ops if op.kind == Kind.CONV} <= paths
    saved = Profile.load(exported.save(tmp_path / "net.profile.json"))
    assert saved.total("macs") == ours.total("macs")


def test_inferred_shapes_match_onnx_runtime(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    nodes = [
        node("Conv", "x", "w", strides=[2, 2], auto_pad="SAME_LOWER", outputs=["a"]),
        node("MaxPool", "a", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, outputs=["b"]),
        node("Transpose", "b", perm=[0, 2, 3, 1], outputs=["c"]), node("MatMul", "c", "m", outputs=["d"]),
        node("Slice", "d", "from", "to", "axes", outputs=["e"]), node("ReduceMean", "e", "axes", keepdims=0),
    ]  # fmt: skip
    weights = {"w": (4, 3, 3, 3), "m": (4, 6), "from": numpy.array([1], I64), "to": numpy.array([9], I64),
               "axes": numpy.array([1], I64)}  # fmt: skip
    path = save(tmp_path / "net.onnx", nodes, {"x": (1, 3, 17, 13)}, weights, opset=18)
    written = [op.writes[0].shape for op in cspprof.profile(str(path)).ops]
    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(n.output[0], F, None) for n in nodes)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    real = session.run(None, {"x": numpy.ones((1, 3, 17, 13), numpy.float32)})
    assert written == [r.shape for r in real]


def test_reading_a_graph_imports_no_torch(graph: Callable[..., Path]) -> None:
    path = graph([node("Relu", "x")], {"x": (1, 3)}, {})
    program = f"import sys, cspprof; cspprof.profile({str(path)!r}); print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
    )


# -- inputs -------------------------------------------------------------------------------------------


def test_open_batch_dimension_is_one_with_a_note(graph: Callable[..., Path]) -> None:
    p = cspprof.profile(str(graph([node("Relu", "x")], {"x": ("batch", 3, 8, 8)}, {})))
    assert p.inputs[0].shape == (1, 3, 8, 8)
    assert p.notes == ("the batch size of input 'x' is open: 1 is assumed (--input changes it)",)


def test_other_open_dimensions_must_be_given(graph: Callable[..., Path], run: Callable[..., Result]) -> None:
    path = str(graph([node("Relu", "x")], {"x": ("n", 3, "h", "w")}, {}))
    refused = run("cio", path)
    assert (refused.code, refused.out) == (2, "")
    assert "--input x=1x3x224x224" in refused.err
    assert cspprof.profile(path, {"x": (2, 3, 5, 7)}).inputs[0].shape == (2, 3, 5, 7)
    assert cspprof.profile(path, (2, 3, 5, 7)).inputs[0].shape == (2, 3, 5, 7)
    assert "is n×3×h×w, not 1×4×5×5" in run("cio", path, "--input", "1x4x5x5").err
    assert "has no input 'z'" in run("cio", path, "--input", "z=1x3x5x5").err


@pytest.mark.parametrize("option", [["--train"], ["--dtype", "float16"], ["--device", "cpu"]])
def test_option_that_cannot_change_a_graph_is_refused(
    option: list[str], graph: Callable[..., Path], run: Callable[..., Result]
) -> None:
    path = str(graph([node("Relu", "x")], {"x": (1, 3)}, {}))
    assert f"{option[0]} cannot change it" in run("cio", path, *option).err
    with pytest.raises(SourceError, match="takes no options"):
        cspprof.profile(f"{path},width=3")


# -- external data, and invalid files -----------------------------------------------------------------


def external(path: Path, location: str, dims: Sequence[int]) -> Path:
    """A product with a weight in another file."""
    save(path, [node("MatMul", "x", "w")], {"x": (1, dims[0])}, {"w": (1, 1)})
    model = onnx.load(path)
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.dims[:] = dims
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", location
    path.write_bytes(model.SerializeToString())
    return path


def test_large_external_data_is_not_read(tmp_path: Path) -> None:
    path = external(tmp_path / "big.onnx", "weights.bin", (65_536, 65_536))  # 16 GiB that do not exist
    p = cspprof.profile(str(path))
    assert (p.total("macs"), p.params) == (2**32, 2**32)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd"])
def test_external_data_outside_the_folder_is_refused(location: str, tmp_path: Path, run: Callable[..., Result]) -> None:
    result = run("cio", str(external(tmp_path / "net.onnx", location, (4, 4))))
    assert_refused(result, "the data of 'w' lies outside its folder")


def test_external_constant_of_a_node_outside_the_folder_is_refused(tmp_path: Path, run: Callable[..., Result]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.bin").write_bytes(numpy.array([2, 2], I64).tobytes())
    to = TensorProto(name="to", data_type=TensorProto.INT64, dims=[2], data_location=TensorProto.EXTERNAL)
    entry = to.external_data.add()
    entry.key, entry.value = "location", "../secret.bin"
    nodes = [helper.make_node("Constant", [], ["s"], value=to), node("Reshape", "x", "s")]
    result = run("cio", str(save(tmp_path / "in" / "net.onnx", nodes, {"x": (1, 4)}, {})))
    assert_refused(result, "the data of 'to' lies outside its folder, at '../secret.bin'")


def test_small_input_with_a_huge_output_is_not_computed(graph: Callable[..., Path]) -> None:
    nodes = [node("ConstantOfShape", "s", outputs=["c"]), node("Add", "x", "c")]
    p = cspprof.profile(str(graph(nodes, {"x": (1,)}, {"s": numpy.array([10**5, 10**5], I64)})))
    assert p.ops[-1].writes[0].shape == (10**5, 10**5)


INVALID: dict[str, tuple[Any, ...]] = {
    # name: message, then node, input, weights and declared output of the graph
    "channels": (
        "node 'y' (Conv): a weight of 4×3×3×3 in 1 groups needs 3 channels, but the map is 1×4×8×8",
        node("Conv", "x", "w"), (1, 4, 8, 8), {"w": (4, 3, 3, 3)},
    ),
    "product": ("node 'y' (MatMul):", node("MatMul", "x", "w"), (1, 4), {"w": (3, 3)}),
    "declared": ("the output 'y' is declared as 1×4, but its node computes 1×3", node("Relu", "x"), (1, 3), {}, (1, 4)),
    "reshape": (
        "node 'y' (Reshape): 1×4 and 3×7 differ in their number of elements",
        node("Reshape", "x", "s"), (1, 4), {"s": numpy.array([3, 7], I64)},
    ),
    "window": (
        "node 'y' (Conv): its window does not fit a map of 1×3×2×2",
        node("Conv", "x", "w"), (1, 3, 2, 2), {"w": (4, 3, 3, 3)},
    ),
    "input": ("reads 'z', which no earlier node computes", node("Relu", "z"), (1, 3), {}),
    "operand": ("node 'y' (FusedGemm): input 1 is absent", contrib("FusedGemm", "x"), (1, 3), {}),
}  # fmt: skip


def assert_refused(result: Result, message: str) -> None:
    assert (result.code, result.out) == (2, "")
    assert message in " ".join(result.err.split())
    assert "Traceback" not in result.err


@pytest.mark.parametrize("name", INVALID)
def test_invalid_graph_error(name: str, graph: Callable[..., Path], run: Callable[..., Result]) -> None:
    message, made, shape, weights, *declared = INVALID[name]
    path = graph([made], {"x": shape}, weights, declared=declared[0] if declared else None, domains=["com.microsoft"])
    assert_refused(run("cio", str(path)), message)


INVALID_FILES = [(40, "is not an ONNX file, or it is incomplete"), (0, "contains no graph"), (None, "there is no file")]


@pytest.mark.parametrize(("length", "message"), INVALID_FILES)
def test_invalid_file_error(length: int | None, message: str, tmp_path: Path, run: Callable[..., Result]) -> None:
    whole, path = save(tmp_path / "whole.onnx", [node("Relu", "x")], {"x": (1, 3)}, {}), tmp_path / "part.onnx"
    if length is not None:
        path.write_bytes(whole.read_bytes()[:length])
    assert_refused(run("cio", str(path)), message)


def test_blocks_of_a_graph_are_stages_and_its_modules_have_the_parameters_that_they_read(tmp_path: Path) -> None:
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = x + self.down(self.up(x).relu())
            return y

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
            self.blocks = nn.ModuleList([Block(), Block()])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            for block in self.blocks:
                x = block(x)
            return self.head(x)  # type: ignore[no-any-return]

    model, x = Encoder().eval(), torch.randn(1, 5, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), str(tmp_path / "net.onnx"), dynamo=False)
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "net.pt2")
    for name in ("net.onnx", "net.pt2"):
        record = cspprof.profile(str(tmp_path / name))
        assert list(dict.fromkeys(stage_labels(record))) == ["stem", "blocks.0", "blocks.1", "head"]
        params = {m.layer.path: m.params for m in module_summaries(record)}
        expected = {"": 16 + 76 + 76 + 10, "stem": 16, "blocks": 152, "blocks.0": 76, "blocks.1": 76, "head": 10}
        assert {path: params[path] for path in expected} == expected
    assert "()" not in str(cspprof.profile(str(tmp_path / "net.onnx")))
