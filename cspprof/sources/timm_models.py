"""`timm:NAME`: any architecture that timm lists."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from cspprof.core.errors import SourceError, pip_install
from cspprof.sources.build import build_module, refuse_weights
from cspprof.sources.spec import LoadedModel, Request, Spec
from cspprof.sources.spec_mistakes import unknown_architecture


@contextmanager
def open_model(spec: Spec, request: Request) -> Iterator[LoadedModel]:
    """The architecture without trained weights, at its own input size."""
    try:
        import timm
    except ModuleNotFoundError:
        raise SourceError("timm is not installed", f"Install it: {pip_install('timm')}") from None
    name = spec.target.removeprefix("timm:")
    if not timm.is_model(name):
        raise unknown_architecture("timm", name, timm.list_models())

    refuse_weights(spec, "pretrained", "checkpoint_path")

    def factory(**options: Any) -> nn.Module:
        model: nn.Module = timm.create_model(name, **({"pretrained": False} | options))
        return model

    module, notes = build_module(spec, factory, request.device)
    native = (1, *getattr(module, "pretrained_cfg", {}).get("input_size", (3, 224, 224)))
    yield LoadedModel(module, native, spec.portable_text, spec.portable_text, notes)
