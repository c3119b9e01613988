"""The second opinion: layers agree, differ by rule, or differ without a reason."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import CHECKOUT, Result
from jsonschema import validate

import cspprof
from cspprof.analysis.verify import verify
from cspprof.ops import Facts
from cspprof.sources import Request

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

    class Hopeless(Net):
        def forward(self, x):
            raise RuntimeError("no way")
"""


@pytest.fixture
def net(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(textwrap.dedent(NET))
    return f"{tmp_path}/net.py"


def test_every_layer_agrees_or_differs_by_rule(net: str) -> None:
    v = verify(f"{net}:Net", Request())
    assert v.unexplained == []
    by_path = {layer.path: layer for layer in v.layers}
    assert by_path["conv"].agrees
    assert by_path["conv"].macs == 27 * 4 * 64
    (fvcore,) = (f for f in by_path["norm"].findings if f.tool == "fvcore")
    assert (fvcore.count, fvcore.predicted, dict(fvcore.parts)) == (512, 512, {"batch norm": 512})


@pytest.mark.parametrize("spec", ["csp_resnext50", "csp_peleenet", "hardnet39ds", "csp_mobilenet_v2"])
def test_networks_of_the_zoo(spec: str) -> None:
    v = verify(spec, Request())
    assert v.unexplained == []
    assert all(o.counts is not None for o in v.opinions)
    assert {o.tool: sum(o.counts.values()) for o in v.opinions if o.counts}["flop_counter"] == 2 * v.profile.total(
        "macs"
    )


def test_the_command(net: str, run: Callable[..., Result]) -> None:
    result = run("verify", f"{net}:Net")
    assert result.code == 0
    assert "fvcore + 512 batch norm" in result.out
    assert "agree exactly" in result.out
    document = json.loads(run("verify", f"{net}:Net", "--format", "json").out)
    validate(document, json.loads((CHECKOUT / "cspprof" / "schemas" / "verify-1.schema.json").read_text()))
    assert document["explained"]


def test_an_unexplained_difference_is_exit_code_1(net: str, run: Callable[..., Result]) -> None:
    from cspprof.ops import RULES

    right = RULES.get("aten.conv2d")
    RULES.remove("aten.conv2d")
    try:

        @cspprof.op_rule("aten.conv2d")
        def wrong(x: object, weight: object, *args: object, out: cspprof.TensorSpec, **kwargs: object) -> Facts:
            return Facts("conv", macs=out.numel)

        result = run("verify", f"{net}:Net")
    finally:
        RULES.remove("aten.conv2d")
        RULES.add("aten.conv2d", right)
    assert result.code == 1
    assert "not explained" in result.out


def test_what_cannot_be_asked_is_exit_code_2(net: str, run: Callable[..., Result], tmp_path: Path) -> None:
    saved = cspprof.profile("resnet10").save(tmp_path / "x.profile.json")
    for spec, message in ((str(saved), "contains no model that can run"), (f"{net}:Hopeless", "no way")):
        result = run("verify", spec)
        assert (result.code, result.out) == (2, "")
        assert message in result.err
