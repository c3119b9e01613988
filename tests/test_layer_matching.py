"""Layers of two records are paired by what they compute, so another source or new names are no change."""

from __future__ import annotations

import itertools
import random
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import quick

import cspprof
from cspprof.analysis import layer_matching
from cspprof.analysis.comparison import Comparison, Contribution
from cspprof.analysis.layer_matching import longest_increasing, match_rows
from cspprof.analysis.layer_rows import LayerRow
from cspprof.analysis.stages import stage_depths
from cspprof.core.record import Kind, OpSpec, TensorSpec
from cspprof.report.profile import summary_tables


def rows(*layers: tuple[str, Kind, int]) -> tuple[list[LayerRow], list[int]]:
    """Operations with a path, a kind and MACs, and these MACs. Equal MACs are the same computation."""
    made = [
        LayerRow(i, path, OpSpec("op", kind, (TensorSpec((1, 3)),), (), (TensorSpec((1, 3)),), {}, macs), "", 0, 0)
        for i, (path, kind, macs) in enumerate(layers)
    ]
    return made, [macs for _, _, macs in layers]


def matched(base: Sequence[tuple[str, Kind, int]], other: Sequence[tuple[str, Kind, int]]) -> list[tuple[Any, Any]]:
    """The paths of each pair that changes."""
    (left, values), (right, new_values) = rows(*base), rows(*other)
    pairs = match_rows((left, right), (values, new_values))
    return [
        (None if i is None else left[i].path, None if j is None else right[j].path)
        for i, j in pairs
        if i is None or j is None or values[i] != new_values[j]
    ]


def convs(text: str) -> list[tuple[str, Kind, int]]:
    """One convolution for each word `name:macs`."""
    return [(name, Kind.CONV, int(macs)) for name, macs in (word.split(":") for word in text.split())]


CASES = [
    # base, other, pairs that change
    ("a:1 b:2 c:3", "a:1 b:2 c:3", []),
    ("a:1 b:2 c:3", "x:1 y:2 z:3", []),  # new names
    ("a:1 b:2 c:3", "b:1 c:2 a:3", []),  # the names of other layers
    ("a:1 b:2 c:3", "x:2 y:1 z:3", []),  # another order
    ("a:1 b:2 c:3", "a:1 b:9 c:3", [("b", "b")]),
    ("a:1 b:2 c:3", "x:1 y:9 z:3", [("b", "y")]),
    ("a:1 b:1 c:1 d:1", "x:1 y:9 z:8 w:1", [("b", "y"), ("c", "z")]),  # repeated blocks
    ("a:1 b:2 c:1 d:2", "x:1 y:2 z:9 w:2", [("c", "z")]),
    ("a:1 b:2", "a:1 b:2 c:3", [(None, "c")]),
    ("a:1 b:2 c:3", "x:1 z:3", [("b", None)]),
    ("a:1 b:4 c:6 d:1", "a:1 b:6 c:4 d:1", []),  # exchanged layers compute the same
    ("0:1 1:2 2:3", "0:1 1:5 2:2 3:3", [(None, "1")]),  # an insertion moves the names of a Sequential
    ("a:1 t:5 b:5 c:1", "a:2 t:5 n:5 b:3 c:1", [("a", "a"), ("b", "b"), (None, "n")]),  # names before computations
    ("a:1 b:4 c:6 d:1", "a:1 b:5 c:5 d:1", [("b", "b"), ("c", "c")]),  # compensating changes of named layers
]


@pytest.mark.parametrize(("base", "other", "changed"), CASES)
def test_pairs_of_convolutions(base: str, other: str, changed: list[tuple[Any, Any]]) -> None:
    assert matched(convs(base), convs(other)) == changed


def test_attention_equals_its_two_products() -> None:
    ends = ("a", Kind.CONV, 1), ("b", Kind.CONV, 2)
    attention = [ends[0], ("sdpa", Kind.ATTENTION, 10), ends[1]]
    products = [ends[0], ("qk", Kind.MATMUL, 5), ("av", Kind.MATMUL, 5), ends[1]]
    assert matched(attention, products) == []
    wider = [ends[0], ("qk", Kind.MATMUL, 5), ("av", Kind.MATMUL, 7), ends[1]]
    assert matched(attention, wider) == [("sdpa", None), (None, "qk"), (None, "av")]


def test_linear_layer_equals_a_product_with_its_weight() -> None:
    assert matched([("fc", Kind.LINEAR, 5)], [("MatMul_3", Kind.MATMUL, 5)]) == []


def test_operations_of_unknown_cost_stay_listed() -> None:
    """A sum that misses an operation equals nothing."""
    base, _ = rows(("a", Kind.CONV, 1), ("x", Kind.UNKNOWN, 0), ("b", Kind.CONV, 2))
    other, _ = rows(("a", Kind.CONV, 1), ("y", Kind.MATMUL, 0), ("b", Kind.CONV, 2))
    assert match_rows((base, other), ([1, None, 2], [1, 0, 2])) == [(0, 0), (2, 2), (1, None)]


@pytest.mark.parametrize("limit", [layer_matching.MAX_CANDIDATES, 3])
@pytest.mark.parametrize("seed", range(30))
def test_differences_of_pairs_add_up(seed: int, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_matching, "MAX_CANDIDATES", limit)
    chance = random.Random(seed)

    def network(names: str) -> list[tuple[str, Kind, int]]:
        kinds = [Kind.CONV, Kind.LINEAR, Kind.ATTENTION]
        return [(chance.choice(names), chance.choice(kinds), chance.randrange(4)) for _ in range(chance.randrange(20))]

    (base, values), (other, new_values) = rows(*network("abcd")), rows(*network("cdef"))
    pairs = match_rows((base, other), (values, new_values))
    sums = [sum(v[p[side]] for p in pairs if p[side] is not None) for side, v in enumerate((values, new_values))]
    assert sums[1] - sums[0] == sum(new_values) - sum(values)
    for side in (0, 1):
        positions = [p[side] for p in pairs if p[side] is not None]
        assert len(positions) == len(set(positions))


def test_longest_increasing_subsequence() -> None:
    assert longest_increasing([]) == []
    assert [b for _, b in longest_increasing(list(enumerate([5, 1, 4, 2, 3, 0])))] == [1, 2, 3]


# -- one network in several sources ---------------------------------------------------------------------


def export(model: Any, path: Path, size: int, dynamo: bool = False) -> None:
    import torch

    x = torch.randn(1, 3, size, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.suffix == ".pt2":
            torch.export.save(torch.export.export(model.eval(), (x,)), path)
        else:
            torch.onnx.export(model.eval(), (x,), str(path), dynamo=dynamo)


def without_names(path: Path) -> None:
    import onnx

    model = onnx.load(path)
    for i, node in enumerate(model.graph.node):
        node.name = f"node{i}"
        del node.metadata_props[:]
    onnx.save(model, path)


def small(width: int = 16) -> Any:
    """Three equal blocks, of which the second has another width inside, and attention."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inner: int) -> None:
            super().__init__()
            self.conv1, self.norm = nn.Conv2d(16, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner)
            self.conv2 = nn.Conv2d(inner, 16, 3, padding=1, bias=False)

        def forward(self, x: Any) -> Any:
            return x + self.conv2(self.norm(self.conv1(x)).relu())

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 16, 3, 2, 1)
            self.blocks = nn.Sequential(Block(16), Block(width), Block(16))
            self.attend, self.head = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), nn.Linear(16, 10)

        def forward(self, x: Any) -> Any:
            return self.head(self.attend(self.blocks(self.stem(x)).flatten(2).transpose(1, 2)).mean(1))

    return Net()


@pytest.mark.parametrize("name", quick(["unnamed.onnx", "net.onnx", "newer.onnx", "net.pt2"], 1))
def test_only_the_changed_layer_and_its_consumer_are_listed(name: str, tmp_path: Path) -> None:
    if name.endswith("onnx"):
        pytest.importorskip("onnx", reason="the library onnx is not installed: it is in the extra onnx")
    if name.startswith("newer"):
        pytest.importorskip("onnxscript", reason="torch's newer exporter needs onnxscript")
    base, path = cspprof.profile(small(), (1, 3, 16, 16)), tmp_path / name
    for width in (16, 24):
        export(small(width), path, 16, dynamo=name.startswith("newer"))
        if name.startswith("unnamed"):
            without_names(path)
        both = Comparison((base, cspprof.profile(str(path))))
        changed = [] if width == 16 else [
            Contribution("blocks.1.conv1", 9 * 16 * 16 * 64, 9 * 16 * 24 * 64),
            Contribution("blocks.1.conv2", 9 * 16 * 16 * 64, 9 * 16 * 24 * 64),
        ]  # fmt: skip
        assert both.by_layer("macs") == changed
        assert not [note for note in both.notes if "depth" in note]
        assert {c.name for c in both.by_layer("cio_cspnet")} == {c.name for c in changed}


def test_depth_of_a_source_without_class_names_is_unknown() -> None:
    """The older exporter of ONNX writes the paths of modules, not their classes."""
    base = cspprof.profile("resnet50")
    unnamed = replace(base, layers=tuple(layer._replace(class_name="", stage=None) for layer in base.layers))
    assert (list(stage_depths(base)), list(stage_depths(unnamed))) == ([3, 4, 6, 3], [])
    assert not [note for note in Comparison((base, unnamed)).notes if "depth" in note]
    (table,) = summary_tables([base, unnamed], ["macs"])
    cells = {line[0].text: [cell.text for cell in line[1:]] for line in table.rows}
    assert cells["depth per stage"] == ["3-4-6-3", "–", ""]


def test_dtypes_are_compared_if_one_is_not_float32() -> None:
    base, half = cspprof.profile("resnet50"), cspprof.profile("resnet50", dtype="float16")
    (table,) = summary_tables([base, half], ["macs"])
    cells = {line[0].text: [cell.text for cell in line[1:]] for line in table.rows}
    assert cells["dtype"] == ["float32", "float16", "differs"]
    assert cells["depth per stage"][2] == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *itertools.product(
            ["zoo:csp_peleenet", "resnet18", "mobilenet_v3_small", "googlenet"], ["older.onnx", "newer.onnx", "net.pt2"]
        ),
        ("zoo:csp_resnext50", "older.onnx"), ("vit_b_16", "net.pt2"), ("vit_b_16", "older.onnx"),
    ],
)  # fmt: skip
def test_network_beside_its_own_export_lists_no_changed_layer(name: str, kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="torch's newer exporter needs onnxscript")
    if name.startswith("zoo:"):
        from cspprof.zoo import catalog

        model = catalog().get(name.removeprefix("zoo:")).factory()
    else:
        torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
        model = torchvision.models.get_model(name, weights=None)
    export(model, tmp_path / kind, 224, dynamo=kind.startswith("newer"))
    both = Comparison((cspprof.profile(model.eval(), (1, 3, 224, 224)), cspprof.profile(str(tmp_path / kind))))
    assert not [note for note in both.notes if "depth" in note]
    for metric in ("macs", "cio_hardnet", "cio_cspnet", "activations"):
        assert both.by_layer(metric) == []
        if name != "vit_b_16":  # its stages are blocks, which an export without classes does not have
            assert not any(c.difference for c in both.by_stage(metric))
