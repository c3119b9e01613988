"""What a trace asks of torch, counted: the fewer kernels, the faster it is."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from cspprof.api import profile
from cspprof.trace import recorder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Operations that torch's own kernels answered, views left out."""
    seen: Counter[str] = Counter()
    original = recorder.from_torch

    def from_torch(tracing: recorder.Recorder, op: Any, *args: Any) -> Any:
        if not op.views:
            seen[op.target] += 1
        return original(tracing, op, *args)

    monkeypatch.setattr(recorder, "from_torch", from_torch)
    recorder.forget()
    return seen


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("resnext50", {"aten.pad": 3}),  # of maps subsampled by a slice
        ("csp_resnext50", {}),
        ("csp_darknet53", {}),
        ("csp_darknet53_panet_spp", {}),  # enlarged maps
        ("csp_densenet121", {}),  # norms of some channels of a map
        ("csp_peleenet_efm", {}),  # maxout
        ("csp_resnet10", {}),  # additions of some channels
        ("timm:densenet201", {}),
        ("timm:efficientnet_b0", {}),
        ("timm:mobilenetv3_large_100", {}),
        ("timm:regnety_032", {}),
    ],
)
def test_convolutional_networks_reach_next_to_no_kernel_and_none_again(
    name: str, first: dict[str, int], asked: Counter[str]
) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm", reason="the library of this network is not installed")
    profile(name)
    assert asked == first
    asked.clear()
    profile(name)
    assert not asked


@pytest.mark.parametrize("name", ["convnext_base", "vit_base_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_repeated_trace_of_any_network_reaches_none(name: str, asked: Counter[str]) -> None:
    pytest.importorskip("timm", reason="the library of this network is not installed")
    profile(f"timm:{name}")
    assert not asked.keys() & {"aten.layer_norm", "aten.linear", "aten.matmul", "aten.add", "aten.mul", "aten.roll"}
    asked.clear()
    profile(f"timm:{name}")
    assert not asked
