"""What a trace asks of torch, counted: the fewer kernels, the faster it is."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from torch import nn

from cspprof.api import profile
from cspprof.trace import dispatch, op_cache


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Operations that torch's own kernels answered, views left out."""
    seen: Counter[str] = Counter()
    original = dispatch.execute

    def execute(tracing: dispatch.DispatchRecorder, op: Any, *args: Any) -> Any:
        if not op.returns_views:
            seen[op.target] += 1
        return original(tracing, op, *args)

    monkeypatch.setattr(dispatch, "execute", execute)
    op_cache.clear()
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


@pytest.mark.parametrize(
    "name", ["resnext50", "timm:densenet201", "timm:convnext_base", "timm:swin_tiny_patch4_window7_224"]
)
def test_layers_without_hooks_do_not_take_the_way_through_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm", reason="the library of this network is not installed")
    called: Counter[str] = Counter()
    original = nn.Module._call_impl

    def call_impl(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        called[type(self).__name__] += 1
        return original(self, *args, **kwargs)

    monkeypatch.setattr(nn.Module, "_call_impl", call_impl)
    profile(name)
    assert not called


def test_layers_seen_at_one_size_are_not_run_at_another(monkeypatch: pytest.MonkeyPatch) -> None:
    called: Counter[str] = Counter()

    def counted(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            called[function.__name__] += 1
            return function(*args, **kwargs)

        return call

    for name in ("conv2d", "batch_norm", "leaky_relu"):
        monkeypatch.setattr(nn.functional, name, counted(getattr(nn.functional, name)))
    op_cache.clear()
    profile("csp_darknet53", (1, 3, 64, 64))
    assert 0 < called.total() < 20  # one of each sort, not of each size
    called.clear()
    profile("csp_darknet53", (1, 3, 96, 128))
    assert not called
