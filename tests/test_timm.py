"""Sixty architectures of timm, one or two of each family, counted by `benchmarks/timm_sweep.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import CHECKOUT, quick

import cspprof
from cspprof.core.errors import SourceError

pytest.importorskip("timm", reason="the extra timm is not installed")

SWEEP = CHECKOUT / "benchmarks" / "timm_sweep.py"

ARCHITECTURES = [
    "beitv2_base_patch16_224", "cait_xxs24_224", "caformer_s18", "coat_lite_mini", "coatnet_pico_rw_224",
    "convit_tiny", "convmixer_768_32", "convnext_zepto_rms_ols", "cpubone_nano", "crossvit_9_dagger_240",
    "cspresnet50", "davit_tiny", "densenet121", "dla46x_c", "dpn68", "edgenext_xx_small", "efficientformerv2_s0",
    "efficientnet_b0", "efficientvim_m1", "efficientvit_b0", "eva02_tiny_patch14_224", "fasternet_t0", "fastvit_t8",
    "focalnet_tiny_srf", "gcvit_xxtiny", "ghostnet_100", "halonet26t", "hgnet_tiny", "hiera_tiny_224",
    "hrnet_w18_small", "inception_next_atto", "inception_v3", "lambda_resnet26t", "levit_conv_128s",
    "mambaout_femto", "maxvit_tiny_rw_224", "mixer_s16_224", "mobilenetv3_small_100", "mobilevit_s", "mvitv2_tiny",
    "nfnet_f0", "pit_ti_224", "poolformer_s12", "regnety_032", "repvit_m1_0", "res2next50", "resnest14d",
    "rexnetr_100", "resnetv2_18", "seresnext26d_32x4d", "skresnet18", "swin_tiny_patch4_window7_224",
    "swinv2_cr_tiny_ns_224", "tnt_s_patch16_224", "twins_svt_small", "vgg11", "visformer_tiny",
    "vit_base_patch16_siglip_224", "volo_d1_224", "xcit_nano_12_p16_224",
]  # fmt: skip
"""Among their operations: attention as one operation and as matrix products, over windows, channels and classes; state
space models; grouped, depthwise, dilated and standardized convolutions; lambda layers; MLP mixers; modules that are
called with parameters."""


@pytest.fixture(scope="module")
def sweep() -> ModuleType:
    if not SWEEP.is_file():
        pytest.skip("the benchmarks are not part of this source archive")
    sys.path.insert(0, str(SWEEP.parent))
    try:
        import timm_sweep
    finally:
        sys.path.remove(str(SWEEP.parent))
    return timm_sweep


def test_the_architectures_are_distinct_and_listed_by_timm() -> None:
    import timm

    assert len(set(ARCHITECTURES)) == len(ARCHITECTURES)
    assert set(ARCHITECTURES) <= set(timm.list_models())


@pytest.mark.parametrize("name", quick(ARCHITECTURES, ARCHITECTURES[::15]))
def test_macs_equal_those_of_torchs_counter(sweep: ModuleType, name: str) -> None:
    row = sweep.measure(name, oracle=True)
    assert (row.verdict, row.reason) == ("equal", "")
    assert row.macs == row.torch_macs
    assert row.macs > 0


def test_a_missing_formula_of_torch_explains_a_difference(sweep: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from torch.utils.flop_counter import flop_registry

    monkeypatch.delitem(flop_registry, torch.ops.aten.bmm)
    row = sweep.measure("vit_base_patch16_siglip_224", oracle=True)
    attention = 2 * 196 * 196 * 768  # in each of 12 blocks; the pooling at the end has one query
    missed = 12 * attention + 2 * 196 * 768
    assert (row.verdict, row.macs - row.torch_macs) == ("explained", missed)
    assert row.reason == f"no formula in torch's registry for aten.bmm ×26 ({missed:,} MACs)"


def test_a_difference_without_a_reason_is_unexplained(sweep: ModuleType) -> None:
    row = sweep.measure("resnet18", oracle=True)
    theirs, verdict, _ = sweep.compare("resnet18", (1, 3, 224, 224), row.macs + 1)
    assert (theirs, verdict) == (row.macs, "unexplained")


def test_an_architecture_that_fails_has_a_row(sweep: ModuleType) -> None:
    row = sweep.measure("resnet1800", oracle=True)
    assert row.verdict == "failed"
    assert "timm has no model named 'resnet1800'" in row.reason


@pytest.mark.slow
def test_the_sweep_runs_as_a_command(tmp_path: Path) -> None:
    rows = tmp_path / "rows.json"
    command = [sys.executable, str(SWEEP), "--only", "resnet18*", "--limit", "2", "--jobs", "1", "--json", str(rows)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 profiled with no unknown operation; against FlopCounterMode: 2 equal" in done.stdout
    assert [row["name"] for row in json.loads(rows.read_text())] == ["resnet18", "resnet18d"]


def test_a_spec_passes_options_to_timm_and_an_unknown_name_gives_suggestions() -> None:
    assert cspprof.profile("timm:resnet50,num_classes=10").total("macs") == 4_089_184_256 - 990 * 2048
    with pytest.raises(SourceError, match="Did you mean: timm:"):
        cspprof.profile("timm:resnet5000")
