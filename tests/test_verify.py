"""Verification against other counters: layers agree, differ as predicted, or differ without a reason."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import CHECKOUT, Result, quick
from jsonschema import validate

import cspprof
from cspprof.api import verify
from cspprof.metrics import value_of
from cspprof.ops import Facts
from cspprof.report.verification import verification_report

NET = """
    import torch
    from torch import nn
    import torch.nn.functional as F

    class Net(nn.Module):
        example_input_shape = (1, 3, 8, 8)
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(4)
            self.head = nn.Linear(4, 5)
        def forward(self, x):
            return self.head(F.relu(self.norm(self.conv(x))).mean((2, 3)))

    class Odd(Net):
        def forward(self, x):
            return torch.linalg.lu_factor(x)[0] + super().forward(x).sum()

    class Failing(Net):
        def forward(self, x):
            raise RuntimeError("no way")
"""


@pytest.fixture
def net(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(textwrap.dedent(NET))
    return f"{tmp_path}/net.py"


def test_every_layer_agrees_or_differs_as_predicted(net: str) -> None:
    verification = verify(f"{net}:Net")
    assert verification.unexplained == []
    by_path = {layer.path: layer for layer in verification.layers}
    assert by_path["conv"].agrees
    assert by_path["conv"].macs == 27 * 4 * 64
    (fvcore,) = (count for count in by_path["norm"].tool_counts if count.tool == "fvcore")
    assert (fvcore.count, fvcore.predicted, dict(fvcore.deviations)) == (512, 512, {"batch norm": 512})


@pytest.mark.parametrize("spec", quick(["csp_peleenet", "hardnet39ds", "csp_mobilenet_v2", "csp_resnext50"], 1))
def test_zoo_networks_have_no_unexplained_difference(spec: str) -> None:
    verification = verify(spec)
    assert verification.unexplained == []
    totals = {result.tool: sum((result.counts or {}).values()) for result in verification.results}
    assert totals["flop_counter"] == 2 * value_of(verification.record, "macs")
    assert totals["fvcore"] > 0


def test_verify_command(net: str, run: Callable[..., Result]) -> None:
    result = run("verify", f"{net}:Net")
    assert result.code == 0
    assert "fvcore + 512 batch norm" in result.out
    assert "agree exactly" in result.out
    document = json.loads(run("verify", f"{net}:Net", "--format", "json").out)
    validate(document, json.loads((CHECKOUT / "cspprof" / "schemas" / "verify-1.schema.json").read_text()))
    assert document["explained"]


@pytest.mark.slow
def test_layers_that_differ_are_grouped_by_reason() -> None:
    report = verification_report(verify("resnet50"), False)
    (table,) = [t for t in report.tables if t.title == "Why layers differ"]
    norms = next(row for row in table.rows if row[0].text == "fvcore: batch norm")
    record = cspprof.profile("resnet50")
    layers = [op for op in record.ops if op.target == "aten.batch_norm"]
    assert norms[1].value == len(layers) == 49
    assert norms[2].text == f"fvcore + {2 * sum(op.writes[0].numel for op in layers):,} batch norm"
    assert norms[3].text.endswith("and 46 more")
    assert sum(row[1].value for row in table.rows) == sum(not layer["agrees"] for layer in report.records)
    every = verification_report(verify("resnet50"), True)
    assert [t.title for t in every.tables][1:] == ["Layers"]
    assert len(every.tables[1].rows) == len(every.records)


def test_an_unexplained_difference_exits_with_1(net: str, run: Callable[..., Result]) -> None:
    from cspprof.ops import RULES

    original = RULES.get("aten.conv2d")
    RULES.remove("aten.conv2d")
    try:

        @cspprof.op_rule("aten.conv2d")
        def wrong(x: object, weight: object, *args: object, out: cspprof.TensorSpec, **kwargs: object) -> Facts:
            return Facts("conv", macs=out.numel)

        result = run("verify", f"{net}:Net")
    finally:
        RULES.remove("aten.conv2d")
        RULES.add("aten.conv2d", original)
    assert result.code == 1
    assert "not explained" in result.out


def test_models_that_cannot_run_exit_with_2(net: str, run: Callable[..., Result], tmp_path: Path) -> None:
    saved = cspprof.profile("resnet10").save(tmp_path / "x.profile.json")
    for spec, message in ((str(saved), "contains no model that can run"), (f"{net}:Failing", "no way")):
        result = run("verify", spec)
        assert (result.code, result.out) == (2, "")
        assert message in result.err
