"""ONNX graphs are data: functions, branches and loops are walked over within budgets, and nothing of them runs."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
from conftest import Result

import cspprof
from cspprof.core.errors import SourceError

onnx = pytest.importorskip("onnx", reason="the library onnx is not installed: it is in the extra onnx")
from onnx import TensorProto, helper  # noqa: E402
from onnx_models import BOOL, I64, constant, function_of, graph_of, node, save_graph, tensors, value  # noqa: E402

LONG = numpy.int64
X, Y = [value("x", [2, 4])], [value("y", [2, 4])]
W = {"w": (4, 4)}


def macs_and_uncounted(path: str) -> tuple[Any, dict[str, int]]:
    p = cspprof.profile(path)
    p.self_check()
    return p.total("macs"), p.uncounted


# -- loops --------------------------------------------------------------------------------------------


def loop_body(
    *nodes: Any, condition: Any = None, scans: Sequence[str] = (), state: Sequence[int | str] | None = (2, 4)
) -> Any:
    """A round with the state `s`, which becomes `o`."""
    inputs = [value("i", [], I64), value("go", [], BOOL), value("s", state)]
    outputs = [value("more", [], BOOL), value("o", state), *(value(name) for name in scans)]
    return graph_of([condition or node("Identity", "go", outputs=["more"]), *nodes], inputs, outputs)


STEP = node("MatMul", "s", "w", outputs=["o"])


def save_loop(path: Path, body: Any, limit: int | None = 3, declared: bool = True, first: str = "x") -> str:
    """A Loop over a 2×4 state, and a product behind it. Without a limit, it is an input of the graph."""
    nodes = [node("Loop", "n", "t", first, outputs=["l"], body=body), node("MatMul", "l", "w")]
    inputs = X if limit is not None else [*X, value("n", [], I64)]
    weights = W | {"t": numpy.array(True)} | ({"n": numpy.array(limit, LONG)} if limit is not None else {})
    weights |= {} if first == "x" else {first: (2, 4)}
    return save_graph(path, nodes, inputs, Y, weights, declared=[value("l", [2, 4])] if declared else [])


def test_loop_with_a_constant_number_of_rounds_counts_each_round(tmp_path: Path) -> None:
    path = save_loop(tmp_path / "net.onnx", loop_body(STEP), declared=False)
    assert macs_and_uncounted(path) == (3 * 2 * 16 + 2 * 16, {})
    assert cspprof.profile(path).params == 16


def test_loop_whose_first_state_is_constant_counts_the_first_round_too(tmp_path: Path) -> None:
    assert macs_and_uncounted(save_loop(tmp_path / "net.onnx", loop_body(STEP), first="zeros")) == (4 * 32, {})


def test_loop_without_rounds_returns_its_first_state(tmp_path: Path) -> None:
    assert macs_and_uncounted(save_loop(tmp_path / "net.onnx", loop_body(STEP), limit=0)) == (32, {})


def test_loop_ends_when_its_condition_is_false(tmp_path: Path) -> None:
    """The condition `i < 4` holds after rounds 0 to 3, so five rounds run, of at most 2⁶² ones."""
    condition = node("Less", "i", "four", outputs=["more"])
    body = loop_body(constant("four", numpy.array(4, LONG)), STEP, condition=condition)
    body.node.insert(0, body.node.pop(1))
    assert macs_and_uncounted(save_loop(tmp_path / "net.onnx", body, limit=2**62)) == (5 * 32 + 32, {})


@pytest.mark.parametrize("declared", [True, False])
def test_loop_whose_rounds_are_an_input_is_uncounted(declared: bool, tmp_path: Path) -> None:
    path = save_loop(tmp_path / "net.onnx", loop_body(STEP), limit=None, declared=declared)
    assert macs_and_uncounted(path) == (32, {"onnx.Loop": 1})
    assert cspprof.profile(path).params == 16


def test_loop_of_too_many_rounds_is_uncounted(tmp_path: Path) -> None:
    path = save_loop(tmp_path / "net.onnx", loop_body(STEP), limit=2**62)
    assert macs_and_uncounted(path) == (32, {"onnx.Loop": 1})


def test_condition_that_depends_on_an_activation_makes_a_loop_uncounted(tmp_path: Path) -> None:
    condition = node("Less", "total", "limit", outputs=["more"])
    body = loop_body(
        constant("limit", numpy.array(9, numpy.float32)), STEP, node("ReduceSum", "o", outputs=["total"], keepdims=0)
    )
    body.node[0].CopyFrom(body.node.pop(1))
    body.node.append(condition)
    assert macs_and_uncounted(save_loop(tmp_path / "net.onnx", body)) == (32, {"onnx.Loop": 1})


def test_loop_with_an_unknown_operator_is_uncounted_if_the_file_declares_its_output(
    tmp_path: Path, run: Callable[..., Result]
) -> None:
    body = loop_body(node("Own", "s", "k", outputs=["o"], domain="own"), state=None)
    body.initializer.extend(tensors({"k": (4, 4)}))
    path = save_loop(tmp_path / "net.onnx", body)
    assert macs_and_uncounted(path) == (32, {"onnx.Loop": 1})
    assert cspprof.profile(path).params == 2 * 16
    undeclared = run("cio", save_loop(tmp_path / "open.onnx", body, declared=False))
    assert (undeclared.code, undeclared.out) == (2, "")
    assert "cspprof does not know own.Own" in undeclared.err


def test_state_that_grows_without_a_declared_shape_is_refused(tmp_path: Path, run: Callable[..., Result]) -> None:
    body = loop_body(node("Concat", "s", "s", outputs=["o"], axis=0), state=None)
    result = run("cio", save_loop(tmp_path / "net.onnx", body, limit=None, declared=False))
    assert (result.code, result.out) == (2, "")
    assert "the shape of its output 'l' is known only when it runs" in result.err
    assert "Declare it in the file (value_info)" in result.err


def test_slices_of_all_rounds_become_one_output(tmp_path: Path) -> None:
    body = loop_body(STEP, node("Relu", "o", outputs=["slice"]), scans=["slice"])
    nodes = [node("Loop", "n", "", "x", outputs=["l", "y"], body=body)]
    p = cspprof.profile(
        save_graph(tmp_path / "net.onnx", nodes, X, [value("y", [3, 2, 4])], W | {"n": numpy.array(3, LONG)})
    )
    assert (p.total("macs"), p.ops[-1].target, p.ops[-1].writes[0].shape) == (96, "onnx.Loop", (3, 2, 4))
    assert p.outputs == (p.ops[-1].writes[0].storage,)


def scan_body() -> Any:
    nodes = [
        node("MatMul", "xi", "w", outputs=["a"]), node("Add", "a", "s", outputs=["o"]),
        node("Identity", "o", outputs=["yo"]),
    ]  # fmt: skip
    return graph_of(nodes, [value("s", [2, 4]), value("xi", [2, 4])], [value("o", [2, 4]), value("yo", [2, 4])])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_scan_counts_each_slice(axis: int, tmp_path: Path) -> None:
    shape = [2, 4]
    shape.insert(axis if axis >= 0 else 2, 5)
    scan = node("Scan", "s0", "x", outputs=["last", "y"], body=scan_body(), num_scan_inputs=1,
                scan_input_axes=[axis], scan_output_axes=[axis])  # fmt: skip
    path = save_graph(tmp_path / "net.onnx", [scan], [value("s0", [2, 4]), value("x", shape)], [value("y", shape)], W)
    assert macs_and_uncounted(path) == (5 * 2 * 16, {})


def test_shapes_inside_a_loop_match_onnx_runtime(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    body = loop_body(
        node("Concat", "s", "x", outputs=["o"], axis=0), node("ReduceSum", "o", outputs=["r"]), scans=["r"], state=None
    )
    nodes = [node("Loop", "n", "", "x", outputs=["l", "y"], body=body)]
    path = save_graph(tmp_path / "net.onnx", nodes, X, [value("l"), value("y")], {"n": numpy.array(3, LONG)})
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    real = [array.shape for array in session.run(None, {"x": numpy.ones((2, 4), numpy.float32)})]
    p = cspprof.profile(path)
    written = {t.storage: t.shape for op in p.ops for t in op.writes}
    assert [written[s] for s in p.outputs] == real == [(8, 4), (3, 1, 1)]


# -- branches -----------------------------------------------------------------------------------------


def branches(then: Any, other: Any) -> Any:
    return node(
        "If", "c", then_branch=graph_of([then], [], [value(then.output[0])]),
        else_branch=graph_of([other], [], [value(other.output[0])]),
    )  # fmt: skip


def test_branch_of_unknown_condition_is_uncounted(tmp_path: Path) -> None:
    choice = branches(node("MatMul", "x", "w", outputs=["a"]), node("Identity", "x", outputs=["b"]))
    path = save_graph(tmp_path / "net.onnx", [choice], [*X, value("c", [], BOOL)], [value("y")], W)
    assert macs_and_uncounted(path) == (0, {"onnx.If": 1})
    assert cspprof.profile(path).ops[0].writes[0].shape == (2, 4)


def test_branches_of_different_shapes_need_a_declared_one(tmp_path: Path, run: Callable[..., Result]) -> None:
    choice = branches(node("MatMul", "x", "v", outputs=["a"]), node("Identity", "x", outputs=["b"]))
    inputs, weights = [*X, value("c", [], BOOL)], {"v": (4, 6)}
    assert run("cio", save_graph(tmp_path / "net.onnx", [choice], inputs, [value("y")], weights)).code == 2
    path = save_graph(tmp_path / "net.onnx", [choice], inputs, [value("y", [2, 6])], weights)
    assert macs_and_uncounted(path) == (0, {"onnx.If": 1})


# -- outputs whose size values decide -------------------------------------------------------------------

BY_VALUE = {
    "NonZero": (node("NonZero", "x"), [value("y", [2, 5], I64)], {}),
    "Unique": (node("Unique", "x"), [value("y", [5])], {}),
    "Compress": (node("Compress", "x", "k", axis=0), [value("y", [1, 4])], {"k": None}),
    "NonMaxSuppression": (node("NonMaxSuppression", "boxes", "scores"), [value("y", [7, 3], I64)], {}),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_VALUE)
def test_output_of_a_declared_size_is_uncounted_not_refused(
    name: str, tmp_path: Path, run: Callable[..., Result]
) -> None:
    made, outputs, _ = BY_VALUE[name]
    inputs = [value("x", [2, 4]), value("k", [2], BOOL), value("boxes", [1, 9, 4]), value("scores", [1, 1, 9])]
    used = [v for v in inputs if v.name in made.input]
    p = cspprof.profile(save_graph(tmp_path / "net.onnx", [made], used, outputs))
    shape = tuple(d.dim_value for d in outputs[0].type.tensor_type.shape.dim)
    assert (p.uncounted, p.ops[0].writes[0].shape) == ({f"onnx.{name}": 1}, shape)
    undeclared = run(
        "cio",
        save_graph(tmp_path / "open.onnx", [made], used, [value("y", dtype=outputs[0].type.tensor_type.elem_type)]),
    )
    assert (undeclared.code, undeclared.out) == (2, "")
    assert "Declare it in the file (value_info)" in undeclared.err


def test_dimension_of_zero_is_open(tmp_path: Path) -> None:
    """Some exporters write 0 for a batch of any size."""
    nodes = [node("Relu", "x", outputs=["h"]), node("MatMul", "h", "w")]
    path = save_graph(
        tmp_path / "net.onnx", nodes, [value("x", [0, 4])], [value("y", [0, 4])], W, declared=[value("h", [0, 4])]
    )
    p = cspprof.profile(path)
    assert (p.inputs[0].shape, p.total("macs")) == ((1, 4), 16)
    assert p.notes == ("the batch size of input 'x' is open: 1 is assumed (--input changes it)",)
    assert cspprof.profile(path, (3, 4)).total("macs") == 48


# -- functions ----------------------------------------------------------------------------------------


def test_function_takes_the_attributes_of_its_call(tmp_path: Path) -> None:
    """An attribute of the function has a default; the call may give another value, or omit an input."""
    conv = node("Conv", "a", "k", "bias", outputs=["b"])
    for name in ("pads", "strides"):
        reference = conv.attribute.add()
        reference.name, reference.ref_attr_name, reference.type = name, name, onnx.AttributeProto.INTS
    function = function_of(
        "Block", ["a", "k", "bias"], ["b"], [conv], attributes=["pads"],
        attribute_protos=[helper.make_attribute("strides", [1, 1])],
    )  # fmt: skip
    nodes = [
        node("Block", "x", "k", outputs=["h"], domain="local", pads=[1] * 4),
        node("Block", "h", "k", domain="local", strides=[2, 2]),
    ]  # fmt: skip
    path = save_graph(
        tmp_path / "net.onnx", nodes, [value("x", [1, 3, 8, 8])], [value("y", [1, 3, 3, 3])], {"k": (3, 3, 3, 3)},
        functions=[function], domains=["local"],
    )  # fmt: skip
    assert macs_and_uncounted(path) == (81 * 64 + 81 * 9, {})
    assert cspprof.profile(path).params == 81


def doubling(levels: int) -> list[Any]:
    """Functions F0, F1, …, each of which calls the one before it twice."""
    functions = [function_of("F0", ["a"], ["b"], [node("Relu", "a", outputs=["b"])])]
    for i in range(1, levels):
        calls = [
            node(f"F{i - 1}", "a", outputs=["m"], domain="local"),
            node(f"F{i - 1}", "m", outputs=["b"], domain="local"),
        ]
        functions.append(function_of(f"F{i}", ["a"], ["b"], calls))
    return functions


def save_call(path: Path, functions: list[Any]) -> str:
    call = node(functions[-1].name, "x", domain="local")
    return save_graph(path, [call], X, Y, functions=functions, domains=["local"])


def test_functions_are_walked_over_at_each_call(tmp_path: Path) -> None:
    assert len(cspprof.profile(save_call(tmp_path / "net.onnx", doubling(6))).ops) == 32


def test_recursive_function_is_refused(tmp_path: Path, run: Callable[..., Result]) -> None:
    own = function_of("F", ["a"], ["b"], [node("F", "a", outputs=["b"], domain="local")])
    result = run("cio", save_call(tmp_path / "net.onnx", [own]))
    assert (result.code, result.out) == (2, "")
    assert "nest deeper than" in result.err


# -- files that would run for ever ------------------------------------------------------------------------


def regular_expression(path: Path) -> str:
    text = helper.make_tensor("s", TensorProto.STRING, [1], [b"a" * 64 + b"!"])
    nodes = [
        node("Constant", outputs=["s"], value=text), node("RegexFullMatch", "s", outputs=["r"], pattern="(a+)+$"),
        node("Cast", "r", outputs=["f"], to=TensorProto.FLOAT), node("Add", "x", "f"),
    ]  # fmt: skip
    return save_graph(path, nodes, X, [value("y")])


def nested_loops(path: Path) -> str:
    """Each of six levels has 1000 rounds."""
    body = loop_body(node("Relu", "s", outputs=["o"]))
    for _ in range(5):
        limit = constant("n", numpy.array(1000, LONG))
        body = loop_body(limit, node("Loop", "n", "go", "s", outputs=["o"], body=body))
    return save_loop(path, body, limit=1000)


def many_constants(path: Path) -> str:
    """Each node makes the largest array that is evaluated."""
    nodes = [constant("s", numpy.array([1024], LONG))]
    nodes += [
        node("ConstantOfShape", "s", outputs=[f"c{i}"], value=helper.make_tensor("v", I64, [1], [i]))
        for i in range(20_000)
    ]
    return save_graph(path, [*nodes, node("Relu", "x")], X, Y)


def huge_constants(path: Path) -> str:
    sizes = {
        "s": numpy.array([2**20, 2**20], LONG),
        "a": numpy.array(0, LONG),
        "b": numpy.array(2**40, LONG),
        "d": numpy.array(1, LONG),
    }
    nodes = [
        node("ConstantOfShape", "s", outputs=["p"]), node("Range", "a", "b", "d", outputs=["q"]),
        node("Tile", "one", "times", outputs=["e"]), node("Relu", "x"),
    ]  # fmt: skip
    sizes |= {"one": numpy.array([1], LONG), "times": numpy.array([2**50], LONG)}
    return save_graph(path, nodes, X, Y, sizes)


def doubling_functions(path: Path) -> str:
    return save_call(path, doubling(24))


def doubling_texts(path: Path) -> str:
    text = helper.make_tensor("s", TensorProto.STRING, [1], [b"a" * 1000])
    nodes = [node("Constant", outputs=["s0"], value=text)]
    nodes += [node("StringConcat", f"s{i}", f"s{i}", outputs=[f"s{i + 1}"]) for i in range(40)]
    return save_graph(path, [*nodes, node("Relu", "x")], X, Y)


ENDLESS = {
    f.__name__: f
    for f in (regular_expression, nested_loops, many_constants, huge_constants, doubling_functions, doubling_texts)
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDLESS)
def test_file_that_would_run_for_ever_ends_in_bounded_memory(name: str, tmp_path: Path) -> None:
    path = ENDLESS[name](tmp_path / "net.onnx")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30))

    begin = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-m", "cspprof", "flops", path], capture_output=True, text=True, timeout=120, preexec_fn=limit
    )
    assert result.returncode in (0, 2)
    assert "Traceback" not in result.stderr
    assert "bug" not in result.stderr
    assert time.monotonic() - begin < 60


def test_text_is_not_evaluated(tmp_path: Path) -> None:
    assert cspprof.profile(regular_expression(tmp_path / "net.onnx")).total("macs") == 0


def doubling_functions(levels: int, name: str = "") -> list[Any]:
    """Functions that each call the one before twice."""
    first = node("Relu", "x", name=name)
    return [function_of("f0", ["x"], ["y"], [first])] + [
        function_of(f"f{i}", ["x"], ["y"], [
            node(f"f{i - 1}", "x", outputs=["a"], domain="local"), node(f"f{i - 1}", "a", domain="local")])
        for i in range(1, levels + 1)
    ]  # fmt: skip


@pytest.mark.parametrize(("levels", "name"), [(14, ""), (60, ""), (12, "n" * 9_000)])
def test_functions_that_expand_to_too_many_nodes_are_refused_before_they_are_visited(
    levels: int, name: str, tmp_path: Path
) -> None:
    """Names of 9 kB take as long to read as nine nodes."""
    file = save_graph(
        tmp_path / "net.onnx", [node(f"f{levels}", "x", domain="local")], [value("x", [4])], [value("y", [4])],
        functions=doubling_functions(levels, name), domains=["local"],
    )  # fmt: skip
    with pytest.raises(SourceError, match=r"expand to more than 30,000 nodes") as error:
        cspprof.profile(file)
    assert "inline_local_functions" in str(error.value)


def test_functions_that_double_a_few_times_are_counted(tmp_path: Path) -> None:
    file = save_graph(
        tmp_path / "net.onnx", [node("f6", "x", domain="local")], [value("x", [4])], [value("y", [4])],
        functions=doubling_functions(6), domains=["local"],
    )  # fmt: skip
    assert len(cspprof.profile(file).ops) == 2**6
