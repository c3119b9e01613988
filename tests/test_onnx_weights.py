"""Parameters of an ONNX graph: each weight counts once, in every form in which a file can state it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cspprof

onnx = pytest.importorskip("onnx", reason="the library onnx is not installed: it is in the extra onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_models import BOOL, F, constant, function_of, graph_of, node, save_graph, value  # noqa: E402

I64 = numpy.int64
CONV, MATRIX = (8, 3, 3, 3), (128, 10)
MACS, PARAMS = 27 * 8 * 16 + 128 * 10, 216 + 1280
LAYERS = [node("Conv", "x", "w", outputs=["c"]), node("Flatten", "c", outputs=["f"]), node("MatMul", "f", "m")]
IMAGE, SCORES = [value("x", [1, 3, 6, 6])], [value("y", [1, 10])]

Form = tuple[list[Any], dict[str, Any]]
"""Nodes that make the value `m`, and initializers that they read."""


def half() -> numpy.ndarray:
    return numpy.ones(MATRIX, numpy.float16)


def integers(dtype: Any = numpy.int8, shape: tuple[int, ...] = MATRIX) -> numpy.ndarray:
    return numpy.ones(shape, dtype)


SCALE, ZERO = numpy.array(0.5, numpy.float32), numpy.array(0, numpy.int8)
FORMS: dict[str, Form] = {
    "initializer": ([], {"m": MATRIX}),
    "Constant": ([constant("m", MATRIX)], {}),
    "Transpose": ([node("Transpose", "t", outputs=["m"])], {"t": (10, 128)}),
    "Transpose of a Constant": ([constant("t", (10, 128)), node("Transpose", "t", outputs=["m"])], {}),
    "Cast": ([node("Cast", "t", outputs=["m"], to=F)], {"t": half()}),
    "Identity": ([node("Identity", "t", outputs=["m"])], {"t": MATRIX}),
    "Reshape": ([node("Reshape", "t", "s", outputs=["m"])], {"t": (1280,), "s": numpy.array([128, -1], I64)}),
    "Unsqueeze and Squeeze": (
        [node("Unsqueeze", "t", "a", outputs=["u"]), node("Squeeze", "u", "a", outputs=["m"])],
        {"t": MATRIX, "a": numpy.array([0], I64)},
    ),
    "ConstantOfShape": (
        [node("ConstantOfShape", "s", outputs=["m"], value=helper.make_tensor("v", F, [1], [0.5]))],
        {"s": numpy.array(MATRIX, I64)},
    ),
    "Expand of a number": (
        [constant("n", numpy.array(0.5, numpy.float32)), node("Expand", "n", "s", outputs=["m"])],
        {"s": numpy.array(MATRIX, I64)},
    ),
    "DequantizeLinear": (
        [node("DequantizeLinear", "q", "k", "z", outputs=["m"])], {"q": integers(), "k": SCALE, "z": ZERO},
    ),
    "DequantizeLinear, by channel": (
        [node("DequantizeLinear", "q", "k", "z", outputs=["m"], axis=1)],
        {"q": integers(), "k": (10,), "z": numpy.zeros(10, numpy.int8)},
    ),
    "QuantizeLinear and DequantizeLinear": (
        [node("QuantizeLinear", "t", "k", "z", outputs=["q"]), node("DequantizeLinear", "q", "k", "z", outputs=["m"])],
        {"t": MATRIX, "k": SCALE, "z": ZERO},
    ),
    "DequantizeLinear and Transpose": (
        [node("DequantizeLinear", "q", "k", "z", outputs=["t"]), node("Transpose", "t", outputs=["m"])],
        {"q": integers(shape=(10, 128)), "k": SCALE, "z": ZERO},
    ),
    "Concat": ([node("Concat", "a", "b", outputs=["m"], axis=0)], {"a": (100, 10), "b": (28, 10)}),
    "Mul by a number": (
        [constant("n", numpy.array(0.5, numpy.float32)), node("Mul", "t", "n", outputs=["m"])], {"t": MATRIX},
    ),
}  # fmt: skip


def totals(path: str) -> tuple[Any, ...]:
    p = cspprof.profile(path)
    p.self_check()
    assert p.complete
    return p.total("macs"), p.total("params"), p.total("conv_weights")


@pytest.mark.parametrize("form", FORMS)
def test_weight_counts_once_in_each_form(form: str, tmp_path: Path) -> None:
    nodes, weights = FORMS[form]
    path = save_graph(tmp_path / "net.onnx", [*nodes, *LAYERS], IMAGE, SCORES, {"w": CONV} | weights)
    assert totals(path) == (MACS, PARAMS, PARAMS)


def test_all_weights_in_constant_nodes(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "net.onnx", [constant("w", CONV), constant("m", MATRIX), *LAYERS], IMAGE, SCORES)
    assert totals(path) == (MACS, PARAMS, PARAMS)


def test_sparse_weights_count_as_dense_ones(tmp_path: Path) -> None:
    """Torch keeps the zeros of a pruned weight. An initializer and a node can both be sparse."""
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(numpy.ones(2, numpy.float32), "m"), numpy_helper.from_array(numpy.array([3, 70], I64)),
        MATRIX,
    )  # fmt: skip
    in_node = save_graph(
        tmp_path / "node.onnx",
        [node("Constant", outputs=["m"], sparse_value=sparse), *LAYERS],
        IMAGE,
        SCORES,
        {"w": CONV},
    )
    initializer = onnx.load(save_graph(tmp_path / "net.onnx", LAYERS, IMAGE, SCORES, {"w": CONV}))
    initializer.graph.sparse_initializer.append(sparse)
    onnx.save(initializer, tmp_path / "net.onnx")
    assert totals(in_node) == totals(str(tmp_path / "net.onnx")) == (MACS, PARAMS, PARAMS)


def test_initializer_that_is_also_an_input_is_a_weight(tmp_path: Path) -> None:
    path = save_graph(
        tmp_path / "net.onnx", LAYERS, [*IMAGE, value("w", CONV), value("m", MATRIX)], SCORES, {"w": CONV, "m": MATRIX}
    )
    assert totals(path) == (MACS, PARAMS, PARAMS)


def test_external_weights_count_without_being_read(tmp_path: Path) -> None:
    model = onnx.load(save_graph(tmp_path / "net.onnx", LAYERS, IMAGE, SCORES, {"w": CONV, "m": MATRIX}))
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").unlink()
    assert totals(str(tmp_path / "net.onnx")) == (MACS, PARAMS, PARAMS)


def test_small_external_shape_is_read(tmp_path: Path) -> None:
    weights = {"s": numpy.array([2, -1], I64)}
    model = onnx.load(
        save_graph(tmp_path / "net.onnx", [node("Reshape", "x", "s")], [value("x", [4, 3])], [value("y")], weights)
    )
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    assert cspprof.profile(str(tmp_path / "net.onnx")).ops[0].writes[0].shape == (2, 6)


def test_weight_that_two_nodes_read_counts_once(tmp_path: Path) -> None:
    """An embedding and the transposed embedding as the last layer, as language models have them."""
    nodes = [
        node("Gather", "e", "x", outputs=["a"]), node("Transpose", "e", outputs=["t"]), node("MatMul", "a", "t"),
    ]  # fmt: skip
    path = save_graph(
        tmp_path / "net.onnx", nodes, [value("x", [5], TensorProto.INT64)], [value("y", [5, 100])], {"e": (100, 16)}
    )
    assert totals(path) == (5 * 16 * 100, 1600, 1600)


def test_weights_that_overlap_in_two_products_count_once(tmp_path: Path) -> None:
    nodes = [
        node("Concat", "a", "b", outputs=["ab"], axis=1), node("MatMul", "x", "ab", outputs=["p"]),
        node("MatMul", "x", "a", outputs=["q"]), node("Concat", "p", "q", axis=1),
    ]  # fmt: skip
    weights = {"a": (4, 3), "b": (4, 5)}
    path = save_graph(tmp_path / "net.onnx", nodes, [value("x", [2, 4])], [value("y", [2, 11])], weights)
    assert totals(path) == (2 * 4 * 8 + 2 * 4 * 3, 32, 32)


def test_constant_of_a_function_counts_once_however_often_it_is_called(tmp_path: Path) -> None:
    block = function_of("Block", ["a"], ["b"], [constant("m", (4, 4)), node("MatMul", "a", "m", outputs=["b"])])
    nodes = [node("Block", "x", outputs=["h"], domain="local"), node("Block", "h", domain="local")]
    path = save_graph(
        tmp_path / "net.onnx", nodes, [value("x", [2, 4])], [value("y", [2, 4])], functions=[block], domains=["local"]
    )
    assert totals(path) == (2 * 2 * 16, 16, 16)


def test_weights_inside_a_branch_of_unknown_condition_are_parameters(tmp_path: Path) -> None:
    def branch(name: str, weight: str, rows: int) -> Any:
        return graph_of(
            [node("MatMul", "x", weight, outputs=[name])], [], [value(name, [2, 4])],
            {weight: (4, rows)} if weight != "w" else {},
        )  # fmt: skip

    choice = node("If", "c", then_branch=branch("a", "w", 4), else_branch=branch("b", "v", 4))
    path = save_graph(
        tmp_path / "net.onnx", [choice], [value("x", [2, 4]), value("c", [], BOOL)], [value("y", [2, 4])], {"w": (4, 4)}
    )
    p = cspprof.profile(path)
    assert (p.uncounted, p.params) == ({"onnx.If": 1}, 32)


def test_shapes_indices_and_numbers_are_no_parameters(tmp_path: Path) -> None:
    """What `nn.Module.parameters` does not hold: running statistics, scales, indices, sizes, and numbers."""
    nodes = [
        node("BatchNormalization", "x", "g", "b", "mean", "var", outputs=["n"]),
        node("Resize", "n", "", "scales", outputs=["r"]), node("Gather", "r", "index", outputs=["i"], axis=1),
        constant("half", numpy.array(0.5, numpy.float32)), node("Mul", "i", "half", outputs=["h"]),
        node("QuantizeLinear", "h", "k", "z", outputs=["q"]), node("DequantizeLinear", "q", "k", "z"),
    ]  # fmt: skip
    weights = {
        "g": (3,), "b": (3,), "mean": (3,), "var": (3,), "scales": numpy.array([1, 1, 2, 2], numpy.float32),
        "index": numpy.arange(20, dtype=I64) % 3, "k": SCALE, "z": ZERO,
    }  # fmt: skip
    path = save_graph(tmp_path / "net.onnx", nodes, [value("x", [1, 3, 4, 4])], [value("y")], weights)
    assert totals(path) == (0, 6, 0)


def test_bias_with_two_dimensions_is_no_matrix(tmp_path: Path) -> None:
    path = save_graph(
        tmp_path / "net.onnx", [node("Gemm", "x", "w", "b")], [value("x", [2, 6])], [value("y", [2, 5])],
        {"w": (6, 5), "b": (1, 5)},
    )  # fmt: skip
    assert totals(path) == (60, 35, 30)


def test_quantized_convolution_has_the_parameters_of_the_plain_one(tmp_path: Path) -> None:
    nodes = [
        node("QuantizeLinear", "x", "k", "z", outputs=["q"]),
        node("QLinearConv", "q", "k", "z", "w", "k", "z", "k", "z", "b", outputs=["c"]),
        node("DequantizeLinear", "c", "k", "z"),
    ]  # fmt: skip
    weights = {"w": numpy.ones((4, 3, 3, 3), numpy.int8), "b": numpy.ones(4, numpy.int32), "k": SCALE, "z": ZERO}
    path = save_graph(tmp_path / "net.onnx", nodes, [value("x", [1, 3, 6, 6])], [value("y")], weights)
    assert totals(path) == (27 * 4 * 16, 108 + 4, 108)


def test_first_state_of_zeros_is_no_parameter(tmp_path: Path) -> None:
    nodes = [node("ConstantOfShape", "s", outputs=["h"]), node("LSTM", "x", "w", "r", "b", "", "h", "h", hidden_size=4)]
    weights = {"s": numpy.array([1, 2, 4], I64), "w": (1, 16, 3), "r": (1, 16, 4), "b": (1, 32)}
    path = save_graph(tmp_path / "net.onnx", nodes, [value("x", [7, 2, 3])], [value("y")], weights)
    assert totals(path) == (7 * 2 * 16 * 7, 16 * 7 + 32, 16 * 7)


def test_random_noise_is_an_activation(tmp_path: Path) -> None:
    nodes = [node("RandomNormal", outputs=["n"], shape=[1, 4]), node("MatMul", "n", "w")]
    p = cspprof.profile(save_graph(tmp_path / "net.onnx", nodes, [], [value("y", [1, 5])], {"w": (4, 5)}))
    assert ([op.target for op in p.ops], p.total("macs")) == (["onnx.RandomNormal", "onnx.MatMul"], 20)


def test_product_of_two_constants_is_counted(tmp_path: Path) -> None:
    """A weight that is a product of two, as in low-rank adaptation: torch computes it in each forward pass."""
    nodes = [node("MatMul", "a", "b", outputs=["w"]), node("MatMul", "x", "w")]
    path = save_graph(
        tmp_path / "net.onnx", nodes, [value("x", [2, 4])], [value("y", [2, 6])], {"a": (4, 3), "b": (3, 6)}
    )
    assert totals(path)[:2] == (4 * 3 * 6 + 2 * 4 * 6, 12 + 18)


def test_network_without_inputs_is_counted(tmp_path: Path) -> None:
    path = save_graph(
        tmp_path / "net.onnx", [node("Conv", "c", "w")], [], [value("y")], {"c": (1, 3, 8, 8), "w": (4, 3, 3, 3)}
    )
    assert totals(path) == (27 * 4 * 36, 192 + 108, 108)
    assert cspprof.profile(path).total("cio_hardnet") == 192 + 144


# -- a law over random graphs ---------------------------------------------------------------------------

WRAPPERS: dict[str, Callable[[str, str], list[Any]]] = {
    "Identity": lambda a, b: [node("Identity", a, outputs=[b])],
    "Transpose": lambda a, b: [node("Transpose", a, outputs=[b], perm=[1, 0])],
    "Cast": lambda a, b: [
        node("Cast", a, outputs=[f"{b}h"], to=TensorProto.FLOAT16), node("Cast", f"{b}h", outputs=[b], to=F),
    ],
    "Mul": lambda a, b: [node("Mul", a, "number", outputs=[b])],
    "Add": lambda a, b: [node("Add", a, a, outputs=[b])],
    "Concat": lambda a, b: [
        node("Concat", a, a, outputs=[f"{b}c"], axis=0), node("Slice", f"{b}c", "zero", "four", outputs=[b]),
    ],
    "Reshape": lambda a, b: [node("Reshape", a, "square", outputs=[b])],
    "Unsqueeze": lambda a, b: [
        node("Unsqueeze", a, "zero", outputs=[f"{b}u"]), node("Squeeze", f"{b}u", "zero", outputs=[b]),
    ],
    "Quantize": lambda a, b: [
        node("QuantizeLinear", a, "number", outputs=[f"{b}q"]),
        node("DequantizeLinear", f"{b}q", "number", outputs=[b]),
    ],
    "MatMul": lambda a, b: [node("MatMul", a, a, outputs=[b])],
    "Expand": lambda a, b: [
        node("Gather", a, "zero", outputs=[f"{b}g"]), node("Expand", f"{b}g", "square", outputs=[b]),
    ],
}  # fmt: skip
SHARED = {
    "number": numpy.array(0.5, numpy.float32), "zero": numpy.array([0], I64), "four": numpy.array([4], I64),
    "square": numpy.array([4, 4], I64),
}  # fmt: skip


@st.composite
def random_graphs(draw: Any) -> tuple[list[Any], dict[str, Any]]:
    """A chain of products with square weights, each read directly or through nodes, some of them several times."""
    nodes, weights, squares = [], dict(SHARED), []
    for i in range(draw(st.integers(1, 4))):
        form = draw(st.sampled_from(["initializer", "Constant", "ConstantOfShape"]))
        if form == "initializer":
            weights[f"w{i}"] = (4, 4)
        else:
            nodes.append(
                constant(f"w{i}", (4, 4))
                if form == "Constant"
                else node("ConstantOfShape", "square", outputs=[f"w{i}"])
            )
        squares.append(f"w{i}")
    for i in range(draw(st.integers(0, 6))):
        nodes += WRAPPERS[draw(st.sampled_from(sorted(WRAPPERS)))](draw(st.sampled_from(squares)), f"v{i}")
        squares.append(f"v{i}")
    value_name = "x"
    for i in range(draw(st.integers(1, 6))):
        op = draw(st.sampled_from(["MatMul", "Gemm", "Add"]))
        operands = draw(st.permutations([value_name, draw(st.sampled_from(squares))]))
        nodes.append(node(op, *operands, outputs=[f"x{i}"]))
        value_name = f"x{i}"
    return [*nodes, node("Relu", value_name)], weights


@settings(deadline=None)
@given(random_graphs())
def test_params_are_at_least_the_weights_of_products(made: tuple[list[Any], dict[str, Any]]) -> None:
    nodes, weights = made
    with tempfile.TemporaryDirectory() as folder:
        path = save_graph(Path(folder) / "net.onnx", nodes, [value("x", [4, 4])], [value("y", [4, 4])], weights)
        macs, params, conv_weights = totals(path)
    products = [n for n in nodes if n.op_type in ("MatMul", "Gemm")]
    assert params >= conv_weights
    assert macs == 64 * len(products)


@pytest.mark.parametrize("form", ["initializer", "node"])
@pytest.mark.parametrize(("start", "counted"), [(0.0, 0), (-0.0, 0), (0.5, 4)])
def test_initial_states_of_zeros_are_no_parameters(start: float, counted: int, form: str, tmp_path: Path) -> None:
    """Exporters write the zeros that a recurrent layer starts with; a learned state is a parameter. The lengths of the
    sequences are none."""
    weights = {"w": (1, 12, 3), "r": (1, 12, 4), "b": (1, 24), "n": numpy.array([7], numpy.int32)}
    state, nodes = numpy.full((1, 1, 4), start, numpy.float32), []
    if form == "node":
        nodes.append(constant("h", state))
    else:
        weights["h"] = state
    nodes.append(node("GRU", "x", "w", "r", "b", "n", "h", hidden_size=4))
    file = save_graph(tmp_path / "net.onnx", nodes, [value("x", [7, 1, 3])], [value("y", [7, 1, 1, 4])], weights)
    assert cspprof.profile(file).total("params") == 12 * 3 + 12 * 4 + 24 + counted


@pytest.mark.parametrize(("start", "counted"), [(0.0, 0), (0.5, 4)])
def test_a_state_of_zeros_that_a_loop_carries_is_no_parameter(start: float, counted: int, tmp_path: Path) -> None:
    step = [node("Add", "s", "x", outputs=["a"]), node("MatMul", "a", "w", outputs=["o"])]
    body = graph_of(step, [value("s", [1, 4]), value("x", [1, 4])], [value("o", [1, 4])])
    scan = node("Scan", "h", "xs", body=body, num_scan_inputs=1)
    weights = {"w": (4, 4), "h": numpy.full((1, 4), start, numpy.float32)}
    file = save_graph(tmp_path / "net.onnx", [scan], [value("xs", [5, 1, 4])], [value("y", [1, 4])], weights)
    assert totals(file) == (5 * 16, 16 + counted, 16)


def test_text_is_no_parameter(tmp_path: Path) -> None:
    """A module has no parameter of type string."""
    words = {"s": numpy.array(["a", "b"], dtype=object)}
    match = node("RegexFullMatch", "s", pattern="a")
    file = save_graph(tmp_path / "net.onnx", [match], [value("x", [1])], [value("y", None, BOOL)], words, opset=20)
    assert cspprof.profile(file).total("params") == 0
