"""The zoo: exact totals, layers equal to the authors' cfg files, and networks that run, train and export."""

from __future__ import annotations

import subprocess
import sys
import warnings
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import quick

import cspprof
from cspprof.analysis.layer_rows import layer_rows
from cspprof.analysis.stages import stage_depths, stage_labels
from cspprof.core.errors import CspprofError
from cspprof.core.formulas import harmonic_links, harmonic_width
from cspprof.core.record import CONVOLUTIONS, POOLS
from cspprof.zoo import MODULES, catalog
from cspprof.zoo.blocks import shortcut
from cspprof.zoo.csp import CrossStagePartial
from cspprof.zoo.peleenet import exponential_sources

TOTALS = {
    #                 MACs           conv weights  CIO (HarDNet)  CIO (CSPNet)
    "resnext50":     (5_055_135_744, 22_190_784, 32_967_656, 34_411_496),
    "csp_resnext50": (3_964_616_704, 20_499_136, 31_198_184, 32_642_024),
    "resnet50":      (4_999_610_368, 22_734_016, 24_574_464, 25_950_184),
    "csp_resnet50":  (4_483_686_400, 21_566_656, 22_317_032, 23_694_312),
    "darknet53":     (9_285_115_904, 41_573_216, 24_905_704, 24_972_264),
    "csp_darknet53": (6_533_652_480, 27_605_856, 35_784_680, 35_851_240),
}  # fmt: skip
DEPTHS = {
    "resnext50": [3, 4, 6, 3],
    "csp_resnext50": [3, 3, 5, 2],
    "resnet50": [3, 4, 6, 3],
    "csp_resnet50": [3, 3, 5, 2],
    "darknet53": [1, 2, 8, 8, 4],
    "csp_darknet53": [1, 2, 8, 8, 4],
}
CFGS = {
    **{name: name.replace("csp_", "cs") for name in TOTALS},
    "resnet10": "resnet10",
    "darknet_ref": "darknet",
    "mobilenet_v2_darknet": "mobilenet-v2",
    "csp_mobilenet_v2": "csmobilenet-v2",
    "efficientnet_b0_darknet": "enetb0",
    "res2netlite72": "res2netlite72",
    "csp_darknet53,elastic=True": "csdarknet53-elastic",
    "csp_resnet50,elastic=True": "csresnet50-elastic",
    "csp_resnext50,elastic=True": "csresnext50-elastic",
    "yolov3_tiny": "yolov3-tiny",
    "yolov3_tiny_prn": "yolov3-tiny-prn",
    "csp_resnet50_panet_spp": "csresnet50-panet-spp",
    "csp_resnext50_panet_spp": "csresnext50-panet-spp",
    "csp_darknet53_panet_spp": "csdarknet53-panet-spp",
}
"""The authors' cfg file of each network that has one."""
AT_224 = {
    #                MACs            parameters   CIO (HarDNet)
    "resnet18":      (1_814_073_344, 11_689_512, 4_666_368),
    "resnet50_v1":   (3_857_973_248, 25_557_032, 20_722_688),
    "resnet101_v1":  (7_570_194_432, 44_549_160, 30_958_592),
    "resnet152_v1":  (11_282_415_616, 60_192_808, 43_602_944),
    "vgg16":         (15_470_264_320, 138_357_544, 22_629_376),
    "mobilenet_v2":  (300_774_272, 3_504_872, 13_444_032),
    "densenet121":   (2_834_161_664, 7_978_856, 21_864_192),
    "densenet169":   (3_359_843_328, 14_149_480, 25_589_760),
    "densenet201":   (4_291_365_888, 20_013_928, 31_811_584),
    "hardnet39ds":   (429_471_474, 3_488_228, 9_818_424),
    "hardnet68ds":   (775_281_526, 4_180_602, 17_324_440),
    "hardnet68":     (4_246_114_304, 17_565_348, 11_468_940),
    "hardnet85":     (9_074_081_584, 36_670_212, 17_469_284),
    "peleenet":      (507_757_568, 2_802_248, 9_442_496),
    "squeezenet":    (818_924_576, 1_248_424, 7_304_200),
    "mobilenet_v2,width=1.4": (582_195_824, 6_108_776, 19_209_568),
}  # fmt: skip
"""HarDNet's Table 4 prints: 4.7, 20.7, 30.9, 43.6, 22.6, 13.4, 21.9, –, 31.8, 8.2 (its released definition: 9.8), 15.3
(17.3), 11.5 and – million elements."""
NAMES = catalog().names()
TWINS = [name for name in NAMES if catalog().get(name).twin]
TRAINED = [*NAMES, *(f"{name},fusion=last" for name in TWINS)]
SMALL = {
    "resnet10", "csp_resnet10", "csp_resnet10,fusion=last", "csp_peleenet", "peleenet", "yolov3_tiny_prn",
    "hardnet39ds", "csp_mobilenet_v2", "squeezenet", "thundernet_snet49",
}  # fmt: skip
"""Small networks, with every kind of block and neck. Tests that take long per network run with these in every run."""
EXPORTED_FAST = {"resnet10", "yolov3_tiny_prn", "thundernet_snet146"}
"""Networks that export in about two seconds, with every kind of neck and block. The others are marked slow."""


def small_options(name: str) -> dict[str, Any]:
    """The options of the network for 7 classes, half of the channels and at most two blocks in each stage."""
    parameters = signature(catalog().get(name).factory).parameters
    options: dict[str, Any] = {"num_classes": 7, "width": 0.5}
    if "depths" in parameters and parameters["depths"].default:
        options["depths"] = tuple(min(depth, 2) for depth in parameters["depths"].default)
    return {option: value for option, value in options.items() if option in parameters}


@pytest.mark.parametrize("name", TOTALS)
def test_totals_at_256(name: str) -> None:
    p = cspprof.profile(name)
    assert p.inputs[0].shape == (1, 3, 256, 256)
    assert tuple(p.total(m) for m in ("macs", "conv_weights", "cio_hardnet", "cio_cspnet")) == TOTALS[name]
    assert p.complete
    assert stage_depths(p) == DEPTHS[name]
    p.self_check()


@pytest.mark.parametrize("name", AT_224)
def test_totals_at_224(name: str) -> None:
    p = cspprof.profile(name)
    assert p.inputs[0].shape == (1, 3, 224, 224)
    assert (p.total("macs"), p.params, p.total("cio_hardnet")) == AT_224[name]


TORCHVISION = {
    **{name: name for name in ("resnet18", "vgg16", "mobilenet_v2", "densenet121", "densenet201")},
    "mobilenet_v2,width=0.35": "mobilenet_v2,width_mult=0.35",
    "mobilenet_v2,width=1.4": "mobilenet_v2,width_mult=1.4",
    "squeezenet": "squeezenet1_0",
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_published_networks_equal_torchvision(name: str) -> None:
    ours, theirs = cspprof.profile(name), cspprof.profile(f"torchvision:{TORCHVISION[name]}")
    for metric in ("macs", "params", "cio_hardnet", "conv_weights"):
        assert ours.total(metric) == theirs.total(metric)


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ("", -13.74),
        ("gamma=0.25", -3.47),
        ("fusion=last", -21.32),
        ("fusion=last,gamma=0.25", -11.06),
        ("fusion=first", -26.76),
    ],
)
def test_csp_peleenet_fusions(options: str, change: float) -> None:
    """The paper's Fig. 4 prints −13, −3, −21, −11 and −26 %."""
    spec = ",".join(filter(None, ("csp_peleenet", options)))
    plain = cspprof.profile("peleenet").total("bflops_cspnet")
    assert round(100 * (cspprof.profile(spec).total("bflops_cspnet") / plain - 1), 2) == change


def test_peleenet_bflops_equal_the_paper() -> None:
    """1.017: twice the MACs, the max pool of the stem, and three 2×2 average pools, which are max pools in Darknet."""
    pools = 4 * (32 * 56**2 + 128 * 28**2 + 256 * 14**2 + 512 * 7**2)
    assert cspprof.profile("peleenet").total("bflops_cspnet") == (2 * 507_757_568 + pools) / 10**9 == 1.016619008


@pytest.mark.parametrize("name", quick(TWINS, SMALL))
def test_a_twin_without_split_equals_the_plain_network(name: str) -> None:
    twin, network = cspprof.profile(f"{name},fusion=none"), cspprof.profile(str(catalog().get(name).twin))
    assert (twin.specs, twin.calls, twin.status) == (network.specs, network.calls, network.status)


@pytest.mark.parametrize("name", quick([*TWINS, "csp_peleenet_efm", "csp_darknet53_panet_spp"], SMALL))
@pytest.mark.parametrize("split", ["conv", "slice"])
def test_a_smaller_gamma_saves_less(name: str, split: str) -> None:
    macs = [cspprof.profile(f"{name},split={split},gamma={g}").total("macs") for g in (0.25, 0.5, 0.75)]
    assert macs[0] > macs[1] > macs[2]


def test_harmonic_links_and_widths() -> None:
    assert [harmonic_links(k) for k in (1, 2, 3, 4, 6, 8)] == [[0], [1, 0], [2], [3, 2, 0], [5, 4], [7, 6, 4, 0]]
    assert [harmonic_width(n, 14, 1.7) for n in (1, 2, 3, 4)] == [14, 24, 40, 68]


def test_exponential_sources() -> None:
    assert [exponential_sources(i) for i in (1, 2, 3, 4, 8)] == [[0], [0, 1], [1, 2], [0, 2, 3], [0, 4, 6, 7]]


@pytest.mark.parametrize("name", CFGS)
def test_conv_and_pool_layers_equal_the_authors_cfg(name: str, darknet_totals: dict[str, Any]) -> None:
    expected = darknet_totals[f"{CFGS[name]}.cfg"]
    p = cspprof.profile(name)
    ours = [
        (*r.spec.writes[0].shape[1:], r.spec.macs, r.spec.reads[0].numel + r.spec.writes[0].numel)
        for r in layer_rows(p)
        if r.spec.kind in CONVOLUTIONS | POOLS
    ]
    theirs = [tuple(row[1:]) for row in expected["layers"] if row[0] in ("convolutional", "maxpool", "avgpool")]
    assert ours == theirs
    assert round(p.total("bflops_darknet"), 6) == expected["bflops_darknet"]


@pytest.mark.parametrize("spec", quick(TRAINED, SMALL))
def test_every_network_runs_and_trains(spec: str) -> None:
    torch.manual_seed(0)
    name, _, fusion = spec.partition(",fusion=")
    model = catalog().get(name).factory(**small_options(name), **({"fusion": fusion} if fusion else {}))
    out = model(torch.randn(2, 3, 64, 64))
    if isinstance(out, torch.Tensor):
        assert out.shape == (2, 7)
    else:  # the heads of a detector; see tests/test_detectors.py
        assert len(out) >= 2
        out = torch.cat([head.flatten() for head in out])
    out.square().mean().backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert torch.isfinite(parameter.grad).all(), path


@pytest.mark.parametrize("name", quick(NAMES, EXPORTED_FAST))
def test_every_network_has_equal_costs_in_onnx(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the library onnx is not installed: it is in the extra onnx")
    entry, file = catalog().get(name), tmp_path / "net.onnx"
    model = entry.factory().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.randn(entry.input),), str(file), dynamo=False, do_constant_folding=False)
    exported, traced = cspprof.profile(str(file)), cspprof.profile(model, entry.input)
    for metric in ("macs", "conv_weights", "cio_hardnet", "cio_cspnet", "bflops_cspnet"):
        assert exported.total(metric) == traced.total(metric)


@pytest.mark.parametrize("name", quick(NAMES, SMALL))
@pytest.mark.parametrize("size", [(225, 255), pytest.param((256, 320), marks=pytest.mark.slow)])
def test_odd_and_rectangular_inputs(name: str, size: tuple[int, int]) -> None:
    p = cspprof.profile(name, (1, 3, *size))
    assert p.complete
    assert p.total("macs") > 0


@pytest.mark.parametrize("name", quick(NAMES, SMALL))
def test_every_operation_is_in_a_tagged_stage(name: str) -> None:
    p = cspprof.profile(name)
    seen = list(dict.fromkeys(stage_labels(p)))
    body = [s for s in seen if s.startswith("stage")]
    assert body == [f"stage{i}" for i in range(1, len(body) + 1)]
    end = ["neck", "head"] if "neck" in seen else ["head"]
    assert seen == ["stem"] * ("stem" in seen) + body + end


def test_depths_option() -> None:
    assert stage_depths(cspprof.profile("csp_resnext50,depths=(3,4,6,3)")) == [3, 4, 6, 3]
    with pytest.raises(CspprofError, match="does not give each of 4 stages at least one block"):
        cspprof.profile("csp_resnext50,depths=(3,4)")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("option", ["num_classes=0", "num_classes=ten", "in_channels=-1", "depths=3"])
def test_invalid_options_are_explained(name: str, option: str) -> None:
    message = r"is not a number of channels|does not give each of|got an unexpected keyword argument '(depths|num_cl)"
    with pytest.raises(CspprofError, match=message):
        cspprof.profile(f"{name},{option}")


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("csp_")])
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("gamma=0", "not a fraction"),
        ("gamma=1", "not a fraction"),
        ("fusion=late", "Choose one of: csp, first, last, none"),
        ("split=half", "Choose one of: conv, slice"),
    ],
)
def test_invalid_splits_are_explained(name: str, option: str, message: str) -> None:
    with pytest.raises(CspprofError, match=message):
        cspprof.profile(f"{name},{option}")


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ("csp_resnext50", ""),
        ("csp_resnext50,elastic=True,num_classes=10", ""),
        ("csp_resnext50,gamma=0.25", "construction"),
        ("peleenet,act=swish", ""),
        ("peleenet,se=True", "construction"),
        ("csp_peleenet", "reading"),
        ("csp_peleenet,fusion=none", ""),
        ("csp_peleenet,fusion=none,growth=24", "construction"),
        ("csp_resnet10", "construction"),
        ("csp_peleenet,gamma=0.25", "reading"),
        ("csp_densenet121", "construction"),
        ("torchvision:resnet18", ""),
    ],
)
def test_status_of_a_network_with_options(spec: str, status: str) -> None:
    p = cspprof.profile(spec)
    assert p.status == status
    assert p.label == (f"{spec} ({status})" if status else spec)


@pytest.mark.parametrize("option", ["width=0", "width=-1", "width=wide", "divisor=0", "divisor=2.5"])
def test_invalid_mobilenet_widths_are_explained(option: str) -> None:
    with pytest.raises(CspprofError, match=r"is not a multiplier|is not a number of channels"):
        cspprof.profile(f"mobilenet_v2,{option}")


def test_shortcut_adds_common_channels() -> None:
    x, y = torch.ones(1, 2, 3, 3), torch.zeros(1, 4, 2, 2)
    assert shortcut(x, y, stride=2)[0, :, 0, 0].tolist() == [1, 1, 0, 0]
    wide, narrow = torch.full((1, 4, 2, 2), 5.0), torch.ones(1, 2, 2, 2)
    assert shortcut(wide, narrow)[0, :, 0, 0].tolist() == [6, 6]


def test_a_split_needs_channels_on_both_sides() -> None:
    with pytest.raises(CspprofError, match="leaves one side empty"):
        CrossStagePartial(8, 8, bypass=8, main=0, blocks=torch.nn.Identity(), c_blocks=0)


def test_the_order_of_the_catalog_does_not_depend_on_what_was_imported_before() -> None:
    program = "import cspprof.zoo.vgg, cspprof.zoo.densenet; from cspprof.zoo import catalog; print(*catalog())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    names = done.stdout.split()
    assert names == sorted(names, key=lambda name: MODULES.index(catalog().get(name).factory.__module__.split(".")[-1]))
