"""Detectors: necks by hand, published totals, and the most expensive layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import quick

import cspprof
from cspprof.analysis.layer_rows import LayerRow, layer_rows
from cspprof.analysis.stages import stage_depths
from cspprof.core.errors import CspprofError
from cspprof.sources.darknet.pooling import max_pool_depth
from cspprof.zoo import catalog
from cspprof.zoo.necks import Fusion, Maxout, SpatialAttention, SpatialPyramidPooling
from cspprof.zoo.thundernet import ContextEnhancement, ShuffleUnit

pytestmark = pytest.mark.slow

PRN_REPOSITORY = {
    #                 BFLOPs  million values in the weight file
    "yolov3_tiny":     (5.571, 8.86),
    "peleenet_prn":    (4.04, 3.16),
    "peleenet_yolo":   (4.84, 3.75),
    "peleenet_prn3":   (5.03, 3.36),
}  # fmt: skip
"""The tables of the PRN repository at 416×416."""


def largest_layer(spec: str) -> LayerRow:
    return max(layer_rows(cspprof.profile(spec)), key=lambda r: r.spec.macs or 0)


@pytest.mark.parametrize("name", PRN_REPOSITORY)
def test_published_totals_to_the_printed_digit(name: str) -> None:
    p = cspprof.profile(name)
    bflops, params = PRN_REPOSITORY[name]
    digits = 3 if name == "yolov3_tiny" else 2
    assert round(p.total("bflops_cspnet"), digits) == bflops
    assert round(p.total("params_darknet") / 1e6, 2) == params


def test_partial_residual_networks_at_320() -> None:
    at_320 = {name: round(cspprof.profile(name, (1, 3, 320, 320)).total("bflops_cspnet"), 2) for name in PRN_REPOSITORY}
    assert (at_320["peleenet_prn"], at_320["peleenet_yolo"]) == (2.39, 2.86)
    assert at_320["peleenet_prn3"] == 2.98  # printed as 3.98; 5.03·(320/416)² is 2.98


def test_largest_layers_of_figure_7() -> None:
    """0.9968 BFLOPs after the concatenation in YOLO's pyramid, 0.3544 in a transition of the backbone with PRN."""
    yolo, prn = largest_layer("peleenet_yolo"), largest_layer("peleenet_prn")
    assert 2 * yolo.spec.macs == 996_802_560  # type: ignore[operator]
    assert (yolo.stage, str(yolo.spec.reads[0])) == ("head", "1×640×26×26")
    assert 2 * prn.spec.macs == 354_418_688  # type: ignore[operator]
    assert (prn.stage, str(prn.spec.writes[0])) == ("stage1", "1×128×104×104")


def test_heads_of_the_exact_fusion_model_cost_the_same() -> None:
    """Each 3×3 convolution has 0.1994 BFLOPs, 80.0 % and 43.75 % less than the largest layers of YOLO and PRN."""
    p = cspprof.profile("csp_peleenet_efm")
    neck = [r.spec for r in layer_rows(p) if r.stage in ("neck", "head") and r.spec.macs]
    kernels = [2 * s.macs for s in neck if s.attrs["kernel"] == (3, 3)]  # type: ignore[operator]
    assert kernels == [199_360_512] * 3
    assert max(2 * (s.macs or 0) for s in neck) == 199_360_512
    assert 1 - 199_360_512 / 996_802_560 == 0.8
    assert 1 - 199_360_512 / 354_418_688 == 0.4375


def test_maxout_leaves_a_quarter_of_the_concatenated_elements() -> None:
    """The paper prints that it saves 75 % of the memory."""

    def concatenated(spec: str) -> list[int]:
        return [r.spec.reads[0].numel for r in layer_rows(cspprof.profile(spec)) if r.path.startswith("neck.narrow.")][
            ::3
        ]

    assert concatenated("csp_peleenet_efm") == [304 * 13 * 13, 368 * 26 * 26, 192 * 52 * 52]
    assert concatenated("csp_peleenet_efm,maxout=1") == [4 * n for n in concatenated("csp_peleenet_efm")]
    assert concatenated("csp_peleenet_gfm") == [368 * 13 * 13, 368 * 26 * 26, 368 * 52 * 52]


@pytest.mark.parametrize(("channels", "out"), [(8, 2), (12, 4), (6, 6), (7, 3), (5, 4)])
def test_maxout_groups_channels_like_darknet(channels: int, out: int) -> None:
    x = torch.randn(2, channels, 3, 5)
    y = Maxout(out)(x)
    assert torch.equal(y, max_pool_depth(x, out, 1))
    for g in range(out):
        assert torch.equal(y[:, g], x[:, g::out].amax(1))


def test_spatial_pyramid_pooling_by_hand() -> None:
    x = torch.randn(1, 2, 13, 13)
    y = SpatialPyramidPooling()(x)
    assert y.shape == (1, 8, 13, 13)
    assert torch.equal(y[:, 6:], x)
    assert torch.equal(y[0, 0:2, 6, 6], x[0].amax((1, 2)))  # 13×13 positions around the center are the whole map
    assert torch.equal(y[0, 4:6, 6, 6], x[0, :, 4:9, 4:9].amax((1, 2)))


def test_spatial_attention_weights_are_between_0_and_1() -> None:
    x = torch.rand(1, 4, 5, 5) + 0.1
    own, by = SpatialAttention(4).eval(), SpatialAttention(4, 6).eval()
    for y in (own(x), by(x, torch.randn(1, 6, 5, 5))):
        assert y.shape == x.shape
        assert bool(((y > 0) & (y < x)).all())


@pytest.mark.parametrize(("reach", "sources"), [(1, [[0, 1], [0, 1, 2], [1, 2]]), (2, [[0, 1, 2]] * 3)])
def test_levels_that_each_level_reads(reach: int, sources: list[list[int]]) -> None:
    fusion = Fusion((8, 8, 8), (4, 4, 4), reach, 4, 6, "relu")
    assert fusion.sources == sources
    sizes = [(3, 5), (6, 9), (11, 18)]  # each half the next, rounded up
    predictions = fusion([torch.randn(1, 8, *size) for size in sizes])
    assert [tuple(m.shape) for m in predictions] == [(1, 6, *size) for size in sizes]


def test_context_enhancement_is_the_sum_of_three_scales() -> None:
    cem = ContextEnhancement(3, 5, 2)
    c4, c5 = torch.randn(1, 3, 4, 4), torch.randn(1, 5, 2, 2)
    mean = c5.mean((2, 3), keepdim=True)
    expected = cem.middle(c4) + F.interpolate(cem.coarse(c5), scale_factor=2) + cem.context(mean)
    assert torch.allclose(cem(c5, c4), expected, atol=1e-6)


def test_a_shuffle_unit_passes_half_of_the_channels() -> None:
    x = torch.randn(1, 6, 4, 4)
    assert torch.equal(ShuffleUnit(6)(x)[:, :3], x[:, ::2])


@pytest.mark.parametrize(("name", "backbone"), [("thundernet_snet49", 51_234_056), ("thundernet_snet146", 162_520_824)])
def test_snet_macs_by_hand(name: str, backbone: int) -> None:
    """MACs at 224×224 with a classifier, added up unit by unit; the names say 49 and 146 million."""
    p = cspprof.profile(name, (1, 3, 224, 224))
    c5 = 512 if name == "thundernet_snet49" else 528
    assert sum(r.spec.macs or 0 for r in layer_rows(p) if r.stage.startswith("st")) + 1000 * c5 == backbone


@pytest.mark.parametrize("name", quick([n for n in catalog().names() if catalog().get(n).input[2] != 224], 4))
def test_heads_predict_at_every_scale(name: str) -> None:
    entry = catalog().get(name)
    p = cspprof.profile(name)
    shapes = {s.shape for op in p.ops for s in op.writes if s.storage in p.outputs}
    size = entry.input[2]
    if size == 416:
        assert {s[1] for s in shapes} == {3 * (5 + 80)}
        assert {s[2] for s in shapes} == {416 // 2**n for n in ((4, 5) if len(shapes) == 2 else (3, 4, 5))}
    elif size == 320:
        assert {s[1:] for s in shapes} == {(25, 20, 20), (100, 20, 20), (245, 20, 20)}
    else:
        assert {s[1] for s in shapes} == {1000}


@pytest.mark.parametrize("attention", ["sam", "spp"])
def test_attention_option_of_the_fusion_models(attention: str) -> None:
    more, less = (cspprof.profile(s) for s in (f"csp_peleenet_efm,attention={attention}", "csp_peleenet_efm"))
    weights = {
        "sam": 256**2 + 128**2 + 64**2,  # a 1×1 at each level
        "spp": 4 * 256 * 256,  # a 1×1 after the pools
    }
    assert more.total("conv_weights") - less.total("conv_weights") == weights[attention]
    with pytest.raises(CspprofError, match="Choose one of: none, sam, spp"):
        cspprof.profile("csp_peleenet_efm,attention=cbam")


BACKBONES = {
    "yolov3_tiny": [], "yolov3_tiny_prn": [],
    "peleenet_yolo": [3, 4, 8, 6], "peleenet_prn": [3, 4, 8, 6], "peleenet_prn3": [3, 4, 8, 6],
    "csp_peleenet_gfm": [3, 4, 8, 6], "csp_peleenet_efm": [3, 4, 8, 6],
    "csp_resnet50_panet_spp": [3, 3, 5, 2], "csp_resnext50_panet_spp": [3, 3, 5, 2],
    "csp_darknet53_panet_spp": [1, 2, 8, 8, 4], "thundernet_snet49": [3, 7, 3], "thundernet_snet146": [3, 7, 3],
}  # fmt: skip


@pytest.mark.parametrize("name", BACKBONES)
def test_depths_of_a_detector_are_those_of_its_backbone(name: str) -> None:
    """Repeated levels of the neck do not count. In SNet the blocks are the units after the one of stride 2."""
    assert stage_depths(cspprof.profile(name)) == BACKBONES[name]


def test_a_detector_differs_from_its_classifier_in_neck_and_head_only() -> None:
    c = cspprof.compare("peleenet", "peleenet_prn", inputs=(1, 3, 416, 416))
    changed = [part.name for part in c.by_stage("macs") if part.difference]
    assert changed == ["neck", "head"]
