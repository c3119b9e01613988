"""Small modules and functions, and the calls with which other tools count them. `python tests/peer_modules.py` writes
`data/peer_counts.json`: what the tools of the extra `bench` print for each module."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from networks import Function
from torch import nn

COUNTS = Path(__file__).parent / "data" / "peer_counts.json"
MAP = (1, 8, 6, 6)
MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv": (lambda: nn.Conv2d(8, 12, 3, padding=1), MAP),
    "conv without bias": (lambda: nn.Conv2d(8, 12, 3, 2, bias=False), MAP),
    "grouped conv": (lambda: nn.Conv2d(8, 16, (3, 1), groups=4, bias=False), MAP),
    "depthwise conv": (lambda: nn.Conv2d(8, 8, 3, groups=8), MAP),
    "adaptive pooling in one dimension": (lambda: nn.AdaptiveAvgPool1d(4), (1, 8, 20)),
    "1d conv": (lambda: nn.Conv1d(8, 12, 3), (1, 8, 20)),
    "transposed conv": (lambda: nn.ConvTranspose2d(8, 12, 2, 2), MAP),
    "linear": (lambda: nn.Linear(8, 5), (1, 8)),
    "linear of a sequence": (lambda: nn.Linear(8, 5, bias=False), (1, 7, 8)),
    "batch norm": (lambda: nn.BatchNorm2d(8), MAP),
    "batch norm without weights": (lambda: nn.BatchNorm2d(8, affine=False), MAP),
    "layer norm": (lambda: nn.LayerNorm(6), MAP),
    "group norm": (lambda: nn.GroupNorm(2, 8), MAP),
    "instance norm": (lambda: nn.InstanceNorm2d(8), MAP),
    "ReLU": (nn.ReLU, MAP), "ReLU6": (nn.ReLU6, MAP), "leaky ReLU": (nn.LeakyReLU, MAP), "ELU": (nn.ELU, MAP),
    "PReLU": (nn.PReLU, MAP), "GELU": (nn.GELU, MAP), "SiLU": (nn.SiLU, MAP), "sigmoid": (nn.Sigmoid, MAP),
    "softmax": (lambda: nn.Softmax(1), (1, 9)),
    "max pooling": (lambda: nn.MaxPool2d(2), MAP),
    "average pooling": (lambda: nn.AvgPool2d(3), MAP),
    "adaptive pooling to 1": (lambda: nn.AdaptiveAvgPool2d(1), MAP),
    "adaptive pooling to 4×2": (lambda: nn.AdaptiveAvgPool2d((4, 2)), MAP),
    "adaptive max pooling": (lambda: nn.AdaptiveMaxPool2d(2), MAP),
    "nearest": (lambda: nn.Upsample(scale_factor=2), MAP),
    "bilinear": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), MAP),
    "bicubic": (lambda: nn.Upsample(scale_factor=2, mode="bicubic"), MAP),
    "two layers": (lambda: nn.Sequential(nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)), MAP),
}  # fmt: skip

OPERATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "add": lambda x: x + 1, "sub": lambda x: x - 1, "rsub": lambda x: 1 - x, "mul": lambda x: x * 2,
    "div": lambda x: x / 2, "neg": lambda x: -x, "abs": torch.abs, "clamp": lambda x: x.clamp(0, 1),
    "maximum": lambda x: torch.maximum(x, x), "minimum": lambda x: torch.minimum(x, x), "relu": F.relu,
    "relu6": F.relu6, "hardtanh": F.hardtanh, "leaky_relu": F.leaky_relu,
    "threshold": lambda x: F.threshold(x, 0.1, 0.0), "pow": lambda x: x**2, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt,
    "exp": torch.exp, "log": torch.log, "sin": torch.sin, "cos": torch.cos, "erf": torch.erf, "tanh": torch.tanh,
    "sigmoid": torch.sigmoid, "hardsigmoid": F.hardsigmoid, "hardswish": F.hardswish, "silu": F.silu, "mish": F.mish,
    "gelu": F.gelu, "elu": F.elu, "celu": F.celu, "selu": F.selu, "softplus": F.softplus,
    "softmax": lambda x: F.softmax(x, 1), "log_softmax": lambda x: F.log_softmax(x, 1),
    "layer_norm": lambda x: F.layer_norm(x, (6,)), "group_norm": lambda x: F.group_norm(x, 2),
    "instance_norm": F.instance_norm, "rms_norm": lambda x: F.rms_norm(x, (6,)), "sum": lambda x: x.sum(),
    "mean": lambda x: x.mean((2, 3)), "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "max_pool2d": lambda x: F.max_pool2d(x, 2), "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 1),
    "matmul": lambda x: x @ x.transpose(2, 3),
}  # fmt: skip
"""Functions, which only torchlens counts one by one."""


def _torchinfo(model: nn.Module, x: torch.Tensor) -> float:
    from torchinfo import summary

    return float(summary(model, tuple(x.shape), verbose=0).total_mult_adds)


def _ptflops(model: nn.Module, x: torch.Tensor) -> float:
    from ptflops import get_model_complexity_info

    counted = get_model_complexity_info(model, tuple(x.shape[1:]), as_strings=False, print_per_layer_stat=False)[0]
    return float(counted or 0)


def _thop(model: nn.Module, x: torch.Tensor) -> float:
    from thop import profile

    return float(profile(model, (x,), verbose=False)[0])


def _calflops(model: nn.Module, x: torch.Tensor) -> float:
    from calflops import calculate_flops

    return float(calculate_flops(model, tuple(x.shape), print_results=False, output_as_string=False)[1])


def _torchprofile(model: nn.Module, x: torch.Tensor) -> float:
    from torchprofile import profile_macs

    return float(profile_macs(model, x))


def _torchlens(model: nn.Module, x: torch.Tensor) -> float:
    import torchlens

    return float(torchlens.trace(model, x).total_flops_forward)


TOOLS: dict[str, Callable[[nn.Module, torch.Tensor], float]] = {
    "torchinfo": _torchinfo, "ptflops": _ptflops, "thop": _thop, "calflops": _calflops, "torchprofile": _torchprofile,
    "torchlens": _torchlens,
}  # fmt: skip


def cases(tool: str) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """The modules that a tool counts, each with the shape of its input. calflops cannot count modules without
    parameters."""
    found = {name: (make().eval(), shape) for name, (make, shape) in MODULES.items()}
    if tool == "calflops":
        found = {name: case for name, case in found.items() if any(True for _ in case[0].parameters())}
    if tool == "torchlens":
        found |= {name: (Function(function), MAP) for name, function in OPERATIONS.items()}
    return found


def counts(tool: str) -> dict[str, float]:
    """The number that a tool prints for each of its modules."""
    return {name: TOOLS[tool](module, torch.rand(shape)) for name, (module, shape) in cases(tool).items()}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    COUNTS.write_text(json.dumps({tool: counts(tool) for tool in sys.argv[1:] or TOOLS}, indent=1) + "\n")
