"""ONNX files with odd names, impossible sizes, bombs and data elsewhere: an error with the node, at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import onnx
import pytest
from conftest import Result
from onnx import TensorProto, helper
from onnx_models import I64, function_of, node, save_graph, value

import cspprof
from cspprof.core.errors import CspprofError
from cspprof.sources.onnx_graph import recording, validation

X = [value("x", [1, 4, 8, 8])]
Y = [value("y")]


def refusal(path: Path | str, inputs: Any = None) -> CspprofError:
    """The error with which a file is refused; it names the file and what to do."""
    with pytest.raises(CspprofError) as refused:
        cspprof.profile(str(path), inputs)
    assert Path(path).name in refused.value.message
    assert refused.value.hint
    assert len(refused.value.message) < 500
    return refused.value


def renamed(path: Path, old: bytes, new: bytes) -> Path:
    """The file with other bytes of the same number in each place."""
    data = path.read_bytes()
    assert len(old) == len(new)
    assert old in data
    path.write_bytes(data.replace(old, new))
    return path


# -- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"Relu", b"xxxx", b"yyyy", b"name", b"wwww", b"local", b"F_un", b"dimN", b"attr"])
def test_a_name_that_is_not_text_is_refused(name: bytes, tmp_path: Path) -> None:
    function = function_of("F_un", ["a", "wwww"], ["b"], [node("Add", "a", "wwww", outputs=["b"])])
    nodes = [node("Relu", "xxxx", outputs=["r"], name="name"), node("LeakyRelu", "r", outputs=["l"], attr=1.0),
             node("F_un", "l", "wwww", outputs=["yyyy"], domain="local")]  # fmt: skip
    path = tmp_path / "net.onnx"
    save_graph(path, nodes, [value("xxxx", ["dimN", 4])], [value("yyyy")], {"wwww": (4,)}, functions=[function],
               domains=["local"])  # fmt: skip
    error = refusal(renamed(path, name, b"\xe0" + name[1:]))
    assert "is not text in UTF-8" in error.message


def test_metadata_that_are_not_text_are_refused(tmp_path: Path) -> None:
    relu = node("Relu", "x")
    pair = relu.metadata_props.add()
    pair.key, pair.value = "pkg.torch.onnx.name_scopes", "['', 'a']"
    save_graph(tmp_path / "net.onnx", [relu], X, Y)
    assert "metadata" in refusal(renamed(tmp_path / "net.onnx", b"['', 'a']", b"['', '\xff']")).message


def test_long_paths_of_modules_take_no_memory(tmp_path: Path) -> None:
    nodes = [node("Relu", "x", outputs=[f"r{i}"], name="/" + f"{i}/a" * 2_000 + "/Relu") for i in range(20)]
    p = cspprof.profile(save_graph(tmp_path / "net.onnx", [*nodes, node("Relu", "r0")], X, Y))
    assert (len(p.layers), len(p.ops)) == (1, 21)


def test_a_name_of_a_megabyte_is_refused(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "net.onnx", [node("Relu", "x", name="n" * 2**20)], X, Y)
    assert "is longer than" in refusal(path).message


# -- sizes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [[2**62, 2**62], [2**63 - 1], [1] * 65, [2**62, 8]])
def test_an_input_that_no_tensor_can_have_is_refused(shape: list[int], tmp_path: Path) -> None:
    path = save_graph(tmp_path / "net.onnx", [node("Relu", "x")], [value("x", shape)], Y)
    refusal(path)
    refusal(save_graph(tmp_path / "net.onnx", [node("Relu", "x")], [value("x", ["n"] * len(shape))], Y), tuple(shape))


def test_a_declared_shape_of_very_many_dimensions_is_refused(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "net.onnx", [node("Relu", "x")], X, Y, declared=[value("v", [2**62] * 100_000)])
    assert "more than 64 dimensions" in refusal(path).message


def test_an_input_without_a_type_or_a_shape_is_refused(tmp_path: Path) -> None:
    untyped = onnx.ValueInfoProto(name="x")
    assert "of no type" in refusal(save_graph(tmp_path / "net.onnx", [node("Relu", "x")], [untyped], Y)).message
    path = save_graph(tmp_path / "net.onnx", [node("Relu", "x")], [value("x")], Y)
    assert "has no shape" in refusal(path).message
    assert cspprof.profile(path, (2, 3)).ops[0].writes[0].shape == (2, 3)


CONV = {"strides": [1, 1], "dilations": [1, 1], "pads": [0, 0, 0, 0], "kernel_shape": [3, 3], "group": 1}


WINDOWS = [
    (operator, attribute)
    for operator in ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool")
    for attribute in ("strides", "dilations", "kernel_shape", "group")
    if attribute != "group" or "Conv" in operator
]


@pytest.mark.parametrize(("operator", "attribute"), WINDOWS)
@pytest.mark.parametrize("number", [0, -1, 2**62])
def test_a_window_that_no_engine_accepts_is_refused(operator: str, attribute: str, number: int, tmp_path: Path) -> None:
    used = {k: v for k, v in CONV.items() if "Conv" in operator or k != "group"}
    inputs = ["x", "w"] if "Conv" in operator else ["x"]
    attributes = used | {attribute: number if attribute == "group" else [number, 1]}
    path = save_graph(tmp_path / "net.onnx", [node(operator, *inputs, **attributes)], X, Y, {"w": (4, 4, 3, 3)})
    assert f"the attribute {attribute} is" in refusal(path).message


SIZES = {
    "ConstantOfShape": (["s"], {"s": [2**62, 2**62]}, {}),
    "Expand": (["x", "s"], {"s": [2**62, 4, 8, 8]}, {}),
    "Tile": (["x", "s"], {"s": [2**40, 2**40, 1, 1]}, {}),
    "Range": (["a", "l", "d"], {"a": 0, "l": 2**63 - 1, "d": 1}, {}),
    "Reshape": (["x", "s"], {"s": [1] * 1_000}, {}),
    "Resize": (["x", "", "", "s"], {"s": [1, 4, 2**40, 2**40]}, {}),
    "Pad": (["x", "s"], {"s": [2**61] * 8}, {}),
    "OneHot": (["i", "l", "v"], {"i": [0] * 8, "l": 2**63 - 1, "v": [0, 1]}, {}),
    "Split": (["x"], {}, {"num_outputs": 0}),
    "DepthToSpace": (["x"], {}, {"blocksize": 0}),
    "SpaceToDepth": (["x"], {}, {"blocksize": -2}),
    "Transpose": (["x"], {}, {"perm": [2**40, 1, 2, 3]}),
    "Concat": (["x", "x"], {}, {"axis": 2**40}),
    "Flatten": (["x"], {}, {"axis": -(2**40)}),
    "Einsum": (["x", "x"], {}, {"equation": "a" * 5_000}),
    "STFT": (["m", "step", "", "f"], {"step": 0, "f": 4}, {}),
    "Attention": (["m", "m", "m"], {}, {"q_num_heads": 0, "kv_num_heads": 0}),
    "GroupNormalization": (["x", "f4", "f4"], {"f4": [1] * 4}, {"num_groups": 0}),
    "LSTM": (["m", "m", "m"], {}, {"hidden_size": 0}),
}


@pytest.mark.parametrize("operator", SIZES)
def test_an_operator_with_impossible_numbers_is_refused(operator: str, tmp_path: Path) -> None:
    inputs, constants, attributes = SIZES[operator]
    weights = {name: numpy.array(number, numpy.int64) for name, number in constants.items()}
    outputs = ["y", "z"] if operator == "Split" else ["y"]
    nodes = [node(operator, *inputs, outputs=outputs, **attributes)]
    path = save_graph(tmp_path / "net.onnx", nodes, [*X, value("m", [1, 8, 1])], Y, weights, opset=24)
    assert refusal(path).message.startswith("net.onnx: node 'y'")


@pytest.mark.parametrize("parts", [1, 3])
def test_a_split_into_another_number_of_parts_than_it_has_outputs_is_refused(parts: int, tmp_path: Path) -> None:
    """The library `onnx` would end the process."""
    nodes = [node("Split", "x", outputs=["y", "z"], axis=1, num_outputs=parts)]
    error = refusal(save_graph(tmp_path / "net.onnx", nodes, X, Y, opset=18))
    assert error.message == f"net.onnx: node 'y' (Split): the attribute num_outputs is {parts}, but it has 2 outputs"


@pytest.mark.parametrize("equation", ["%s%n", "ij,jk->ik->i", "i.j,jk", "ij,jk->i......k", "ij;jk", "é,é", "i1,1j"])
def test_an_equation_of_other_characters_than_letters_is_refused(equation: str, tmp_path: Path) -> None:
    """The library `onnx` would read some of them for ever."""
    nodes = [node("Einsum", "x", "x", outputs=["y"], equation=equation)]
    error = refusal(save_graph(tmp_path / "net.onnx", nodes, X, Y, opset=18))
    assert error.message == f"net.onnx: node 'y' (Einsum): the attribute equation is {equation!r}"


def test_the_smallest_integer_is_an_attribute_that_can_be_saved(tmp_path: Path) -> None:
    nodes = [node("ReduceMean", "x", "axes", outputs=["y"], keepdims=-(2**63))]
    path = save_graph(tmp_path / "net.onnx", nodes, X, Y, {"axes": numpy.array([1])}, opset=18)
    profile = cspprof.profile(path)
    profile.save(tmp_path / "net.profile.json")
    assert cspprof.Profile.load(tmp_path / "net.profile.json") == profile


def test_a_negative_number_of_operations_is_refused(tmp_path: Path) -> None:
    q = [value("q", [1, 8, 4])]
    heads = node("MultiHeadAttention", "q", "q", "q", domain="com.microsoft", num_heads=-2)
    path = save_graph(tmp_path / "net.onnx", [heads], q, Y, domains=["com.microsoft"])
    assert "an impossible number of operations" in refusal(path).message


def test_more_operations_than_an_integer_of_64_bits_are_refused(tmp_path: Path) -> None:
    x = [value("x", [1, 3, 2**25, 2**25])]
    path = save_graph(tmp_path / "net.onnx", [node("Conv", "x", "w", pads=[0] * 4)], x, Y, {"w": (1_000, 3, 3, 3)})
    assert "an impossible number of operations" in refusal(path).message


# -- bombs ---------------------------------------------------------------------------------------------------


def test_functions_that_double_at_each_level_are_refused(tmp_path: Path) -> None:
    def call(level: int, i: str, o: str) -> Any:
        return node("Relu", i, outputs=[o]) if level == 0 else node(f"F{level}", i, outputs=[o], domain="local")

    functions = [
        function_of(f"F{n}", ["a"], ["c"], [call(n - 1, "a", "b"), call(n - 1, "b", "c")]) for n in range(1, 41)
    ]
    path = save_graph(tmp_path / "net.onnx", [call(40, "x", "y")], X, Y, functions=functions, domains=["local"])
    assert "expand to more than 30,000 nodes" in refusal(path).message


def test_a_function_that_calls_itself_is_refused(tmp_path: Path) -> None:
    functions = [function_of("F", ["a"], ["b"], [node("F", "a", outputs=["b"], domain="local")])]
    path = save_graph(tmp_path / "net.onnx", [node("F", "x", domain="local")], X, Y, functions=functions,
                      domains=["local"])  # fmt: skip
    assert "nest deeper than 64" in refusal(path).message


def test_an_attribute_that_a_function_repeats_is_limited(tmp_path: Path) -> None:
    inner = []
    for i in range(2_000):
        inner.append(node("Constant", outputs=[f"c{i}"]))
        inner[-1].attribute.add(name="value_string", ref_attr_name="table", type=onnx.AttributeProto.STRING)
    inner.append(node("Relu", "a", outputs=["b"]))
    functions = [function_of("F", ["a"], ["b"], inner, attributes=["table"])]
    call = node("F", "x", domain="local", table="t" * 2**20)
    path = save_graph(tmp_path / "net.onnx", [call], X, Y, functions=functions, domains=["local"])
    assert "expand to more than 30,000 nodes" in refusal(path).message


def test_a_constant_of_very_many_constants_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_SOURCES", 3)
    weights = {f"w{i}": (1, 4, 1, 1) for i in range(5)}
    nodes = [node("Concat", *weights, outputs=["w"], axis=1), node("Add", "x", "w")]
    path = save_graph(tmp_path / "net.onnx", nodes, [value("x", [1, 20, 8, 8])], Y, weights)
    assert "more than 3 others" in refusal(path).message


def test_a_file_of_very_many_nodes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "MAX_NODES", 2)
    nodes = [node("Relu", "x", outputs=["a"]), node("Relu", "a", outputs=["b"]), node("Relu", "b")]
    assert "more than 2 nodes" in refusal(save_graph(tmp_path / "net.onnx", nodes, X, Y)).message


def test_a_regular_expression_is_not_run(tmp_path: Path) -> None:
    text = helper.make_tensor("s", TensorProto.STRING, [1], [b"a" * 60 + b"!"])
    nodes = [node("RegexFullMatch", "s", outputs=["r"], pattern="(a+)+$"), node("Cast", "r", outputs=["f"], to=1),
             node("Add", "x", "f")]  # fmt: skip
    save_graph(tmp_path / "net.onnx", nodes, X, Y)
    model = onnx.load(tmp_path / "net.onnx")
    model.graph.initializer.append(text)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    assert cspprof.profile(str(tmp_path / "net.onnx")).missed("macs") == 1


# -- external data ----------------------------------------------------------------------------------------------


def with_data_at(folder: Path, location: str, offset: str = "0") -> Path:
    """A graph whose result has the shape that two numbers in another file state."""
    to = TensorProto(name="to", data_type=I64, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, text in (("location", location), ("offset", offset)):
        entry = to.external_data.add()
        entry.key, entry.value = key, text
    folder.mkdir(exist_ok=True)
    nodes = [helper.make_node("Constant", [], ["s"], value=to), node("Reshape", "x", "s")]
    save_graph(folder / "net.onnx", nodes, [value("x", [1, 4])], Y)
    return folder / "net.onnx"


def shape_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(numpy.array([2, 2], numpy.int64).tobytes())


def test_data_in_the_folder_is_read(tmp_path: Path) -> None:
    shape_file(tmp_path / "in" / "sub" / "w.bin")
    p = cspprof.profile(str(with_data_at(tmp_path / "in", "sub/w.bin")))
    assert p.ops[-1].writes[0].shape == (2, 2)


@pytest.mark.parametrize(
    "location", ["../w.bin", "sub/../../w.bin", "sub/..", "..", "", "/etc/passwd", "C:\\w.bin", "\\w.bin", "w\0.bin",
                 "a" * 5_000]
)  # fmt: skip
def test_data_elsewhere_is_refused(location: str, tmp_path: Path) -> None:
    shape_file(tmp_path / "w.bin")
    assert "lies outside its folder" in refusal(with_data_at(tmp_path / "in", location)).message


def test_an_absolute_path_into_the_folder_is_refused(tmp_path: Path) -> None:
    shape_file(tmp_path / "w.bin")
    assert "lies outside" in refusal(with_data_at(tmp_path, str(tmp_path / "w.bin"))).message


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
@pytest.mark.parametrize("target", ["../secret.bin", "real.bin", "/dev/zero", "link.bin"])
def test_a_link_is_not_followed(target: str, tmp_path: Path) -> None:
    shape_file(tmp_path / "secret.bin")
    shape_file(tmp_path / "in" / "real.bin")
    (tmp_path / "in" / "link.bin").symlink_to(target)
    assert "is behind a link" in refusal(with_data_at(tmp_path / "in", "link.bin")).message
    (tmp_path / "in" / "folder").symlink_to(tmp_path)
    assert "is behind a link" in refusal(with_data_at(tmp_path / "in", "folder/secret.bin")).message


@pytest.mark.parametrize("offset", ["-1", "9" * 5_000, "x", "1000"])
def test_data_that_is_too_short_has_no_elements(offset: str, tmp_path: Path) -> None:
    shape_file(tmp_path / "in" / "w.bin")
    assert "does not follow" in refusal(with_data_at(tmp_path / "in", "w.bin", offset)).message


def test_the_command_names_the_node(tmp_path: Path, run: Callable[..., Result]) -> None:
    conv = node("Conv", "x", "w", strides=[0, 0])
    result = run("cio", save_graph(tmp_path / "net.onnx", [conv], X, Y, {"w": (4, 4, 3, 3)}))
    assert result.code == 2
    assert "node 'y' (Conv): the attribute strides is 0×0" in result.err
    assert "Traceback" not in result.err
