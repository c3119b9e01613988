"""Crafted `.pt2` files: no code from them runs, no file is written, and no small file takes much memory."""

from __future__ import annotations

import copy
import json
import pickle
import struct
import sys
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Result

import cspprof
from cspprof.core.errors import CspprofError, SourceError
from cspprof.sources.exported_program import json_values, memory_limits

LEAF = {"type": None, "context": None, "children_spec": []}


def tree(kind: str, children: list[Any], context: str = "null") -> dict[str, Any]:
    return {"type": kind, "context": context, "children_spec": children}


def tensor(*sizes: int) -> dict[str, Any]:
    strides = [int(torch.tensor(sizes[i + 1 :]).prod()) for i in range(len(sizes))]
    return {
        "dtype": 7, "sizes": [{"as_int": n} for n in sizes], "strides": [{"as_int": n} for n in strides],
        "requires_grad": False, "device": {"type": "cpu", "index": None}, "storage_offset": {"as_int": 0}, "layout": 7,
    }  # fmt: skip


def named(name: str) -> dict[str, Any]:
    return {"as_tensor": {"name": name}}


def node(target: str, output: Any, **arguments: Any) -> dict[str, Any]:
    inputs = [{"name": name, "arg": value, "kind": 1} for name, value in arguments.items()]
    return {"target": target, "inputs": inputs, "outputs": output, "metadata": {}}


RELU = node("torch.ops.aten.relu.default", [named("y")], self=named("x"))


def document(*nodes: dict[str, Any], result: str = "y", context: str = "[]") -> dict[str, Any]:
    """A program whose forward takes x (2×4) and returns the value `result`."""
    in_spec = tree("builtins.tuple", [tree("builtins.tuple", [LEAF]), tree("builtins.dict", [], context)])
    signature = {
        "inputs": [], "outputs": [], "in_spec": json.dumps([1, in_spec]), "out_spec": json.dumps([1, LEAF]),
        "forward_arg_names": ["x"],
    }  # fmt: skip
    graph = {
        "inputs": [named("x")], "outputs": [named(result)], "nodes": list(nodes or (RELU,)),
        "tensor_values": {"x": tensor(2, 4)}, "sym_int_values": {}, "sym_bool_values": {},
    }  # fmt: skip
    return {
        "graph_module": {
            "graph": graph,
            "signature": {
                "input_specs": [{"user_input": {"arg": named("x")}}],
                "output_specs": [{"user_output": {"arg": named(result)}}],
            },
            "module_call_graph": [{"fqn": "", "signature": signature}],
        },
        "opset_version": {"aten": 10}, "range_constraints": {}, "schema_version": {"major": 8, "minor": 20},
    }  # fmt: skip


def archive(path: Path, program: Any, extra: dict[str, bytes] | None = None, **weights: Any) -> Path:
    text = program if isinstance(program, (str, bytes)) else json.dumps(program)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/archive_format", "pt2")
        file.writestr("m/archive_version", "0")
        file.writestr("m/models/model.json", text)
        file.writestr("m/data/weights/model_weights_config.json", json.dumps({"config": weights}))
        file.writestr("m/data/constants/model_constants_config.json", '{"config": {}}')
        for name, data in (extra or {}).items():
            file.writestr(name, data)
    return path


def refusal(path: Path) -> str:
    """The message with which a file is refused, before anything is traced."""
    with pytest.raises(SourceError) as refused:
        cspprof.profile(str(path))
    assert refused.value.hint
    return str(refused.value)


def test_plain_program_of_these_tests_is_read(tmp_path: Path) -> None:
    assert [op.target for op in cspprof.profile(str(archive(tmp_path / "a.pt2", document()))).ops] == ["aten.relu"]


def test_an_empty_range_of_a_size_is_refused(tmp_path: Path) -> None:
    program = {**document(), "range_constraints": {"s0": {"min_val": 65, "max_val": 64}}}
    assert "a.pt2: the range of the size 's0' is empty: from 65 to 64" in refusal(archive(tmp_path / "a.pt2", program))


# -- code in the file -----------------------------------------------------------------------------------


def touching(marker: Path) -> str:
    """An expression that creates a file when Python evaluates it."""
    return f"__import__('pathlib').Path({str(marker)!r}).touch()"


def with_expression(text: str) -> dict[str, Any]:
    program = document()
    expression = {"as_expr": {"expr_str": text, "hint": {"as_int": 4}}}
    program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][1] = expression
    return program


def test_expression_of_a_size_is_not_evaluated(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    text = refusal(archive(tmp_path / "a.pt2", with_expression(touching(marker))))
    assert "the function '__import__'" in text
    assert not marker.exists()


def test_expressions_of_very_many_characters_are_refused(tmp_path: Path) -> None:
    program = document()
    table = program["graph_module"]["graph"]["sym_int_values"]
    for i in range(60):
        table[f"s{i}"] = {"as_expr": {"expr_str": f"{i}" + "+1" * 9_000, "hint": None}}
    assert "more than 1,000,000 characters" in refusal(archive(tmp_path / "a.pt2", program))


@pytest.mark.parametrize("number", ["²", "１", "9" * 5_000, "x"])
def test_an_odd_number_of_a_call_is_the_first_call(number: str, tmp_path: Path) -> None:
    metadata = {"nn_module_stack": f"L_a@{number},a,net.A"}
    profile = cspprof.profile(str(archive(tmp_path / "a.pt2", document({**RELU, "metadata": metadata}))))
    assert [layer.path for layer in profile.layers] == ["", "a"]


@pytest.mark.parametrize("place", ["sym_int_values", "sym_bool_values", "sym_float_values", "tensor_values"])
def test_expression_that_a_profile_does_not_need_is_refused_too(place: str, tmp_path: Path) -> None:
    program = document()
    expression = {"as_expr": {"expr_str": "exec('1')", "hint": None}}
    table = program["graph_module"]["graph"].setdefault(place, {})
    table["other"] = expression if place != "tensor_values" else {**tensor(2), "sizes": [expression]}
    assert "the function 'exec'" in refusal(archive(tmp_path / "a.pt2", program))


@pytest.mark.parametrize("text", [{}, [], 4, True])
def test_expression_that_is_no_text_is_refused(text: Any, tmp_path: Path) -> None:
    assert "expr_str is" in refusal(archive(tmp_path / "a.pt2", with_expression(text)))


@pytest.mark.parametrize(
    "name", ["m/models/other.txt", "m/models/sub/other.json", "m/models/model.json.bak", "m/models/x"]
)
def test_other_entry_under_models_is_refused_by_name(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    program = json.dumps(with_expression(touching(marker))).encode()
    text = refusal(archive(tmp_path / "a.pt2", document(), {name: program}))
    assert f"a part that is not a program models/NAME.json: {name[2:]!r}" in text
    assert not marker.exists()


def test_second_program_is_not_read(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    second = json.dumps(with_expression(touching(marker))).encode()
    file = archive(tmp_path / "a.pt2", document(), {"m/models/second.json": second})
    assert cspprof.profile(str(file)).complete
    assert not marker.exists()


@pytest.mark.parametrize("spec", ["in_spec", "out_spec"])
def test_escaped_enum_in_a_nested_document_imports_no_module(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "crafted_module.py").write_text(f"open({str(marker)!r}, 'w')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    enum = r'[{"\u005f\u005fenum\u005f\u005f": true, "fqn": "crafted_module:Kind", "name": "A"}]'
    program = document()
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    dict_tree = tree("builtins.dict", [LEAF], enum)
    if spec == "in_spec":
        signature[spec] = json.dumps([1, tree("builtins.tuple", [tree("builtins.tuple", []), dict_tree])])
    else:
        signature[spec] = json.dumps([1, dict_tree])
    text = refusal(archive(tmp_path / "a.pt2", program))
    assert "__enum__" in text
    assert "which is no text or number" in text
    assert not marker.exists()
    assert "crafted_module" not in sys.modules


def test_metadata_of_nodes_import_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "crafted_module.py").write_text(f"open({str(marker)!r}, 'w')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    enum = r'{"\u005f_enum__": true, "fqn": "crafted_module:Kind", "name": "A"}'
    metadata = {
        "nn_module_stack": "L,,crafted_module.Net;L_a,a,crafted_module.A", "custom": enum, "from_node": f"[{enum}]",
        "source_fn_stack": "y,torch.hub.load", "torch_fn": "x;crafted_module.f",
    }  # fmt: skip
    profile = cspprof.profile(str(archive(tmp_path / "a.pt2", document({**RELU, "metadata": metadata}))))
    assert [layer.class_name for layer in profile.layers] == ["crafted_module.Net", "crafted_module.A"]
    assert not marker.exists()


def test_code_of_guards_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    program = document()
    program["guards_code"] = [touching(marker), f"{touching(marker)} or True"]
    program["graph_module"]["metadata"] = {"custom": touching(marker)}
    assert cspprof.profile(str(archive(tmp_path / "a.pt2", program))).complete
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("data/aotinductor/model/model.so", "a compiled library"),
        ("data/aotinductor/model/wrapper.cpp", "a compiled library"),
        ("executorch/model.pte", "a program of ExecuTorch"),
        ("data/constants/custom_obj_0", "a pickled object that is not a tensor"),
        ("data/constants/opaque_obj_0", "a pickled object that is not a tensor"),
        ("code/__torch__.py", "an unknown part"),
        ("data.pkl", "an unknown part"),
        ("data/weights/other", "an unknown part"),
    ],
)
def test_part_that_could_be_code_is_refused_by_name(name: str, kind: str, tmp_path: Path) -> None:
    assert f"its archive contains {kind}: {name!r}" in refusal(
        archive(tmp_path / "a.pt2", document(), {f"m/{name}": b"\x7fELF"})
    )


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.marker,))


def test_nothing_is_unpickled(tmp_path: Path, run: Callable[..., Result]) -> None:
    marker, file = tmp_path / "marker", tmp_path / "model.pt2"
    bomb = pickle.dumps(Bomb(marker))
    file.write_bytes(bomb)
    result = run("cio", str(file))
    assert (result.code, result.out) == (2, "")
    assert "model.pt2 is not an exported program: it is not an archive" in result.err
    payload = {"path_name": "weight_0", "is_param": True, "use_pickle": True, "tensor_meta": None}
    pickled = archive(tmp_path / "b.pt2", document(), {"m/data/weights/weight_0": bomb}, w=payload)
    assert "the tensor 'w' is pickled" in refusal(pickled)
    inputs = archive(tmp_path / "c.pt2", document(), {"m/data/sample_inputs/model.pt": bomb})
    assert cspprof.profile(str(inputs)).complete  # the example inputs are not read
    assert not marker.exists()


OPERATORS = [
    ("torch.hub.load", "is not an operator of torch"),
    ("torch.ops.load_library", "is not an operator of torch"),
    ("torch.ops.__class__.mro", "belongs to the library '__class__'"),
    ("torch.ops.aten.__class__.mro", "is not an operator of this torch"),
    ("torch.ops.aten.conv2d.__class__", "is not an operator of this torch"),
    ("torch.ops.aten.no_such_operator.default", "is not an operator of this torch"),
    ("torch.ops.aten.save.default", "may read or write files"),
    ("torch.ops.aten._print.default", "returns nothing"),
    ("torch.ops.inductor.resize_storage_bytes_.default", "belongs to the library 'inductor'"),
    ("torch.ops.c10d.barrier.default", "belongs to the library 'c10d'"),
    ("_operator.attrgetter", "is not an operator of torch"),
    ("_operator.call", "is not an operator of torch"),
    ("math.__loader__.load_module", "is not an operator of torch"),
    ("builtins.exec", "is not an operator of torch"),
    ("#executorch:x", "is not an operator of torch"),
    ("torch.ops.higher_order.triton_kernel_wrapper_functional", "triton_kernel_wrapper_functional cannot be traced"),
]


def graph(inputs: list[str], *nodes: dict[str, Any], outputs: list[str], single: bool = False) -> dict[str, Any]:
    """A graph within the graph, as an argument."""
    data = {
        "inputs": [named(name) for name in inputs], "outputs": [named(name) for name in outputs], "nodes": list(nodes),
        "tensor_values": {}, "sym_int_values": {}, "sym_bool_values": {}, "is_single_tensor_return": single,
    }  # fmt: skip
    return {"as_graph": {"name": "g", "graph": data}}


def higher_order(name: str, output: str, *arguments: Any) -> dict[str, Any]:
    made = node(f"torch.ops.higher_order.{name}", [named(output)])
    return made | {
        "inputs": [{"name": "", "arg": argument, "kind": 1} for argument in arguments],
        "is_hop_single_tensor_return": False,
    }


def tensors(*names: str) -> dict[str, Any]:
    return {"as_tensors": [{"name": name} for name in names]}


def failure(path: Path, device: str | None = None) -> str:
    """The message with which a file is refused, perhaps only when it runs."""
    with pytest.raises(CspprofError) as refused:
        cspprof.profile(str(path), device=device)
    assert refused.value.hint
    return str(refused.value)


def test_loop_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_limits, "MOST_REPEATED", 500)
    one = node("torch.ops.aten.ones.default", [named("o")], size={"as_ints": []})
    always = node("torch.ops.aten.ge.Scalar", [named("c")], self=named("o"), other={"as_int": 1})
    loop = higher_order(
        "while_loop", "y", graph(["a"], one, always, outputs=["c"], single=True),
        graph(["b"], node("torch.ops.aten.relu.default", [named("r")], self=named("b")), outputs=["r"]),
        tensors("x"), tensors(),
    )  # fmt: skip
    assert "loops of an exported program run more than 500 operations" in failure(
        archive(tmp_path / "a.pt2", document(loop))
    )


@pytest.mark.parametrize("device", [None, "cpu"])
def test_loop_over_a_dimension_of_any_size_is_refused(device: str | None, tmp_path: Path) -> None:
    large = node("torch.ops.aten.expand.default", [named("e")], self=named("x"),
                 size={"as_ints": [2**40, 2, 4]}, implicit={"as_bool": False})  # fmt: skip
    body = graph(["b"], node("torch.ops.aten.relu.default", [named("r")], self=named("b")), outputs=["r"])
    file = archive(tmp_path / "a.pt2", document(large, higher_order("map_impl", "y", body, tensors("e"), tensors())))
    assert "loops of an exported program" in failure(file, device)


def test_loops_within_loops_share_one_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 20 levels runs the one below twice."""
    monkeypatch.setattr(memory_limits, "MOST_REPEATED", 500)
    large = node("torch.ops.aten.expand.default", [named("e")], self=named("x"),
                 size={"as_ints": [2] * 20 + [2, 4]}, implicit={"as_bool": False})  # fmt: skip
    inner = node("torch.ops.aten.relu.default", [named("r")], self=named("b"))
    for _ in range(19):
        inner = higher_order("map_impl", "r", graph(["b"], inner, outputs=["r"]), tensors("b"), tensors())
    loop = higher_order("map_impl", "y", graph(["b"], inner, outputs=["r"]), tensors("e"), tensors())
    assert "loops of an exported program" in failure(archive(tmp_path / "a.pt2", document(large, loop)))


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (named("x"), graph(["b"], outputs=["b"]), tensors("x"), graph(["b"], outputs=["b"])),
        (named("x"), graph(["b"], outputs=["b"]), graph(["b"], outputs=["b"])),
        (named("x"), graph([], outputs=[]), graph([], outputs=[]), tensors("x")),
    ],
)
def test_branches_with_other_arguments_are_refused(arguments: tuple[Any, ...], tmp_path: Path) -> None:
    text = refusal(archive(tmp_path / "a.pt2", document(higher_order("cond", "y", *arguments))))
    assert "cond has other arguments" in text or "cond passes 1 values to a graph of 0" in text


@pytest.mark.parametrize(("target", "reason"), OPERATORS)
def test_other_function_is_refused_by_name(target: str, reason: str, tmp_path: Path) -> None:
    text = refusal(archive(tmp_path / "a.pt2", document(node(target, [named("y")], self=named("x")))))
    assert reason in text
    assert target.rpartition(".")[2].removeprefix("#")[:20] in text or target in text


def test_operator_that_maps_a_file_writes_none(tmp_path: Path) -> None:
    file = tmp_path / "written"
    reads = node(
        "torch.ops.aten.from_file.default", [named("y")], filename={"as_string": str(file)}, shared={"as_bool": True},
        size={"as_int": 10},
    )  # fmt: skip
    assert "'torch.ops.aten.from_file.default', which may read or write files" in refusal(
        archive(tmp_path / "a.pt2", document(reads))
    )
    assert not file.exists()


def test_operator_that_was_registered_in_this_process_is_refused(tmp_path: Path) -> None:
    called = []
    with torch.library._scoped_library("crafted", "DEF") as library:
        library.define("touch(Tensor x) -> Tensor")
        library.impl("touch", lambda x: called.append(x) or x, "CompositeExplicitAutograd")
        file = archive(
            tmp_path / "a.pt2", document(node("torch.ops.crafted.touch.default", [named("y")], x=named("x")))
        )
        assert "belongs to the library 'crafted'" in refusal(file)
    assert not called


@pytest.mark.parametrize(
    "argument",
    [
        {"as_custom_obj": {"name": "x", "class_fqn": "os.system"}},
        {"as_operator": "torch.hub.load"},
        {"as_unknown": 1},
        {"as_tensor": {"name": "missing"}},
        {"as_device": {"type": "__import__", "index": None}},
        {"as_scalar_type": 99},
        {"as_int": "1"},
        {"as_int": True},
        {"as_int": 2**63},
        {"as_tensor": {"name": "x"}, "as_int": 1},
        {},
        None,
    ],
)
def test_argument_that_is_not_data_is_refused(argument: Any, tmp_path: Path) -> None:
    bad = node("torch.ops.aten.relu.default", [named("y")], self=argument)
    assert "aten.relu" in refusal(archive(tmp_path / "a.pt2", document(bad)))


def test_argument_names_are_those_of_the_operator(tmp_path: Path) -> None:
    bad = node("torch.ops.aten.relu.default", [named("y")], self=named("x"), __class__={"as_int": 1})
    assert "has no argument '__class__'" in refusal(archive(tmp_path / "a.pt2", document(bad)))


@pytest.mark.parametrize("path", ["forward", "__class__", "_modules", "training", "a.__dict__.b"])
def test_names_of_modules_are_no_attributes(path: str, tmp_path: Path) -> None:
    relu = {**RELU, "metadata": {"nn_module_stack": f"L,,Net;L_a,{path},A"}}
    profile = cspprof.profile(str(archive(tmp_path / "a.pt2", document(relu))))
    assert profile.ops[0].layer == path


# -- files that would take much memory or time -----------------------------------------------------------


@pytest.fixture
def little_memory() -> Any:
    """The body of the test allocates less than 64 MiB in Python, and takes less than 20 seconds."""
    start = time.monotonic()
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
        assert time.monotonic() - start < 20
    finally:
        tracemalloc.stop()


def zeros(size: int) -> bytes:
    """`size` zero bytes, deflated: one MiB that is flushed, so that it can be repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (size >> 20) + packer.flush()


def entry(name: str, packed: bytes, size: int, method: int = zipfile.ZIP_DEFLATED, crc: int = 0) -> tuple[bytes, bytes]:
    """The local header with data, and the record of the central directory, of a zip entry that states any size."""
    fields = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 33, crc, len(packed), size, len(name), 0)
    local = b"PK\x03\x04" + fields + name.encode() + packed
    return local, b"PK\x01\x02" + struct.pack("<H", 20) + fields + bytes(6) + bytes(8) + name.encode()


def zip_file(path: Path, entries: list[tuple[bytes, bytes]]) -> Path:
    body, directory = b"", b""
    for local, record in entries:
        offset = struct.pack("<I", len(body))
        name_length = struct.unpack("<H", record[28:30])[0]
        directory += record[:42] + offset + record[46 : 46 + name_length]
        body += local
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, len(entries), len(entries), len(directory), len(body), 0)
    path.write_bytes(body + directory + end)
    return path


def test_compressed_graph_of_a_gigabyte_is_refused(tmp_path: Path, little_memory: None) -> None:
    size = 1 << 30
    file = zip_file(tmp_path / "bomb.pt2", [entry("m/models/model.json", zeros(size), size)])
    assert file.stat().st_size < 1_200_000
    assert f"'models/model.json' in its archive unpacks to {size:,} bytes" in refusal(file)


def test_entry_that_states_too_small_a_size_is_not_unpacked_beyond_it(tmp_path: Path, little_memory: None) -> None:
    file = zip_file(tmp_path / "bomb.pt2", [entry("m/models/model.json", zeros(256 << 20), 1000)])
    assert "'models/model.json' in its archive is damaged" in refusal(file)


def test_compressed_weights_of_gigabytes_are_refused(tmp_path: Path, little_memory: None) -> None:
    size = 1 << 30
    payload = {"path_name": "weight_0", "is_param": True, "use_pickle": False, "tensor_meta": tensor(size // 4)}
    parts = {
        "m/models/model.json": json.dumps(document()).encode(),
        "m/data/weights/model_weights_config.json": json.dumps({"config": {"w": payload}}).encode(),
        "m/data/constants/model_constants_config.json": b'{"config": {}}',
    }
    entries = [entry(name, data, len(data), zipfile.ZIP_STORED, zlib.crc32(data)) for name, data in parts.items()]
    file = zip_file(tmp_path / "bomb.pt2", [*entries, entry("m/data/weights/weight_0", zeros(size), size)])
    assert "'data/weights/weight_0' in its archive unpacks to" in refusal(file)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_compression_is_refused(method: int, tmp_path: Path) -> None:
    file = zip_file(tmp_path / "a.pt2", [entry("m/models/model.json", b"x", 1, method)])
    assert "compressed with an unknown method" in refusal(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "models/model.json cannot be read: it is nested too deeply"),
        ('{"a":' * 100_000, "models/model.json cannot be read: it is nested too deeply"),
        ('{"schema_version": {"major": ' + "9" * 100_000 + "}}", "a number has 100,000 digits"),
        ('{"schema_version": 1, "schema_version": 2}', "has the key 'schema_version' twice"),
        ('{"schema_version": {"major": 9, "minor": 0}}', "its schema has version 9"),
        ("\xff\xfe", "models/model.json cannot be read: 'utf-8' codec can't decode byte 0xff"),
        ("NaN", "the program is nan"),
        ("{}", "the program has no 'schema_version'"),
        ("[]", "the program is []"),
    ],
)
def test_document_that_is_no_program_is_refused(text: str, message: str, tmp_path: Path) -> None:
    file = archive(tmp_path / "a.pt2", text.encode("latin-1"))
    assert message in refusal(file)


def test_document_of_many_values_is_refused_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, little_memory: None
) -> None:
    monkeypatch.setattr(json_values, "MAX_VALUES", 40_000)
    file = archive(tmp_path / "a.pt2", "[" + "[]," * 40_000 + "0]")
    assert "models/model.json cannot be read: it has more than 40,000 values" in refusal(file)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"m/../../escape": b""}, "a path out of its folder"),
        ({"/etc/passwd": b""}, "a path out of its folder"),
        ({"m\\models\\model.json": b""}, "a path out of its folder"),
        ({"other/models/model.json": b""}, "outside the folder 'm/'"),
    ],
)
def test_odd_paths_are_refused(extra: dict[str, bytes], message: str, tmp_path: Path) -> None:
    assert message in refusal(archive(tmp_path / "a.pt2", document(), extra))


def test_entry_that_appears_twice_is_refused(tmp_path: Path) -> None:
    data = json.dumps(document()).encode()
    one = entry("m/models/model.json", data, len(data), zipfile.ZIP_STORED, zlib.crc32(data))
    assert "contains 'm/models/model.json' twice" in refusal(zip_file(tmp_path / "a.pt2", [one, one]))


def test_entry_without_a_name_is_refused(tmp_path: Path) -> None:
    data = json.dumps(document()).encode()
    entries = [
        entry(name, data, len(data), zipfile.ZIP_STORED, zlib.crc32(data)) for name in ("m/models/model.json", "")
    ]
    assert "contains '', a path out of its folder" in refusal(zip_file(tmp_path / "a.pt2", entries))


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """A million weights could otherwise lie in one megabyte, each with a copy of its own."""
    meta = {"is_param": True, "use_pickle": False, "tensor_meta": tensor(1000)}
    weights = {f"w{i}": {**meta, "path_name": f"weight_{i}"} for i in range(10)}
    file = archive(tmp_path / "a.pt2", document(), {"m/data/weights/weight_0": bytes(4000)}, **weights)
    with zipfile.ZipFile(file, "a") as made:
        first = made.getinfo("m/data/weights/weight_0")
        for i in range(1, 10):
            other = copy.copy(first)
            other.filename = f"m/data/weights/weight_{i}"
            made.filelist.append(other)
            made.NameToInfo[other.filename] = other
        made.writestr("m/version", "1")  # writes the table of contents
    assert "overlaps other parts" in refusal(file)


@pytest.mark.parametrize("sizes", [(2**62, 2**62), (2**63 - 1,), (-1,), (1,) * 100, (2**61,)])
def test_impossible_shape_is_refused(sizes: tuple[int, ...], tmp_path: Path) -> None:
    program = document()
    value = tensor(2, 4)
    value["sizes"], value["strides"] = [{"as_int": n} for n in sizes], [{"as_int": 1} for _ in sizes]
    program["graph_module"]["graph"]["tensor_values"]["x"] = value
    assert "the tensor 'x'" in refusal(archive(tmp_path / "a.pt2", program))


def test_data_smaller_than_the_shape_are_refused(tmp_path: Path) -> None:
    payload = {"path_name": "weight_0", "is_param": True, "use_pickle": False, "tensor_meta": tensor(1000)}
    file = archive(tmp_path / "a.pt2", document(), {"m/data/weights/weight_0": bytes(16)}, w=payload)
    assert "the data of 'w' have 16 bytes, too few for its shape" in refusal(file)
    payload = {**payload, "path_name": "../../weight_0"}
    assert "the data of 'w' are missing" in refusal(archive(tmp_path / "b.pt2", document(), w=payload))


@pytest.mark.parametrize("path", ["a." * 100 + "b", "a..b", ".", "a" * 5000])
def test_path_that_no_module_has_is_refused(path: str, tmp_path: Path) -> None:
    program = document()
    program["graph_module"]["module_call_graph"].append({"fqn": path, "signature": None})
    assert "is no path of a module" in refusal(archive(tmp_path / "a.pt2", program))


def aten(name: str, output: str, **arguments: Any) -> dict[str, Any]:
    return node(f"torch.ops.aten.{name}", [named(output)], **arguments)


ONE = aten("ones.default", "a", size={"as_ints": [1]})
HUGE_VALUES = {
    "constant": [aten("full.default", "y", size={"as_ints": [2**40]}, fill_value={"as_float": 1.0})],
    "range": [aten("arange.default", "y", end={"as_int": 2**40})],
    "repetition": [ONE, aten("repeat.default", "y", self=named("a"), repeats={"as_ints": [2**40]})],
    "sum of an expanded constant": [
        ONE, aten("expand.default", "b", self=named("a"), size={"as_ints": [2**45]}),
        aten("sum.default", "y", self=named("b")),
    ],
    "outer product": [
        aten("ones.default", "a", size={"as_ints": [2**14, 1]}),
        aten("ones.default", "b", size={"as_ints": [1, 2**14]}),
        aten("mul.Tensor", "y", self=named("a"), other=named("b")),
    ],
    "doubling": [
        aten("ones.default", "v0", size={"as_ints": [1024]}),
        *(aten("cat.default", f"v{i + 1}", tensors={"as_tensors": [{"name": f"v{i}"}] * 2}) for i in range(30)),
        aten("relu.default", "y", self=named("v30")),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", HUGE_VALUES)
def test_huge_constant_is_not_computed(kind: str, tmp_path: Path) -> None:
    """A trace on meta computes constants, because a forward may need them, but not beyond a limit."""
    assert cspprof.profile(str(archive(tmp_path / "a.pt2", document(*HUGE_VALUES[kind])))).ops


SPLITS = [
    aten("unbind.int", "y", self=named("a")),
    aten("split.Tensor", "y", self=named("a"), split_size={"as_int": 1}),
    aten("hsplit.int", "y", self=named("a"), sections={"as_int": 2**40}),
    aten("tensor_split.sections", "y", self=named("a"), sections={"as_int": 2**40}),
]


@pytest.mark.parametrize(
    ("target", "arguments"),
    [
        ("max_pool2d", {"kernel_size": {"as_ints": [1500, 1500]}, "stride": {"as_ints": [1, 1]}}),
        ("conv2d", {"weight": named("a"), "padding": {"as_ints": [1499, 1499]}}),
        ("linalg_svdvals", {}),
    ],
)
def test_constant_of_many_steps_is_not_computed(target: str, arguments: Any, tmp_path: Path) -> None:
    size = {"as_ints": [1, 1, 3000, 3000]}
    full = node("torch.ops.aten.full.default", [named("a")], size=size, fill_value={"as_float": 1.0})
    first = {"conv2d": "input", "linalg_svdvals": "A"}.get(target, "self")
    heavy = node(f"torch.ops.aten.{target}.default", [named("b")], **{first: named("a")}, **arguments)
    start = time.monotonic()
    cspprof.profile(str(archive(tmp_path / "a.pt2", document(full, heavy, RELU))))
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("splits", SPLITS)
def test_split_into_more_tensors_than_the_program_names_is_refused(splits: dict[str, Any], tmp_path: Path) -> None:
    large = aten("new_empty.default", "a", self=named("x"), size={"as_ints": [2**40]})
    splits = {**splits, "outputs": [{"as_tensors": [{"name": "y"}]}]}
    with pytest.raises(CspprofError, match="another number of results"):
        cspprof.profile(str(archive(tmp_path / "a.pt2", document(large, splits))))


@pytest.mark.parametrize(
    ("function", "values"),
    [("_operator.pow", (10, 10**9)), ("_operator.lshift", (1, 10**9)), ("_operator.mul", (2**62, 2**62)),
     ("_operator.floordiv", (1, 0)), ("_operator.mod", (1, 0))],
)  # fmt: skip
def test_size_that_cannot_be_is_refused(function: str, values: tuple[int, int], tmp_path: Path) -> None:
    a, b = ({"as_int": value} for value in values)
    number = node(function, [{"as_sym_int": {"as_name": "n"}}], a=a, b=b)
    with pytest.raises(CspprofError, match=r"size|power|fails"):
        cspprof.profile(str(archive(tmp_path / "a.pt2", document(number, RELU))))


@pytest.mark.slow
def test_damaged_program_gives_a_profile_or_a_clean_error(tmp_path: Path) -> None:
    """Each part of the document, removed or replaced by a value of another type."""
    text = json.dumps(document())

    def places(value: Any, path: tuple[Any, ...] = ()) -> Any:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            yield (*path, key)
            yield from places(value[key], (*path, key))

    for path in places(json.loads(text)):
        for new in (None, -1, "x", [None], ...):
            program = json.loads(text)
            parent = program
            for key in path[:-1]:
                parent = parent[key]
            if new is ...:
                del parent[path[-1]]
            else:
                parent[path[-1]] = new
            with suppress(CspprofError):
                cspprof.profile(str(archive(tmp_path / "a.pt2", program)))


def test_program_that_needs_values_takes_no_more_than_the_limit(tmp_path: Path) -> None:
    """A program that reads a value runs on the CPU, where its tensors have data."""
    number = node("torch.ops.aten.item.default", [{"as_sym_float": {"as_name": "n"}}], self=named("s"))
    program = document(
        aten("sum.default", "s", self=named("x")),
        number,
        aten("new_full.default", "a", self=named("x"), size={"as_ints": [2**36]}, fill_value={"as_float": 1.0}),
        aten("relu.default", "y", self=named("a")),
    )
    with pytest.raises(CspprofError, match=r"aten.new_full needs 256.0 GiB"):
        cspprof.profile(str(archive(tmp_path / "a.pt2", program)))


def relu_in(*paths: str, keys: tuple[str, ...] = ()) -> dict[str, Any]:
    """A node in the modules at `paths`, which have the identities `keys`."""
    stack = [f"{key or path},{path},A" for path, key in zip_longest(paths, keys, fillvalue="")]
    return {**RELU, "metadata": {"nn_module_stack": ";".join(["root,,Net", *stack])}}


def test_module_with_two_paths_is_one_module(tmp_path: Path) -> None:
    first = {**relu_in("a", keys=("shared",)), "outputs": [named("z")]}
    second = {**relu_in("b", keys=("shared@1",)), "inputs": [{"name": "self", "arg": named("z"), "kind": 1}]}
    layers = cspprof.profile(str(archive(tmp_path / "a.pt2", document(first, second)))).layers
    assert [(layer.path, layer.calls, layer.shared_with) for layer in layers] == [("", 1, ()), ("a", 2, ("b",))]


def test_shared_modules_within_shared_modules_do_not_double_at_each_level(tmp_path: Path) -> None:
    paths = [".".join(["a"] * depth + [last]) for depth in range(40) for last in ("a", "b")]
    keys = tuple(f"level{path.count('.')}" for path in paths)
    file = archive(tmp_path / "a.pt2", document(relu_in(*paths, keys=keys)))
    assert len(cspprof.profile(str(file)).layers) < 200


@pytest.mark.parametrize("paths", [("a", "a.b"), ("a.b", "a"), ("a", "a.b", "a.b.c")])
def test_module_within_itself_is_another_module(paths: tuple[str, ...], tmp_path: Path) -> None:
    node_in = relu_in(*paths, keys=("same",) * len(paths))
    assert cspprof.profile(str(archive(tmp_path / "a.pt2", document(node_in)))).ops[0].layer == paths[-1]


@pytest.mark.parametrize(("length", "layers"), [(2**31, 1), (2, 2**40)])
def test_recurrent_operation_of_very_many_steps_is_refused(length: int, layers: int, tmp_path: Path) -> None:
    """torch runs the steps one by one."""
    recurrent = node(
        "torch.ops.aten.gru.input", [named("y"), named("h")], input=named("s"), hx=named("s0"),
        params={"as_tensors": [{"name": "w"}, {"name": "w"}]}, has_biases={"as_bool": False},
        num_layers={"as_int": layers}, dropout={"as_float": 0.0}, train={"as_bool": False},
        bidirectional={"as_bool": False}, batch_first={"as_bool": False},
    )  # fmt: skip
    program = document(
        aten("new_empty.default", "s", self=named("x"), size={"as_ints": [length, 1, 1]}),
        aten("new_empty.default", "s0", self=named("x"), size={"as_ints": [1, 1, 1]}),
        aten("new_empty.default", "w", self=named("x"), size={"as_ints": [3, 1]}),
        recurrent,
    )
    with pytest.raises(CspprofError, match="steps; at most 100,000 are run"):
        cspprof.profile(str(archive(tmp_path / "a.pt2", program)))
