"""Every torchvision model against the GFLOPs that torchvision states for its weights: `weights.meta["_ops"]`, which are
MACs / 10⁹ to three digits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from conftest import quick, trace

import cspprof
from cspprof.core.errors import SourceError, TraceError
from cspprof.profiles import Profile

models = pytest.importorskip("torchvision", reason="the extra torchvision is not installed").models

QUICK = {
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b1", "googlenet", "maxvit_t", "mnasnet0_5", "resnet50",
    "mobilenet_v3_small", "regnet_y_400mf", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_v2_t", "vgg11", "vit_b_16",
    "mc3_18", "s3d", "mvit_v2_s", "swin3d_t", "raft_small", "lraspp_mobilenet_v3_large", "fcn_resnet50",
    "quantized_resnet18",
}  # fmt: skip
"""One model of each family. The tests of the others are slow."""

DETECTORS = models.list_models(module=models.detection)
OTHERS = [name for name in models.list_models() if name not in DETECTORS]

BOXES = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": {"COCO_V1": (0, 0)},
    "fasterrcnn_mobilenet_v3_large_fpn": {"COCO_V1": (0, 0)},
    "fasterrcnn_resnet50_fpn": {"COCO_V1": (1000, 0)},
    "fasterrcnn_resnet50_fpn_v2": {"COCO_V1": (1000, 0)},
    "keypointrcnn_resnet50_fpn": {"COCO_LEGACY": (1000, 0), "COCO_V1": (1000, 1)},
    "maskrcnn_resnet50_fpn": {"COCO_V1": (1000, 0)},
    "maskrcnn_resnet50_fpn_v2": {"COCO_V1": (1000, 100)},
}
"""Proposals and detections that the trained weights keep for the random image with which torchvision counts GFLOPs."""

FEW = "rpn_post_nms_top_n_test=50,box_detections_per_img=10"
"""The cost of a head is exactly proportional to its boxes; 50 and 10 boxes are faster than 1000 and 100."""


def entries() -> Iterator[Any]:
    """Each model with each input size and GFLOPs that its weights state, once."""
    for name in OTHERS:
        stated: dict[tuple[int | None, float], str] = {}
        for weights in models.get_model_weights(name):
            crop = getattr(weights.transforms, "keywords", {}).get("crop_size")
            stated.setdefault((crop if isinstance(crop, int) else None, weights.meta["_ops"]), weights.name)
        for i, ((crop, gmacs), entry) in enumerate(stated.items()):
            marks = [] if name in QUICK and i == 0 else [pytest.mark.slow]
            yield pytest.param(name, crop, gmacs, marks=marks, id=f"{name}-{entry}")


def gmacs_of(macs: int) -> float:
    return round(macs / 1e9, 3)


@pytest.mark.parametrize(("name", "crop", "gmacs"), list(entries()))
def test_macs_equal_those_that_torchvision_states(name: str, crop: int | None, gmacs: float) -> None:
    options = ""
    if name.startswith("vit_") and crop is not None:
        options = f",image_size={crop}"  # the only models that are built for one size
    if "segmentation" in models.get_model_builder(name).__module__ and "lraspp" not in name:
        options = ",aux_loss=True"  # trained with a second head, which runs in eval mode too
    other_size = (1, 3, crop, crop) if crop is not None and not options else None
    p = cspprof.profile(f"torchvision:{name}{options}", other_size)
    assert p.uncounted == {}
    assert gmacs_of(p.total("macs")) == gmacs


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("efficientnet_b1", [(1, 3, 240, 240)]),  # the crop of its weights
        ("inception_v3", [(1, 3, 299, 299)]),
        ("vit_h_14", [(1, 3, 224, 224)]),  # what it was built for, not the crop of its first weights
        ("fcn_resnet50", [(1, 3, 520, 520)]),
        ("s3d", [(1, 3, 16, 224, 224)]),
        ("r3d_18", [(1, 3, 16, 112, 112)]),
        ("raft_small", [(1, 3, 512, 512)] * 2),
    ],
)
def test_default_inputs(name: str, shapes: list[tuple[int, ...]]) -> None:
    assert [t.shape for t in cspprof.profile(f"torchvision:{name}").inputs] == shapes


@pytest.mark.parametrize(
    "name",
    quick(
        ["resnet50", "vit_b_16", "densenet121", "resnext50_32x4d", "mobilenet_v3_large", "convnext_tiny", "swin_t"], 2
    ),
)
def test_macs_equal_those_of_flop_counter_mode(name: str) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = models.get_model(name, weights=None).eval()
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            model(torch.empty(1, 3, 224, 224))
    p = trace(model, (1, 3, 224, 224))
    p.self_check()
    assert 2 * p.total("macs") == counter.get_total_flops()


def test_metrics_of_resnet50() -> None:
    p = cspprof.profile("torchvision:resnet50")
    assert p.total("macs") == 4_089_184_256
    assert p.total("cio_hardnet") == 21_776_384
    assert p.total("peak_bytes") == 9_633_792  # three 256×56×56 float32 maps
    peak = max(range(len(p.ops)), key=lambda i: p.live_bytes[i])
    assert p.ops[peak].layer == "layer1.0.downsample.1"


def test_an_unknown_name_suggests_similar_names() -> None:
    with pytest.raises(SourceError, match=r"Did you mean: .*torchvision:resnet50"):
        cspprof.profile("torchvision:resnet5")


# -- detection ------------------------------------------------------------------------------------


def macs_in(p: Profile, *layers: str) -> int:
    return sum(op.macs or 0 for op in p.ops if op.layer.startswith(tuple(f"roi_heads.{layer}" for layer in layers)))


def rows_into(p: Profile, head: str) -> int:
    """The number of boxes that are pooled for a head."""
    layer = f"roi_heads.{head}_roi_pool"
    return sum(op.writes[0].shape[0] for op in p.ops if op.layer == layer and op.spec.name == "roi_align")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DETECTORS if name not in BOXES])
def test_macs_of_one_stage_detectors_equal_those_that_torchvision_states(name: str) -> None:
    p = cspprof.profile(f"torchvision:{name}")
    assert p.uncounted == {}
    assert {gmacs_of(p.total("macs"))} == {w.meta["_ops"] for w in models.get_model_weights(name)}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOXES)
def test_macs_of_two_stage_detectors_equal_those_that_torchvision_states_for_each_box(name: str) -> None:
    p = cspprof.profile(f"torchvision:{name},{FEW}")
    assert p.uncounted == {}
    assert rows_into(p, "box") == 50
    assert rows_into(p, "mask") + rows_into(p, "keypoint") == (10 if "fasterrcnn" not in name else 0)
    boxes, rest = macs_in(p, "box_head", "box_predictor"), macs_in(p, "mask", "keypoint")
    before = p.total("macs") - boxes - rest
    assert (boxes % 50, rest % 10) == (0, 0)
    for weights in models.get_model_weights(name):
        kept, found = BOXES[name][weights.name]
        assert gmacs_of(before + boxes // 50 * kept + rest // 10 * found) == weights.meta["_ops"]


@pytest.mark.slow
def test_a_detector_runs_on_the_maximal_number_of_boxes() -> None:
    p = cspprof.profile("torchvision:maskrcnn_resnet50_fpn")
    assert (rows_into(p, "box"), rows_into(p, "mask")) == (1000, 100)


@pytest.mark.slow
def test_a_detector_needs_no_option_and_gives_the_same_profile_every_time(run: Any) -> None:
    spec = "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn"
    p = cspprof.profile(spec)
    assert p.total("macs") == 2_872_931_200  # 0.719 GMACs as torchvision states, and 150 boxes of 14,359,552
    assert p == cspprof.profile(spec)
    note = f"{spec} runs on the CPU, with zero weights: which boxes a detection model keeps depends on values"
    assert p.notes[0] == note
    assert "drops no box because of its score" in p.notes[1]
    done = run("cio", spec)
    assert done.code == 0
    assert "drops no box because of its score" in " ".join(done.out.split())


def test_options_of_a_detector_override_the_defaults() -> None:
    spec = "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn,box_score_thresh=0.9,rpn_post_nms_top_n_test=10"
    p = cspprof.profile(spec)
    assert rows_into(p, "box") == 10
    assert len(p.notes) == 1


def test_a_detector_on_meta_suggests_the_cpu() -> None:
    with pytest.raises(TraceError, match="--device cpu"):
        cspprof.profile("torchvision:fasterrcnn_mobilenet_v3_large_320_fpn", device="meta")


# -- before quantization --------------------------------------------------------------------------


def test_a_quantized_model_is_traced_as_its_float_network() -> None:
    p = cspprof.profile("torchvision:quantized_resnet50")
    assert p.notes == (
        "torchvision:quantized_resnet50 is the network before it is quantized: the same layers and MACs, in floating "
        "point",
    )
    assert p.total("macs") == cspprof.profile("torchvision:resnet50").total("macs")
    with pytest.raises(SourceError, match="Leave quantize out"):
        cspprof.profile("torchvision:quantized_resnet50,quantize=True")
