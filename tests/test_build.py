"""Modules built on the meta device without initializing their weights: the modules that torch builds, only sooner."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import quick
from torch import nn
from torch.utils._device import _device_constructors

import cspprof
from cspprof.core.errors import SourceError
from cspprof.sources.build import REAL_WEIGHTS, build_module
from cspprof.sources.skip_init import FACTORIES, SkipInit
from cspprof.sources.spec import Spec
from cspprof.zoo import catalog

NETWORKS = [
    "resnext50",
    "csp_resnext50",
    "csp_darknet53",
    "timm:densenet201",
    "timm:convnext_base",
    "timm:vit_base_patch16_224",
    "timm:swin_tiny_patch4_window7_224",
    "timm:efficientnet_b0",
    "timm:mobilenetv3_large_100",
    "timm:regnety_032",
]


def factory(name: str) -> Callable[[], nn.Module]:
    if name.startswith("timm:"):
        timm = pytest.importorskip("timm", reason="the library of this network is not installed")
        return lambda: timm.create_model(name.removeprefix("timm:"))
    return catalog().get(name).factory


def tensors(model: nn.Module) -> list[tuple[object, ...]]:
    named = (*model.named_parameters(), *model.named_buffers())
    return [(n, t.shape, t.stride(), t.dtype, t.device, t.requires_grad, type(t), t.is_leaf) for n, t in named]


@pytest.mark.parametrize("name", quick(NETWORKS, 4))
def test_networks_equal_those_that_torch_builds_on_meta(name: str) -> None:
    make = factory(name)
    with torch.device("meta"):
        expected = make()
    with SkipInit():
        built = make()
    assert tensors(built) == tensors(expected)
    assert str(built) == str(expected)
    assert built.state_dict().keys() == expected.state_dict().keys()


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LSTM(3, 4, num_layers=2),
        lambda: nn.MultiheadAttention(8, 2, kdim=4, vdim=4),
        lambda: nn.TransformerEncoderLayer(8, 2),
        lambda: nn.Embedding(10, 4, padding_idx=0),
        lambda: nn.Bilinear(2, 3, 4),
        lambda: nn.ConvTranspose2d(3, 4, 2),
        lambda: nn.BatchNorm2d(4, affine=False),
        lambda: nn.BatchNorm2d(4, track_running_stats=False),
        lambda: nn.LazyConv2d(4, 3),
        lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)),
        lambda: nn.Conv2d(3, 4, 3, dtype=torch.float16),
    ],
)
def test_layers_equal_those_that_torch_builds_on_meta(make: Callable[[], nn.Module]) -> None:
    def tensor_facts() -> list[tuple[object, ...]]:
        module = make()
        lazy = nn.parameter.is_lazy
        named = (*module.named_parameters(), *module.named_buffers())
        return [(n, type(t), t.dtype, t.device.type, lazy(t) or tuple(t.shape), t.requires_grad) for n, t in named]

    with torch.device("meta"):
        expected = tensor_facts()
    with SkipInit():
        assert tensor_facts() == expected


@pytest.mark.parametrize("name", [n for n in nn.init.__all__ if n.endswith("_")])
def test_every_init_function_returns_its_meta_tensor(name: str) -> None:
    arguments = {"constant_": (2.0,), "sparse_": (0.5,)}.get(name, ())
    shape = (4, 4, 3) if name == "dirac_" else (4, 4)
    with SkipInit():
        tensor = torch.empty(shape)
        result = getattr(nn.init, name)(tensor, *arguments)
    assert result is tensor
    assert (tensor.device.type, tensor.shape) == ("meta", shape)


def test_the_functions_that_create_tensors_are_those_of_torch() -> None:
    assert _device_constructors() <= FACTORIES


def test_a_tensor_with_an_explicit_device_has_its_values() -> None:
    with SkipInit():
        table = nn.init.constant_(torch.empty(3, device="cpu"), 2.0)
        filled = torch.empty(3, device="cpu").fill_(1).mul_(3)
        norm = nn.BatchNorm2d(3, device="cpu")
        zeros = torch.zeros(2, device="cpu")
    assert table.tolist() == [2.0] * 3
    assert filled.tolist() == [3.0] * 3
    assert (norm.weight.tolist(), norm.running_var.tolist(), zeros.tolist()) == ([1.0] * 3, [1.0] * 3, [0.0, 0.0])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: nn.init.kaiming_uniform_(torch.empty(3)),
        lambda: nn.init.kaiming_uniform_(torch.empty(3, 3), mode="none"),
        lambda: nn.init.kaiming_uniform_(torch.empty(3, 3), nonlinearity="none"),
        lambda: nn.init.kaiming_normal_(torch.empty(3, 3), nonlinearity="none"),
        lambda: nn.init.xavier_uniform_(torch.empty(3)),
        lambda: nn.Parameter(torch.empty(3)).fill_(0),
        lambda: torch.empty(3, dtype=torch.long).normal_(),
        lambda: torch.empty(3).add_(torch.empty(4)),
        lambda: torch.zeros(3).item(),
    ],
)
def test_a_call_that_torch_refuses_raises(wrong: Callable[[], object]) -> None:
    with SkipInit(), pytest.raises((RuntimeError, ValueError)):
        wrong()


def test_other_threads_initialize_their_weights() -> None:
    made: list[torch.Tensor] = []
    with SkipInit():
        other = threading.Thread(target=lambda: made.append(nn.init.ones_(nn.Linear(2, 2).weight)))
        other.start()
        other.join()
    assert made[0].tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_after_a_failed_factory_torch_is_as_before() -> None:
    with pytest.raises(ValueError, match="on purpose"), SkipInit():
        raise ValueError("on purpose")
    assert nn.init.ones_(torch.empty(1)).tolist() == [1.0]


@pytest.mark.parametrize(
    ("read", "weights", "notes"),
    [
        (lambda layer: None, "meta", ()),
        (lambda layer: torch.ones(1).item(), "meta", ()),
        (lambda layer: torch.linspace(0, 1, 3).tolist(), "meta", ()),
        (lambda layer: layer.weight[0, 0].item(), "cpu", (REAL_WEIGHTS,)),
    ],
)
def test_a_factory_that_reads_values_is_built_again_with_them(
    read: Callable[[nn.Linear], object], weights: str, notes: tuple[str, ...]
) -> None:
    def make() -> nn.Module:
        layer = nn.Linear(2, 2)
        read(layer)
        return layer

    state = torch.get_rng_state()
    module, added = build_module(Spec("net", "net"), make, None)
    assert (module.get_parameter("weight").device.type, added) == (weights, notes)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_error_of_the_factory_is_not_retried() -> None:
    calls: list[int] = []

    def make() -> nn.Module:
        calls.append(1)
        raise KeyError("width")

    with pytest.raises(SourceError, match=r"building net failed: KeyError: 'width' \(.*test_build.py, line \d+\)"):
        build_module(Spec("net", "net"), make, None)
    assert calls == [1]


def test_an_error_in_a_layer_of_torch_names_the_line_of_the_users_file(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from torch import nn\n\ndef Net(width):\n    return nn.Conv2d(3, width, 1)\n")
    with pytest.raises(SourceError, match=r"\(net.py, line 4\)\n.*options of the SPEC: width='wide'"):
        cspprof.profile(f"{tmp_path}/net.py:Net,width=wide")
