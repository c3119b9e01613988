"""`torchvision:NAME`: any model that torchvision lists, of classification, segmentation, detection, video, optical
flow or (before it is quantized) quantization."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from cspprof.core.errors import SourceError
from cspprof.core.inputs import Inputs
from cspprof.sources.build import build_module, refuse_weights
from cspprof.sources.spec import LoadedModel, Request, Spec

SIZES = {"segmentation": 520, "detection": 800, "video": 112, "optical_flow": 512}
"""Input height and width where a model's weights do not say: what torchvision states its models' GFLOPs at."""

FRAMES = 16
"""Likewise, the length of a clip."""

DETECTION = "runs on the CPU, with zero weights: which boxes a detection model keeps depends on values"
EVERY_BOX = (
    "drops no box for its score here, so its heads run on as many as its other limits let through; once trained, "
    "on an image, on fewer or as many"
)
FLOAT = "is the network before it is quantized: the same layers and MACs, in floating point"


@contextmanager
def open_model(spec: Spec, request: Request) -> Iterator[LoadedModel]:
    """The model without weights, at the input that its weights would have."""
    try:
        from torchvision import models
    except ModuleNotFoundError:
        raise SourceError("torchvision is not installed", 'Install it: pip install "cspprof[torchvision]"') from None
    name = spec.target.removeprefix("torchvision:")
    if name not in models.list_models():
        near = get_close_matches(name, models.list_models(), n=3, cutoff=0.5)
        raise SourceError(
            f"torchvision has no model named {name!r}",
            f"Did you mean: {', '.join(f'torchvision:{n}' for n in near)}?"
            if near
            else "torchvision.models.list_models() lists them.",
        )

    refuse_weights(spec, "weights", "weights_backbone")
    if spec.options.get("quantize"):
        raise SourceError(
            f"{spec.target}: quantize makes kernels that hide their weights from a trace",
            "Leave quantize out: the network before it is quantized has the same layers and MACs.",
        )
    builder = models.get_model_builder(name)
    room, _, file = builder.__module__.removeprefix("torchvision.models.").partition(".")
    defaults: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(builder).parameters:
        defaults["weights_backbone"] = None
    said = {"detection": [DETECTION], "quantization": [FLOAT]}.get(room, [])
    if file.endswith("_rcnn") and "box_score_thresh" not in spec.options:
        defaults["box_score_thresh"] = 0.0
        said.append(EVERY_BOX)

    def factory(**options: Any) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of how weights are drawn that nobody reads
            made: nn.Module = models.get_model(name, **(defaults | options))
        return made

    device = "cpu" if room == "detection" else "meta"
    module, notes = build_module(spec, factory, request.device or device)
    if room == "detection":
        _forget_weights(module)
    notes += tuple(f"{spec.target} {note}" for note in said)
    yield LoadedModel(
        module, _native(room, _size(models, name, room, module)), spec.portable_text, spec.portable_text, notes, device
    )


def _forget_weights(module: nn.Module) -> None:
    """Zero every parameter: scores are equal then, and boxes are the anchors.

    So the numbers depend on the architecture alone, and not on a generator or the rounding of a processor.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()


def _size(models: Any, name: str, room: str, module: nn.Module) -> int:
    own = getattr(module, "image_size", None)  # a ViT takes no other; its weights may be of another variant
    if isinstance(own, int):
        return own
    weights = next(iter(models.get_model_weights(name)), None)
    transforms = getattr(getattr(weights, "transforms", None), "keywords", {})
    size = transforms.get("crop_size") or transforms.get("resize_size") or SIZES.get(room, 224)
    return int(size if isinstance(size, int) else size[0])


def _native(room: str, size: int) -> Inputs:
    """What a model of torchvision's `room` is called with."""
    if room == "detection":
        return [[(3, size, size)]]  # a list of images is the one argument
    if room == "video":
        return (1, 3, FRAMES, size, size)
    if room == "optical_flow":
        return [(1, 3, size, size)] * 2
    return (1, 3, size, size)
