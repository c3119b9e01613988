"""`torchvision:NAME`: classification, segmentation and detection models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from torch import nn

from cspprof.errors import SourceError
from cspprof.sources import Request, Spec
from cspprof.sources.build import Loaded, build, refuse_weights

SIZES = {"segmentation": 520, "detection": 800, "video": 112, "optical_flow": 512}
"""Input height and width where a model's weights do not say: the sizes of torchvision's references."""


@contextmanager
def opened(spec: Spec, request: Request) -> Iterator[Loaded]:
    """The model without weights, at the crop size that its weights would have."""
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

    def factory(**options: Any) -> nn.Module:
        bare = {"weights": None, "weights_backbone": None} if _has_backbone(models, name) else {"weights": None}
        made: nn.Module = models.get_model(name, **(bare | options))
        return made

    module, notes = build(spec, factory, request.device)
    own = getattr(module, "image_size", None)  # a ViT takes no other; its weights may be of another variant
    size = own if isinstance(own, int) else _native_size(models, name)
    native: Any = (1, 3, size, size)
    if ".detection" in models.get_model_builder(name).__module__:
        native = [[(3, size, size)]]  # a list of images is the one argument
    yield Loaded(module, native, spec.text, spec.text, notes)


def _has_backbone(models: Any, name: str) -> bool:
    import inspect

    return "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters


def _native_size(models: Any, name: str) -> int:
    weights = next(iter(models.get_model_weights(name)), None)
    transforms = getattr(weights, "transforms", None)
    crop = getattr(transforms, "keywords", {}).get("crop_size") if transforms is not None else None
    if crop is not None:
        return int(crop if isinstance(crop, int) else crop[0])
    room = models.get_model_builder(name).__module__.split(".")
    return next((size for key, size in SIZES.items() if key in room), 224)
