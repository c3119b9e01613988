"""ONNX operators in every opset: output shapes, and costs equal to those of the same operation in torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
from conftest import trace

import cspprof
from cspprof.core.record import Kind
from cspprof.profiles import Profile

onnx = pytest.importorskip("onnx", reason="the library onnx is not installed: it is in the extra onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

I64, F32 = numpy.int64, numpy.float32
Shape = tuple[int, ...]


@pytest.fixture
def profile(tmp_path: Path) -> Callable[..., Profile]:
    """The profile of a graph with one node. An input is a shape (float32), or an array for a constant."""

    def profile_node(
        op: str, inputs: Sequence[Any], opset: int, outputs: int = 1, dtype: int = TensorProto.FLOAT, **attrs: Any
    ) -> Profile:
        names = [f"in{i}" if value is not None else "" for i, value in enumerate(inputs)]
        written = [f"out{i}" for i in range(outputs)]
        values = dict(zip(names, inputs, strict=True))
        graph = helper.make_graph(
            [helper.make_node(op, names, written, **attrs)], "g",
            [helper.make_tensor_value_info(n, dtype, s) for n, s in values.items() if isinstance(s, tuple)],
            [helper.make_tensor_value_info(n, dtype, None) for n in written],
            [numpy_helper.from_array(v, n) for n, v in values.items() if isinstance(v, numpy.ndarray)],
        )  # fmt: skip
        path = tmp_path / "node.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
        p = cspprof.profile(str(path))
        p.self_check()
        return p

    return profile_node


MAP = (2, 3, 4, 5)
ONES = {n: numpy.ones(n, F32) for n in (3, 5)}
OLD: dict[str, tuple[str, Sequence[Any], int, dict[str, Any], list[Shape]]] = {
    # name: operator, inputs, opset, attributes, output shapes
    "Add along an axis": ("Add", [MAP, ONES[3]], 1, {"broadcast": 1, "axis": 1}, [MAP]),
    "Mul of the last dimensions": ("Mul", [MAP, (4, 5)], 6, {"broadcast": 1}, [MAP]),
    "Sub of equal shapes": ("Sub", [MAP, MAP], 1, {}, [MAP]),
    "Div by a scalar": ("Div", [MAP, numpy.ones((), F32)], 1, {"broadcast": 1}, [MAP]),
    "Pow along an axis": ("Pow", [MAP, (3, 4)], 1, {"broadcast": 1, "axis": 1}, [MAP]),
    "Greater along an axis": ("Greater", [MAP, (3,)], 1, {"broadcast": 1, "axis": 1}, [MAP]),
    "Sum of three": ("Sum", [MAP, MAP, MAP], 1, {}, [MAP]),
    "Max": ("Max", [MAP, MAP], 1, {}, [MAP]),
    "Min of one": ("Min", [MAP], 1, {}, [MAP]),
    "Mean, broadcast": ("Mean", [MAP, (3, 1, 1)], 8, {}, [MAP]),
    **{
        f"{op} with consumed inputs": (op, [MAP], 1, {"consumed_inputs": [0]}, [MAP])
        for op in ("Abs", "Ceil", "Clip", "Elu", "Exp", "Floor", "HardSigmoid", "LeakyRelu", "Log", "Neg",
                   "Reciprocal", "Relu", "Selu", "Sigmoid", "Sqrt", "Tanh")
    },
    "PRelu": ("PRelu", [MAP, ONES[3]], 1, {}, [MAP]),
    "PRelu of opset 6": ("PRelu", [MAP, ONES[3]], 6, {}, [MAP]),
    "InstanceNormalization": ("InstanceNormalization", [MAP, ONES[3], ONES[3]], 1, {}, [MAP]),
    "BatchNormalization": (
        "BatchNormalization", [MAP, *[ONES[3]] * 4], 1, {"consumed_inputs": [0, 0, 0, 1, 1], "is_test": 1}, [MAP],
    ),
    "BatchNormalization, training": (
        "BatchNormalization", [MAP, *[ONES[3]] * 4], 6, {"spatial": 1}, [MAP, (3,), (3,), (3,), (3,)],
    ),
    "BatchNormalization for each activation": (
        "BatchNormalization", [MAP, *[numpy.ones(MAP[1:], F32)] * 4], 7, {"spatial": 0}, [MAP],
    ),
    "Cast": ("Cast", [MAP], 1, {"to": "INT64"}, [MAP]),
    "Dropout": ("Dropout", [MAP], 1, {"is_test": 1}, [MAP]),
    "Dropout with a mask": ("Dropout", [MAP], 1, {"is_test": 1}, [MAP, MAP]),
    "Dropout with a mask, opset 6": ("Dropout", [MAP], 6, {"is_test": 1}, [MAP, MAP]),
    "Dropout with a mask, opset 7": ("Dropout", [MAP], 7, {}, [MAP, MAP]),
    "Dropout with a mask, opset 10": ("Dropout", [MAP], 10, {}, [MAP, MAP]),
    "Reshape": ("Reshape", [MAP], 1, {"shape": [0, -1, 5]}, [(2, 12, 5)]),
    "Reshape to a scalar's neighbor": ("Reshape", [(1, 1)], 1, {"shape": [1]}, [(1,)]),
    "Concat": ("Concat", [MAP, MAP], 1, {}, [(2, 6, 4, 5)]),
    "Concat along an axis": ("Concat", [MAP, MAP], 1, {"axis": 3}, [(2, 3, 4, 10)]),
    "Concat of opset 4": ("Concat", [MAP, MAP], 4, {"axis": 1}, [(2, 6, 4, 5)]),
    "Split by an attribute": ("Split", [MAP], 1, {"axis": 1, "split": [1, 2]}, [(2, 1, 4, 5), (2, 2, 4, 5)]),
    "Split by an input": ("Split", [MAP, numpy.array([1, 2], F32)], 1, {"axis": 1}, [(2, 1, 4, 5), (2, 2, 4, 5)]),
    "Split in halves": ("Split", [MAP], 1, {}, [(1, 3, 4, 5), (1, 3, 4, 5)]),
    "Split along the last axis": ("Split", [(2, 6)], 1, {"axis": -1}, [(2, 3), (2, 3)]),
    "Split of opset 2": ("Split", [MAP], 2, {"axis": 3, "split": [2, 3]}, [(2, 3, 4, 2), (2, 3, 4, 3)]),
    "Pad": ("Pad", [MAP], 1, {"paddings": [0, 0, 1, 2, 0, 0, 3, 4]}, [(2, 3, 8, 11)]),
    "Pad of opset 2": ("Pad", [MAP], 2, {"pads": [0, 0, 1, 2, 0, 0, 3, 4]}, [(2, 3, 8, 11)]),
    "Slice": ("Slice", [MAP], 1, {"axes": [1, 2], "starts": [1, -2], "ends": [2, 100]}, [(2, 1, 2, 5)]),
    "Slice of the first dimensions": ("Slice", [MAP], 1, {"starts": [0, 1], "ends": [1, 3]}, [(1, 2, 4, 5)]),
    "Tile": ("Tile", [MAP, numpy.array(3, F32), numpy.array(1, F32)], 1, {}, [(2, 9, 4, 5)]),
    "Tile of opset 6": ("Tile", [MAP, numpy.array([1, 1, 2, 3], I64)], 6, {}, [(2, 3, 8, 15)]),
    "Squeeze": ("Squeeze", [(1, 3, 1)], 1, {"axes": [0]}, [(3, 1)]),
    "Unsqueeze": ("Unsqueeze", [(3,)], 1, {"axes": [0, 2]}, [(1, 3, 1)]),
    "TopK": ("TopK", [MAP], 1, {"k": 2, "axis": 1}, [(2, 2, 4, 5), (2, 2, 4, 5)]),
    "Upsample": ("Upsample", [MAP], 1, {"height_scale": 2.0, "width_scale": 1.5}, [(2, 3, 8, 7)]),
    "Upsample of opset 7": ("Upsample", [MAP], 7, {"scales": [1.0, 1.0, 2.0, 3.0]}, [(2, 3, 8, 15)]),
    "Upsample of opset 9": ("Upsample", [MAP, numpy.array([1, 1, 2, 3], F32)], 9, {}, [(2, 3, 8, 15)]),
    "Upsample of opset 10": ("Upsample", [MAP, numpy.array([1, 1, 2, 3], F32)], 10, {}, [(2, 3, 8, 15)]),
    "LpPool": ("LpPool", [MAP], 1, {"kernel_shape": [2, 2], "strides": [2, 2]}, [(2, 3, 2, 2)]),
    "GlobalLpPool": ("GlobalLpPool", [MAP], 1, {}, [(2, 3, 1, 1)]),
    "MaxPool": ("MaxPool", [MAP], 1, {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}, [(2, 3, 4, 5)]),
    "AveragePool": ("AveragePool", [MAP], 1, {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}, [MAP]),
    "Gemm": ("Gemm", [(2, 3), (3, 5), (5,)], 1, {"broadcast": 1}, [(2, 5)]),
    "Gemm, transposed": ("Gemm", [(3, 2), (5, 3), (2, 5)], 1, {"transA": 1, "transB": 1}, [(2, 5)]),
    "Gemm of opset 6": ("Gemm", [(2, 3), (3, 5), (5,)], 6, {"broadcast": 1}, [(2, 5)]),
    "LSTM": ("LSTM", [(7, 2, 3), (1, 16, 3), (1, 16, 4)], 1, {"hidden_size": 4}, [(7, 1, 2, 4), (1, 2, 4), (1, 2, 4)]),
    "GRU": ("GRU", [(7, 2, 3), (2, 12, 3), (2, 12, 4)], 1, {"hidden_size": 4, "direction": "bidirectional"},
            [(7, 2, 2, 4), (2, 2, 4)]),
    "GRU of opset 3": ("GRU", [(7, 2, 3), (1, 12, 3), (1, 12, 4)], 3, {"hidden_size": 4}, [(7, 1, 2, 4), (1, 2, 4)]),
    "RNN without hidden_size": ("RNN", [(7, 2, 3), (1, 4, 3), (1, 4, 4)], 14, {}, [(7, 1, 2, 4), (1, 2, 4)]),
    "GRU, batch first": ("GRU", [(2, 7, 3), (1, 12, 3), (1, 12, 4)], 14, {"layout": 1}, [(2, 7, 1, 4), (2, 1, 4)]),
    "ReduceMean": ("ReduceMean", [MAP], 1, {"axes": [2, 3], "keepdims": 0}, [(2, 3)]),
    "Softmax": ("Softmax", [MAP], 1, {}, [MAP]),
    "Flatten": ("Flatten", [MAP], 1, {}, [(2, 60)]),
    "MeanVarianceNormalization": ("MeanVarianceNormalization", [MAP], 9, {}, [MAP]),
    "MeanVarianceNormalization of opset 13": ("MeanVarianceNormalization", [MAP], 13, {"axes": [1, 2]}, [MAP]),
    "GroupNormalization": ("GroupNormalization", [MAP, ONES[3], ONES[3]], 18, {"num_groups": 3}, [MAP]),
    "GroupNormalization of opset 21": ("GroupNormalization", [MAP, ONES[3], ONES[3]], 21, {"num_groups": 3}, [MAP]),
    "GreaterOrEqual": ("GreaterOrEqual", [MAP, (3, 1, 1)], 12, {}, [MAP]),
    "LessOrEqual": ("LessOrEqual", [(4, 1), (3, 1, 5)], 15, {}, [(3, 4, 5)]),
    "Compress of elements": ("Compress", [MAP, numpy.array([True, False, True])], 9, {}, [(2,)]),
    "Compress along an axis": ("Compress", [MAP, numpy.array([True, False, True])], 11, {"axis": 1}, [(2, 2, 4, 5)]),
    "Attention": ("Attention", [(1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 6)], 23, {},
                  [(1, 2, 3, 6), (1, 2, 5, 4), (1, 2, 5, 6), (1, 2, 3, 5)]),
    "Attention of (B, L, H·E), with past": (
        "Attention", [(1, 3, 8), (1, 5, 4), (1, 5, 6), None, (1, 1, 7, 4), (1, 1, 7, 6)], 23,
        {"q_num_heads": 2, "kv_num_heads": 1}, [(1, 3, 12), (1, 1, 12, 4), (1, 1, 12, 6), (1, 2, 3, 12)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OLD)
def test_output_shapes(name: str, profile: Callable[..., Profile]) -> None:
    op, inputs, opset, attrs, shapes = OLD[name]
    p = profile(op, inputs, opset, len(shapes), **attrs)
    (call,) = p.ops
    assert p.complete
    assert [t.shape for t in call.writes] == shapes
    assert p.outputs == tuple(t.storage for t in call.writes)


def test_an_output_that_nothing_reads_is_not_written(tmp_path: Path) -> None:
    """Exporters name all outputs of some operators."""
    pool = helper.make_node("MaxPool", ["x"], ["y", "indices"], kernel_shape=[2, 2])
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, None if n == "y" else MAP) for n in "xy")
    indices = helper.make_tensor_value_info("indices", TensorProto.INT64, None)
    written = []
    for outputs in ([y], [y, indices]):
        graph = helper.make_graph([pool], "g", [x], outputs)
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8), tmp_path / "n.onnx"
        )
        written.append([t.dtype for t in cspprof.profile(str(tmp_path / "n.onnx")).ops[0].writes])
    assert written == [["float32"], ["float32", "int64"]]


def test_network_of_opset_1(tmp_path: Path) -> None:
    """A classifier as the first exporters wrote it."""
    weights = {"w": (4, 3, 3, 3), "b": (4,), "s": (4,), "m": (4,), "f": (10, 64), "g": (10,)}
    norm = ["n", "s", "b", "m", "s"]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4, kernel_shape=[3, 3]),
        helper.make_node("Add", ["c", "b"], ["n"], broadcast=1, axis=1),
        helper.make_node("BatchNormalization", norm, ["a"], consumed_inputs=[0, 0, 0, 1, 1], is_test=1),
        helper.make_node("Relu", ["a"], ["r"], consumed_inputs=[0]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Dropout", ["p"], ["d", "mask"], is_test=1),
        helper.make_node("Reshape", ["d"], ["e"], shape=[0, -1]),
        helper.make_node("Gemm", ["e", "f", "g"], ["h"], broadcast=1, transB=1),
        helper.make_node("Softmax", ["h"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 10))],
        [numpy_helper.from_array(numpy.ones(shape, F32), name) for name, shape in weights.items()],
    )  # fmt: skip
    path = tmp_path / "old.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 1)], ir_version=3), path)
    p = cspprof.profile(str(path))
    p.self_check()
    assert p.complete
    assert p.total("macs") == 2 * (27 * 4 * 64 + 64 * 10)
    assert p.params == 27 * 4 + 2 * 4 + 640 + 10  # the mean m is a buffer


@pytest.mark.parametrize(("axis", "kind"), [(0, Kind.EMBEDDING), (1, Kind.DATA)])
def test_rows_of_a_weight_are_an_embedding(axis: int, kind: Kind, profile: Callable[..., Profile]) -> None:
    p = profile("Gather", [numpy.ones((100, 8), F32), (2, 5)], 13, dtype=TensorProto.INT64, axis=axis)
    assert [op.kind for op in p.ops] == [kind]


# -- the same operation in torch ------------------------------------------------------------------------


def costs(p: Profile) -> dict[str, int]:
    """The cost of a profile by kind, without views and copies."""
    total: dict[str, list[int]] = {}
    for op in p.ops:
        if op.kind not in (Kind.VIEW, Kind.DATA):
            total.setdefault(op.kind.value, []).append((op.macs or 0) * 10**9 + op.elementwise)
    return {kind: sum(values) for kind, values in total.items()}


def twin(function: Callable[..., Any], *shapes: Shape, dtype: str = "float32") -> dict[str, int]:
    import torch

    class Net(torch.nn.Module):
        def forward(self, *args: Any) -> Any:
            return function(*args)

    return costs(trace(Net(), tuple(torch.zeros(s, dtype=getattr(torch, dtype)) for s in shapes)))


LENGTH, WINDOW = numpy.array(16, I64), numpy.ones(16, F32)


def test_fourier_transforms_cost_what_they_cost_in_torch(profile: Callable[..., Profile]) -> None:
    import torch

    def dft(shape: Shape, opset: int = 17, *more: Any, **attrs: Any) -> dict[str, int]:
        return costs(profile("DFT", [shape, *more], opset, **attrs))

    assert dft((1, 8, 10, 2)) == twin(lambda x: torch.fft.fft(x, dim=1), (1, 8, 10), dtype="complex64")
    assert dft((1, 8, 10, 2), axis=2) == twin(lambda x: torch.fft.fft(x, dim=2), (1, 8, 10), dtype="complex64")
    assert dft((1, 8, 10, 2), 20) == twin(torch.fft.fft, (1, 8, 10), dtype="complex64")
    assert dft((1, 8, 10, 2), 20, None, numpy.array(-3, I64)) == dft((1, 8, 10, 2), 17)
    assert dft((1, 8, 10, 2), inverse=1) == twin(lambda x: torch.fft.ifft(x, dim=1), (1, 8, 10), dtype="complex64")
    assert dft((1, 8, 10, 1)) == twin(lambda x: torch.fft.fft(x, dim=1), (1, 8, 10))
    assert dft((1, 9, 10, 1), onesided=1) == twin(lambda x: torch.fft.rfft(x, dim=1), (1, 9, 10))
    assert dft((1, 9, 10, 1), 17, LENGTH, onesided=1) == twin(lambda x: torch.fft.rfft(x, 16, dim=1), (1, 9, 10))
    expected = twin(lambda x: torch.fft.irfft(x, 16, dim=1), (1, 9, 10), dtype="complex64")
    assert dft((1, 9, 10, 2), 20, LENGTH, numpy.array(1, I64), inverse=1, onesided=1) == expected


@pytest.mark.parametrize("onesided", [True, False])
def test_short_time_fourier_transform_costs_what_it_costs_in_torch(
    onesided: bool, profile: Callable[..., Profile]
) -> None:
    import torch

    def stft(x: Any, window: Any = None) -> Any:
        return torch.stft(x, 16, 8, window=window, center=False, onesided=onesided, return_complex=True)

    for operands in ([None, LENGTH], [WINDOW], [WINDOW, LENGTH]):
        p = profile("STFT", [(2, 128, 1), numpy.array(8, I64), *operands], 17, onesided=int(onesided))
        assert p.complete
        assert p.ops[0].writes[0].shape == (2, 15, 9 if onesided else 16, 2)
        windows = [] if operands[0] is None else [(16,)]
        assert sum(costs(p).values()) == sum(twin(stft, (2, 128), *windows).values())


def test_determinant_costs_what_it_costs_in_torch(profile: Callable[..., Profile]) -> None:
    import torch

    p = profile("Det", [(2, 5, 5)], 11)
    assert p.total("macs") == 2 * (16 + 9 + 4 + 1)
    assert costs(p) == twin(torch.linalg.det, (2, 5, 5))


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent_layers_cost_what_they_cost_in_torch(
    cell: str, directions: int, profile: Callable[..., Profile]
) -> None:
    import torch

    rows = {"LSTM": 4, "GRU": 3, "RNN": 1}[cell] * 5
    p = profile(cell, [(7, 2, 3), numpy.ones((directions, rows, 3), F32), numpy.ones((directions, rows, 5), F32)], 14,
                hidden_size=5, direction="bidirectional" if directions == 2 else "forward")  # fmt: skip
    model = getattr(torch.nn, cell)(3, 5, bidirectional=directions == 2)
    assert costs(p) == costs(trace(model, (7, 2, 3)))
