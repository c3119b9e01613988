"""The cache of operations and the output rules avoid calls of torch's kernels and change no record.

A record is the same on a first trace, on a repeated trace, and with an empty cache and torch's kernels in place of the
output rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from conftest import quick, trace
from networks import Function, op_names
from torch import nn

from cspprof.api import profile
from cspprof.core.errors import TraceError
from cspprof.profiles import Profile
from cspprof.trace import dispatch, op_cache

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    op_cache.clear()
    yield
    op_cache.clear()


def without_output_rules(run: Callable[[], Profile], monkeypatch: pytest.MonkeyPatch) -> Profile:
    """The result of `run` with an empty cache, when torch's kernels produce all outputs.

    The rule for attention stays, because the strides of torch's meta kernel differ from those of the CPU.
    """
    attention = "aten.scaled_dot_product_attention"
    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "OUTPUT_RULES", {attention: dispatch.OUTPUT_RULES[attention]})
        op_cache.clear()
        result = run()
    op_cache.clear()
    return result


def require_library(spec: str) -> None:
    if ":" in spec:
        pytest.importorskip(spec.partition(":")[0], reason="the library of this network is not installed")


# -- kernels --------------------------------------------------------------------------------------


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Calls of torch's kernels by operation, without views."""
    calls: Counter[str] = Counter()
    original = dispatch.execute

    def execute(registry: Any, protect: Any, op: Any, *args: Any) -> Any:
        if not op.returns_views:
            calls[op.target] += 1
        return original(registry, protect, op, *args)

    monkeypatch.setattr(dispatch, "execute", execute)
    return calls


@pytest.mark.parametrize(
    ("spec", "first"),
    [
        ("resnext50", {"aten.pad": 3}),  # of maps that a slice subsamples
        ("csp_resnext50", {}),
        ("csp_darknet53", {}),
        ("csp_darknet53_panet_spp", {}),  # upsampled maps
        ("csp_densenet121", {}),  # norms of some channels of a map
        ("csp_peleenet_efm", {}),  # maxout
        ("csp_resnet10", {}),  # additions of some channels
        ("timm:densenet201", {"aten.dropout": 1}),
        ("timm:efficientnet_b0", {}),
        ("timm:mobilenetv3_large_100", {}),
        ("timm:regnety_032", {"aten.dropout": 1}),
    ],
)
def test_kernels_of_convolutional_networks_on_a_first_and_a_repeated_trace(
    spec: str, first: dict[str, int], kernels: Counter[str]
) -> None:
    require_library(spec)
    profile(spec)
    assert kernels == first
    kernels.clear()
    profile(spec)
    assert not kernels


@pytest.mark.parametrize("name", ["convnext_base", "vit_base_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_repeated_trace_of_a_transformer_or_convnext_calls_no_kernel(name: str, kernels: Counter[str]) -> None:
    require_library("timm:")
    profile(f"timm:{name}")
    assert not kernels.keys() & {"aten.layer_norm", "aten.linear", "aten.matmul", "aten.add", "aten.mul", "aten.roll"}
    kernels.clear()
    profile(f"timm:{name}")
    assert not kernels


# -- records --------------------------------------------------------------------------------------


NETWORKS = [
    "timm:densenet121", "timm:convnext_tiny", "timm:vit_tiny_patch16_224",
    "timm:swin_tiny_patch4_window7_224", "timm:efficientnet_b0", "timm:mobilenetv3_small_100", "timm:regnety_002",
    "torchvision:googlenet", "torchvision:swin_t",
]  # fmt: skip
QUICK = ["timm:convnext_tiny", "timm:vit_tiny_patch16_224", "timm:mobilenetv3_small_100"]


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("spec", quick(NETWORKS, QUICK))
def test_networks_have_the_same_record_with_and_without_cache_and_output_rules(
    spec: str, train: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_library(spec)
    first, again = profile(spec, train=train), profile(spec, train=train)
    first.self_check()
    assert first == again == without_output_rules(lambda: profile(spec, train=train), monkeypatch)


LAYERS: list[tuple[type[nn.Module], tuple[int, ...], list[dict[str, Any]]]] = [
    (nn.Conv2d, (8, 8, 3), [{}, {"stride": 2}, {"padding": 1}, {"padding": "same"}, {"dilation": 2}, {"groups": 2},
                            {"bias": False}, {"padding": 1, "padding_mode": "circular"}]),
    (nn.BatchNorm2d, (8,), [{}, {"eps": 1e-3}, {"momentum": 0.5}, {"affine": False}, {"track_running_stats": False},
                            {"momentum": None}]),
    (nn.LayerNorm, (9,), [{}, {"eps": 1e-3}, {"elementwise_affine": False}, {"bias": False}]),
    (nn.GroupNorm, (), [{"num_groups": 2, "num_channels": 8}, {"num_groups": 4, "num_channels": 8},
                        {"num_groups": 2, "num_channels": 8, "eps": 1.0}]),
    (nn.Linear, (9, 5), [{}, {"bias": False}]),
    (nn.ReLU, (), [{}, {"inplace": True}]),
    (nn.LeakyReLU, (), [{}, {"negative_slope": 0.1}, {"negative_slope": 1}, {"negative_slope": 1.0},
                        {"inplace": True}]),
    (nn.GELU, (), [{}, {"approximate": "tanh"}]),
    (nn.Dropout, (), [{}, {"p": 0.1}, {"inplace": True}]),
    (nn.Softmax, (), [{"dim": 1}, {"dim": -1}]),
    (nn.MaxPool2d, (2,), [{}, {"stride": 1}, {"padding": 1}, {"dilation": 2}, {"ceil_mode": True},
                          {"return_indices": True}]),
    (nn.AvgPool2d, (2,), [{}, {"stride": 1}, {"padding": 1}, {"ceil_mode": True}, {"count_include_pad": False},
                          {"divisor_override": 3}]),
    (nn.AdaptiveAvgPool2d, (), [{"output_size": 1}, {"output_size": 3}, {"output_size": (3, 1)},
                                {"output_size": [3, None]}]),
]  # fmt: skip
"""The class of a layer, its positional arguments, and different settings."""


@pytest.mark.parametrize("train", quick([False, True], 1))
@pytest.mark.parametrize(("kind", "args", "settings"), LAYERS, ids=[kind.__name__ for kind, _, _ in LAYERS])
def test_every_setting_size_and_dtype_of_a_layer_has_its_own_cached_operation(
    kind: type[nn.Module],
    args: tuple[int, ...],
    settings: list[dict[str, Any]],
    train: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = [nn.Sequential(nn.Conv2d(3, 8, 1), kind(*args, **kwargs), nn.Identity()) for kwargs in settings]
    runs = [
        partial(trace, model, shape, dtype=dtype, train=train)
        for model in models
        for shape in ((1, 3, 9, 9), (2, 3, 12, 9))
        for dtype in ("float32", "float64")
    ]
    first, again = [run() for run in runs], [run() for run in runs]
    assert first == again == [without_output_rules(run, monkeypatch) for run in runs]


def test_a_norm_without_a_counter_of_batches_has_its_own_cached_operation() -> None:
    counting, not_counting = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
    not_counting.num_batches_tracked = None
    for norm, operations in ((not_counting, 1), (counting, 2), (not_counting, 1)):
        assert len(trace(norm, (2, 4, 9, 9), train=True).ops) == operations


def test_a_layer_with_its_own_convolution_does_not_change_other_layers() -> None:
    def padded(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return nn.functional.conv2d(x, weight, bias, padding=5)

    ordinary, changed = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
    changed._conv_forward = padded
    for model, sizes in ((changed, [17]), (ordinary, [9]), (nn.Sequential(ordinary, changed), [9, 17])):
        assert [op.writes[0].shape[-1] for op in trace(model, (1, 3, 9, 9)).ops] == sizes


VIEWS: list[Callable[[torch.Tensor], Any]] = [
    lambda x: x.transpose(1, 3),
    lambda x: x[:, 1:, ::2, 2],
    lambda x: x.chunk(3, 1),
    lambda x: x.unbind(0),
    lambda x: x.expand(5, 2, 6, 4, 4),
    lambda x: x[1].split([1, 5], 0),
    lambda x: x.permute(0, 2, 3, 1).view(2, 16, 6),
    lambda x: x.diagonal(0, 2, 3),
    lambda x: x.unfold(3, 3, 1),
    lambda x: x.view(torch.int32),
    lambda x: torch.view_as_complex(x.view(2, 6, 4, 2, 2)),
    lambda x: torch.view_as_complex(x.view(2, 6, 4, 2, 2)).conj().imag,
    lambda x: x.narrow(1, 2, 3).narrow(2, 1, 2).select(3, 1).squeeze(),
]


@pytest.mark.parametrize("view", VIEWS)
def test_a_cached_view_is_the_view_that_torch_makes(view: Callable[[torch.Tensor], Any]) -> None:
    made = []

    def forward(x: torch.Tensor) -> Any:
        views = view(x.relu())
        made.append([
            (t.shape, t.stride(), t.storage_offset(), t.dtype, t.is_conj(), t.is_neg(), type(views))
            for t in (views if isinstance(views, tuple) else [views])
        ])  # fmt: skip
        return views

    with torch.inference_mode():
        forward(torch.empty(2, 6, 4, 4, device="meta"))
    profiles = [trace(Function(forward), (2, 6, 4, 4)) for _ in range(3)]
    assert made[0] == made[1] == made[2] == made[3]
    assert profiles[0] == profiles[1] == profiles[2]
    views = [op for op in profiles[0].ops if op.kind == "view"]
    assert len({s for op in views for s in (op.reads[0].storage, op.writes[0].storage)}) == 1


def test_a_changed_default_dtype_empties_the_cache() -> None:
    try:
        for dtype, name in ((torch.float32, "float32"), (torch.float64, "float64")):
            torch.set_default_dtype(dtype)
            p = trace(Function(lambda x: x / x), torch.ones(3, dtype=torch.long))
            assert p.ops[0].writes[0].dtype == name
    finally:
        torch.set_default_dtype(torch.float32)


def test_gradients_in_a_forward_are_computed_on_every_trace() -> None:
    class InputGradient(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode(False), torch.enable_grad():
                y = torch.zeros(x.shape, device=x.device, requires_grad=True)
                return torch.autograd.grad(self.conv(y).sum(), y)[0]

    model = InputGradient()
    first, again = (trace(model, (1, 3, 9, 9)) for _ in range(2))
    assert op_names(first)[:3] == ["zeros", "convolution", "sum"]
    assert "convolution_backward" in op_names(first)
    assert first == again


@pytest.mark.parametrize(
    ("valid", "refused"),
    [
        (lambda: nn.MaxPool2d(2, ceil_mode=False), lambda: nn.MaxPool2d(2, ceil_mode=0)),
        (lambda: nn.MaxPool2d(2), lambda: nn.MaxPool2d(2.0)),
        (lambda: nn.AdaptiveAvgPool2d(1), lambda: nn.AdaptiveAvgPool2d(True)),
    ],
    ids=["False and 0", "2 and 2.0", "1 and True"],
)
def test_a_setting_that_torch_refuses_is_refused_also_after_an_equal_valid_one(
    valid: Callable[[], nn.Module], refused: Callable[[], nn.Module]
) -> None:
    expected = trace(valid(), (1, 4, 8, 8))
    with pytest.raises(TraceError):
        trace(refused(), (1, 4, 8, 8))
    assert trace(valid(), (1, 4, 8, 8)) == expected
