"""The zoo: exact totals, the authors' rows in order, and networks that run and train."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cspprof
from cspprof.errors import CspprofError
from cspprof.record import CONVOLUTIONS, POOLS
from cspprof.rows import rows
from cspprof.stages import depths, stages
from cspprof.zoo import catalog
from cspprof.zoo.blocks import shortcut
from cspprof.zoo.csp import CrossStagePartial

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
CFGS = {name: name.replace("csp_", "cs") for name in TOTALS}
NAMES = catalog().names()


@pytest.mark.parametrize("name", TOTALS)
def test_totals_at_256(name: str) -> None:
    p = cspprof.profile(name)
    assert p.inputs[0].shape == (1, 3, 256, 256)
    assert tuple(p.total(m) for m in ("macs", "conv_weights", "cio_hardnet", "cio_cspnet")) == TOTALS[name]
    assert p.complete
    assert depths(p) == DEPTHS[name]
    p.self_check()


@pytest.mark.parametrize("name", TOTALS)
def test_conv_and_pool_rows_are_the_authors_in_order(name: str, darknet_totals: dict[str, Any]) -> None:
    expected = darknet_totals[f"{CFGS[name]}.cfg"]
    p = cspprof.profile(name)
    ours = [
        (*r.spec.writes[0].shape[1:], r.spec.macs, r.spec.reads[0].numel + r.spec.writes[0].numel)
        for r in rows(p)
        if r.spec.kind in CONVOLUTIONS | POOLS
    ]
    theirs = [tuple(row[1:]) for row in expected["layers"] if row[0] in ("convolutional", "maxpool", "avgpool")]
    assert ours == theirs
    assert round(p.total("bflops_darknet"), 6) == expected["bflops_darknet"]


@pytest.mark.parametrize("name", NAMES)
def test_every_network_runs_and_trains(name: str) -> None:
    torch.manual_seed(0)
    model = catalog().get(name).factory(num_classes=7)
    out = model(torch.randn(2, 3, 64, 64))
    assert out.shape == (2, 7)
    out.square().mean().backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert torch.isfinite(parameter.grad).all(), path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(224, 224), (225, 255), (256, 320)])
def test_odd_and_rectangular_inputs(name: str, size: tuple[int, int]) -> None:
    p = cspprof.profile(name, (1, 3, *size))
    assert p.complete
    assert p.total("macs") > 0


@pytest.mark.parametrize("name", NAMES)
def test_every_operation_stands_in_a_named_stage(name: str) -> None:
    p = cspprof.profile(name)
    assert list(dict.fromkeys(stages(p))) == ["stem", *(f"stage{i + 1}" for i in range(len(DEPTHS[name]))), "head"]


def test_depths_are_an_option() -> None:
    assert depths(cspprof.profile("csp_resnext50,depths=(3,4,6,3)")) == [3, 4, 6, 3]
    with pytest.raises(CspprofError, match="does not give each of 4 stages at least one block"):
        cspprof.profile("csp_resnext50,depths=(3,4)")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("option", ["num_classes=0", "num_classes=ten", "in_channels=-1", "depths=3"])
def test_nonsense_options_are_refused(name: str, option: str) -> None:
    with pytest.raises(CspprofError, match=r"is not a number of channels|does not give each of"):
        cspprof.profile(f"{name},{option}")


def test_darknets_shortcut_adds_the_channels_that_overlap() -> None:
    x, y = torch.ones(1, 2, 3, 3), torch.zeros(1, 4, 2, 2)
    assert shortcut(x, y, stride=2)[0, :, 0, 0].tolist() == [1, 1, 0, 0]
    wide, narrow = torch.full((1, 4, 2, 2), 5.0), torch.ones(1, 2, 2, 2)
    assert shortcut(wide, narrow)[0, :, 0, 0].tolist() == [6, 6]


def test_a_split_leaves_no_side_empty() -> None:
    with pytest.raises(CspprofError, match="leaves one side empty"):
        CrossStagePartial(8, 8, bypass=8, main=0, blocks=torch.nn.Identity(), c_blocks=0)
