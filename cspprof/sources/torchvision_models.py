"""`torchvision:NAME`: any model that torchvision lists. Models for quantization are the network before quantization."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from cspprof.core.errors import SourceError, pip_install
from cspprof.core.inputs import Inputs
from cspprof.sources.build import build_module, refuse_weights
from cspprof.sources.spec import LoadedModel, Request, Spec
from cspprof.sources.spec_mistakes import unknown_architecture

SIZES = {"segmentation": 520, "detection": 800, "video": 112, "optical_flow": 512}
"""Input height and width for models whose weights name none. torchvision states its GFLOPs for these sizes."""

FRAMES = 16
"""Length of a video clip, likewise."""

DETECTION = "runs on the CPU, with zero weights: which boxes a detection model keeps depends on values"
EVERY_BOX = (
    "drops no box because of its score here, so its heads run on as many boxes as its other limits allow; with trained "
    "weights and a real image, they run on at most as many"
)
FLOAT = "is the network before it is quantized: the same layers and MACs, in floating point"


@contextmanager
def open_model(spec: Spec, request: Request) -> Iterator[LoadedModel]:
    """The model without trained weights, at the input size of its trained weights."""
    try:
        from torchvision import models
    except ModuleNotFoundError:
        raise SourceError("torchvision is not installed", f"Install it: {pip_install('torchvision')}") from None
    name = spec.target.removeprefix("torchvision:")
    if name not in models.list_models():
        raise unknown_architecture("torchvision", name, models.list_models())

    refuse_weights(spec, "weights", "weights_backbone")
    if spec.options.get("quantize"):
        raise SourceError(
            f"{spec.target}: with quantize, kernels hide their weights from the trace",
            "Leave quantize out: the network before it is quantized has the same layers and MACs.",
        )
    builder = models.get_model_builder(name)
    task, _, file = builder.__module__.removeprefix("torchvision.models.").partition(".")
    defaults: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(builder).parameters:
        defaults["weights_backbone"] = None
    own_notes = {"detection": [DETECTION], "quantization": [FLOAT]}.get(task, [])
    if file.endswith("_rcnn") and "box_score_thresh" not in spec.options:
        defaults["box_score_thresh"] = 0.0
        own_notes.append(EVERY_BOX)

    def factory(**options: Any) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # about the initialization of weights
            model: nn.Module = models.get_model(name, **(defaults | options))
        return model

    device = "cpu" if task == "detection" else "meta"
    module, notes = build_module(spec, factory, request.device or device)
    if task == "detection":
        _zero_weights(module)
    notes += tuple(f"{spec.target} {note}" for note in own_notes)
    inputs = _native_input(task, _native_size(models, name, task, module))
    yield LoadedModel(module, inputs, spec.portable_text, spec.portable_text, notes, device)


def _zero_weights(module: nn.Module) -> None:
    """Set every parameter to zero, so that all scores are equal and the boxes are the anchors.

    The numbers then depend only on the architecture, and not on random weights or the rounding of a processor.
    """
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()


def _native_size(models: Any, name: str, task: str, module: nn.Module) -> int:
    """Input height and width."""
    own = getattr(module, "image_size", None)  # a ViT accepts no other; its first weights may be for another size
    if isinstance(own, int):
        return own
    weights = next(iter(models.get_model_weights(name)), None)
    transforms = getattr(getattr(weights, "transforms", None), "keywords", {})
    size = transforms.get("crop_size") or transforms.get("resize_size") or SIZES.get(task, 224)
    return int(size if isinstance(size, int) else size[0])


def _native_input(task: str, size: int) -> Inputs:
    """The input of a model for a task, named like the module of torchvision."""
    if task == "detection":
        return [[(3, size, size)]]  # the one argument is a list of images
    if task == "video":
        return (1, 3, FRAMES, size, size)
    if task == "optical_flow":
        return [(1, 3, size, size)] * 2
    return (1, 3, size, size)
