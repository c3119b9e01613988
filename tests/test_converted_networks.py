"""Converted networks of each kind of block: they compute, train and export, and the original is as before."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import cspprof
from cspprof.analysis.structural_hash import structural_hash
from cspprof.results import Conversion
from cspprof.zoo import catalog
from cspprof.zoo.blocks import ConvNormAct

pytestmark = pytest.mark.slow

INPUT = (1, 3, 64, 64)


def torchvision_model(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: pytest.importorskip("torchvision").models.get_model(name, weights=None, **options)  # type: ignore[no-any-return]


def timm_model(name: str) -> Callable[[], nn.Module]:
    return lambda: pytest.importorskip("timm").create_model(name)  # type: ignore[no-any-return]


def zoo_model(name: str) -> Callable[[], nn.Module]:
    return lambda: catalog().get(name).factory()


def row_of_convolutions() -> nn.Module:
    layers = [nn.Conv2d(3, 32, 3, 2), nn.Sequential(*(ConvNormAct(32, 32, 3) for _ in range(3))), nn.Conv2d(32, 8, 1)]
    return nn.Sequential(*layers)


KINDS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "residual": (torchvision_model("resnet18"), {}),
    "residual, split by convolutions": (torchvision_model("resnet18"), {"split": "conv", "fusion": "first"}),
    "residual, fusion last": (torchvision_model("resnet18"), {"fusion": "last", "gamma": 0.25}),
    "first block replaced": (zoo_model("resnet50"), {"recipe": "paper"}),
    "grouped convolutions and SE": (torchvision_model("regnet_y_400mf"), {}),
    "dense": (torchvision_model("densenet121"), {}),
    "depthwise convolutions and SE": (torchvision_model("mobilenet_v3_small"), {}),
    "layer norm and layer scale": (torchvision_model("convnext_tiny"), {}),
    "channel shuffle": (torchvision_model("shufflenet_v2_x0_5"), {}),
    "fire modules": (torchvision_model("squeezenet1_1"), {}),
    "plain row of convolutions": (row_of_convolutions, {}),
    "standardized weights": (timm_model("nf_resnet26"), {}),
    "partial convolutions": (timm_model("fasternet_t0"), {}),
    "stacked paths": (timm_model("skresnet18"), {}),
    "split attention": (timm_model("resnest26d"), {}),
    "one-shot aggregation": (timm_model("eca_vovnet39b"), {}),
    "parallel branches": (timm_model("repvgg_a0"), {}),
}
"""For each kind of block: a network, and the options of its conversion."""


class Converted(NamedTuple):
    plain: nn.Module
    conversion: Conversion
    facts: dict[str, Any]
    """Facts of the original before its conversion."""


def facts_of(model: nn.Module) -> dict[str, Any]:
    return {
        "state": {name: (id(t), t._version) for name, t in model.state_dict(keep_vars=True).items()},
        "modules": [(name, id(m), type(m), m.training) for name, m in model.named_modules()],
        "hooks": [len(m._forward_hooks) for m in model.modules()],
        "random numbers": torch.get_rng_state().tolist(),
    }


CALLS: list[str] = []


def count_call(module: nn.Module, inputs: object, output: object) -> None:
    CALLS.append(type(module).__name__)


@pytest.fixture(scope="module", params=KINDS)
def converted(request: pytest.FixtureRequest) -> Converted:
    factory, options = KINDS[request.param]
    torch.manual_seed(0)
    plain = factory().train()
    plain.register_forward_hook(count_call)
    values = copy.deepcopy(plain.state_dict())
    facts = facts_of(plain)
    conversion = cspprof.convert(plain, INPUT, **options)
    assert all(torch.equal(values[name], t) for name, t in plain.state_dict().items())
    return Converted(plain, conversion, facts | {"random numbers after": torch.get_rng_state().tolist()})


def test_the_original_is_unchanged(converted: Converted) -> None:
    assert converted.conversion.converted
    assert converted.facts["random numbers after"] == converted.facts["random numbers"]
    now = facts_of(converted.plain)
    for fact in ("state", "modules", "hooks"):
        assert now[fact] == converted.facts[fact]


def test_the_converted_network_shares_no_weight_with_the_original_and_has_its_hooks(converted: Converted) -> None:
    plain, model = converted.plain, converted.conversion.model
    assert not {p.data_ptr() for p in plain.parameters()} & {p.data_ptr() for p in model.parameters()}
    assert all(m.training for m in model.modules())
    CALLS.clear()
    with torch.no_grad():
        model(torch.randn(2, *INPUT[1:]))
    assert [type(plain).__name__] == CALLS


def test_every_weight_gets_a_gradient_and_one_step_changes_the_output(converted: Converted) -> None:
    model = copy.deepcopy(converted.conversion.model).train()
    torch.manual_seed(0)
    x = torch.randn(4, *INPUT[1:])
    model(x).square().mean().backward()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, p in trainable.items() if p.grad is None or not p.grad.isfinite().all()] == []
    model.eval()
    with torch.no_grad():
        before = model(x)
        for p in trainable.values():
            p -= 0.01 * p.grad
        assert not torch.equal(before, model(x))


def test_macs_equal_those_of_an_independent_counter(converted: Converted) -> None:
    model = copy.deepcopy(converted.conversion.model).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(INPUT))
    assert counter.get_total_flops() == 2 * converted.conversion.after.total("macs")


def test_generated_code_gives_the_same_network_without_cspprof(converted: Converted) -> None:
    """The same structure; and with the same weights, the same outputs."""
    code = converted.conversion.source()
    assert "cspprof" not in code
    namespace: dict[str, Any] = {"__name__": "net_csp"}
    exec(compile(code, "net_csp.py", "exec"), namespace)
    made = namespace["convert"](copy.deepcopy(converted.plain)).eval()
    p = cspprof.profile(made, INPUT)
    assert structural_hash(p) == structural_hash(converted.conversion.after)
    model = copy.deepcopy(converted.conversion.model).eval()
    made.load_state_dict(model.state_dict())
    torch.manual_seed(0)
    x = torch.randn(INPUT)
    with torch.no_grad():
        assert torch.equal(made(x), model(x))


def test_onnx_runtime_computes_the_same_outputs(converted: Converted) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from cspprof.csp.conversion.onnx_export import onnx_graph

    conversion = converted.conversion
    graph = onnx_graph(conversion.model, conversion.after.inputs)
    assert not graph.not_compared
    session = onnxruntime.InferenceSession(graph.data, providers=["CPUExecutionProvider"])
    torch.manual_seed(0)
    x = torch.randn(INPUT)
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        expected = copy.deepcopy(conversion.model).eval()(x).numpy()
    assert abs(got - expected).max() <= 1e-4 * max(abs(expected).max(), 1e-3)
