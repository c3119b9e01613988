"""The rule for torchlens, operation by operation, beside what torchlens 2.36.1 itself counts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from networks import Function

import cspprof

SHAPE = (2, 4, 5, 5)
OPERATIONS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], int]] = {
    "add": (lambda x: x + 1, 200), "sub": (lambda x: x - 1, 200), "rsub": (lambda x: 1 - x, 200),
    "mul": (lambda x: x * 2, 200), "div": (lambda x: x / 2, 200), "neg": (lambda x: -x, 200),
    "abs": (torch.abs, 200), "clamp": (lambda x: x.clamp(0, 1), 200), "maximum": (lambda x: torch.maximum(x, x), 200),
    "minimum": (lambda x: torch.minimum(x, x), 200), "relu": (F.relu, 200), "relu6": (F.relu6, 200),
    "hardtanh": (F.hardtanh, 200), "leaky_relu": (F.leaky_relu, 200),
    "threshold": (lambda x: F.threshold(x, 0.1, 0.0), 200), "pow": (lambda x: x**2, 400), "sqrt": (torch.sqrt, 400),
    "rsqrt": (torch.rsqrt, 400), "exp": (torch.exp, 1600), "log": (torch.log, 1600), "sin": (torch.sin, 1600),
    "cos": (torch.cos, 1600), "erf": (torch.erf, 1600), "tanh": (torch.tanh, 1200), "sigmoid": (torch.sigmoid, 800),
    "hardsigmoid": (F.hardsigmoid, 600), "hardswish": (F.hardswish, 800), "silu": (F.silu, 1000),
    "mish": (F.mish, 1600), "gelu": (F.gelu, 2800), "elu": (F.elu, 1800), "celu": (F.celu, 1800),
    "selu": (F.selu, 2000), "softplus": (F.softplus, 1800), "softmax": (lambda x: F.softmax(x, 1), 1000),
    "log_softmax": (lambda x: F.log_softmax(x, 1), 1200), "layer_norm": (lambda x: F.layer_norm(x, (5,)), 1000),
    "group_norm": (lambda x: F.group_norm(x, 2), 1000), "instance_norm": (F.instance_norm, 1000),
    "rms_norm": (lambda x: F.rms_norm(x, (5,)), 1000), "sum": (lambda x: x.sum(), 200),
    "mean": (lambda x: x.mean((2, 3)), 200), "avg_pool2d": (lambda x: F.avg_pool2d(x, 2), 64),
    "max_pool2d": (lambda x: F.max_pool2d(x, 2), 64),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, 1), 200),
    "matmul": (lambda x: x @ x.transpose(2, 3), 2000),
}  # fmt: skip
"""Each operation, and what torchlens counts for it on `SHAPE`."""


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_costs_what_torchlens_counts(name: str) -> None:
    function, counted = OPERATIONS[name]
    assert cspprof.profile(Function(function), SHAPE).total("torchlens") == counted


@pytest.mark.slow
def test_the_counts_are_those_of_torchlens() -> None:
    if not find_spec("torchlens"):
        pytest.skip("torchlens is not installed (extra bench)")
    program = """
import json, torch, torchlens
from networks import Function
from test_torchlens import OPERATIONS, SHAPE
x = torch.rand(SHAPE)
print(json.dumps({n: int(torchlens.trace(Function(f), x).total_flops_forward) for n, (f, _) in OPERATIONS.items()}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {name: counted for name, (_, counted) in OPERATIONS.items()}
