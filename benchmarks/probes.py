"""Count small models of known cost with each counter of MACs, to find which operations each tool counts.

    python benchmarks/probes.py [--json FILE]

Each model, a probe, has one operation that a counter can miss. Its multiply-accumulates are computed by hand. Each tool
runs in a process of its own. Three more questions have yes or no as the answer: does the tool name an operation whose
cost it does not know, does it count a model on meta, and does it leave a model as it was?
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from workload import COUNTERS, SHAPE, Count

N = 224
"""The side of the image. Each of its three channels is also used as a matrix."""
Forward = Callable[["Probe", torch.Tensor], torch.Tensor]


class Probe(nn.Module):
    """A layer, and a forward that uses it."""

    def __init__(self, forward: Forward, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self._forward = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._forward(self, x)


class Case(NamedTuple):
    """A probe: its title in the table, its forward and layer, and its multiply-accumulates, computed by hand."""

    title: str
    forward: Forward
    layer: Callable[[], nn.Module]
    macs: int


def _attention(m: Probe, x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = m.layer(x[:, 0], x[:, 0], x[:, 0], need_weights=False)[0]
    return out


def _lstm(m: Probe, x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = m.layer(x[:, 0])[0]
    return out


def unused() -> nn.Module:
    """A layer that does not run: some tools fail on a model without parameters."""
    return nn.Conv2d(3, 3, 1)


CASES = {
    "function": Case(
        "a convolution as a function: `F.conv2d`",
        lambda m, x: F.conv2d(x, m.layer.weight, padding=1),
        lambda: nn.Conv2d(3, 8, 3, bias=False),
        N * N * 3 * 8 * 9,
    ),
    "product": Case("a product of matrices: `x @ y`", lambda m, x: x @ x.mT, unused, 3 * N**3),
    "einsum": Case("the same by `torch.einsum`", lambda m, x: torch.einsum("bcij,bckj->bcik", x, x), unused, 3 * N**3),
    "attention": Case(
        "`F.scaled_dot_product_attention`",
        lambda m, x: F.scaled_dot_product_attention(x, x, x),
        unused,
        2 * 3 * N**3,  # scores, and their product with the values, in 3 heads
    ),
    "multihead": Case(
        "`nn.MultiheadAttention`",
        _attention,
        lambda: nn.MultiheadAttention(N, 4, batch_first=True),
        6 * N**3,  # projections to queries, keys and values, scores, values, and the last projection
    ),
    "lstm": Case(
        "`nn.LSTM`",
        _lstm,
        lambda: nn.LSTM(N, 64, batch_first=True),
        N * 4 * 64 * (N + 64),  # in each step, four gates of the input and of the state
    ),
    "transposed": Case(
        "a transposed convolution in groups",
        lambda m, x: m.layer(x),
        lambda: nn.ConvTranspose2d(3, 6, 2, stride=2, groups=3, bias=False),
        3 * N * N * 2 * 4,  # each input element goes to 2 channels and 2×2 places
    ),
    "twice": Case(
        "a module that runs twice",
        lambda m, x: m.layer(m.layer(x)),
        lambda: nn.Conv2d(3, 3, 3, padding=1, bias=False),
        2 * N * N * 3 * 3 * 9,
    ),
}


def _transformed(m: Probe, x: torch.Tensor) -> torch.Tensor:
    """No counter has a number for a Fourier transform: does the tool say so?"""
    return torch.fft.fft2(m.layer(x)).real


def counted(count: Count, case: Case, per_mac: float) -> dict[str, Any]:
    """The MACs of a probe, or the class of the error."""
    try:
        return {"macs": count(Probe(case.forward, case.layer()).eval()) / per_mac}
    except Exception as error:
        return {"error": type(error).__name__}


def says_what_it_misses(count: Count) -> bool:
    """Whether the tool names the operation that it does not know, in its output, a warning or a log."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    logging.getLogger().addHandler(handler)
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text), warnings.catch_warnings(record=True) as w:
        warnings.simplefilter("always")
        with contextlib.suppress(Exception):
            count(Probe(_transformed, nn.Conv2d(3, 8, 3, padding=1, bias=False)).eval())
    logging.getLogger().removeHandler(handler)
    return "fft" in text.getvalue() + "".join(str(warning.message) for warning in w)


def state(model: nn.Module) -> list[Any]:
    """The modes, attributes, buffers and hooks of the modules, which a counter may change."""
    return [
        (module.training, sorted(vars(module)), sorted(module._buffers), len(module._forward_hooks))
        for module in model.modules()
    ]


def leaves_the_model(count: Count) -> bool:
    """Whether a model in training mode is as it was, after it was counted."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).train()
    before, values = state(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count(model)
    now = model.state_dict()
    same = all(
        now[name].is_meta or torch.equal(now[name], value) for name, value in values.items()
    )  # no values on meta
    return state(model) == before and same


def probe(tool: str) -> dict[str, Any]:
    """The results of one tool: its count of each probe, and the answers to the three questions."""
    make, per_mac, device = COUNTERS[tool]
    count = make()
    with torch.device(device):
        found: dict[str, Any] = {name: counted(count, case, per_mac) for name, case in CASES.items()}
        found["says"] = says_what_it_misses(_verbose(tool) or count)
        found["unchanged"] = leaves_the_model(count)
    with torch.device("meta"):
        found["meta"] = counted(count, CASES["transposed"], per_mac) == found["transposed"]
    return found


def _verbose(tool: str) -> Count | None:
    """The counter with its warnings, which `workload.py` silences. None if it silences none."""
    if tool == "fvcore":
        from fvcore.nn import FlopCountAnalysis

        return lambda model: float(FlopCountAnalysis(model, torch.zeros(SHAPE)).total())
    if tool == "thop":
        from thop import profile

        return lambda model: float(profile(model, (torch.zeros(SHAPE),))[0])
    if tool == "cspprof":
        import cspprof

        def count(model: nn.Module) -> float:
            print(cspprof.profile(model, SHAPE))
            return 0.0

        return count
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tool", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tool:
        with contextlib.redirect_stdout(sys.stderr):
            found = probe(options.tool)
        print(json.dumps(found))
        return
    tools = [tool for tool in COUNTERS if tool != "bare"]
    results = {}
    for tool in tools:
        done = subprocess.run([sys.executable, __file__, "--tool", tool], capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{tool}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            continue
        results[tool] = json.loads(done.stdout.splitlines()[-1])
        print(tool, results[tool])
    if options.json:
        versions = {name: version(name) for name in results if name not in ("FlopCounterMode", "cspprof")}
        cases = {name: {"title": case.title, "macs": case.macs} for name, case in CASES.items()}
        versions = {"torch": torch.__version__.partition("+")[0], **versions}
        document = {"cases": cases, "versions": versions, "tools": results}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
