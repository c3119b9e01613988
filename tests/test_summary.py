"""`summary` and `print(profile)`: the modules of a model as a tree."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from conftest import Result, quick, trace
from networks import ConvNet
from torch import nn

import cspprof
from cspprof.analysis.module_summary import MOST_MODULES, default_depth, module_summaries, peak_path
from cspprof.metrics.memory import activation_bytes
from cspprof.zoo import catalog

Run = Callable[..., Result]


class Nested(nn.Module):
    """Two blocks, of which the second runs twice, and an operation of the model itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.unused = ConvNet(), nn.Linear(3, 3)
        self.again = nn.Sequential(nn.Linear(2, 2, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.again(self.again(self.first(x)))
        return y + 1


def test_a_module_has_the_costs_of_all_that_runs_inside_it() -> None:
    modules = {m.layer.path: m for m in module_summaries(trace(Nested().eval(), (1, 3, 8, 8)))}
    conv_macs, conv_cio = 27 * 4 * 64, (3 + 4) * 64
    assert [modules[path].macs for path in ("", "first", "first.conv", "again", "unused")] == [
        conv_macs + 8 + 2 * 4, conv_macs + 8, conv_macs, 2 * 4, 0,
    ]  # fmt: skip
    assert [modules[path].params for path in ("", "first", "again", "unused")] == [112 + 8 + 10 + 4 + 12, 130, 4, 12]
    assert [modules[path].cio for path in ("", "first", "first.norm")] == [
        conv_cio + 4 * 64 + 4,
        conv_cio + 4 * 64 + 4,
        0,
    ]  # the mean is a global pool
    assert [str(modules[path].output) for path in ("", "first", "first.conv", "unused")] == [
        "1×2", "1×2", "1×4×8×8", "None",
    ]  # fmt: skip
    assert modules["first.conv"].live_bytes == 4 * (3 + 4) * 64
    assert (modules["again"].layer.calls, modules["unused"].live_bytes) == (2, 0)


@pytest.mark.parametrize("name", quick(catalog().names(), 3))
def test_the_root_of_the_tree_has_the_totals(name: str) -> None:
    p = cspprof.profile(name)
    root = module_summaries(p)[0]
    assert (root.macs, root.cio, root.params, root.live_bytes) == (
        p.total("macs"), p.total("cio_cspnet"), p.params, p.total("peak_bytes"),
    )  # fmt: skip
    assert sum(m.macs for m in module_summaries(p) if m.layer.depth == 1) == root.macs
    listed = [m for m in module_summaries(p) if m.layer.depth <= default_depth(p)]
    assert len(listed) <= MOST_MODULES or default_depth(p) == 1


def test_summary_prints_a_tree_and_totals(run: Run) -> None:
    got = run("summary", "yolov3_tiny", "--depth", "2")
    assert got.code == 0
    lines = got.out.splitlines()
    assert lines[0].split() == ["module", "output", "params", "MACs", "CIO", "memory"]
    assert lines[2].startswith("yolov3_tiny (Detector)")
    assert any(line.startswith("├─ stem (") for line in lines)
    assert any(line.startswith(("│  ├─ ", "│  └─ ")) for line in lines)
    assert max(map(len, lines)) <= 100
    assert "at stem" in next(line for line in lines if line.startswith("peak memory"))


def test_the_totals_have_the_size_of_all_activations(run: Run) -> None:
    """Three maps of 8 channels, of which an in-place ReLU and a view allocate none, and the sums of their rows."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.second(torch.relu_(self.first(x))).flatten(1)
            return torch.sigmoid(y).view(1, 8, 4, 4).sum(3)

    printed = str(cspprof.profile(Net(), (1, 3, 4, 4)))
    assert activation_bytes(trace(Net(), (1, 3, 4, 4))) == (3 * 8 * 4 * 4 + 8 * 4) * 4
    assert next(line.split() for line in printed.splitlines() if line.startswith("activations"))[-2:] == ["1.62", "KiB"]


def test_long_names_are_shortened_to_100_columns() -> None:
    class AModuleWithANameThatIsMuchLongerThanAnyColumnOfATableShouldEverBe(nn.Sequential):
        pass

    p = trace(AModuleWithANameThatIsMuchLongerThanAnyColumnOfATableShouldEverBe(nn.Conv2d(3, 8, 1)), (1, 3, 8, 8))
    assert max(map(len, str(p).splitlines())) <= 100


def test_print_of_a_profile_is_its_summary(run: Run) -> None:
    assert run("summary", "squeezenet").out.rstrip("\n") == str(cspprof.profile("squeezenet"))


def test_frozen_parameters_are_counted_apart(run: Run) -> None:
    model = ConvNet()
    model.conv.requires_grad_(False)
    p = trace(model, (1, 3, 8, 8))
    assert [m.frozen for m in module_summaries(p)[:2]] == [112, 112]
    text = [line.split() for line in str(p).splitlines()]
    assert ["trainable", "18"] in text
    assert ["frozen", "112"] in text


def test_a_saved_profile_keeps_its_frozen_parameters(tmp_path: object) -> None:
    model = ConvNet()
    model.fc.requires_grad_(False)
    p = trace(model, (1, 3, 8, 8))
    file = p.save(f"{tmp_path}/x.profile.json")
    assert [layer.frozen for layer in cspprof.Profile.load(file).layers] == [layer.frozen for layer in p.layers]
    assert sum(layer.frozen for layer in p.layers) == 10


def test_an_operation_without_a_rule_marks_the_modules_around_it() -> None:
    class Unknown(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.qr(x)[1]

    p = trace(nn.Sequential(nn.Linear(4, 4), Unknown()), (2, 4, 4))
    assert [m.unknown for m in module_summaries(p)] == [1, 0, 1]
    root, linear, unknown = str(p).splitlines()[2:5]
    assert "≥ 128" in root
    assert "≥" not in linear
    assert " ? " in unknown


def test_json_lists_every_module(run: Run) -> None:
    document = json.loads(run("summary", "squeezenet", "--depth", "99", "--format", "json").out)
    assert document["schema"] == "cspprof.summary/1"
    (model,) = document["models"]
    p = cspprof.profile("squeezenet")
    assert [m["path"] for m in model["modules"]] == [layer.path for layer in p.layers]
    assert model["modules"][0]["macs"] == p.total("macs")
    assert model["peak_path"] == peak_path(p)
    csv = run("summary", "squeezenet", "--depth", "1", "--format", "csv").out.splitlines()
    assert csv[0].startswith("model,path,class,depth,calls,output,params,frozen_params,macs")
