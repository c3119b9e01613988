"""Networks with other widths, depths and growth rates, compared with independent counts."""

from __future__ import annotations

import re
import warnings
from inspect import signature
from pathlib import Path

import pytest
import torch
from conftest import quick

import cspprof
from cspprof.analysis.layer_rows import layer_rows
from cspprof.core.errors import CspprofError
from cspprof.core.record import CONVOLUTIONS, POOLS
from cspprof.sources.skip_init import SkipInit
from cspprof.zoo import catalog
from cspprof.zoo.blocks import scale_channels

WIDE = [n for n in catalog().names() if "width" in signature(catalog().get(n).factory).parameters]
TWINS = [n for n in WIDE if catalog().get(n).twin]
CFGS = {
    "resnet10": "resnet10", "resnet50": "resnet50", "resnext50": "resnext50", "darknet53": "darknet53",
    "darknet_ref": "darknet", "csp_resnet50": "csresnet50", "csp_resnext50": "csresnext50",
    "csp_darknet53": "csdarknet53", "mobilenet_v2_darknet": "mobilenet-v2", "csp_mobilenet_v2": "csmobilenet-v2",
    "res2netlite72": "res2netlite72", "csp_darknet53,elastic=True": "csdarknet53-elastic",
    "csp_resnet50,elastic=True": "csresnet50-elastic", "csp_resnext50,elastic=True": "csresnext50-elastic",
}  # fmt: skip


@pytest.mark.parametrize("width", [0.5, 1.5])
@pytest.mark.parametrize("name", CFGS)
def test_width_multiplies_the_filters_of_the_authors_cfg(
    name: str, width: float, reference: Path, tmp_path: Path
) -> None:
    """The Darknet source reads the cfg. Depthwise groups grow with the filters, those of ResNeXt and Res2Net do not."""
    options = ("filters", "groups") if "mobilenet" in name else ("filters",)

    def multiplied(match: re.Match[str]) -> str:
        option, n = match.groups()
        return f"{option}={n if n in ('1', '1000') else int(int(n) * width)}"

    text = (reference / "cfg" / f"{CFGS[name]}.cfg").read_text()
    cfg = tmp_path / "wide.cfg"
    cfg.write_text(re.sub(rf"^({'|'.join(options)})\s*=\s*(\d+)", multiplied, text, flags=re.MULTILINE))

    def layers(spec: str) -> list[tuple[object, ...]]:
        specs = (r.spec for r in layer_rows(cspprof.profile(spec)) if r.spec.kind in CONVOLUTIONS | POOLS)
        return [(s.reads[0].shape[1:], s.writes[0].shape[1:], s.macs) for s in specs]

    assert layers(f"{name},width={width}") == layers(str(cfg))


@pytest.mark.parametrize(("width", "growth"), [(0.5, 32), (1.5, 48)])
def test_width_of_a_densenet_scales_the_stem(width: float, growth: int) -> None:
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed: it is in its extra")
    ours = cspprof.profile(f"densenet121,width={width},growth={growth}")
    theirs = cspprof.profile(models.DenseNet(growth, (6, 12, 24, 16), int(64 * width)), (1, 3, 224, 224))
    for metric in ("macs", "params", "cio_hardnet"):
        assert ours.total(metric) == theirs.total(metric)


def peleenet_weights(base: int, growth: int, gamma: float, fusion: str) -> int:
    """Weights of PeleeNet's convolutions and classifier, from its description in the paper."""
    total = 9 * 3 * base + base * base // 2 + 9 * base // 2 * base + 2 * base * base
    c = base
    for stage, (layers, halves) in enumerate(((3, 1), (4, 2), (8, 4), (6, 4))):
        partial = fusion == "first" or (fusion != "none" and stage < 3)
        bypass = round(gamma * c) if partial else 0
        x = c - bypass
        for _ in range(layers):
            b = halves * growth // 2
            if b > x // 2:
                b = 4 * (x // 8)
            total += 2 * x * b + 9 * (2 * b * growth // 2 + (growth // 2) ** 2)
            x += growth
        c += layers * growth
        if not partial:
            total += c * c
        elif fusion == "csp":
            total += x * x + c * c
        elif fusion == "first":
            total, c = total + c * x, x
        else:
            total += x * x
    return total + 1000 * c


@pytest.mark.parametrize("fusion", ["csp", "first", "last", "none"])
@pytest.mark.parametrize(
    ("width", "growth", "gamma"), quick([(0.5, 32, 0.5), (1.5, 48, 0.5), (1.0, 32, 0.5), (2.0, 32, 0.25)], 2)
)
def test_peleenet_weights_by_hand(fusion: str, width: float, growth: int, gamma: float) -> None:
    p = cspprof.profile(f"csp_peleenet,width={width},growth={growth},gamma={gamma},fusion={fusion}")
    assert p.total("conv_weights") == peleenet_weights(int(32 * width), growth, gamma, fusion)


def test_resnet10_weights_at_half_width_by_hand() -> None:
    stem, classes = 7 * 7 * 3 * 32, 256 * 1000
    stages = [32 + 32, 32 + 64, 64 + 128, 128 + 256]
    widths = [32, 64, 128, 256]
    weights = stem + classes + sum(9 * c * inputs for c, inputs in zip(widths, stages, strict=True))
    assert weights == 1_440_352
    assert cspprof.profile("resnet10,width=0.5").total("conv_weights") == weights


@pytest.mark.parametrize("name", ["resnet18", "resnet50_v1", "csp_resnet10"])
def test_width_multiplies_every_number_of_channels(name: str) -> None:
    """Except those of the image and of the classes."""
    factory = catalog().get(name).factory
    with SkipInit():
        one, two = (dict(factory(num_classes=10, width=w).named_parameters()) for w in (1, 2))
    assert one.keys() == two.keys()
    for path, parameter in one.items():
        channels = [n if n in (3, 10) else 2 * n for n in parameter.shape[:2]]
        assert list(two[path].shape) == [*channels, *parameter.shape[2:]]


@pytest.mark.parametrize("spec", quick(["csp_resnet10,width=0.5,fusion=last", "csp_darknet53,width=0.25,fusion=first",
                                        "csp_peleenet,width=0.5,growth=16,gamma=0.25"], 1))  # fmt: skip
def test_narrow_networks_have_equal_costs_in_onnx(spec: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the library onnx is not installed: it is in the extra onnx")
    name, *options = spec.split(",")
    kwargs = {k: v if k == "fusion" else float(v) for k, v in (o.split("=") for o in options)}
    kwargs |= {"growth": int(kwargs["growth"])} if "growth" in kwargs else {}
    file, entry = tmp_path / "net.onnx", catalog().get(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(entry.factory(**kwargs).eval(), (torch.randn(entry.input),), str(file), dynamo=False,
                          do_constant_folding=False)  # fmt: skip
    exported, traced = cspprof.profile(str(file)), cspprof.profile(spec)
    for metric in ("macs", "conv_weights", "cio_hardnet", "cio_cspnet"):
        assert exported.total(metric) == traced.total(metric)


@pytest.mark.parametrize("name", quick(TWINS, 4))
def test_a_wide_twin_without_split_equals_the_wide_plain_network(name: str) -> None:
    twin, plain = cspprof.profile(f"{name},fusion=none,width=2"), cspprof.profile(f"{catalog().get(name).twin},width=2")
    assert (twin.specs, twin.calls) == (plain.specs, plain.calls)
    assert twin.status == "construction"


def test_hardnet_options() -> None:
    assert cspprof.profile("hardnet68,width=1.0").total("macs") == cspprof.profile("hardnet68").total("macs")
    p = cspprof.profile("hardnet39ds,depths=(2,2,2,2),growth=(8,8,8,8)")
    # A block has two layers of 8 and 12 (8 · 1.6, made even) channels, each a 1×1 and a depthwise 3×3.
    c, weights = 48, 9 * 3 * 24 + 24 * 48 + 9 * 48
    for width, halved in ((96, True), (320, True), (640, True), (1024, False)):
        weights += c * 8 + 9 * 8 + (8 + c) * 12 + 9 * 12 + (8 + 12) * width + 9 * width * halved
        c = width
    assert p.total("conv_weights") == weights + 1000 * c
    assert p.status == "construction"
    with pytest.raises(CspprofError, match=r"growth=.* does not give each of 5 stages at least one channel"):
        cspprof.profile("hardnet68,growth=(8,8)")


def test_mobilenet_depths() -> None:
    """One block of the row with 160 channels has an expansion, a depthwise convolution and a projection."""
    one, two = (cspprof.profile(f"mobilenet_v2_darknet,depths=(1,2,3,4,3,{n},1)") for n in (2, 3))
    assert two.total("conv_weights") - one.total("conv_weights") == 960 * (160 + 9 + 160)
    assert cspprof.profile("csp_mobilenet_v2,depths=(1,2,3,4,3,3,1)").status == ""
    assert cspprof.profile("csp_mobilenet_v2,depths=(1,2,3,4,3,2,1)").status == "construction"


@pytest.mark.parametrize(("spec", "message"), [
    ("csp_resnet50,width=0", "width=0 is not a multiplier\nGive a positive number: width=0.5"),
    ("darknet53,width=-1", "width=-1 is not a multiplier"),
    ("peleenet,width=wide", "width='wide' is not a multiplier"),
    ("csp_resnext50,width=0.3",
     "width=0.3 turns 64 channels into 19.2, which is not a multiple of 16\nNearest: width=0.25 or width=0.5"),
    ("csp_peleenet,width=0.01",
     "width=0.01 turns 32 channels into 0.32, which is not a multiple of 2\nNearest: width=0.0625"),
    ("csp_resnext50,split=slice,fusion=last,gamma=0.3", "to a convolution with 32 groups\nGive gamma=0.5"),
])  # fmt: skip
def test_invalid_widths_are_explained(spec: str, message: str) -> None:
    with pytest.raises(CspprofError, match=re.escape(message)):
        cspprof.profile(spec)


def test_scale_channels_does_not_round() -> None:
    assert (scale_channels(96, 1 / 3), scale_channels(64, 0.75, 16), scale_channels(10, 1.1)) == (32, 48, 11)
    with pytest.raises(CspprofError, match=r"turns 64 channels into 48\.64"):
        scale_channels(64, 0.76)
